//! Finished runs, as lines of JSON that only ever grow.

use super::job::Job;
use super::rows::UNTRAINED;
use crate::about::About;
use anyhow::{Context, Result};
use qft_train::run::scores::Score;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) job: Job,
    /// Name of the row.
    pub(super) row: String,
    /// Options of the row.
    pub(super) flags: String,
    pub(super) lr: f64,
    pub(super) seed: u64,
    /// With [`Outcome::sources`], all that decides the figures but those of speed.
    pub(super) recipe: Value,
    /// What the trainer was built from.
    pub(super) sources: String,
    pub(super) about: About,
    pub(super) trained: Trained,
    /// Of the model that was written; absent if nobody needed it, as for a learning rate that was not the best.
    pub(super) exported: Option<Exported>,
}

/// What training came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Trained {
    /// Loss of the held-out data before and after; absent if it is not finite.
    pub(super) initial_loss: Option<f64>,
    pub(super) loss: Option<f64>,
    pub(super) bytes_per_parameter: f64,
    pub(super) peak_bytes: u64,
    /// Target tokens per second of the steps.
    pub(super) tokens_per_second: f64,
    pub(super) seconds: f64,
    /// Steps done, and the mean loss of those since the point before.
    pub(super) curve: Vec<(u64, f64)>,
}

/// What became of the model that was written, in float.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Exported {
    pub(super) loss: f64,
    /// The questions that were asked; absent if none were.
    pub(super) questions: Option<Questions>,
    pub(super) scores: Vec<Score>,
}

/// Which questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Questions {
    pub(super) sets: Vec<String>,
    pub(super) limit: Option<usize>,
}

impl Outcome {
    /// Of the model as it was given.
    pub(super) fn untrained(
        job: Job,
        key: (Value, &str),
        about: About,
        exported: Exported,
    ) -> Self {
        let loss = Some(exported.loss);
        let trained = Trained {
            initial_loss: loss,
            loss,
            bytes_per_parameter: 0.0,
            peak_bytes: 0,
            tokens_per_second: 0.0,
            seconds: 0.0,
            curve: Vec::new(),
        };
        let (recipe, sources) = (key.0, key.1.to_owned());
        let (row, flags, lr, seed) = (UNTRAINED.to_owned(), String::new(), 0.0, 0);
        Self {
            job,
            row,
            flags,
            lr,
            seed,
            recipe,
            sources,
            about,
            trained,
            exported: Some(exported),
        }
    }
}

/// The run with the lowest loss.
pub(super) fn best_of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<&'a Outcome> {
    let with_loss = outcomes.filter_map(|outcome| Some((outcome.trained.loss?, outcome)));
    with_loss.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, outcome)| outcome)
}

/// All finished runs, and the file that new ones go to.
pub(super) struct Results {
    file: PathBuf,
    outcomes: Vec<Outcome>,
}

impl Results {
    /// Reads the files that are there; new ones will go to the first.
    ///
    /// Errors: a line that is not of a run, but for a last one that was cut off.
    pub(super) fn open(files: &[PathBuf]) -> Result<Self> {
        let mut outcomes = Vec::new();
        for file in files.iter().filter(|file| file.exists()) {
            outcomes.extend(read(file)?);
        }
        let file = files.first().context("there is no file of results")?.clone();
        Ok(Self { file, outcomes })
    }

    /// All of them, the oldest first.
    pub(super) fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The newest run of that recipe and of these sources.
    pub(super) fn find(&self, recipe: &Value, sources: &str) -> Option<&Outcome> {
        let same = |outcome: &&Outcome| outcome.sources == sources && outcome.recipe == *recipe;
        self.outcomes.iter().rev().find(same)
    }

    /// Adds a run, and writes it down.
    pub(super) fn add(&mut self, outcome: &Outcome) -> Result<()> {
        let context = || format!("cannot add to {}", self.file.display());
        std::fs::create_dir_all(self.file.parent().unwrap_or(Path::new(".")))
            .with_context(context)?;
        let mut file =
            OpenOptions::new().append(true).create(true).open(&self.file).with_context(context)?;
        let line = format!("{}\n", serde_json::to_string(outcome)?);
        file.write_all(line.as_bytes()).with_context(context)?;
        self.outcomes.push(outcome.clone());
        Ok(())
    }
}

/// The runs in a file. A line that a crash cut off is left behind, and ended so that the next has its own.
fn read(file: &Path) -> Result<Vec<Outcome>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        let file = OpenOptions::new().write(true).open(file)?;
        file.set_len(whole as u64).context("cannot remove the line that was cut off")?;
    }
    let lines = text[..whole].lines().enumerate();
    lines
        .map(|(i, line)| {
            let place = || format!("{}, line {}: not of a run", file.display(), i + 1);
            serde_json::from_str(line).with_context(place)
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of a row at a learning rate, with a seed, that came to a loss.
    pub(in super::super) fn outcome(row: &str, lr: f64, seed: u64, loss: Option<f64>) -> Outcome {
        Outcome {
            job: Job {
                model: "story".into(),
                parameters: 260_032,
                data: vec!["plays.txt".into()],
                held_out: "the last 10 % of it".into(),
                held_out_tokens: 1000,
                steps: 2,
                sequences_per_step: 8,
                seq_len: 256,
                schedule: "cosine after 1 steps of warm-up".into(),
            },
            row: row.into(),
            flags: "--states full".into(),
            lr,
            seed,
            recipe: serde_json::json!({ "row": row, "lr": lr, "seed": seed }),
            sources: "a".into(),
            about: About::now(),
            trained: Trained {
                initial_loss: Some(5.0),
                loss,
                bytes_per_parameter: 3.02,
                peak_bytes: 1 << 20,
                tokens_per_second: 1000.0,
                seconds: 1.0,
                curve: vec![(1, 5.0), (2, 4.0)],
            },
            exported: loss.map(|loss| Exported { loss, questions: None, scores: Vec::new() }),
        }
    }

    #[test]
    fn runs_are_found_again_and_a_broken_line_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("new/runs.jsonl")];
        let mut results = Results::open(&files).unwrap();
        let done = outcome("full", 1e-3, 0, Some(2.5));
        results.add(&done).unwrap();
        let mut file = OpenOptions::new().append(true).open(&files[0]).unwrap();
        file.write_all(b"{\"job\": {\"mod").unwrap();
        let mut again = Results::open(&files).unwrap();
        assert_eq!(again.outcomes(), std::slice::from_ref(&done));
        assert_eq!(again.find(&done.recipe, "a"), Some(&done));
        assert_eq!(again.find(&done.recipe, "b"), None);
        again.add(&outcome("paper", 1e-3, 0, None)).unwrap();
        assert_eq!(Results::open(&files).unwrap().outcomes().len(), 2);
        file.write_all(b"{}\n").unwrap();
        let told = Results::open(&files).err().map(|error| format!("{error:#}")).unwrap();
        assert!(told.contains("line 3"), "{told}");
    }
}
