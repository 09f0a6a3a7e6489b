//! A campaign: every row at its own best learning rate, with every seed; what is done is not done again.

use super::job::{Job, JobData};
use super::options::Args;
use super::results::{Outcome, Questions, Results, best_of};
use super::rows::{Row, UNTRAINED, named};
use super::run::{examine, train};
use crate::about::{self, About};
use crate::repository::repository;
use anyhow::{Context, Result};
use qft_train::data::QuestionSet;
use qft_train::options::{FinetuneArgs, FinetuneOptions, OptimizerKind};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What all rows are trained with.
pub(super) struct Campaign {
    shared: FinetuneArgs,
    job: Job,
    data: JobData,
    sources: String,
    seeds: Vec<u64>,
    /// Learning rates of Lion and of AdamW to choose from.
    grids: (Vec<f64>, Vec<f64>),
    sets: Vec<QuestionSet>,
    questions: Option<Questions>,
}

/// A run, and its folder if it was done just now.
struct Done {
    outcome: Outcome,
    options: FinetuneOptions,
    folder: Option<TempDir>,
}

impl Campaign {
    /// Reads the data and the questions.
    pub(super) fn open(args: &Args) -> Result<Self> {
        let shared = args.shared()?;
        let options = resolved(&shared, plain()?)?;
        let data = JobData::read(&options)?;
        let sets = match &args.eval {
            Some(folder) => QuestionSet::read_all(std::slice::from_ref(folder), args.eval_limit)?,
            None => Vec::new(),
        };
        let questions = args.eval.as_ref().map(|_| Questions {
            sets: sets.iter().map(|set| set.name.clone()).collect(),
            limit: args.eval_limit,
        });
        Ok(Self {
            job: Job::of(&options, &data)?,
            data,
            sources: about::sources().unwrap_or_else(|| "unknown".into()),
            seeds: args.seeds(options.training.seed),
            grids: args.grids(options.training.optimizer.lr),
            sets,
            questions,
            shared,
        })
    }

    /// Runs a row: the learning rates with the first seed, and the best of them with the others.
    pub(super) fn row(&self, row: &Row, results: &mut Results) -> Result<()> {
        let adamw = resolved(&self.shared, row)?.training.optimizer.kind == OptimizerKind::AdamW;
        let grid = if adamw { &self.grids.1 } else { &self.grids.0 };
        let first = self.seeds[0];
        let tried = grid.iter().map(|&lr| self.trained(row, lr, first, results));
        let mut tried = tried.collect::<Result<Vec<_>>>()?;
        let best = best_of(tried.iter().map(|done| &done.outcome)).map(|best| best.lr);
        let Some(best) = best else {
            println!("{}: no learning rate came to a loss", row.name);
            return Ok(());
        };
        tried.retain(|done| done.outcome.lr == best);
        for done in tried {
            self.examined(row, done, results)?;
        }
        for &seed in &self.seeds[1..] {
            let done = self.trained(row, best, seed, results)?;
            self.examined(row, done, results)?;
        }
        Ok(())
    }

    /// A run of a row, now or earlier.
    fn trained(&self, row: &Row, lr: f64, seed: u64, results: &mut Results) -> Result<Done> {
        let mut args = self.shared.clone();
        (args.training.lr, args.training.seed) = (Some(lr), Some(seed));
        let options = resolved(&args, row)?;
        let recipe = self.data.recipe(&options)?;
        if let Some(found) = results.find(&recipe, &self.sources) {
            let mut outcome = found.clone();
            // The same under another name, for the report.
            if outcome.row != row.name || outcome.job != self.job {
                (outcome.row, outcome.flags) = (row.name.into(), row.flags.into());
                outcome.job = self.job.clone();
                results.add(&outcome)?;
            }
            return Ok(Done { outcome, options, folder: None });
        }
        self.train(row, options, recipe, results)
    }

    fn train(
        &self,
        row: &Row,
        mut options: FinetuneOptions,
        recipe: Value,
        results: &mut Results,
    ) -> Result<Done> {
        let about = About::now();
        let folder = folder()?;
        options.files.out = folder.path().join("run");
        let trained = train(&options).with_context(|| format!("row {}", row.name))?;
        let outcome = Outcome {
            job: self.job.clone(),
            row: row.name.into(),
            flags: row.flags.into(),
            lr: options.training.optimizer.lr,
            seed: options.training.seed,
            recipe,
            sources: self.sources.clone(),
            about,
            trained,
            exported: None,
        };
        results.add(&outcome)?;
        tell(&outcome);
        Ok(Done { outcome, options, folder: Some(folder) })
    }

    /// Looks at the model that a run wrote, unless that was done. If the model is gone, it is trained once more.
    fn examined(&self, row: &Row, done: Done, results: &mut Results) -> Result<()> {
        let asked = self.questions.as_ref();
        let enough = |outcome: &Outcome| match &outcome.exported {
            Some(exported) => asked.is_none() || exported.questions.as_ref() == asked,
            None => outcome.trained.loss.is_none(),
        };
        if enough(&done.outcome) {
            return Ok(());
        }
        let Done { mut outcome, options, folder } = match done.folder {
            Some(_) => done,
            None => self.train(row, done.options, done.outcome.recipe, results)?,
        };
        let Some(folder) = folder else { return Ok(()) };
        let dir = folder.path().join("run");
        outcome.exported = Some(examine(&dir, &options, &self.data, &self.sets, asked)?);
        results.add(&outcome)?;
        tell(&outcome);
        Ok(())
    }

    /// Looks at the model as it was given, once.
    pub(super) fn untrained(&self, results: &mut Results) -> Result<()> {
        let options = resolved(&self.shared, plain()?)?;
        let mut recipe = json!({ UNTRAINED: self.data.recipe(&options)?["model"] });
        recipe["job"] = serde_json::to_value(&self.job)?;
        recipe["questions"] = serde_json::to_value(&self.questions)?;
        if results.find(&recipe, &self.sources).is_some() {
            return Ok(());
        }
        let (dir, asked) = (options.files.model.as_path(), self.questions.as_ref());
        let about = About::now();
        let exported = examine(dir, &options, &self.data, &self.sets, asked)?;
        let outcome =
            Outcome::untrained(self.job.clone(), (recipe, &self.sources), about, exported);
        tell(&outcome);
        results.add(&outcome)
    }
}

/// The row whose options stand for those that all share.
fn plain() -> Result<&'static Row> {
    named("full").context("there is no row called full")
}

/// Checked options of a row; where it writes is decided later.
fn resolved(shared: &FinetuneArgs, row: &Row) -> Result<FinetuneOptions> {
    let mut args = row.over(shared)?;
    args.files.out = Some("target/parity".into());
    Ok(args.resolve()?)
}

/// A folder for a run, which vanishes with its value.
fn folder() -> Result<TempDir> {
    let parent = repository().join("target/parity");
    std::fs::create_dir_all(&parent)?;
    Ok(tempfile::Builder::new().prefix("run-").tempdir_in(parent)?)
}

fn tell(outcome: &Outcome) {
    let Outcome { row, lr, seed, trained, exported, .. } = outcome;
    let loss = trained.loss.map_or_else(|| "no loss".into(), |loss| format!("loss {loss:.4}"));
    match exported {
        None => println!(
            "{row}, lr {lr:e}, seed {seed}: {loss}, {:.0} s, {:.0} tokens/s",
            trained.seconds, trained.tokens_per_second
        ),
        Some(exported) => println!("{row}, seed {seed}: exported loss {:.4}", exported.loss),
    }
}
