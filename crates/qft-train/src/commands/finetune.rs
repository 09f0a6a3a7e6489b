//! `qft finetune`: from a model folder and data to a fine-tuned model folder.

use super::generate::{Generation, prompt_ids};
use crate::TrainOps;
use crate::checkpoint::{self, Progress};
use crate::data::{Cursor, Dataset, Sampler as Rows};
use crate::fit::{Choice, Room, Wish, gb};
use crate::flip_rate::FlipRates;
use crate::machine::Machine;
use crate::machine::signals::StopSignal;
use crate::metrics::{EvalMetrics, MetricsLog, Owners, StepMetrics, Summary};
use crate::open::Folder;
use crate::options::value::Resume;
use crate::options::{FinetuneOptions, HeldOut};
use crate::plan::{MemoryPlan, StepShape};
use crate::profile::{Profile, StepClock};
use crate::progress::Progress as Display;
use crate::trainer::Trainer;
use anyhow::{Context, Result, bail, ensure};
use qft_llama::Batch;
use qft_llama::export::{self, DEFAULT_SHARD_BYTES, export_folder};
use qft_llama::model::Model;
use qft_llama::sampling::Sampler;
use qft_llama::wide::WideInput;
use qft_optim::Schedule;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of a sample that is printed before and after.
const SAMPLE_TOKENS: usize = 64;

/// Everything a run works with.
struct Run<'a> {
    options: &'a FinetuneOptions,
    ops: Arc<dyn TrainOps>,
    clock: Option<StepClock>,
    folder: Folder<'a>,
    train: Dataset,
    held_out: Option<Dataset>,
    shape: StepShape,
    schedule: Schedule,
    choice: Choice,
}

/// Runs the command.
///
/// Errors: anything wrong with options, files or memory; nothing is left half-written.
pub fn run(options: &FinetuneOptions) -> Result<ExitCode> {
    Run::prepare(options)?.train()
}

impl<'a> Run<'a> {
    fn prepare(options: &'a FinetuneOptions) -> Result<Self> {
        let machine = Machine::open(options.machine)?;
        let (ops, clock) = machine.watched(options.profile);
        let folder = Folder::open(&options.model)?;
        let seq_len = options.step.seq_len(folder.config.max_position_embeddings)?;
        let (train, held_out) = read_data(options, &folder, seq_len)?;
        let rows_per_step = options.step.rows_per_step();
        let total = options.length.steps(train.rows(), rows_per_step);
        let o = &options.optimizer;
        let warmup = o.warmup.steps(total);
        ensure!(
            warmup <= total,
            "--warmup: {warmup} steps are more than the run's {total}; give fewer, or a fraction such as 0.03"
        );
        let schedule =
            Schedule { kind: o.schedule.into(), peak: o.lr, floor: o.min_lr_ratio, warmup, total };
        let longest = (0..train.rows()).map(|row| train.row_tokens(row)).max().unwrap_or(seq_len);
        let shape = StepShape {
            seq_len: longest,
            batch_size: options.step.batch_size,
            accumulate: options.step.accumulate,
        };
        let wish = Wish { config: &folder.config, state: options.state, optimizer: o, shape };
        let room = Room::of(&machine);
        let choice = wish.choose(room)?;
        if let Some(missing) = choice.missing_bytes {
            bail!(
                "this run needs {}: {} more than are free\n{}",
                gb(choice.need_bytes),
                gb(missing),
                wish.proposals(room)?
            );
        }
        Ok(Self { options, ops, clock, folder, train, held_out, shape, schedule, choice })
    }

