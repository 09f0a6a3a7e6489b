//! How far the reading of data has come, on the terminal.

use super::bar::{LINE_EVERY, duration, note};
use crate::data::Progress;
use crate::error::Result;
use crate::memory::gb;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What is read in less time is not worth a word.
const QUIET: Duration = Duration::from_secs(1);

/// Shows how much of the data has been read, where that takes time.
#[derive(Debug)]
pub struct ReadingBar {
    quiet: bool,
    shown: RefCell<Option<Shown>>,
}

#[derive(Debug)]
struct Shown {
    began: Instant,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl ReadingBar {
    /// Of data that is yet to be read; if `quiet`, it shows nothing.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, shown: RefCell::default() }
    }

    /// Shows how far it is.
    ///
    /// Errors: none; the type is that of who may end the reading.
    pub fn show(&self, progress: Progress) -> Result<()> {
        let mut shown = self.shown.borrow_mut();
        let shown = shown.get_or_insert_with(|| Shown {
            began: Instant::now(),
            last_line: None,
            bar: None,
        });
        if !self.quiet && shown.began.elapsed() >= QUIET {
            shown.show(progress);
        }
        Ok(())
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(Shown { bar: Some(bar), .. }) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

impl Shown {
    fn show(&mut self, progress: Progress) {
        let text = status(progress, self.began.elapsed());
        if self.bar.is_none() && std::io::stderr().is_terminal() {
            self.bar = Some(bar(progress.total));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(progress.done);
                bar.set_message(text);
            }
            None if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) => {
                self.last_line = Some(Instant::now());
                note(&text);
            }
            None => {}
        }
    }
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn status(Progress { done, total }: Progress, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!(
        "reading the data: {} of {}, {:.1} MB/s, ETA {}",
        gb(done),
        gb(total),
        rate / 1e6,
        duration(left)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_on_a_line() {
        let progress = Progress { done: 250_000_000, total: 1_000_000_000 };
        assert_eq!(
            status(progress, Duration::from_secs(10)),
            "reading the data: 250 MB of 1.00 GB, 25.0 MB/s, ETA 30s"
        );
        let bar = ReadingBar::new(false);
        bar.show(progress).unwrap();
        bar.finish();
    }
}
