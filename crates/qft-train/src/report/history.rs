//! A run as the files in its folder tell of it: what it is, its numbers over the steps, what the model wrote, how it ended.

use super::numbers::numbers;
use super::record::RunRecord;
use super::series::Series;
use crate::error::{Context, ErrorKind, OfKind, Result, ensure};
use crate::run::Summary;
use crate::run::output::{METRICS_FILE, RECORD_FILE, SUMMARY_FILE};
use qft_files::FolderLock;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind as IoErrorKind};
use std::path::{Path, PathBuf};

/// Texts of a prompt that are kept: the first, and the last ones.
const MOST_SAMPLES: usize = 12;

/// A run.
#[derive(Debug)]
pub(super) struct History {
    /// Its folder.
    pub(super) out: PathBuf,
    /// Its name: that of the folder.
    pub(super) name: String,
    /// What it is.
    pub(super) record: RunRecord,
    /// Its numbers, in the order of their appearance.
    pub(super) series: Vec<(String, Series)>,
    /// What the model wrote, in the order of steps.
    pub(super) samples: Vec<Sample>,
    /// Steps that are done.
    pub(super) step: u64,
    /// How it ended, if it is done.
    pub(super) summary: Option<Summary>,
    /// In a word, why it ended before its last step.
    pub(super) ended_early: Option<String>,
    /// Whether it goes on.
    pub(super) state: State,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A process is at work in its folder.
    Running,
    /// It came to its end.
    Done,
    /// It was stopped, or killed.
    Stopped,
}

/// What the model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// Steps that were done.
    pub(super) step: u64,
    /// What it was given.
    pub(super) prompt: String,
    /// What it wrote behind that.
    pub(super) text: String,
}

impl History {
    /// Reads what is in the folder `out`. Lines that are damaged are passed over.
    ///
    /// Errors: there is no run in it; its files cannot be read.
    pub(super) fn read(out: &Path) -> Result<Self> {
        let there = [METRICS_FILE, RECORD_FILE].iter().any(|name| out.join(name).exists());
        let missing = || {
            format!(
                "{}: there is no run in it ({METRICS_FILE} is missing); give the output folder of `qft finetune`",
                out.display()
            )
        };
        ensure!(there, "{}", missing());
        let folder = out.canonicalize().unwrap_or_else(|_| out.to_path_buf());
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let mut history = Self {
            out: out.to_path_buf(),
            name,
            record: RunRecord::read(out),
            series: Vec::new(),
            samples: Vec::new(),
            step: 0,
            summary: None,
            ended_early: None,
            state: State::Stopped,
        };
        let path = out.join(METRICS_FILE);
        history
            .read_metrics(&path)
            .with_context(|| format!("{}: cannot be read", path.display()))
            .of_kind(ErrorKind::Data)?;
        let summary = std::fs::read(out.join(SUMMARY_FILE)).ok();
        let summary: Value =
            summary.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let early = summary["ended_early"].as_str().map(str::to_owned);
        // A run that was extended has a summary of its first part.
        let summary: Option<Summary> = serde_json::from_value(summary).ok();
        history.summary = summary.filter(|summary| summary.steps >= history.step);
        history.ended_early = early.filter(|_| history.summary.is_some());
        history.state = match (&history.summary, FolderLock::probe(out)) {
            (Some(_), _) => State::Done,
            (None, Err(_)) => State::Running,
            (None, Ok(())) => State::Stopped,
        };
        Ok(history)
    }

    /// The runs that were done in the folder before, the newest first.
    pub(super) fn earlier(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.out).into_iter().flatten().flatten();
        let number = |path: &Path| -> Option<u32> {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(crate::run::output::EARLIER)?.parse().ok()
        };
        let mut found: Vec<_> =
            entries.filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect();
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// A number over the steps.
    pub(super) fn of(&self, key: &str) -> Option<&Series> {
        self.series.iter().find(|(known, _)| known == key).map(|(_, series)| series)
    }

