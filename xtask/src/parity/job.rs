//! What all rows of a campaign have in common: a model, its data, and how much of it is trained on.

use anyhow::{Context, Result, ensure};
use qft_train::data::{Dataset, EvalSet};
use qft_train::options::{EvalFiles, FinetuneOptions, HeldOut};
use qft_train::run::{ModelFolder, Origins, Recipe};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A job as the report has it. Outcomes of the same job stand in the same tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    /// Name of the model's folder.
    pub(super) model: String,
    pub(super) parameters: u64,
    /// Names of the files.
    pub(super) data: Vec<String>,
    /// How the held-out data came about.
    pub(super) held_out: String,
    /// Target tokens of an evaluation.
    pub(super) held_out_tokens: usize,
    pub(super) steps: u64,
    pub(super) sequences_per_step: usize,
    pub(super) seq_len: usize,
    pub(super) schedule: String,
}

/// All files of sets of held-out data: they are measured together.
fn files_of(sets: &[EvalFiles]) -> Vec<PathBuf> {
    sets.iter().flat_map(|set| set.files.clone()).collect()
}

/// Data as every run of a job reads it.
pub(super) struct JobData {
    model: PathBuf,
    seq_len: usize,
    train: Dataset,
    held_out: EvalSet<Dataset>,
}

impl JobData {
    /// Reads the files.
    ///
    /// Errors: those of a run; there is no held-out data.
    pub(super) fn read(options: &FinetuneOptions) -> Result<Self> {
        let folder = ModelFolder::open(options.files.model.as_path())?;
        let seq_len = options.step.seq_len(&folder.config)?;
        let reader = folder.reader(&options.reading, seq_len);
        let data = &options.files.data;
        let (train, held_out) = match &options.files.held_out {
            HeldOut::Sets(sets) => (reader.read(data)?, reader.read(&files_of(sets))?),
            HeldOut::Split(fraction) => reader.read_split(data, *fraction)?,
            HeldOut::None => anyhow::bail!("there is no held-out data; give --eval-data FILE"),
        };
        let dataset = |documents| Dataset::new(documents, seq_len, options.layout.pack);
        Ok(Self {
            model: folder.dir.clone(),
            seq_len,
            train: dataset(train)?,
            held_out: EvalSet { name: None, data: dataset(held_out)? },
        })
    }

    /// The batches that a run evaluates on.
    pub(super) fn held_out(
        &self,
        options: &FinetuneOptions,
    ) -> impl Iterator<Item = qft_train::Result<qft_llama::Batch>> {
        let most = options.progress.eval_batches.unwrap_or(usize::MAX);
        self.held_out.data.batches(options.step.batch_size).take(most)
    }

    /// All that decides the result of a run with these options.
    pub(super) fn recipe(&self, options: &FinetuneOptions) -> Result<Value> {
        let steps = self.steps(options);
        let schedule = options.training.optimizer.schedule(steps)?;
        let model = (self.model.as_path(), &Origins::default());
        let data = (&self.train, std::slice::from_ref(&self.held_out));
        Ok(serde_json::to_value(Recipe::of(options, &schedule, self.seq_len, model, data)?)?)
    }

    fn steps(&self, options: &FinetuneOptions) -> u64 {
        let per_step = options.step.sequences_per_step();
        options.training.length.steps(self.train.sequences_per_pass(), per_step)
    }
}

impl Job {
    /// Of runs with `options` on `data`.
    pub(super) fn of(options: &FinetuneOptions, data: &JobData) -> Result<Self> {
        let files = &options.files;
        let names = |paths: &[std::path::PathBuf]| -> Vec<_> {
            paths.iter().map(|path| name(path)).collect()
        };
        let held_out = match &files.held_out {
            HeldOut::Split(fraction) => format!("the last {} % of it", fraction * 100.0),
            HeldOut::Sets(sets) => names(&files_of(sets)).join(", "),
            HeldOut::None => String::new(),
        };
        let optimizer = &options.training.optimizer;
        let schedule = serde_json::to_value(optimizer.schedule)?;
        let steps = data.steps(options);
        let warmup = optimizer.warmup.steps(steps);
        let tokens = data
            .held_out(options)
            .map(|batch| Ok(batch?.target_tokens()))
            .sum::<Result<usize>>()?;
        ensure!(tokens > 0, "there is no target token in the held-out data");
        let model = files.model.as_path().canonicalize().context("the model's folder")?;
        Ok(Self {
            model: name(&model),
            parameters: ModelFolder::open(&model)?.config.parameters(),
            data: names(&files.data),
            held_out,
            held_out_tokens: tokens,
            steps,
            sequences_per_step: options.step.sequences_per_step(),
            seq_len: data.seq_len,
            schedule: format!(
                "{} after {warmup} steps of warm-up",
                schedule.as_str().unwrap_or_default()
            ),
        })
    }
}

/// The last part of a path: the rest is about one machine.
pub(super) fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
