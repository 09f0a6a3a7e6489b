//! What a run says on standard output.

use crate::error::{Context, Result};
use crate::memory::gb;
use crate::run::{EarlyEnd, Event, LeftOut, Moment, Observer, Summary};
use crate::step::answers::Answers;
use crate::step::checkpoint::Progress;
use crate::step::diagnostics::{Diagnosis, DiagnosticsReport};
use qft_autograd::Compute;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

/// Writes a line to standard output. Whoever read it may have gone away; that ends nothing.
pub fn print(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a line to standard output that is what a command is for. A reader that has gone away ends nothing; another
/// failure does.
///
/// Errors: the line cannot be written, as on a full disk.
pub fn write(line: impl fmt::Display) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Says on standard output what happens in a run, apart from its steps.
#[derive(Debug, Default)]
pub struct Console {
    /// The folder of the saved model: said when the run is done.
    saved: Option<PathBuf>,
    /// The folders of what else it was written as.
    exports: Vec<PathBuf>,
    /// Whether the saved model will be measured.
    held_out: bool,
}

impl Observer for Console {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::DataRead { train, held_out } => {
                print(format_args!("training data: {train}"));
                self.held_out = !held_out.is_empty();
                for set in *held_out {
                    print(format_args!("held-out data: {set}"));
                }
            }
            Event::Planned { fit, states, sequences, steps } => print(format_args!(
                "{} parameters in {states} states, {:.3} bytes each; {} planned; {sequences} sequences, {steps} steps",
                fit.plan.parameters,
                fit.plan.bytes_per_parameter,
                gb(fit.plan.reserved_bytes)
            )),
            Event::Loaded(quantized) if quantized.matrices > 0 => {
                let mut line = format!(
                    "quantized {} matrices: L2 error {:.4}",
                    quantized.matrices, quantized.l2_error
                );
                if quantized.protected_fraction > 0.0 {
                    line += &format!(
                        " ({:.4} without the {:.2} % protected weights)",
                        quantized.l2_error_unprotected,
                        quantized.protected_fraction * 100.0
                    );
                }
                print(line);
            }
            Event::Resumed { from, step } => {
                print(format_args!("resumed from {} after step {step}", from.display()));
            }
            Event::Rates(rates) if !rates.rates.is_empty() => print(format_args!(
                "at its peak the learning rate moves a weight by {} of its 127 steps of INT8 in an update \
                 ({} to {} by matrix)",
                digits(rates.median_row),
                digits(rates.range.0),
                digits(rates.range.1)
            )),
            Event::SetAside(to) => {
                print(format_args!(
                    "the run that was done there before is now in {}",
                    to.display()
                ));
            }
            Event::Sampled { moment, sample } if *moment != Moment::During => {
                let (when, prompt, sample) = (when(*moment), &sample.prompt, &sample.sample);
                print(format_args!("\n--- sample {when} ---\n{prompt}{sample}\n---"));
            }
            Event::SetEvaluated { moment, metrics } if *moment != Moment::During => {
                print(format_args!(
                    "held-out loss {} of {}: {:.4}, {} of tokens right",
                    when(*moment),
                    metrics.set,
                    metrics.set_loss,
                    percent(metrics.set_accuracy)
                ));
            }
            Event::Evaluated { moment, metrics } if *moment != Moment::During => {
                print(format_args!(
                    "held-out loss {}: {:.4}, {} of tokens right, in {}",
                    when(*moment),
                    metrics.eval_loss,
                    percent(metrics.eval_accuracy),
                    arithmetic(metrics.compute)
                ));
            }
            Event::EndedEarly { why, progress } => ended_early(*why, progress),
            Event::TookBest(best) => print(format_args!(
                "the model of step {} is saved, whose held-out loss of {:.4} was the lowest",
                best.step, best.eval_loss
            )),
            Event::Answered { moment, metrics } => answered(*moment, metrics.answers),
            Event::Stopped { step, checkpoint: Some(dir) } => print(format_args!(
                "stopped after step {step}; saved {}\nto go on: the same command with --resume latest (and without --overwrite)",
                dir.display()
            )),
            Event::Stopped { step, checkpoint: None } => {
                print(format_args!("stopped after step {step}; there is nothing to save"));
            }
            Event::Exported(out) => self.saved = Some(out.to_path_buf()),
            Event::ExportedAs(dir) => self.exports.push(dir.to_path_buf()),
            Event::Finished(summary) => {
                if summary.rescaled_rows > 0 {
                    print(format_args!(
                        "{} rows outgrew their scale and were given a larger one",
                        summary.rescaled_rows
                    ));
                }
                if let Some(report) = &summary.diagnostics {
                    diagnostics(report);
                }
                if let Some(profile) = &summary.profile {
                    print(format_args!("\n{profile}"));
                }
                for dir in &self.exports {
                    print(format_args!("exported {}", dir.display()));
                }
                if let Some(out) = &self.saved {
                    let next = match self.held_out {
                        true => "; it is now read again and measured (Ctrl-C leaves that out)",
                        false => "",
                    };
                    print(format_args!("saved {}{next}", out.display()));
                }
            }
            Event::SavedEvaluated(summary) => self.saved_evaluated(summary),
            _ => {}
        }
        Ok(())
    }
}

