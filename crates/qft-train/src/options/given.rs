//! Checked options as they would be given: all defaults written out.

use super::cache::{CacheArgs, CacheOptions};
use super::data::{LayoutArgs, LayoutOptions, ReadingArgs, ReadingOptions};
use super::files::{EvalFiles, FileArgs, FileOptions, HeldOut};
use super::finetune::{FinetuneArgs, FinetuneOptions};
use super::job::{JobArgs, JobOptions};
use super::machine::{MachineArgs, MachineOptions, MemoryArgs};
use super::progress::{ProgressArgs, ProgressOptions, Resume};
use super::settings::{self, command, options_of};
use super::states::{BackwardArgs, StateOptions, UpdateArgs, WeightArgs};
use super::step::{AccumulateArgs, BatchArgs, StepOptions};
use super::training::{Length, OptimizerOptions, RuleArgs, TrainingArgs, TrainingOptions};
use super::value::decimal;
use crate::error::{ErrorKind, OfKind, Result};
use serde_json::Value;

impl FinetuneArgs {
    /// As a settings file, from which the same options come. What was not given is a comment with its default, which may
    /// depend on options that are; what has no default is left out.
    ///
    /// Errors: those of [`FinetuneArgs::resolve`]; a path that is no text.
    pub fn to_toml(self) -> Result<String> {
        let merged = settings::merge(self).of_kind(ErrorKind::Options)?;
        let given = options_of(&merged).of_kind(ErrorKind::Options)?;
        let options = merged.resolve_merged().of_kind(ErrorKind::Options)?;
        let all = options_of(&Self::from(&options)).of_kind(ErrorKind::Options)?;
        // One may come from another that has no place here, as processes from GPUs.
        let by_default = |name: &str| {
            let mut others = all.clone();
            others.remove(name);
            let others = serde_json::from_value::<Self>(Value::Object(others)).ok();
            let otherwise = others.and_then(|others| others.resolve_merged().ok());
            let otherwise = otherwise.and_then(|options| options_of(&Self::from(&options)).ok());
            !given.contains_key(name) && otherwise.as_ref() == Some(&all)
        };
        let (mut text, mut last) = (String::new(), None);
        let command = command();
        let mut headings: Vec<&str> = Vec::new();
        for heading in command.get_arguments().filter_map(clap::Arg::get_help_heading) {
            if !headings.contains(&heading) {
                headings.push(heading);
            }
        }
        for heading in headings {
            let own = command.get_arguments().filter(|o| o.get_help_heading() == Some(heading));
            for name in own.filter_map(clap::Arg::get_long) {
                let Some(value) = all.get(name) else { continue };
                if last != Some(heading) {
                    let space = if last.is_some() { "\n" } else { "" };
                    text += &format!("{space}# {heading}\n");
                    last = Some(heading);
                }
                let comment = if by_default(name) { "# " } else { "" };
                text += &format!("{comment}{name} = {}\n", toml_of(value));
            }
        }
        Ok(text)
    }
}

/// A value of JSON as TOML. A number that TOML has no integer for is a text, which is read as well.
fn toml_of(value: &Value) -> toml::Value {
    match value {
        Value::Bool(value) => toml::Value::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => toml::Value::Integer(integer),
            (None, Some(large)) => toml::Value::String(large.to_string()),
            (None, None) => toml::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Array(values) => toml::Value::Array(values.iter().map(toml_of).collect()),
        Value::String(text) => toml::Value::String(text.clone()),
        other => toml::Value::String(other.to_string()),
    }
}

impl From<&FinetuneOptions> for FinetuneArgs {
    /// Takes the options apart to the last field: a new one that is left out does not compile.
    fn from(options: &FinetuneOptions) -> Self {
        let FinetuneOptions {
            files,
            reading,
            cache,
            layout,
            step,
            training,
            state,
            machine,
            job,
            progress,
        } = options;
        let StepOptions { seq_len, batch_size, accumulate } = *step;
        let MachineOptions { device, threads, memory_limit } = *machine;
        let JobOptions { processes, timeout } = *job;
        let LayoutOptions { pack, shuffle } = *layout;
        let (weights, backward, update) = states(state);
        Self {
            config: None,
            print_config: false,
            files: file_args(files),
            reading: reading_args(reading),
            cache: cache_args(cache),
            batch: BatchArgs { seq_len, batch_size: Some(batch_size) },
            layout: LayoutArgs { pack: Some(pack), shuffle: Some(shuffle), no_shuffle: false },
            accumulate: AccumulateArgs { accumulate: Some(accumulate) },
            training: training_args(training),
            weights,
            backward,
            update,
            machine: MachineArgs { device: Some(device), threads },
            memory: MemoryArgs { memory_limit },
            job: JobArgs { processes, gpus: None, comm_timeout: Some(timeout.as_secs()) },
            progress: progress_args(progress),
        }
    }
}

