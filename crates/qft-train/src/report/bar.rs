//! Progress on the terminal: a bar, or lines where there is no terminal.

use super::fetching::Fetching;
use super::reading::ReadingBar;
use crate::error::Result;
use crate::memory::gb;
use crate::run::{Event, Moment, Observer, StepMetrics};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between lines where there is no terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the progress of a run on standard error, unless it is to be quiet.
#[derive(Debug)]
pub struct Bar {
    quiet: bool,
    fetching: Fetching,
    reading: ReadingBar,
    shown: Option<Shown>,
}

/// What is shown of a run that has begun.
#[derive(Debug)]
struct Shown {
    steps: u64,
    done_before: u64,
    began: Instant,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// Of a run that has yet to begin.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, fetching: Fetching::new(quiet), reading: ReadingBar::new(quiet), shown: None }
    }
}

impl Observer for Bar {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match (event, &mut self.shown) {
            (Event::Hub(notice), _) => self.fetching.show(notice),
            _ if self.quiet => {}
            (Event::Reading(progress), _) => return self.reading.show(*progress),
            (Event::DataRead { .. }, _) => self.reading.finish(),
            (Event::Started { step, steps, .. }, shown) => *shown = Some(Shown::new(*steps, *step)),
            (Event::Stepped(metrics), Some(shown)) => shown.step(metrics),
            (Event::Evaluated { moment: Moment::During, metrics }, Some(shown)) => {
                let (step, steps) = (metrics.step, shown.steps);
                shown.note(&format!("step {step}/{steps} held-out loss {:.4}", metrics.eval_loss));
            }
            (Event::Stopped { .. } | Event::EndedEarly { .. }, Some(shown)) => shown.finish(),
            _ => {}
        }
        Ok(())
    }
}

impl Shown {
    /// The display of a run of `steps` steps, `done` of which were done before it was resumed.
    fn new(steps: u64, done: u64) -> Self {
        Self { steps, done_before: done, began: Instant::now(), last_line: None, bar: None }
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let here = metrics.step.saturating_sub(self.done_before).max(1);
        if here == 1 {
            self.open(metrics.step);
        }
        let left = self.steps.saturating_sub(metrics.step);
        let eta = self.began.elapsed().as_secs_f64() / here as f64 * left as f64;
        let text = status(metrics, eta);
        match &self.bar {
            Some(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(text);
            }
            None => {
                let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                if due || left == 0 {
                    self.last_line = Some(Instant::now());
                    self.note(&format!("step {}/{} {text}", metrics.step, self.steps));
                }
            }
        }
        if left == 0 {
            self.finish();
        }
    }

    /// Opens the bar at the first step: what is said before that has the terminal for itself.
    fn open(&mut self, step: u64) {
        self.bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(self.steps), target);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.set_position(step);
            bar
        });
    }

    /// Shows a line of text, above the bar if there is one.
    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Leaves the bar as it is, and goes to a line below it.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Says a line on standard error, if anybody listens: a closed one must not end a run.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn status(metrics: &StepMetrics, eta_seconds: f64) -> String {
    let StepMetrics { loss, lr, positions_per_second, peak_bytes, .. } = metrics;
    let light = metrics
        .speed_of_light
        .map_or(String::new(), |part| format!(" {:.1} % of light speed", part * 100.0));
    format!(
        "loss {loss:.4} lr {lr:.1e} {positions_per_second:.0} tok/s{light} ETA {} memory {}",
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
        };
        assert_eq!(
            status(&metrics, 125.0),
            "loss 2.3457 lr 1.0e-5 1234 tok/s ETA 2m05s memory 3.00 GB"
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