    fn read_metrics(&mut self, path: &Path) -> Result<()> {
        let file = match File::open(path) {
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let (mut file, mut line) = (BufReader::new(file), Vec::new());
        let mut places: HashMap<String, usize> = HashMap::new();
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
            let Some(step) = value["step"].as_u64() else { continue };
            self.step = self.step.max(step);
            numbers(&value, &mut |key, number| match places.get(key) {
                Some(&place) => {
                    let (_, series): &mut (String, Series) = &mut self.series[place];
                    series.push(step as f64, number);
                }
                None => {
                    places.insert(key.to_owned(), self.series.len());
                    self.series.push((key.to_owned(), Series::new(step as f64, number)));
                }
            });
            if let (Some(prompt), Some(text)) = (value["prompt"].as_str(), value["sample"].as_str())
            {
                self.add_sample(Sample { step, prompt: prompt.to_owned(), text: text.to_owned() });
            }
        }
    }

    /// Adds a text; of many of one prompt, one in the middle makes room.
    fn add_sample(&mut self, sample: Sample) {
        let of_prompt = |other: &(usize, &Sample)| other.1.prompt == sample.prompt;
        let places: Vec<_> =
            self.samples.iter().enumerate().filter(of_prompt).map(|(place, _)| place).collect();
        if places.len() == MOST_SAMPLES {
            self.samples.remove(places[MOST_SAMPLES / 2]);
        }
        self.samples.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<History> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        History::read(dir.path())
    }

    #[test]
    fn a_damaged_file_is_read_as_far_as_it_goes() {
        let lines = "{\"step\": 0, \"eval_loss\": 3.0}\n\
            {\"step\": 0, \"prompt\": \"Once\", \"sample\": \" upon\"}\n\
            {\"step\": 1, \"loss\": 2.5, \"new\": {\"key\": 1}}\n\
            \u{fffd}\n[1]\n{\"step\": -1}\n\
            {\"step\": 2, \"loss\": null}\n\
            {\"step\": 2, \"prompt\": \"Once\", \"sample\": \" more\"}\n\
            {\"step\": 2, \"prompt\": 3, \"sample\": \"\"}\n\
            {\"step\": 3, \"lo";
        let history = read(&[(METRICS_FILE, lines)]).unwrap();
        assert_eq!((history.step, history.state), (2, State::Stopped));
        let keys: Vec<_> = history.series.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["eval_loss", "loss", "new/key"]);
        assert_eq!(history.of("loss").unwrap().last, 2.5);
        let samples: Vec<_> =
            history.samples.iter().map(|s| (s.step, s.prompt.as_str(), s.text.as_str())).collect();
        assert_eq!(samples, [(0, "Once", " upon"), (2, "Once", " more")]);
    }

    #[test]
    fn of_many_samples_the_first_and_the_last_are_kept() {
        let line = |step: u64| {
            format!("{{\"step\": {step}, \"prompt\": \"a\", \"sample\": \"{step}\"}}\n")
        };
        let other = "{\"step\": 0, \"prompt\": \"b\", \"sample\": \"\"}\n";
        let lines: String = std::iter::once(other.into()).chain((0..50).map(line)).collect();
        let samples = read(&[(METRICS_FILE, &lines)]).unwrap().samples;
        let steps: Vec<_> = samples.iter().map(|sample| sample.step).collect();
        assert_eq!((samples.len(), &steps[..3], steps[12]), (13, &[0, 0, 1][..], 49));
    }

    #[test]
    fn a_folder_without_a_run_is_told() {
        let error = format!("{:#}", read(&[("config.json", "{}")]).unwrap_err());
        assert!(error.contains("no run") && error.contains(METRICS_FILE), "{error}");
        // A run that has not come to its first step.
        assert_eq!(read(&[(RECORD_FILE, "{}")]).unwrap().step, 0);
    }
}
