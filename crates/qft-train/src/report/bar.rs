//! Progress on the terminal: a live view, or lines where there is no terminal.

use super::console::percent;
use super::fetching::Fetching;
use super::reading::ReadingBar;
use super::view::{Next, View};
use crate::error::Result;
use crate::memory::gb;
use crate::options::ProgressOptions;
use crate::run::{Event, Moment, Observer, StepMetrics};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between lines where there is no terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(10);

/// Time between two states of the live view: figures that change faster cannot be read.
const VIEW_EVERY: Duration = Duration::from_millis(400);

/// Columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;

/// Shows the progress of a run on standard error, unless it is to be quiet.
#[derive(Debug)]
pub struct Bar {
    quiet: bool,
    /// Steps and time between checkpoints.
    checkpoints: (Option<u64>, Option<Duration>),
    fetching: Fetching,
    reading: ReadingBar,
    shown: Option<Shown>,
}

/// What is shown of a run that has begun.
#[derive(Debug)]
struct Shown {
    view: View,
    checkpoints: (Option<u64>, Option<Duration>),
    done_before: u64,
    began: Instant,
    saved: Instant,
    last_shown: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// Of a run that has yet to begin.
    pub fn new(quiet: bool, options: &ProgressOptions) -> Self {
        let minutes = options.checkpoint_minutes.map(|minutes| minutes.duration());
        Self {
            quiet,
            checkpoints: (options.checkpoint_every, minutes),
            fetching: Fetching::new(quiet),
            reading: ReadingBar::new(quiet),
            shown: None,
        }
    }
}

impl Observer for Bar {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match (event, &mut self.shown) {
            (Event::Hub(notice), _) => self.fetching.show(notice),
            _ if self.quiet => {}
            (Event::Reading(progress), _) => return self.reading.show(*progress),
            (Event::DataRead { .. }, _) => self.reading.finish(),
            (Event::Started { step, steps, .. }, shown) => {
                *shown = Some(Shown::new(*steps, *step, self.checkpoints));
            }
            (Event::Stepped(metrics), Some(shown)) => shown.step(metrics),
            (Event::SetEvaluated { moment: Moment::During, metrics }, Some(shown)) => {
                let (of, loss) = (format!(" of {}", metrics.set), metrics.set_loss);
                shown.evaluated(metrics.step, &of, loss, metrics.set_accuracy);
            }
            (Event::Evaluated { moment, metrics }, Some(shown)) => {
                shown.view.held_out = Some(metrics.eval_loss);
                if *moment == Moment::During {
                    shown.evaluated(metrics.step, "", metrics.eval_loss, metrics.eval_accuracy);
                }
            }
            (Event::Saved { .. }, Some(shown)) => shown.saved = Instant::now(),
            (Event::Stopped { .. } | Event::EndedEarly { .. }, Some(shown)) => shown.finish(),
            _ => {}
        }
        Ok(())
    }
}

impl Shown {
    /// The display of a run of `steps` steps, `done` of which were done before it was resumed.
    fn new(steps: u64, done: u64, checkpoints: (Option<u64>, Option<Duration>)) -> Self {
        let now = Instant::now();
        Self {
            view: View::new(steps),
            checkpoints,
            done_before: done,
            began: now,
            saved: now,
            last_shown: None,
            bar: None,
        }
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let here = metrics.step.saturating_sub(self.done_before).max(1);
        if here == 1 {
            self.open();
        }
        let left = self.view.steps.saturating_sub(metrics.step);
        self.view.step(metrics);
        self.view.eta_seconds = self.began.elapsed().as_secs_f64() / here as f64 * left as f64;
        self.view.checkpoint = self.next_checkpoint(metrics.step);
        let every = if self.bar.is_some() { VIEW_EVERY } else { LINE_EVERY };
        let due = self.last_shown.is_none_or(|last| last.elapsed() >= every);
        if due || left == 0 {
            self.last_shown = Some(Instant::now());
            match &self.bar {
                Some(bar) => draw(bar, &self.view),
                None => {
                    let steps = self.view.steps;
                    let text = status(metrics, self.view.eta_seconds);
                    self.note(&format!("step {}/{steps} {text}", metrics.step));
                }
            }
        }
        if left == 0 {
            self.finish();
        }
    }