    fn train(mut self) -> Result<ExitCode> {
        let mut clock = self.clock.take();
        let options = self.options;
        let ops = &*self.ops;
        println!(
            "{} parameters, {:?} states: {:.3} bytes each, {} planned; {} rows, {} steps",
            self.choice.plan.parameters,
            options.state.states,
            self.choice.plan.bytes_per_parameter,
            gb(self.choice.plan.reserved_bytes),
            self.train.rows(),
            self.schedule.total
        );
        let root = options.out.join("checkpoints");
        let (mut trainer, mut progress) = self.start(&root)?;
        self.check_rates(&trainer.model)?;
        std::fs::create_dir_all(&options.out)
            .with_context(|| format!("--out: cannot create {}", options.out.display()))?;
        let mut metrics = match progress.step {
            0 => MetricsLog::create(&options.out)?,
            step => MetricsLog::resume(&options.out, u64::from(step))?,
        };
        self.choose_wide_channels(&mut trainer)?;
        self.sample(&trainer, "before")?;
        if progress.initial_eval_loss.is_none() {
            progress.initial_eval_loss = self.evaluate(&trainer)?;
            if let Some(loss) = progress.initial_eval_loss {
                metrics.eval(EvalMetrics { step: u64::from(progress.step), eval_loss: loss })?;
                println!("held-out loss before: {loss:.4}");
            }
        }
        let stop = StopSignal::install().context("cannot catch signals that stop the run")?;
        let rows_per_step = options.step.rows_per_step();
        let mut rows = self.rows_at(progress.step);
        let mut display = Display::new(self.schedule.total, u64::from(progress.step));
        let mut rescaled = 0;
        let mut final_loss = None;
        while u64::from(progress.step) < self.schedule.total {
            let start = Instant::now();
            clock.iter_mut().for_each(StepClock::begin);
            let batches = self.batches(&rows.take(rows_per_step));
            clock.iter().for_each(StepClock::data_ready);
            let lr = self.schedule.lr(u64::from(progress.step));
            let report = trainer.step(ops, &batches, lr as f32)?;
            let seconds = start.elapsed().as_secs_f64();
            let profile = clock.as_mut().map(StepClock::end);
            let tokens: usize = batches.iter().map(Batch::tokens).sum();
            progress.step = trainer.pass.step;
            progress.tokens += report.loss.target_tokens as u64;
            progress.seconds += seconds;
            progress.last_norm = trainer.optimizer.last_norm;
            rescaled += report.update.rescaled_rows;
            let step = u64::from(progress.step);
            let record = StepMetrics {
                step,
                loss: report.loss.mean,
                lr,
                tokens: progress.tokens,
                tokens_per_second: tokens as f64 / seconds,
                peak_bytes: ops.ledger().report().peak_bytes,
                grad_norm: Some(report.update.grad_norm),
                speed_of_light: profile.and_then(|p| p.speed_of_light),
            };
            metrics.step(&record)?;
            display.step(&record);
            final_loss = Some(record.loss);
            let last = step == self.schedule.total;
            if !last
                && options.eval_every.is_some_and(|every| step % every == 0)
                && let Some(eval_loss) = self.evaluate(&trainer)?
            {
                let eval = EvalMetrics { step, eval_loss };
                metrics.eval(eval)?;
                display.eval(eval);
            }
            let interrupted = stop.exit_code().filter(|_| !last);
            let due = options.checkpoint_every.is_some_and(|every| step % every == 0) && !last;
            if interrupted.is_some() || due {
                let dir = self.checkpoint(&mut trainer, &progress, &root)?;
                if let Some(code) = interrupted {
                    display.finish();
                    println!(
                        "stopped after step {step}; saved {}\nto go on: the same command with --resume latest",
                        dir.display()
                    );
                    return Ok(ExitCode::from(code));
                }
            }
        }
        display.finish();
        // The model is exported even if there is no room for this.
        let last_checkpoint = self.checkpoint(&mut trainer, &progress, &root);
        if rescaled > 0 {
            println!("{rescaled} rows outgrew their scale and were given a larger one");
        }
        let final_eval_loss = self.evaluate(&trainer)?;
        if let Some(loss) = final_eval_loss {
            metrics.eval(EvalMetrics { step: u64::from(progress.step), eval_loss: loss })?;
            println!("held-out loss after: {loss:.4}");
        }
        self.sample(&trainer, "after")?;
        self.export(&trainer.model)?;
        let profile = clock.map(|clock| clock.total);
        if let Some(profile) = &profile {
            println!("\n{profile}");
        }
        self.summary(&progress, (final_loss, final_eval_loss), profile).write(&options.out)?;
        last_checkpoint?;
        println!("saved {}", options.out.display());
        Ok(ExitCode::SUCCESS)
    }

    /// Saves a checkpoint, and removes those that it replaces.
    fn checkpoint(
        &self,
        trainer: &mut Trainer,
        progress: &Progress,
        root: &Path,
    ) -> Result<PathBuf> {
        let dir = checkpoint::save(&*self.ops, trainer, progress, root)?;
        checkpoint::prune(root, progress.step, self.options.keep_checkpoints)?;
        Ok(dir)
    }

