//! What decides the result of a run. A resumed run must have the same.

use crate::data::Dataset;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::options::{
    FileOptions, FinetuneOptions, LayoutOptions, MachineOptions, OptimizerKind, OptimizerOptions,
    ProgressOptions, ReadingOptions, StateOptions, States, StepOptions, TemplateChoice, TrainOn,
    TrainingOptions,
};
use crate::step::GradientMode;
use qft_autograd::Compute;
use qft_files::{Sha256, sha256_of_file};
use qft_llama::Tokenizer;
use qft_optim::{MomentumCode, Schedule, ScheduleKind, WeightRounding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Every option that decides the result, by its name on the command line, and by their contents what the files hold.
///
/// Results do not depend on the machine, its threads and its memory, on what is recomputed, nor on when a run
/// evaluates and saves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipe {
    states: States,
    compute: Compute,
    protected: f64,
    gradients: GradientMode,
    momentum_code: MomentumCode,
    rounding: WeightRounding,
    optimizer: OptimizerKind,
    lr: f64,
    schedule: ScheduleKind,
    min_lr_ratio: f64,
    warmup: u64,
    weight_decay: f32,
    beta1: f32,
    beta2: f32,
    max_grad_norm: Option<f64>,
    seed: u64,
    train_on: TrainOn,
    template: TemplateChoice,
    template_text: Option<String>,
    pack: bool,
    shuffle: bool,
    seq_len: usize,
    batch_size: usize,
    accumulate: usize,
    eval_batches: Option<usize>,
    data: DataIdentity,
    eval_data: Option<DataIdentity>,
    model: ModelIdentity,
    /// Compared by what they mean for the steps that are done: see [`Recipe::continues`].
    steps: u64,
    sequences: u64,
}

/// Data, by the tokens that became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DataIdentity {
    documents: usize,
    tokens: usize,
    learned: usize,
    /// Of all token ids, marked where they are learned, and of the documents' borders.
    sha256: String,
}

impl DataIdentity {
    fn of(data: &Dataset) -> Self {
        let documents = data.documents();
        Self {
            documents: documents.len(),
            tokens: documents.tokens(),
            learned: documents.target_tokens(),
            sha256: documents.sha256(),
        }
    }
}

/// A model, by the contents of its files: the configuration and the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelIdentity(BTreeMap<String, String>);

impl ModelIdentity {
    /// Reads the files in `dir` that a model is loaded from.
    ///
    /// Errors: they cannot be read.
    pub fn of(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir).with_context(|| cannot_read(dir))? {
            let path = entry.with_context(|| cannot_read(dir))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let weights = name.starts_with("model") && name.contains(".safetensors");
            if (weights || name == "config.json") && path.is_file() {
                files.insert(name.to_owned(), sha256_of_file(&path)?);
            }
        }
        Ok(Self(files))
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}; make it readable", path.display())
}

fn sha256_of_text(text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(text.as_bytes());
    hash.hex()
}

impl Recipe {
    /// Of a run with `options` on data that was read, whose learning rate follows `schedule`.
    ///
    /// Takes the options apart to the last field: a new one that is sorted neither into the recipe nor among those
    /// that do not decide does not compile.
    ///
    /// Errors: a file that cannot be read.
    pub fn of(
        options: &FinetuneOptions,
        tokenizer: &Tokenizer,
        schedule: &Schedule,
        seq_len: usize,
        (train, held_out): (&Dataset, Option<&Dataset>),
    ) -> Result<Self> {
        let FinetuneOptions { files, reading, layout, step, training, state, machine, progress } =
            options;
        // By their contents: `data`, `eval_data` and `model` below.
        let FileOptions {
            model,
            data: _,
            held_out: _,
            out: _,
            // The model can be saved in any type, again and again.
            export_dtype: _,
            overwrite: _,
        } = files;
        // The format is known by the data; a template is one more thing that a saved model carries.
        let ReadingOptions { format: _, template, train_on } = reading;
        let LayoutOptions { pack, shuffle } = layout;
        // As `seq_len`, the model's limit considered.
        let StepOptions { seq_len: _, batch_size, accumulate } = step;
        let TrainingOptions { length, optimizer, seed, insist: _ } = training;
        let OptimizerOptions {
            kind,
            lr,
            weight_decay,
            beta1,
            beta2,
            schedule: kind_of_schedule,
            min_lr_ratio,
            // In steps, as `schedule` has it.
            warmup: _,
            max_grad_norm,
        } = optimizer;
        let StateOptions {
            states,
            compute,
            // With the default of the states, below.
            protected: _,
            // The same bits, whatever is recomputed.
            recompute: _,
            gradients,
            momentum_code,
            rounding,
        } = state;
        // The same bits on every machine.
        let MachineOptions { device: _, threads: _, memory_limit: _ } = machine;
        let ProgressOptions {
            checkpoint_every: _,
            keep_checkpoints: _,
            resume: _,
            eval_every: _,
            // The losses before and after must be of the same data.
            eval_batches,
            profile: _,
            sample_prompt: _,
        } = progress;
        let template_text = match template {
            TemplateChoice::File(path) => Some(sha256_of_file(path)?),
            TemplateChoice::Auto | TemplateChoice::Model => {
                tokenizer.chat_template().map(sha256_of_text)
            }
            TemplateChoice::BuiltIn(_) => None,
        };
        Ok(Self {
            states: *states,
            compute: *compute,
            protected: state.protected_fraction(),
            gradients: *gradients,
            momentum_code: *momentum_code,
            rounding: *rounding,
            optimizer: *kind,
            lr: *lr,
            schedule: *kind_of_schedule,
            min_lr_ratio: *min_lr_ratio,
            warmup: schedule.warmup,
            weight_decay: *weight_decay,
            beta1: *beta1,
            beta2: *beta2,
            max_grad_norm: *max_grad_norm,
            seed: *seed,
            train_on: *train_on,
            template: template.clone(),
            template_text,
            pack: *pack,
            shuffle: *shuffle,
            seq_len,
            batch_size: *batch_size,
            accumulate: *accumulate,
            eval_batches: *eval_batches,
            data: DataIdentity::of(train),
            eval_data: held_out.map(DataIdentity::of),
            model: ModelIdentity::of(model)?,
            steps: schedule.total,
            sequences: length.sequences(train.sequences(), step.sequences_per_step()),
        })
    }

