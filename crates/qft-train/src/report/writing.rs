//! How many prompts a model has answered, on the terminal.

use super::bar::{LINE_EVERY, note};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// Shows how many texts are done: a bar, or lines where there is no terminal.
#[derive(Debug)]
pub struct WritingBar {
    bar: Option<ProgressBar>,
    /// Whether lines are shown.
    lines: bool,
    last_line: Instant,
    began: Instant,
    texts: usize,
    done: usize,
    tokens: usize,
}

impl WritingBar {
    /// Of `texts` that are yet to be written; if `quiet`, it shows nothing.
    pub fn new(quiet: bool, texts: usize) -> Self {
        // On a terminal what comes out shows the progress itself.
        let terminal = std::io::stderr().is_terminal();
        let shown = !quiet && !std::io::stdout().is_terminal();
        let bar = (shown && terminal).then(|| bar(texts));
        let now = Instant::now();
        let (last_line, began) = (now, now);
        Self { bar, lines: shown && !terminal, last_line, began, texts, done: 0, tokens: 0 }
    }

    /// One more is done, of `tokens`.
    pub fn wrote(&mut self, tokens: usize) {
        self.done += 1;
        self.tokens += tokens;
        let rate = self.tokens as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let text = format!("{rate:.1} tok/s");
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64);
            bar.set_message(text);
        } else if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            note(&format!("{} of {} prompts, {text}", self.done, self.texts));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(texts: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(texts as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} prompts {msg}") {
        bar.set_style(style);
    }
    bar
}