    /// A trainer at its first step, or where the checkpoint is.
    fn start(&self, root: &Path) -> Result<(Trainer, Progress)> {
        let options = self.options;
        let ops = &*self.ops;
        let setup = options.state.setup(&options.optimizer, options.seed, self.choice.recompute);
        let new = |model| Trainer::new(ops, model, setup.optimizer, setup.pass, setup.gradients);
        let identity = self.identity()?;
        let Some(dir) = resume_dir(options, root)? else {
            let model = self.load()?;
            let progress = Progress {
                version: checkpoint::VERSION,
                step: 0,
                tokens: 0,
                seconds: 0.0,
                initial_eval_loss: None,
                last_norm: None,
                options: identity,
            };
            return Ok((new(model)?, progress));
        };
        let progress = checkpoint::read_progress(&dir)?;
        for (key, now) in &identity {
            let then = progress.options.get(key);
            ensure!(
                then == Some(now),
                "--resume: {} was written with {key} = {}, this run has {now}; give the same options",
                dir.display(),
                then.map_or("nothing".to_owned(), ToString::to_string)
            );
        }
        let mut trainer = new(Model::alloc(ops, &self.folder.config, setup.format)?)?;
        checkpoint::load(ops, &mut trainer, &progress, &dir)?;
        println!("resumed from {} after step {}", dir.display(), progress.step);
        Ok((trainer, progress))
    }

    /// Loads the model and says what quantizing did to it.
    fn load(&self) -> Result<Model> {
        let (mut count, mut rate, mut protected, mut plain) = (0, 0.0, 0.0, 0.0);
        let model = self.folder.load(&*self.ops, &self.options.state, &mut |name, report| {
            tracing::info!(
                "{name}: scale {:.2e} to {:.2e}, {:.2} % protected, L2 error {:.3e} ({:.3e} without)",
                report.scale_min,
                report.scale_max,
                report.outlier_rate * 100.0,
                report.l2_error,
                report.l2_error_unprotected
            );
            count += 1;
            rate += report.outlier_rate;
            protected += report.l2_error.powi(2);
            plain += report.l2_error_unprotected.powi(2);
        })?;
        if count > 0 {
            print!("quantized {count} matrices: L2 error {:.4}", protected.sqrt());
            if rate > 0.0 {
                let percent = rate / f64::from(count) * 100.0;
                print!(" ({:.4} without the {percent:.2} % protected weights)", plain.sqrt());
            }
            println!();
        }
        Ok(model)
    }

    /// Chooses the channels that get a second digit from the first step's data, unless a checkpoint has brought them,
    /// and says which inputs of linear layers have some.
    fn choose_wide_channels(&self, trainer: &mut Trainer) -> Result<()> {
        let ops = &*self.ops;
        if !trainer.model.wide.chosen {
            let rows = self.rows_at(trainer.pass.step).take(self.options.step.rows_per_step());
            trainer.calibrate(ops, &self.batches(&rows))?;
        }
        let inputs = trainer.model.wide.inputs(ops)?;
        let wide: Vec<_> = inputs.iter().filter(|input| !input.channels.is_empty()).collect();
        for WideInput { block, input, channels } in &wide {
            let block = block.map_or(String::new(), |index| format!("block {index}, "));
            tracing::info!("{block}{input}: wide {channels:?}");
        }
        if let Some(most) = wide.iter().map(|input| input.channels.len()).max() {
            println!(
                "{} of {} inputs of linear layers have wide channels, at most {most}: they get a second digit",
                wide.len(),
                inputs.len()
            );
        }
        Ok(())
    }

    fn check_rates(&self, model: &Model) -> Result<()> {
        let rates = FlipRates::of(&*self.ops, model, self.options.optimizer.lr)?;
        if let Some((least, median, most)) = rates.range() {
            println!(
                "an update at the peak lr moves a weight by {median:.3} grid steps ({least:.3} to {most:.3})"
            );
            if !self.options.insist {
                rates.check(self.options.state.rounding.into())?;
            }
        }
        Ok(())
    }

    /// What decides the result of the run, for a later resume to compare.
    fn identity(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        let o = self.options;
        let setup = o.state.setup(&o.optimizer, o.seed, self.choice.recompute);
        let value = serde_json::json!({
            "states": o.state.states,
            "compute": o.state.compute,
            "outliers": o.state.outlier_fraction(),
            "gradients": o.state.gradients,
            "momentum-code": o.state.momentum_code,
            "rounding": o.state.rounding,
            "optimizer": setup.optimizer,
            "schedule": self.schedule,
            "seed": o.seed,
            "shuffle": o.shuffle,
            "pack": o.pack,
            "seq-len": self.shape.seq_len,
            "batch-size": self.shape.batch_size,
            "accumulate": self.shape.accumulate,
            "rows": self.train.rows(),
            "tokens": self.train.documents().tokens(),
        });
        match value {
            serde_json::Value::Object(map) => Ok(map),
            _ => bail!("the options are not an object"),
        }
    }

