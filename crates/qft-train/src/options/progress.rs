//! What a run reports and keeps along the way.

use super::value::{number, whole};
use crate::error::{Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What a run reports and keeps along the way, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProgressArgs {
    /// Save a checkpoint every N steps [default: only at the end and when stopped]
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Progress")]
    pub checkpoint_every: Option<u64>,
    /// Save a checkpoint once N minutes have gone since the last one; may be a fraction
    #[arg(long, value_name = "N", value_parser = number::<f64>, allow_negative_numbers = true, help_heading = "Progress")]
    pub checkpoint_minutes: Option<f64>,
    /// Write checkpoints from a copy of the states while training goes on, instead of between steps [default: auto]
    #[arg(long, value_enum, help_heading = "Progress")]
    pub checkpoint_copy: Option<CheckpointCopy>,
    /// Number of checkpoints to keep [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Progress")]
    pub keep_checkpoints: Option<usize>,
    /// Continue from the latest checkpoint, or from the one in this folder; with `auto`, begin if there is none
    #[arg(
        long,
        value_name = "DIR|latest|auto",
        num_args = 0..=1,
        default_missing_value = "latest",
        help_heading = "Progress"
    )]
    pub resume: Option<String>,
    /// Evaluate on held-out data, and continue sample prompts, every N steps [default: only before and after training]
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Progress")]
    pub eval_every: Option<u64>,
    /// End training once N evaluations in a row have found no lower held-out loss; needs --eval-every
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true, help_heading = "Progress")]
    pub patience: Option<u32>,
    /// Save the model of the evaluation with the lowest held-out loss instead of the last one, and keep its checkpoint; needs
    /// --eval-every
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Progress"
    )]
    pub keep_best: Option<bool>,
    /// End training after N minutes, as if the step that is done then were the last; may be a fraction
    #[arg(long, value_name = "N", value_parser = number::<f64>, allow_negative_numbers = true, help_heading = "Progress")]
    pub max_minutes: Option<f64>,
    /// Evaluate on at most this many batches [default: all]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Progress")]
    pub eval_batches: Option<usize>,
    /// Show where the time of a step goes, and how close it comes to the machine's INT8 peak
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Progress"
    )]
    pub profile: Option<bool>,
    /// Compare the updates of sampled rows with those of float momentum, and count what INT8 loses
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Progress"
    )]
    pub diagnostics: Option<bool>,
    /// Show how the model continues this text, before and after training and at each evaluation; may be given more than once
    #[arg(long, value_name = "TEXT", help_heading = "Progress")]
    pub sample_prompt: Vec<String>,
    /// Let the model answer N questions of the held-out data (of its first set) before and after training, and count the answers
    /// that end by themselves instead of running on; 20 say enough [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Progress")]
    pub answers: Option<usize>,
}

/// What a run reports and keeps along the way.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressOptions {
    /// Steps between checkpoints.
    pub checkpoint_every: Option<u64>,
    /// Time between checkpoints.
    pub checkpoint_minutes: Option<Minutes>,
    /// Whether they are written while training goes on.
    pub checkpoint_copy: CheckpointCopy,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// The checkpoint to continue from.
    pub resume: Option<Resume>,
    /// Steps between evaluations.
    pub eval_every: Option<u64>,
    /// Evaluations in a row without a lower loss, after which training ends.
    pub patience: Option<u32>,
    /// Whether the model of the lowest held-out loss is the one that is saved.
    pub keep_best: bool,
    /// Time after which training ends.
    pub max_minutes: Option<Minutes>,
    /// Batches of an evaluation at most.
    pub eval_batches: Option<usize>,
    /// Whether to show where the time goes.
    pub profile: bool,
    /// Whether to compare the updates of sampled rows with those of float momentum.
    pub diagnostics: bool,
    /// Texts to continue before, during and after.
    pub sample_prompts: Vec<String>,
    /// Held-out questions to answer before and after.
    pub answers: usize,
}

