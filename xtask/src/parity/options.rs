//! The options of `cargo xtask parity`, and the job that they describe.

use crate::repository::repository;
use anyhow::{Result, ensure};
use qft_train::options::FinetuneArgs;
use qft_train::options::data::{LayoutArgs, ReadingArgs};
use qft_train::options::files::FileArgs;
use qft_train::options::machine::{MachineArgs, MemoryArgs};
use qft_train::options::progress::ProgressArgs;
use qft_train::options::step::{AccumulateArgs, BatchArgs};
use qft_train::options::training::TrainingArgs;
use std::path::PathBuf;

/// The grid of learning rates, as factors of `--lr`.
const GRID: [f64; 3] = [0.3, 1.0, 3.0];

/// AdamW's learning rates are larger than Lion's: the usual factor.
const ADAMW: f64 = 3.0;

/// What to train, on what, and what to do with the results. Further options are those of `qft finetune`.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Args {
    /// Model folder [default: the repository's story model, which learns Shakespeare]
    #[arg(long, value_name = "DIR", requires = "data")]
    model: Option<PathBuf>,
    /// Training data; may be given more than once
    #[arg(long, value_name = "FILE", requires = "model")]
    data: Vec<PathBuf>,
    /// Held-out data; may be given more than once
    #[arg(long, value_name = "FILE")]
    eval_data: Vec<PathBuf>,
    /// Hold out the last part of the training data instead [default: 0.1]
    #[arg(long, value_name = "FRACTION", conflicts_with = "eval_data")]
    val_split: Option<f64>,
    /// Evaluate on at most this many batches [default: all]
    #[arg(long, value_name = "N")]
    eval_batches: Option<usize>,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    accumulate: AccumulateArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Seeds of each row, from --seed on [default: 3, or 1 with --quick]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Learning rates of Lion to choose from [default: 0.3, 1 and 3 times --lr]
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    lion_lr: Vec<f64>,
    /// Learning rates of AdamW to choose from [default: 3 times Lion's]
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    adamw_lr: Vec<f64>,
    /// Run this row alone; may be given more than once (--list has the names)
    #[arg(long, value_name = "ROW")]
    pub(super) only: Vec<String>,
    /// Run the rows of the ablations as well
    #[arg(long)]
    pub(super) ablations: bool,
    /// Folder of sets of questions, as `qft eval --questions` takes them
    #[arg(long, value_name = "DIR")]
    pub(super) eval: Option<PathBuf>,
    /// Questions of each set at most [default: all]
    #[arg(long, value_name = "N", requires = "eval")]
    pub(super) eval_limit: Option<usize>,
    /// Finished runs, a line of JSON each; new ones are added to the first file, and the report is of all
    /// [default: target/parity/results.jsonl]
    #[arg(long, value_name = "FILE")]
    results: Vec<PathBuf>,
    /// The page to write [default: docs/QUALITY.md]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Train nothing, and write the page from the results that there are
    #[arg(long)]
    pub(super) render: bool,
    /// Say what the rows are, and run none
    #[arg(long)]
    pub(super) list: bool,
    /// A short run on the story model that checks its own result, with files of its own below target/parity
    #[arg(long, conflicts_with_all = ["model", "render"])]
    pub(super) quick: bool,
}

impl Args {
    /// The files of results, the one to add to first.
    pub(super) fn results(&self) -> Vec<PathBuf> {
        if self.results.is_empty() { vec![self.in_target("jsonl")] } else { self.results.clone() }
    }

    /// The page.
    pub(super) fn report(&self) -> PathBuf {
        match &self.report {
            Some(path) => path.clone(),
            None if self.quick => self.in_target("md"),
            None => repository().join("docs/QUALITY.md"),
        }
    }

    fn in_target(&self, ending: &str) -> PathBuf {
        let name = if self.quick { "quick" } else { "results" };
        repository().join("target/parity").join(name).with_extension(ending)
    }