impl Console {
    /// What the saved model is worth, beside what training says; or why that is not known, and how to find out.
    fn saved_evaluated(&self, summary: &Summary) {
        let Some(found) = summary.saved_eval else { return };
        match (found.saved_eval_loss, found.left_out) {
            (_, Some(LeftOut::Stopped)) => {
                print("the saved model was not measured, since the run was asked to stop");
            }
            (_, Some(LeftOut::Memory(need))) => print(format_args!(
                "the saved model was not measured: that takes {}, more than are free; where they are, this does it: \
                 qft eval --model {} --data FILE",
                gb(need),
                self.saved.as_deref().unwrap_or_else(|| "OUT".as_ref()).display()
            )),
            (Some(loss), None) => print(format_args!(
                "held-out loss of the saved model: {loss:.4} in {}",
                arithmetic(found.compute)
            )),
            (None, None) => {}
        }
    }
}

/// The arithmetic of the linear layers, in a sentence.
pub fn arithmetic(compute: Compute) -> &'static str {
    match compute {
        Compute::Int8 => "INT8 compute",
        Compute::Float => "float compute",
    }
}

/// Why training has ended, and how it goes on if that is wanted.
fn ended_early(why: EarlyEnd, progress: &Progress) {
    let (step, evaluations) = (progress.step, progress.evaluations);
    match (why, evaluations.best()) {
        (EarlyEnd::Patience, Some(best)) => print(format_args!(
            "training ends after step {step}: the held-out loss of {:.4} after step {} was the lowest, and {} evaluations \
             in a row were no better (--patience)",
            best.eval_loss,
            best.step,
            evaluations.since_best()
        )),
        (EarlyEnd::Patience, None) => print(format_args!(
            "training ends after step {step}: no evaluation has found a held-out loss (--patience)"
        )),
        (EarlyEnd::MaxMinutes, _) => print(format_args!(
            "training ends after step {step}: its time is over (--max-minutes); --resume latest goes on from there"
        )),
    }
}

/// What the sampled rows say, and the matrix that loses the most.
fn diagnostics(report: &DiagnosticsReport) {
    let exact = |part: f64| format!("{} %", digits(part * 100.0));
    let Diagnosis { sign_agreement, flip_rate, landed, saturated, grown_rows, gradient_snr } =
        report.all;
    print(format_args!(
        "of sampled updates {} have the sign of float momentum, and {} of their length lands; {} change the INT8 digit\n\
         of sampled weights {} are at the end of their range; of row updates {} enlarge the scale",
        percent(sign_agreement),
        percent(landed),
        exact(flip_rate),
        exact(saturated),
        exact(grown_rows)
    ));
    if let Some(snr) = gradient_snr {
        print(format_args!(
            "signal-to-noise ratio of the gradient between steps: {} by the matrix in the middle",
            digits(snr)
        ));
    }
    let worst = report
        .matrices
        .iter()
        .min_by(|(_, a), (_, b)| a.sign_agreement.total_cmp(&b.sign_agreement));
    if let Some((name, worst)) = worst {
        print(format_args!("fewest signs: {} in {name}", percent(worst.sign_agreement)));
    }
}

/// How many answers ended, and how long they were.
fn answered(moment: Moment, answers: Answers) {
    let Answers { asked, ended, mean_tokens } = answers;
    print(format_args!(
        "answers {}: {ended} of {asked} ended by themselves, {} ran on; {mean_tokens:.0} tokens each",
        when(moment),
        asked - ended
    ));
}

/// A fraction with a tenth of a percent.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn when(moment: Moment) -> &'static str {
    match moment {
        Moment::Before => "before",
        Moment::During => "during training",
        Moment::After => "after",
    }
}

/// A number with two digits that say something.
fn digits(value: f64) -> String {
    match value {
        v if v >= 10.0 => format!("{v:.0}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v if v >= 0.001 => format!("{v:.4}"),
        v => format!("{v:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_they_need() {
        for (value, text) in [
            (407.4, "407"),
            (1.919, "1.92"),
            (0.1918, "0.19"),
            (0.00218, "0.0022"),
            (1e-5, "1.0e-5"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
