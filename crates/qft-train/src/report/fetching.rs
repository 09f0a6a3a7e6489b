//! What is fetched from the hub, on the terminal: a bar of bytes, or lines where there is no terminal.

use super::bar::{LINE_EVERY, note};
use crate::memory::gb;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qft_hub::Notice;
use std::io::IsTerminal;
use std::time::Instant;

/// Shows on standard error what happens to models and data that are named in the hub. What a user must know is logged as a
/// warning.
#[derive(Debug)]
pub struct Fetching {
    quiet: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Fetching {
    /// If `quiet`, without progress.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, bar: None, last_line: None }
    }

    /// Shows what has happened.
    pub fn show(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::CacheOnly { .. } | Notice::Moved { .. } | Notice::Damaged { .. } => {
                let warn = || tracing::warn!("{}", text(notice));
                self.bar.as_ref().map_or_else(warn, |bar| bar.suspend(warn));
            }
            _ if self.quiet => {}
            Notice::Begins { bytes, .. } => {
                self.note(&text(notice));
                self.open(*bytes);
            }
            Notice::Progress { file, done, .. } => match &self.bar {
                Some(bar) => {
                    bar.set_position(*done);
                    bar.set_message((*file).to_owned());
                }
                None if self.last_line.is_some_and(|last| last.elapsed() >= LINE_EVERY) => {
                    self.last_line = Some(Instant::now());
                    self.note(&text(notice));
                }
                None => {}
            },
            Notice::Ends => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            _ => self.note(&text(notice)),
        }
    }

    fn open(&mut self, bytes: Option<u64>) {
        self.last_line = Some(Instant::now());
        self.bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(bytes, target);
            let template = "{bar:24} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
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
}

/// What has happened, in words.
fn text(notice: &Notice<'_>) -> String {
    match notice {
        Notice::CacheOnly { repository, commit, why } => {
            format!("{repository}: the cache is used as it is, at commit {commit}: {why}")
        }
        Notice::Moved { repository, revision, from, to } => format!(
            "{repository}@{revision} has moved from commit {from} to {to}; {repository}@{from} stays what it was"
        ),
        Notice::Begins { repository, commit, files, bytes } => {
            let bytes = bytes.map_or_else(String::new, |bytes| format!(", {}", gb(bytes)));
            format!("fetching {repository} at commit {commit}: {files} files{bytes}")
        }
        Notice::Progress { file, done, bytes } => match bytes {
            Some(bytes) => format!("{file}: {} of {} are there", gb(*done), gb(*bytes)),
            None => format!("{file}: {} are there", gb(*done)),
        },
        Notice::Again { what, why, pause } => {
            format!("{what}: {why}; the next try in {:.0} s", pause.as_secs_f64().ceil())
        }
        Notice::Damaged { file, why } => {
            format!("{}: {why}; it is fetched anew", file.display())
        }
        Notice::Waiting { file } => format!("{file}: another process is fetching it; waiting"),
        Notice::Ends => "all files are there".into(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn notices_in_words() {
        let bytes = Some(2_000_000_000);
        let begins = Notice::Begins { repository: "org/name", commit: "c0", files: 7, bytes };
        assert_eq!(text(&begins), "fetching org/name at commit c0: 7 files, 2.00 GB");
        let progress = Notice::Progress { file: "model.safetensors", done: 1_000_000_000, bytes };
        assert_eq!(text(&progress), "model.safetensors: 1.00 GB of 2.00 GB are there");
        let pause = Duration::from_millis(1500);
        let again = Notice::Again { what: "a", why: "the connection ended early", pause };
        assert_eq!(text(&again), "a: the connection ended early; the next try in 2 s");
    }
}