    /// When the next checkpoint is due after `step` steps.
    fn next_checkpoint(&self, step: u64) -> Next {
        let (every, minutes) = self.checkpoints;
        let next = every.map(|every| every - step % every);
        match (next.filter(|next| step + next < self.view.steps), minutes) {
            (Some(next), _) => Next::Steps(next),
            (None, Some(minutes)) => Next::Time(minutes.saturating_sub(self.saved.elapsed())),
            (None, None) => Next::AtTheEnd,
        }
    }

    /// Says what an evaluation has found.
    fn evaluated(&self, step: u64, of: &str, loss: f64, accuracy: f64) {
        let (steps, right) = (self.view.steps, percent(accuracy));
        self.note(&format!(
            "step {step}/{steps} held-out loss{of} {loss:.4}, {right} of tokens right"
        ));
    }

    /// Opens the view at the first step: what is said before that has the terminal for itself.
    fn open(&mut self) {
        self.bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
    }

    /// Shows a line of text, above the view if there is one.
    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Leaves the view as it is, and goes to a line below it.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            draw(bar, &self.view);
            bar.abandon();
        }
    }
}

/// Shows a view in as many columns as the terminal has now.
fn draw(bar: &ProgressBar, view: &View) {
    let columns = Term::stderr().size_checked().map_or(COLUMNS, |(_, columns)| columns);
    bar.set_message(view.lines(columns.into()).join("\n"));
}

/// Says a line on standard error, if anybody listens: a closed one must not end a run.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn status(metrics: &StepMetrics, eta_seconds: f64) -> String {
    let StepMetrics { loss, accuracy, lr, positions_per_second, peak_bytes, .. } = metrics;
    let right = percent(*accuracy);
    let light = metrics
        .speed_of_light
        .map_or(String::new(), |part| format!(" {:.1} % of light speed", part * 100.0));
    format!(
        "loss {loss:.4} ({right} right) lr {lr:.1e} {positions_per_second:.0} tok/s{light} ETA {} memory {}",
        duration(eta_seconds),
        gb(*peak_bytes)
    )
}

/// `2h03m`, `3m05s`, `12s`.
pub(super) fn duration(seconds: f64) -> String {
    // A float beyond the range of the integer becomes its largest value.
    let seconds = seconds.round() as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{:02}s", seconds % 60),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_on_a_line() {
        let metrics = StepMetrics {
            step: 3,
            loss: 2.34567,
            accuracy: 0.5,
            lr: 1e-5,
            tokens: 100,
            tokens_per_second: 600.0,
            positions: 200,
            positions_per_second: 1234.4,
            peak_bytes: 3_000_000_000,
            grad_norm: None,
            rescaled_rows: 0,
            speed_of_light: None,
            diagnostics: None,
            exchange: None,
        };
        assert_eq!(
            status(&metrics, 125.0),
            "loss 2.3457 (50.0 % right) lr 1.0e-5 1234 tok/s ETA 2m05s memory 3.00 GB"
        );
        assert!(
            status(&StepMetrics { speed_of_light: Some(0.4567), ..metrics }, 1.0)
                .contains("tok/s 45.7 % of light speed ETA 1s")
        );
        for (seconds, text) in [(0.4, "0s"), (59.0, "59s"), (60.0, "1m00s"), (7380.0, "2h03m")] {
            assert_eq!(duration(seconds), text);
        }
        assert!(!duration(f64::INFINITY).is_empty() && duration(f64::NAN) == "0s");
    }
}
