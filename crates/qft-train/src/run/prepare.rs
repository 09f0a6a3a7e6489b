//! What comes before a run: data, a plan that fits, and a trainer at its first step or where a checkpoint is.

use super::events::{Event, Observers, Quantized};
use super::exports;
use super::finetune::{Run, State};
use super::folder::ModelFolder;
use super::named::Origins;
use super::output;
use super::reading::RunData;
use super::recipe::Recipe;
use super::samples::SamplePrompt;
use super::saved::SavedModel;
use super::saving::Background;
use super::steering::Clocks;
use crate::data::questions::{self, Question};
use crate::data::{Dataset, EvalSet};
use crate::error::{Error, ErrorKind, OfKind, Result, ensure};
use crate::machine::{Job, Machine};
use crate::memory::{Budget, Fit, Process, Request, RunShape, StepShape, gb};
use crate::options::{CheckpointCopy, FinetuneOptions, Resume};
use crate::step::checkpoint::{self, Progress};
use crate::step::flip_rate::FlipRates;
use qft_hub::Need;
use qft_llama::LlamaConfig;
use qft_llama::model::Model;
use qft_quant::EncodeReport;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

impl<'a> Run<'a> {
    /// Reads all but the weights, and finds out whether the run fits.
    pub(super) fn prepare(
        job: &'a Job,
        options: &'a FinetuneOptions,
        stop: &'a AtomicBool,
        observers: &mut Observers<'_, '_>,
    ) -> Result<Self> {
        let resumed = resumed_in(job, options)?;
        let machine = Machine::open_in(job, options.machine)?;
        let (ops, clock) = machine.watched(options.progress.profile);
        // Data first: it is small, and its names may have to be given otherwise.
        let files = observers.hear(|watch| RunData::find(options, watch))?;
        let model = &options.files.model;
        let folder = observers.hear(|watch| ModelFolder::find(model, Need::All, watch))?;
        let origins = Origins {
            model: folder.origin.clone(),
            data: files.train.origins.clone(),
            eval_data: files.held_out_origins(),
        };
        let seq_len = options.step.seq_len(&folder.config)?;
        options.training.optimizer.group_lr.check(&folder.config).of_kind(ErrorKind::Options)?;
        let folder = folder.for_sequences(seq_len).for_chats(&options.reading)?;
        exports::check(&options.files, &folder)?;
        let read = files.read(options, &folder, seq_len, stop, observers);
        let RunData { train, held_out } = read.of_kind(ErrorKind::Data)?;
        let template = exports::template(&options.reading, &folder, train.documents())?;
        let per_step = options.step.sequences_per_step();
        let total = steps(options, &train)?;
        let schedule = options.training.optimizer.schedule(total)?;
        let prompts = SamplePrompt::all(&options.progress.sample_prompts, &folder.tokenizer)?;
        let questions = questions(options, &folder.config, held_out.first())?;
        let sampled = prompts.iter().map(SamplePrompt::longest);
        let answered = questions.iter().map(|question| question.ids.len() + question.most);
        let written = sampled.chain(answered).max();
        let shape = shape(&machine, options, &train, &held_out, written);
        let budget = Budget::of(&machine);
        let budget = Budget { free_bytes: job.least(budget.free_bytes)?, ..budget };
        let copies = job.leads() && machine.is_cpu() && options.progress.saves_on_its_way(total);
        let request = (options, &folder.config);
        let (mut fit, shape) = fit(request, &machine, budget, shape, copies)?;
        let saved = SavedModel::planned(&folder.config, shape, &mut fit, budget)?;
        let (states, sequences) = (options.state.states, train.sequences());
        observers.tell(Event::Planned { fit: &fit, states, sequences, steps: total })?;
        let training = &options.training;
        Ok(Self {
            job,
            setup: options.state.setup(&training.optimizer, training.seed, fit.recompute),
            sequences: training.length.sequences(train.sequences_per_pass(), per_step),
            options,
            stop,
            resumed,
            ops,
            clock,
            folder,
            origins,
            seq_len,
            train,
            held_out,
            template,
            saved,
            prompts,
            questions,
            schedule,
            fit,
            copies: shape.copied,
        })
    }