    /// Whether a run of this recipe goes on from a checkpoint of the recipe `then`, after `done` steps, to the bits
    /// that it would have come to by itself.
    ///
    /// Every option must be the same but the number of steps, which may be another if that changes nothing about the
    /// steps that are done: neither their learning rates nor the data that they took. So a run at a constant learning
    /// rate can be extended, and one whose rate falls cannot.
    ///
    /// Errors: the option that differs, with both values.
    pub fn continues(&self, then: &Self, done: u64, checkpoint: &Path) -> Result<()> {
        let refuse = |what: String| Err(Error::new(ErrorKind::Resume, what));
        let place = checkpoint.display();
        let (now_map, then_map) = (self.settings()?, then.settings()?);
        for (name, now) in &now_map {
            let before = then_map.get(name).unwrap_or(&Value::Null);
            if before == now {
                continue;
            }
            let option = match name.as_str() {
                "template-text" => "template",
                name => name,
            };
            return refuse(format!(
                "--resume: {place} was written with --{option} {}, this run has {}; give the same options, \
                 or start a new run in another folder",
                shown(before),
                shown(now)
            ));
        }
        let same_rates = (0..done).all(|step| self.lr_at(step) == then.lr_at(step));
        let same_data = self.sequences_after(done) == then.sequences_after(done);
        if same_rates && same_data {
            return Ok(());
        }
        refuse(format!(
            "--resume: {place} was written with --steps {}, this run has {}: the {done} steps already done would \
             have been different, since {}; give the same length. To continue from the result, start a new run from \
             the saved model in another folder; a run that is to be extended needs --schedule constant, the \
             same --warmup in steps, and whole steps",
            then.steps,
            self.steps,
            if same_rates {
                "the last of them took less data than a whole step"
            } else {
                "their learning rates depend on the length"
            }
        ))
    }

    /// As a checkpoint keeps it.
    ///
    /// Errors: none that a recipe should cause.
    pub fn to_json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// As the checkpoint in `dir` has kept it.
    ///
    /// Errors: it is not a recipe.
    pub fn from_json(value: &Value, dir: &Path) -> Result<Self> {
        Self::deserialize(value).with_context(|| {
            format!("{}: its recipe is damaged; resume from another checkpoint", dir.display())
        })
    }

    /// The recipe by option, without its length.
    fn settings(&self) -> Result<serde_json::Map<String, Value>> {
        let Value::Object(mut map) = serde_json::to_value(self)? else {
            return Ok(serde_json::Map::new());
        };
        map.retain(|name, _| !matches!(name.as_str(), "steps" | "sequences"));
        Ok(map)
    }

    fn lr_at(&self, step: u64) -> f64 {
        let Self { schedule: kind, lr: peak, min_lr_ratio: floor, warmup, steps: total, .. } =
            *self;
        Schedule { kind, peak, floor, warmup, total }.lr(step)
    }

    fn sequences_after(&self, step: u64) -> u64 {
        let whole = step.saturating_mul((self.batch_size * self.accumulate) as u64);
        whole.min(self.sequences)
    }
}