    /// The sampler as it stands after `step` steps.
    fn rows_at(&self, step: u32) -> Rows {
        let taken = u64::from(step) * self.options.step.rows_per_step() as u64;
        let rows = self.train.rows() as u64;
        let cursor = Cursor { epoch: (taken / rows) as u32, position: taken % rows };
        Rows::at(self.train.rows(), self.options.seed, self.options.shuffle, cursor)
    }

    /// The rows of a step as micro-batches.
    fn batches(&self, rows: &[usize]) -> Vec<Batch> {
        rows.chunks(self.shape.batch_size).map(|rows| self.train.batch(rows)).collect()
    }

    fn evaluate(&self, trainer: &Trainer) -> Result<Option<f64>> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let most = self.options.eval_batches.unwrap_or(usize::MAX);
        let batches = held_out.batches(self.shape.batch_size).take(most);
        Ok(Some(trainer.evaluate(&*self.ops, batches)?.0))
    }

    fn sample(&self, trainer: &Trainer, when: &str) -> Result<()> {
        let Some(prompt) = &self.options.sample_prompt else { return Ok(()) };
        let tokenizer = &self.folder.tokenizer;
        let ids = prompt_ids(tokenizer, prompt)?;
        let generation =
            Generation { ops: &*self.ops, model: &trainer.model, pass: trainer.pass, tokenizer };
        let mut sampler = Sampler::new(0.0, 1.0, 0)?;
        let mut text = prompt.clone();
        generation.run(&ids, SAMPLE_TOKENS, &mut sampler, &mut |part| {
            text.push_str(part);
            Ok(())
        })?;
        println!("\n--- sample {when} ---\n{text}\n---");
        Ok(())
    }

    fn export(&self, model: &Model) -> Result<()> {
        let (ops, config) = (&*self.ops, &self.folder.config);
        ops.trim();
        export_folder(
            &self.options.out,
            Some(self.folder.dir),
            config,
            DEFAULT_SHARD_BYTES,
            ops.ledger(),
            &mut export::rows_of(model, ops),
        )
        .with_context(|| {
            format!(
                "cannot save the model to {}; checkpoints are untouched",
                self.options.out.display()
            )
        })
    }

    fn summary(
        &self,
        progress: &Progress,
        (final_loss, final_eval_loss): (Option<f64>, Option<f64>),
        profile: Option<Profile>,
    ) -> Summary {
        let setup = self.options.state.setup(&self.options.optimizer, 0, self.choice.recompute);
        let report = self.ops.ledger().report();
        let measured = MemoryPlan::from_report(&report, &self.folder.config, setup.gradients);
        let owners = |plan: &MemoryPlan| {
            plan.owners.iter().map(|o| (o.owner.to_owned(), o.peak_bytes)).collect()
        };
        Summary {
            initial_eval_loss: progress.initial_eval_loss,
            final_eval_loss,
            final_loss,
            steps: u64::from(progress.step),
            tokens: progress.tokens,
            seconds: progress.seconds,
            parameters: measured.parameters,
            bytes_per_parameter: measured.bytes_per_parameter,
            planned_peak_bytes: self.choice.plan.peak_bytes,
            peak_bytes: measured.peak_bytes,
            profile,
            owners: Owners { planned: owners(&self.choice.plan), measured: owners(&measured) },
        }
    }
}

/// Training and held-out rows.
fn read_data(
    options: &FinetuneOptions,
    folder: &Folder<'_>,
    seq_len: usize,
) -> Result<(Dataset, Option<Dataset>)> {
    let reader = folder.reader(&options.reading, seq_len);
    let (train, held_out) = match &options.held_out {
        HeldOut::None => (reader.read(&options.data)?, None),
        HeldOut::Files(files) => (reader.read(&options.data)?, Some(reader.read(files)?)),
        HeldOut::Split(fraction) => {
            let (train, held_out) = reader.read_split(&options.data, *fraction)?;
            (train, Some(held_out))
        }
    };
    println!("training data: {train}");
    let held_out = match held_out {
        Some(documents) => {
            println!("held-out data: {documents}");
            Some(Dataset::new(documents, seq_len, options.pack).context("held-out data")?)
        }
        None => None,
    };
    Ok((Dataset::new(train, seq_len, options.pack)?, held_out))
}

/// The checkpoint to go on from, if one was asked for.
fn resume_dir(options: &FinetuneOptions, root: &Path) -> Result<Option<PathBuf>> {
    match &options.resume {
        None => Ok(None),
        Some(Resume::Checkpoint(dir)) => Ok(Some(dir.clone())),
        Some(Resume::Latest) => {
            let found = checkpoint::latest(root)?;
            ensure!(
                found.is_some(),
                "--resume latest: there is no checkpoint in {}; start without --resume",
                root.display()
            );
            Ok(found)
        }
    }
}