fn file_args(options: &FileOptions) -> FileArgs {
    let FileOptions { model, data, held_out, out, export_dtype, exports, overwrite } = options;
    let (eval_data, val_split) = match held_out {
        HeldOut::None => (Vec::new(), None),
        HeldOut::Sets(sets) => (sets.iter().flat_map(EvalFiles::given).collect(), None),
        HeldOut::Split(fraction) => (Vec::new(), Some(*fraction)),
    };
    FileArgs {
        model: Some(model.clone()),
        data: data.clone(),
        eval_data,
        val_split,
        out: Some(out.clone()),
        export_dtype: Some(*export_dtype),
        export: exports.clone(),
        overwrite: Some(*overwrite),
    }
}

fn reading_args(options: &ReadingOptions) -> ReadingArgs {
    let ReadingOptions { format, template, train_on, fields, on_bad_record, too_long } = options;
    ReadingArgs {
        format: Some(*format),
        template: Some(template.clone()),
        train_on: Some(*train_on),
        field: fields.clone(),
        on_bad_record: Some(*on_bad_record),
        too_long: *too_long,
    }
}

/// A folder that nobody asked for stays unsaid: asked for, it would have to be usable.
fn cache_args(options: &CacheOptions) -> CacheArgs {
    let CacheOptions { folder, asked, limit_bytes } = options;
    CacheArgs {
        cache: folder.clone().filter(|_| *asked),
        no_cache: folder.is_none(),
        cache_limit: Some(*limit_bytes as f64 / 1e9),
    }
}

fn training_args(options: &TrainingOptions) -> TrainingArgs {
    let TrainingOptions { length, optimizer, seed, insist } = *options;
    let (steps, epochs) = match length {
        Length::Steps(steps) => (Some(steps), None),
        Length::Epochs(epochs) => (None, Some(epochs)),
    };
    let OptimizerOptions {
        kind,
        lr,
        group_lr,
        weight_decay,
        beta1,
        beta2,
        schedule,
        min_lr_ratio,
        warmup,
        decay,
        max_grad_norm,
    } = optimizer;
    TrainingArgs {
        steps,
        epochs,
        rule: RuleArgs { optimizer: Some(kind) },
        lr: Some(lr),
        group_lr: group_lr.given(),
        schedule: Some(schedule),
        min_lr_ratio: Some(min_lr_ratio),
        warmup: Some(warmup),
        decay,
        weight_decay: Some(decimal(weight_decay)),
        beta1: Some(decimal(beta1)),
        beta2: Some(decimal(beta2)),
        max_grad_norm,
        seed: Some(seed),
        insist: Some(insist),
    }
}

/// Float states have no INT8 options.
fn states(options: &StateOptions) -> (WeightArgs, BackwardArgs, UpdateArgs) {
    let StateOptions {
        states,
        compute,
        // As the states have it, if nothing else was asked for.
        protected: _,
        momentum_code: _,
        rotation,
        recompute,
        gradients,
        rounding,
    } = *options;
    let int8 = states.is_int8();
    (
        WeightArgs {
            states: Some(states),
            compute: Some(compute),
            protected: int8.then_some(options.protected_fraction()),
            rotation: Some(rotation),
        },
        BackwardArgs { recompute: Some(recompute), gradients: Some(gradients) },
        UpdateArgs {
            momentum_code: int8.then_some(options.momentum_code()),
            rounding: int8.then_some(rounding),
        },
    )
}

fn progress_args(options: &ProgressOptions) -> ProgressArgs {
    let ProgressOptions {
        checkpoint_every,
        checkpoint_minutes,
        checkpoint_copy,
        keep_checkpoints,
        resume,
        eval_every,
        patience,
        keep_best,
        max_minutes,
        eval_batches,
        profile,
        diagnostics,
        sample_prompts,
        answers,
    } = options;
    let resume = resume.as_ref().map(|resume| match resume {
        Resume::Latest => "latest".into(),
        Resume::Auto => "auto".into(),
        Resume::Checkpoint(dir) => dir.to_string_lossy().into_owned(),
    });
    ProgressArgs {
        checkpoint_every: *checkpoint_every,
        checkpoint_minutes: checkpoint_minutes.map(f64::from),
        checkpoint_copy: Some(*checkpoint_copy),
        keep_checkpoints: Some(*keep_checkpoints),
        resume,
        eval_every: *eval_every,
        patience: *patience,
        keep_best: Some(*keep_best),
        max_minutes: max_minutes.map(f64::from),
        eval_batches: *eval_batches,
        profile: Some(*profile),
        diagnostics: Some(*diagnostics),
        sample_prompt: sample_prompts.clone(),
        answers: Some(*answers),
    }
}