impl ProgressArgs {
    /// Fills in the defaults and checks everything, for a run with or without held-out data.
    ///
    /// Errors: a value out of its range; evaluations of nothing.
    pub fn resolve(self, evaluates: bool) -> Result<ProgressOptions> {
        let Self { checkpoint_every, eval_every, eval_batches, .. } = self;
        for (name, value) in [("checkpoint-every", checkpoint_every), ("eval-every", eval_every)] {
            ensure!(value != Some(0), "--{name} is 0; give a number of steps, or leave it out");
        }
        ensure!(
            self.keep_checkpoints != Some(0),
            "--keep-checkpoints is 0; at least 1 checkpoint is kept"
        );
        ensure!(eval_batches != Some(0), "--eval-batches is 0; give at least 1");
        ensure!(
            self.patience != Some(0),
            "--patience is 0; give a number of evaluations, or leave it out"
        );
        let keep_best = self.keep_best.unwrap_or(false);
        for (name, set) in [
            ("eval-every", eval_every.is_some() && self.sample_prompt.is_empty()),
            ("eval-batches", eval_batches.is_some()),
            ("patience", self.patience.is_some()),
            ("keep-best", self.keep_best == Some(true)),
            ("answers", self.answers.is_some_and(|count| count > 0)),
        ] {
            ensure!(
                evaluates || !set,
                "--{name}: there is no held-out data; give --eval-data FILE or --val-split 0.05"
            );
        }
        for (name, set) in [("patience", self.patience.is_some()), ("keep-best", keep_best)] {
            ensure!(
                eval_every.is_some() || !set,
                "--{name} looks at evaluations during training; give --eval-every N as well"
            );
        }
        Ok(ProgressOptions {
            checkpoint_every,
            checkpoint_minutes: Minutes::resolve("checkpoint-minutes", self.checkpoint_minutes)?,
            checkpoint_copy: self.checkpoint_copy.unwrap_or_default(),
            patience: self.patience,
            keep_best,
            max_minutes: Minutes::resolve("max-minutes", self.max_minutes)?,
            keep_checkpoints: self.keep_checkpoints.unwrap_or(1),
            resume: self.resume.as_deref().map(Resume::from),
            eval_every,
            eval_batches,
            profile: self.profile.unwrap_or(false),
            diagnostics: self.diagnostics.unwrap_or(false),
            sample_prompts: self.sample_prompt,
            answers: self.answers.unwrap_or(0),
        })
    }
}

/// Whether checkpoints are written from a copy of the states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointCopy {
    /// Where the copy fits into the memory and takes more than 64 MB.
    #[default]
    Auto,
    /// Always; the memory for it is a part of what the run needs.
    Always,
    /// Never: training waits for the disk.
    Never,
}

impl ProgressOptions {
    /// Whether a run of `steps` steps saves checkpoints before its end.
    pub fn saves_on_its_way(&self, steps: u64) -> bool {
        let by_step = |every: Option<u64>| every.is_some_and(|every| every < steps);
        by_step(self.checkpoint_every)
            || self.checkpoint_minutes.is_some()
            || (self.keep_best && by_step(self.eval_every))
    }
}

/// A time in minutes, above 0 and at most a hundred years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minutes(f64);

impl Minutes {
    const MOST: f64 = 100.0 * 365.25 * 24.0 * 60.0;

    fn resolve(name: &str, given: Option<f64>) -> Result<Option<Self>> {
        let Some(minutes) = given else { return Ok(None) };
        ensure!(
            minutes > 0.0 && minutes <= Self::MOST,
            "--{name}: {minutes} is out of range; give a number of minutes above 0, such as 30 or 0.5"
        );
        Ok(Some(Self(minutes)))
    }

    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0 * 60.0)
    }
}

impl From<Minutes> for f64 {
    fn from(Minutes(minutes): Minutes) -> f64 {
        minutes
    }
}

/// Which checkpoint a run continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The newest one below the output folder.
    Latest,
    /// The same, or none if there is none: the run begins.
    Auto,
    /// This one.
    Checkpoint(PathBuf),
}

impl From<&str> for Resume {
    fn from(text: &str) -> Self {
        match text {
            "latest" => Self::Latest,
            "auto" => Self::Auto,
            dir => Self::Checkpoint(dir.into()),
        }
    }
}
