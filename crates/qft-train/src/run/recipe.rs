//! What decides the result of a run. A resumed run must have the same.

use super::named::Origins;
use crate::data::documents::Part;
use crate::data::{Dataset, EvalSet, Weight};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::options::decimal;
use crate::options::{
    DataFormat, FieldName, FileOptions, FinetuneOptions, GroupRate, HeldOut, LayoutOptions,
    MachineOptions, OnBadRecord, OptimizerKind, OptimizerOptions, ProgressOptions, ReadingOptions,
    StateOptions, States, StepOptions, TemplateChoice, TooLong, TrainOn, TrainingOptions,
};
use crate::step::GradientMode;
use qft_autograd::Products;
use qft_files::{Sha256, sha256_of_file};
use qft_hub::Origin;
use qft_optim::{MomentCode, Schedule, ScheduleKind, WeightRounding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Every option that decides the result, by its name on the command line, and by their contents what the files hold.
///
/// The result is the trained bits, and the losses that are reported of them. It does not depend on the machine, its
/// threads and its memory, on what is recomputed, nor on when a run evaluates and saves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipe {
    states: States,
    compute: Products,
    protected: f64,
    rotation: bool,
    gradients: GradientMode,
    momentum_code: MomentCode,
    rounding: WeightRounding,
    optimizer: OptimizerKind,
    lr: f64,
    #[serde(default)]
    group_lr: Vec<GroupRate>,
    schedule: ScheduleKind,
    min_lr_ratio: f64,
    warmup: u64,
    #[serde(default)]
    decay: u64,
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    max_grad_norm: Option<f64>,
    seed: u64,
    train_on: TrainOn,
    /// The text of the template that the data was written with, or of several, if there was one.
    template: Option<TextIdentity>,
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
    /// What decides after which of its steps the run ends and which it saves; absent if that is the last. A resumed run may
    /// have another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steering: Option<Steering>,
    /// Not compared: by it a difference of the data is named.
    asked: Asked,
    /// Not compared: files are, by their contents. By it a difference of what is named in the hub is explained.
    #[serde(default, skip_serializing_if = "Origins::is_empty")]
    origins: Origins,
}

/// Options that decide through what the data becomes, as they were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Asked {
    format: DataFormat,
    template: TemplateChoice,
    val_split: Option<f64>,
    #[serde(default)]
    field: Vec<FieldName>,
    #[serde(default)]
    on_bad_record: OnBadRecord,
    #[serde(default)]
    too_long: Option<TooLong>,
}

/// How evaluations decide where a run ends, and which model it saves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Steering {
    eval_every: Option<u64>,
    patience: Option<u32>,
    keep_best: bool,
}

impl Steering {
    fn of(options: &ProgressOptions) -> Option<Self> {
        let ProgressOptions { eval_every, patience, keep_best, .. } = *options;
        (patience.is_some() || keep_best).then_some(Self { eval_every, patience, keep_best })
    }
}

/// A text, by its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TextIdentity {
    sha256: String,
}

impl TextIdentity {
    /// One for all `texts`; none if there are none.
    fn of(texts: &[String]) -> Option<Self> {
        let hash = |bytes: &[u8]| {
            let mut hash = Sha256::new();
            hash.update(bytes);
            hash.hex()
        };
        let sha256 = match texts {
            [] => return None,
            [text] => hash(text.as_bytes()),
            texts => {
                let hashes: String = texts.iter().map(|text| hash(text.as_bytes())).collect();
                hash(hashes.as_bytes())
            }
        };
        Some(Self { sha256 })
    }
}

/// Data, by the tokens that became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DataIdentity {
    documents: usize,
    tokens: usize,
    learned: usize,
    /// Of all token ids, marked where they are learned, and of the documents' borders.
    sha256: String,
    /// How often its parts are taken in a pass; empty where all are taken once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weights: Vec<Part>,
}