    /// A trainer at its first step, or where the checkpoint is.
    pub(super) fn start(&self, observers: &mut Observers<'_, '_>) -> Result<State> {
        let (options, ops) = (self.options, &*self.ops);
        let data = (&self.train, self.held_out.as_slice());
        let model = (self.folder.dir.as_path(), &self.origins);
        let recipe = Recipe::of(options, &self.schedule, self.seq_len, model, data)?;
        self.agree(&recipe)?;
        let model = &self.folder.config;
        let (device, host) = (ops.kind(), ops.host()?);
        observers.tell(Event::Decided { recipe: &recipe, model, device, host })?;
        let (mut trainer, progress) = match &self.resumed {
            None => {
                if self.job.leads() {
                    output::check_recipe(&options.files, &recipe)?;
                }
                let model = self.load(observers)?;
                (self.setup.trainer(ops, model)?, Progress::new(recipe.to_json()?))
            }
            Some(dir) => {
                let text =
                    if self.job.leads() { Some(checkpoint::progress_text(dir)?) } else { None };
                let text = self.job.text_of_leader(text.as_deref())?.unwrap_or_default();
                let progress = checkpoint::progress_of(&text, dir)?;
                let then = Recipe::from_json(&progress.recipe, dir)?;
                recipe.continues(&then, u64::from(progress.step), dir)?;
                let model = Model::alloc(ops, &self.folder.config, self.setup.format)?;
                let mut trainer = self.setup.trainer(ops, model)?;
                checkpoint::load(ops, &mut trainer, &progress, dir)?;
                let step = u64::from(progress.step);
                observers.tell(Event::Resumed { from: dir, step })?;
                let evaluations = self.evaluations_of(&progress)?;
                (trainer, Progress { recipe: recipe.to_json()?, evaluations, ..progress })
            }
        };
        if options.progress.diagnostics {
            trainer.diagnose(ops)?;
        }
        self.check_rates(&trainer.model, observers)?;
        ops.reserve(self.fit.plan.arena_bytes)?;
        let own = self.resumed.as_ref().is_some_and(|dir| output::is_own(&options.files.out, dir));
        Ok(State {
            recipe,
            saved: self.job.of_leader(if own { progress.step } else { 0 })?,
            order: self.order_at(progress.step),
            trainer,
            progress,
            unconfirmed: false,
            background: Background::default(),
            clocks: Clocks::start(),
            evaluated: None,
            ended_early: None,
            final_loss: None,
            final_eval_loss: None,
            final_answers: None,
        })
    }

    /// Makes sure that all processes of a job are about to do the same.
    fn agree(&self, recipe: &Recipe) -> Result<()> {
        if self.job.is_alone() {
            return Ok(());
        }
        let (accumulate, processes) = (self.options.step.accumulate, self.job.size());
        ensure!(
            accumulate >= processes,
            "--accumulate: a step of {accumulate} micro-batches cannot be shared by {processes} processes; give {processes} \
             or more"
        );
        let recipe = recipe.to_json()?;
        let options = recipe.as_object().into_iter().flatten();
        let options = options.map(|(name, value)| (name.as_str(), value.to_string()));
        let beside = [
            ("the version of qft", env!("CARGO_PKG_VERSION").into()),
            ("recompute", format!("{:?}", self.fit.recompute)),
            ("what it reports and keeps", format!("{:?}", self.options.progress)),
        ];
        self.job.agree(&beside.into_iter().chain(options).collect::<Vec<_>>())
    }

    /// Loads the model, and says what quantizing did to it.
    fn load(&self, observers: &mut Observers<'_, '_>) -> Result<Model> {
        let mut quantized = Quantized::default();
        let report = &mut |name: &str, report: &EncodeReport| {
            tracing::info!(
                "{name}: scale {:.2e} to {:.2e}, {:.2} % protected, L2 error {:.3e} ({:.3e} without)",
                report.scale_min,
                report.scale_max,
                report.protected_fraction * 100.0,
                report.l2_error,
                report.l2_error_unprotected
            );
            quantized.add(report);
        };
        let format = self.setup.format;
        let model = self.folder.load(&*self.ops, format, self.stop, report)?;
        observers.tell(Event::Loaded(&quantized))?;
        Ok(model)
    }

    /// Whether the learning rate moves weights, and does not ruin them.
    fn check_rates(&self, model: &Model, observers: &mut Observers<'_, '_>) -> Result<()> {
        let (lr, groups) = (self.options.training.optimizer.lr, &self.setup.optimizer.groups);
        let rates = FlipRates::of(&*self.ops, model, lr, groups)?;
        observers.tell(Event::Rates(&rates))?;
        if self.options.training.insist {
            return Ok(());
        }
        rates.check(self.options.state.rounding).of_kind(ErrorKind::Options)
    }
}