/// A value as its user writes it, or for files what they hold.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not given".into(),
        Value::String(text) if text.len() == 64 => format!("of other text ({}…)", &text[..8]),
        Value::String(text) => text.clone(),
        Value::Object(map) => match map.get("sha256").and_then(Value::as_str) {
            Some(hash) => format!(
                "of {} documents, {} tokens, {} learned (SHA-256 {}…)",
                map["documents"],
                map["tokens"],
                map["learned"],
                hash.get(..8).unwrap_or(hash)
            ),
            None => {
                let files = map.iter().map(|(name, hash)| {
                    let hash = hash.as_str().unwrap_or_default();
                    format!("{name} {}…", hash.get(..8).unwrap_or(hash))
                });
                format!("with the files {}", files.collect::<Vec<_>>().join(", "))
            }
        },
        Value::Number(number) => match number.as_f64() {
            Some(small) if small > 0.0 && small < 1e-3 => format!("{small:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let data = || DataIdentity {
            documents: 10,
            tokens: 100,
            learned: 50,
            sha256: "0123456789abcdef".repeat(4),
        };
        Recipe {
            states: States::Full,
            compute: Compute::Int8,
            protected: 0.0,
            gradients: GradientMode::Released,
            momentum_code: MomentumCode::Sqrt,
            rounding: WeightRounding::Stochastic,
            optimizer: OptimizerKind::Lion,
            lr: 1e-5,
            schedule: ScheduleKind::Constant,
            min_lr_ratio: 0.0,
            warmup: 3,
            weight_decay: 0.0,
            beta1: 0.95,
            beta2: 0.98,
            max_grad_norm: None,
            seed: 0,
            train_on: TrainOn::Completion,
            template: TemplateChoice::Auto,
            template_text: None,
            pack: false,
            shuffle: true,
            seq_len: 512,
            batch_size: 4,
            accumulate: 1,
            eval_batches: None,
            data: data(),
            eval_data: Some(data()),
            model: ModelIdentity(BTreeMap::from([("model.safetensors".into(), "ab".repeat(32))])),
            steps: 100,
            sequences: 400,
        }
    }

    fn refusal(now: &Recipe, then: &Recipe, done: u64) -> String {
        now.continues(then, done, Path::new("step-000050")).unwrap_err().to_string()
    }

    #[test]
    fn every_difference_is_refused_by_the_name_of_its_option() {
        let then = recipe();
        let text = serde_json::to_string(&then).unwrap();
        let read: Recipe = serde_json::from_str(&text).unwrap();
        assert_eq!(read, then);
        then.continues(&read, 50, Path::new("c")).unwrap();
        let settings = then.settings().unwrap();
        for name in settings.keys() {
            let mut changed = serde_json::to_value(&then).unwrap();
            changed[name] = match (name.as_str(), &changed[name]) {
                ("states", _) => "compact".into(),
                ("compute", _) => "float".into(),
                ("gradients", _) => "stored".into(),
                ("momentum-code", _) => "linear".into(),
                ("rounding", _) => "nearest".into(),
                ("optimizer", _) => "adamw".into(),
                ("schedule", _) => "cosine".into(),
                ("train-on", _) => "all".into(),
                ("template", _) => "chatml".into(),
                ("template-text", _) => "cd".repeat(32).into(),
                ("eval-data", _) => Value::Null,
                (_, Value::Number(n)) => match n.as_u64() {
                    Some(n) => (n + 1).into(),
                    None => 0.5.into(),
                },
                (_, Value::Bool(b)) => (!b).into(),
                (_, Value::Null) => 7.into(),
                (_, Value::Object(map)) if map.contains_key("sha256") => {
                    let mut map = map.clone();
                    map["sha256"] = "fedcba98".repeat(8).into();
                    map.into()
                }
                (_, Value::Object(_)) => serde_json::json!({"model.safetensors": "cd".repeat(32)}),
                (name, value) => panic!("{name} = {value}"),
            };
            let changed: Recipe = serde_json::from_value(changed).unwrap();
            let told = refusal(&changed, &then, 50);
            let option = name.strip_suffix("-text").unwrap_or(name);
            assert!(told.contains(&format!("--{option} ")), "{told}");
        }
        let told = refusal(&Recipe { lr: 1e-4, ..recipe() }, &then, 50);
        assert!(told.contains("--lr 1e-5, this run has 1e-4"), "{told}");
        let told = refusal(&Recipe { max_grad_norm: Some(1.0), ..recipe() }, &then, 50);
        assert!(told.contains("--max-grad-norm not given, this run has 1.0"), "{told}");
    }

    #[test]
    fn a_run_at_a_constant_rate_can_be_extended() {
        let extended = |recipe: Recipe| Recipe { steps: 200, sequences: 800, ..recipe };
        extended(recipe()).continues(&recipe(), 100, Path::new("c")).unwrap();
        let cosine = Recipe { schedule: ScheduleKind::Cosine, ..recipe() };
        let told = refusal(&extended(cosine.clone()), &cosine, 50);
        assert!(told.contains("--steps 100, this run has 200") && told.contains("rates"), "{told}");
        // Nothing but the warm-up is done: it is the same in both.
        extended(cosine.clone()).continues(&cosine, 3, Path::new("c")).unwrap();
        // The last step of the shorter run was not a whole one.
        let short = Recipe { sequences: 398, ..recipe() };
        let told = refusal(&extended(short.clone()), &short, 100);
        assert!(told.contains("less data"), "{told}");
        extended(short.clone()).continues(&short, 99, Path::new("c")).unwrap();
    }
}