impl DataIdentity {
    fn of(data: &Dataset) -> Self {
        let documents = data.documents();
        let once = documents.parts().iter().all(|part| part.weight == Weight::ONCE);
        Self {
            documents: documents.len(),
            tokens: documents.tokens(),
            learned: documents.target_tokens(),
            sha256: documents.sha256().to_string(),
            weights: if once { Vec::new() } else { documents.parts().to_vec() },
        }
    }
}

impl DataIdentity {
    /// Of sets of held-out data, if there is any. What they are called does not decide their losses.
    fn of_sets(sets: &[EvalSet<Dataset>]) -> Option<Self> {
        let mut all = sets.iter().map(|set| Self::of(&set.data));
        let first = all.next()?;
        Some(all.fold(first, |sum, next| {
            let mut hash = Sha256::new();
            hash.update(format!("{} {}", sum.sha256, next.sha256).as_bytes());
            Self {
                documents: sum.documents + next.documents,
                tokens: sum.tokens + next.tokens,
                learned: sum.learned + next.learned,
                sha256: hash.hex(),
                weights: [sum.weights, next.weights].concat(),
            }
        }))
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

impl Recipe {
    /// Of a run with `options` on data that was read and a model in a folder, both of these origins, whose learning rate
    /// follows `schedule`.
    ///
    /// Takes the options apart to the last field: a new one that is sorted neither into the recipe nor among those
    /// that do not decide does not compile.
    ///
    /// Errors: a file that cannot be read.
    pub fn of(
        options: &FinetuneOptions,
        schedule: &Schedule,
        seq_len: usize,
        (dir, origins): (&Path, &Origins),
        (train, held_out): (&Dataset, &[EvalSet<Dataset>]),
    ) -> Result<Self> {
        let FinetuneOptions {
            files,
            reading,
            // The same documents, wherever they are kept.
            cache: _,
            layout,
            step,
            training,
            state,
            machine,
            // The same bits for any number of processes.
            job: _,
            progress,
        } = options;
        // By their contents: `data`, `eval_data` and `model` below.
        let FileOptions {
            model: _,
            data: _,
            held_out: source,
            out: _,
            // The model can be saved in any type, again and again.
            export_dtype: _,
            exports: _,
            overwrite: _,
        } = files;
        let ReadingOptions { format, template, train_on, fields, on_bad_record, too_long } =
            reading;
        let LayoutOptions { pack, shuffle } = layout;
        // As `seq_len`, the model's limit considered.
        let StepOptions { seq_len: _, batch_size, accumulate } = step;
        let TrainingOptions { length, optimizer, seed, insist: _ } = training;
        let OptimizerOptions {
            kind,
            lr,
            group_lr,
            weight_decay,
            beta1,
            beta2,
            schedule: kind_of_schedule,
            min_lr_ratio,
            // In steps, as `schedule` has it.
            warmup: _,
            decay: _,
            max_grad_norm,
        } = optimizer;
        let StateOptions {
            states,
            compute,
            // With the default of the states, below.
            protected: _,
            rotation,
            // The same bits, whatever is recomputed.
            recompute: _,
            gradients,
            // With the default of the states, below.
            momentum_code: _,
            rounding,
        } = state;
        // The same bits on every machine.
        let MachineOptions { device: _, threads: _, memory_limit: _ } = machine;
        let ProgressOptions {
            checkpoint_every: _,
            checkpoint_minutes: _,
            checkpoint_copy: _,
            keep_checkpoints: _,
            resume: _,
            // By `Steering`.
            eval_every: _,
            patience: _,
            keep_best: _,
            // A run whose time was over goes on.
            max_minutes: _,
            // The losses before and after must be of the same data.
            eval_batches,
            profile: _,
            diagnostics: _,
            sample_prompts: _,
            // Compared before and after only if they are as many.
            answers: _,
        } = progress;
        Ok(Self {
            states: *states,
            compute: *compute,
            protected: state.protected_fraction(),
            rotation: *rotation,
            gradients: *gradients,
            momentum_code: state.momentum_code(),
            rounding: *rounding,
            optimizer: *kind,
            lr: *lr,
            group_lr: group_lr.given(),
            schedule: *kind_of_schedule,
            min_lr_ratio: *min_lr_ratio,
            warmup: schedule.warmup,
            decay: schedule.decay,
            weight_decay: decimal(*weight_decay),
            beta1: decimal(*beta1),
            beta2: decimal(*beta2),
            max_grad_norm: *max_grad_norm,
            seed: *seed,
            train_on: *train_on,
            template: TextIdentity::of(train.documents().templates()),
            pack: *pack,
            shuffle: *shuffle,
            seq_len,
            batch_size: *batch_size,
            accumulate: *accumulate,
            eval_batches: *eval_batches,
            data: DataIdentity::of(train),
            eval_data: DataIdentity::of_sets(held_out),
            model: ModelIdentity::of(dir)?,
            steps: schedule.total,
            sequences: length.sequences(train.sequences_per_pass(), step.sequences_per_step()),
            steering: Steering::of(progress),
            asked: Asked {
                format: *format,
                template: template.clone(),
                val_split: match source {
                    HeldOut::Split(fraction) => Some(*fraction),
                    HeldOut::None | HeldOut::Sets(_) => None,
                },
                field: fields.clone(),
                on_bad_record: *on_bad_record,
                too_long: *too_long,
            },
            origins: origins.clone(),
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
        let refuse = |what: String| {
            Err(Error::new(ErrorKind::Resume, format!("--resume: {} {what}", checkpoint.display())))
        };
        if let Some(difference) = self.difference(then)? {
            return refuse(format!(
                "was written with {difference}; give the same options, or start a new run in another folder"
            ));
        }
        if done > then.steps {
            return refuse(format!(
                "is damaged: it says that {done} steps of {} are done; resume from another checkpoint",
                then.steps
            ));
        }
        if self.steps < done {
            return refuse(format!(
                "is {done} steps long already, and this run has --steps {}; give more, or resume from an older \
                 checkpoint",
                self.steps
            ));
        }
        // Not step by step where that can be told at once: a file may name any number of them.
        let flat = self.schedule == ScheduleKind::Constant || self.min_lr_ratio == 1.0;
        let same_rates = flat
            || self.steps == then.steps
            || (0..done).all(|step| self.lr_at(step) == then.lr_at(step));
        let same_data = self.sequences_after(done) == then.sequences_after(done);
        if same_rates && same_data {
            return Ok(());
        }
        refuse(format!(
            "was written with --steps {}, this run has {}: the {done} steps already done would have been different, \
             since {}; give the same length. To continue from the result, start a new run from the saved model in \
             another folder; a run that is to be extended needs --schedule constant, or wsd before its --decay, \
             both with --warmup and --decay in steps, and whole steps",
            then.steps,
            self.steps,
            if same_rates {
                "the last of them took less data than a whole step"
            } else {
                "their learning rates depend on the length"
            }
        ))
    }

    /// Whether a run of this recipe comes to the same bits as one of `other`.
    pub fn is_same(&self, other: &Self) -> bool {
        let length = |recipe: &Self| (recipe.steps, recipe.sequences, recipe.steering);
        length(self) == length(other) && self.difference(other).is_ok_and(|found| found.is_none())
    }

    /// The first option but the length in which this recipe differs from `then`: its name, and both values.
    fn difference(&self, then: &Self) -> Result<Option<String>> {
        let (now_map, then_map) = (self.settings()?, then.settings()?);
        let differs = |(name, now): (&String, &Value)| {
            let before = then_map.get(name).unwrap_or(&Value::Null);
            (before != now).then(|| (name.clone(), before.clone(), now.clone()))
        };
        let Some((name, before, now)) = now_map.iter().find_map(differs) else { return Ok(None) };
        let both = |name: &str, before: &Value, now: &Value| {
            format!("--{name} {}, this run has {}", shown(before), shown(now))
        };
        let asked = (serde_json::to_value(&then.asked)?, serde_json::to_value(&self.asked)?);
        let causes: &[&str] = match name.as_str() {
            "template" => &["template", "format"],
            "data" | "eval-data" => &["val-split", "format", "template"],
            _ => &[],
        };
        // What was asked for otherwise says more than that the data is another.
        if let Some(cause) = causes.iter().find(|&&cause| asked.0[cause] != asked.1[cause]) {
            return Ok(Some(both(cause, &asked.0[*cause], &asked.1[*cause])));
        }
        let mut text = both(&name, &before, &now);
        text += &moved(&then.origins.of(&name), &self.origins.of(&name));
        if ["warmup", "decay"].contains(&name.as_str()) {
            text += &format!(
                " (in steps; a fraction depends on the length of the run): give --{name} {}",
                shown(&before)
            );
        }
        Ok(Some(text))
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
        const APART: [&str; 5] = ["steps", "sequences", "steering", "asked", "origins"];
        map.retain(|name, _| !APART.contains(&name.as_str()));
        Ok(map)
    }

    fn lr_at(&self, step: u64) -> f64 {
        let Self { schedule: kind, lr: peak, min_lr_ratio: floor, warmup, decay, .. } = *self;
        Schedule { kind, peak, floor, warmup, decay, total: self.steps }.lr(step)
    }

    fn sequences_after(&self, step: u64) -> u64 {
        let whole =
            step.saturating_mul(self.batch_size as u64).saturating_mul(self.accumulate as u64);
        whole.min(self.sequences)
    }
}

/// What has moved between two runs of what is named in the hub, and how to have it as it was.
fn moved(then: &[&Origin], now: &[&Origin]) -> String {
    let differs = |(then, now): (&&Origin, &&Origin)| {
        let moved = then.repository == now.repository && then.commit != now.commit;
        moved.then(|| {
            format!(
                " ({}@{} was at commit {} then: give {0}@{2})",
                then.repository, then.revision, then.commit
            )
        })
    };
    then.iter().zip(now).filter_map(differs).collect()
}

/// A value as its user writes it, or for files what they hold.
fn shown(value: &Value) -> String {
    let short =
        |hash: &Value| hash.as_str().and_then(|hash| hash.get(..8)).unwrap_or("?").to_owned();
    match value {
        Value::Null => "not given".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "not given".into(),
        Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(map) => match (map.get("sha256"), map.get("documents")) {
            (Some(hash), Some(documents)) => format!(
                "of {documents} documents, {} tokens, {} learned (SHA-256 {}…)",
                map["tokens"],
                map["learned"],
                short(hash)
            ),
            (Some(hash), None) => format!("of the text with SHA-256 {}…", short(hash)),
            (None, _) => {
                let files = map.iter().map(|(name, hash)| format!("{name} {}…", short(hash)));
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
            weights: Vec::new(),
        };
        Recipe {
            states: States::Full,
            compute: Products::INT8,
            protected: 0.0,
            rotation: true,
            gradients: GradientMode::Released,
            momentum_code: MomentCode::Sqrt,
            rounding: WeightRounding::Stochastic,
            optimizer: OptimizerKind::Lion,
            lr: 1e-5,
            group_lr: Vec::new(),
            schedule: ScheduleKind::Constant,
            min_lr_ratio: 0.0,
            warmup: 3,
            decay: 0,
            weight_decay: 0.0,
            beta1: 0.95,
            beta2: 0.98,
            max_grad_norm: None,
            seed: 0,
            train_on: TrainOn::Completion,
            template: Some(TextIdentity { sha256: "12".repeat(32) }),
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
            steering: None,
            asked: Asked {
                format: DataFormat::Auto,
                template: TemplateChoice::Auto,
                val_split: None,
                field: Vec::new(),
                on_bad_record: OnBadRecord::Error,
                too_long: None,
            },
            origins: Origins::default(),
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
                ("group-lr", _) => serde_json::json!(["norms=1e-4"]),
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
            assert!(told.contains(&format!("--{name} ")), "{told}");
        }
        let told = refusal(&Recipe { lr: 1e-4, ..recipe() }, &then, 50);
        assert!(told.contains("--lr 1e-5, this run has 1e-4"), "{told}");
        let told = refusal(&Recipe { max_grad_norm: Some(1.0), ..recipe() }, &then, 50);
        assert!(told.contains("--max-grad-norm not given, this run has 1.0"), "{told}");
        let told = refusal(&Recipe { beta1: decimal(0.9), ..recipe() }, &then, 50);
        assert!(told.contains("--beta1 0.95, this run has 0.9;"), "{told}");
        let told = refusal(&Recipe { warmup: 6, ..recipe() }, &then, 50);
        assert!(told.contains("--warmup 3, this run has 6") && told.contains("give --warmup 3"));
        // By what was asked for otherwise, where the data is another; alone, it makes no difference.
        let split = Asked { val_split: Some(0.1), ..recipe().asked };
        let asked = Recipe { asked: split, ..recipe() };
        asked.continues(&then, 50, Path::new("c")).unwrap();
        assert!(asked.is_same(&then));
        let told = refusal(&Recipe { eval_data: None, ..asked }, &then, 50);
        assert!(told.contains("--val-split not given, this run has 0.1"), "{told}");
    }

    #[test]
    fn a_branch_that_moved_is_named_where_contents_differ() {
        let at = |commit: &str, hash: &str| {
            let model = Origin {
                kind: qft_hub::Kind::Model,
                repository: "org/name".into(),
                revision: "main".into(),
                commit: commit.repeat(40),
            };
            let files = BTreeMap::from([("model.safetensors".into(), hash.repeat(32))]);
            Recipe {
                model: ModelIdentity(files),
                origins: Origins { model: Some(model), ..Origins::default() },
                ..recipe()
            }
        };
        let then = at("a", "ab");
        let text = serde_json::to_string(&then).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), then);
        // Another commit with the same files goes on, as does a folder with them.
        at("b", "ab").continues(&then, 50, Path::new("c")).unwrap();
        recipe().continues(&then, 50, Path::new("c")).unwrap();
        assert!(recipe().is_same(&then));
        let told = refusal(&at("b", "cd"), &then, 50);
        let commit = "a".repeat(40);
        assert!(
            told.contains(&format!("at commit {commit} then: give org/name@{commit}")),
            "{told}"
        );
    }

    #[test]
    fn a_run_at_a_constant_rate_can_be_extended() {
        let extended = |recipe: Recipe| Recipe { steps: 200, sequences: 800, ..recipe };
        extended(recipe()).continues(&recipe(), 100, Path::new("c")).unwrap();
        let told = refusal(&Recipe { steps: 30, sequences: 120, ..recipe() }, &recipe(), 50);
        assert!(told.contains("50 steps long already") && told.contains("--steps 30"), "{told}");
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

    #[test]
    fn a_checkpoint_with_absurd_numbers_is_no_danger() {
        let endless = Recipe { steps: u64::MAX, batch_size: usize::MAX, accumulate: 3, ..recipe() };
        endless.continues(&endless, u64::from(u32::MAX), Path::new("c")).unwrap();
        let longer = Recipe { steps: u64::MAX - 1, ..endless.clone() };
        longer.continues(&endless, u64::from(u32::MAX), Path::new("c")).unwrap();
        let told = refusal(&recipe(), &recipe(), 101);
        assert!(told.contains("damaged") && told.contains("101 steps of 100"), "{told}");
    }
}