/// Steps of the whole run.
///
/// Errors: more than can be counted.
fn steps(options: &FinetuneOptions, train: &Dataset) -> Result<u64> {
    let per_step = options.step.sequences_per_step();
    let total = options.training.length.steps(train.sequences_per_pass(), per_step);
    ensure!(
        total <= u32::MAX.into(),
        "--epochs: {total} steps are beyond the limit of {}; give fewer passes, or larger steps",
        u32::MAX
    );
    Ok(total)
}

/// What decides the memory of the run; `written` is the longest text that the model will write.
fn shape(
    machine: &Machine,
    options: &FinetuneOptions,
    train: &Dataset,
    held_out: &[EvalSet<Dataset>],
    written: Option<usize>,
) -> RunShape {
    RunShape {
        step: StepShape {
            seq_len: train.longest(),
            batch_size: options.step.batch_size,
            accumulate: options.step.accumulate,
        },
        evaluated: held_out.iter().map(|set| set.data.longest()).max(),
        sampled: written,
        diagnosed: options.progress.diagnostics,
        copied: false,
        export_dtype: options.files.export_dtype,
        exported: !options.files.exports.is_empty(),
        process: Process::of(&*machine.ops),
    }
}

/// States that are smaller are written in no time.
const LEAST_COPY: u64 = 64_000_000;

/// How the run fits into the memory of the machine, and its shape: with a copy of the states for checkpoints, if that
/// is of use and nothing else has to make room.
///
/// Errors: it does not; with what would.
fn fit(
    (options, config): (&FinetuneOptions, &LlamaConfig),
    machine: &Machine,
    budget: Budget,
    shape: RunShape,
    copies: bool,
) -> Result<(Fit, RunShape)> {
    let optimizer = &options.training.optimizer;
    let request = |shape| Request { config, state: options.state, optimizer, shape };
    let copied = RunShape { copied: true, ..shape };
    let choice = options.progress.checkpoint_copy;
    let shape = if copies && choice == CheckpointCopy::Always { copied } else { shape };
    let fit = request(shape).fit(budget)?;
    let Some(missing) = fit.missing_bytes else {
        let large = fit.plan.state_bytes() >= LEAST_COPY;
        if !(copies && large && choice == CheckpointCopy::Auto) {
            return Ok((fit, shape));
        }
        let with = request(copied).fit(budget)?;
        if with.fits() && with.recompute == fit.recompute {
            return Ok((with, copied));
        }
        tracing::info!("checkpoints are written between steps: a copy of the states does not fit");
        return Ok((fit, shape));
    };
    let need = format!(
        "this run needs {}: {} more than are free ({})\n{}",
        gb(fit.need_bytes),
        gb(missing),
        machine.memory_bound(),
        request(shape).proposals(budget)?
    );
    Err(Error::new(ErrorKind::Memory, need))
}

/// The questions that are asked for, of the first set of held-out data.
fn questions(
    options: &FinetuneOptions,
    config: &LlamaConfig,
    held_out: Option<&EvalSet<Dataset>>,
) -> Result<Vec<Question>> {
    let Some(held_out) = held_out else { return Ok(Vec::new()) };
    let (count, positions) = (options.progress.answers, config.longest_sequence());
    questions::choose(held_out.data.documents(), count, positions).of_kind(ErrorKind::Data)
}

/// The checkpoint to go on from, if one was asked for, and if the output folder allows it. The process that leads finds it, and
/// the others need not have it.
fn resumed_in(job: &Job, options: &FinetuneOptions) -> Result<Option<PathBuf>> {
    let found = if job.leads() { resumed_from(options)? } else { None };
    if job.leads() {
        output::check(&options.files, found.as_deref())?;
    }
    if job.is_alone() {
        return Ok(found);
    }
    let text = found.as_deref().map(Path::to_string_lossy);
    Ok(job.text_of_leader(text.as_deref())?.map(PathBuf::from))
}

/// The checkpoint to go on from, if one was asked for.
fn resumed_from(options: &FinetuneOptions) -> Result<Option<PathBuf>> {
    match &options.progress.resume {
        None => Ok(None),
        Some(Resume::Checkpoint(dir)) => Ok(Some(dir.clone())),
        Some(which @ (Resume::Latest | Resume::Auto)) => {
            let root = output::checkpoints(&options.files.out);
            let found = checkpoint::latest(&root)?;
            ensure!(
                found.is_some() || *which == Resume::Auto,
                "--resume latest: there is no checkpoint in {}; start without --resume",
                root.display()
            );
            Ok(found)
        }
    }
}