    /// The options that all rows share.
    pub(super) fn shared(&self) -> Result<FinetuneArgs> {
        let mut training = self.training.clone();
        ensure!(
            training.rule.optimizer.is_none(),
            "--optimizer: every row has its own; --only f32-adamw runs that one alone"
        );
        // Rows that are meant to be bad, such as rounding to nearest, are trained all the same.
        training.insist = Some(true);
        let mut args = FinetuneArgs {
            files: FileArgs {
                model: self.model.clone().map(Into::into),
                data: self.data.clone(),
                eval_data: self.eval_data.clone(),
                val_split: self.val_split,
                ..FileArgs::default()
            },
            reading: self.reading.clone(),
            batch: self.batch.clone(),
            layout: self.layout.clone(),
            accumulate: self.accumulate.clone(),
            training,
            machine: self.machine.clone(),
            memory: self.memory.clone(),
            progress: ProgressArgs { eval_batches: self.eval_batches, ..ProgressArgs::default() },
            ..FinetuneArgs::default()
        };
        if self.model.is_none() {
            self.story(&mut args);
        }
        if args.files.eval_data.is_empty() {
            args.files.val_split.get_or_insert(0.1);
        }
        Ok(args)
    }

    /// The job of the README, or a short one, wherever nothing else is asked for.
    fn story(&self, args: &mut FinetuneArgs) {
        let examples = repository().join("examples");
        args.files.model = Some(examples.join("stories260k").into());
        args.files.data = vec![examples.join("tinyshakespeare.txt")];
        let (seq_len, batch_size, steps, lr) =
            if self.quick { (128, 8, 24, 1e-3) } else { (256, 8, 300, 5e-4) };
        args.batch.seq_len.get_or_insert(seq_len);
        args.batch.batch_size.get_or_insert(batch_size);
        if args.training.epochs.is_none() {
            args.training.steps.get_or_insert(steps);
        }
        args.training.lr.get_or_insert(lr);
        if self.quick {
            args.progress.eval_batches.get_or_insert(8);
        }
    }

    /// The seeds of each row, when the first is `first`.
    pub(super) fn seeds(&self, first: u64) -> Vec<u64> {
        let count = self.seeds.unwrap_or(if self.quick { 1 } else { 3 });
        (first..first.saturating_add(count.max(1))).collect()
    }

    /// Learning rates of Lion and of AdamW to choose from, around Lion's `lr`.
    pub(super) fn grids(&self, lr: f64) -> (Vec<f64>, Vec<f64>) {
        let factors = if self.quick { &GRID[1..] } else { &GRID[..] };
        let around = |lr: f64| factors.iter().map(|factor| rounded(lr * factor)).collect();
        let or = |given: &[f64], lr| if given.is_empty() { around(lr) } else { given.to_vec() };
        (or(&self.lion_lr, lr), or(&self.adamw_lr, lr * ADAMW))
    }
}

/// A learning rate in two digits: 0.00015, and not the product that is next to it.
fn rounded(lr: f64) -> f64 {
    format!("{lr:.1e}").parse().unwrap_or(lr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_lie_around_the_rate() {
        let (lion, adamw) = Args::default().grids(5e-4);
        assert_eq!(lion, [1.5e-4, 5e-4, 1.5e-3]);
        assert_eq!(adamw, [4.5e-4, 1.5e-3, 4.5e-3]);
        let given = Args { adamw_lr: vec![1e-3], quick: true, ..Args::default() };
        assert_eq!(given.grids(5e-4), (vec![5e-4, 1.5e-3], vec![1e-3]));
    }

    #[test]
    fn the_story_is_the_default_job() {
        let shared = Args::default().shared().unwrap();
        assert_eq!((shared.training.steps, shared.files.val_split), (Some(300), Some(0.1)));
        let short = Args { quick: true, ..Args::default() };
        assert_eq!(short.shared().unwrap().training.steps, Some(24));
        assert!(short.report().ends_with("target/parity/quick.md"));
        assert_eq!((short.seeds(4), Args::default().seeds(0)), (vec![4], vec![0, 1, 2]));
    }
}
