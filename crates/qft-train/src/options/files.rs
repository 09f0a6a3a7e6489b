//! What a run reads and where it writes.

use super::export::RunExport;
use super::value::number;
use crate::error::{Context, Result, bail, ensure};
use clap::ValueHint;
use qft_hub::ModelName;
use qft_llama::export::WeightType;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The files of a fine-tune, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct FileArgs {
    /// Model: a folder with config.json, safetensors and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath, help_heading = "Files")]
    pub model: Option<ModelName>,
    /// Training data: text, JSON, JSON lines, CSV or Parquet, also packed by gzip or zstd; a file, a folder, a pattern
    /// in quotes, or a name in the Hugging Face hub: org/name, org/name/part:split; PATH=2 is taken twice in each pass,
    /// PATH=0.25 to a quarter; may be given more than once
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::AnyPath, help_heading = "Files")]
    pub data: Vec<PathBuf>,
    /// Held-out data; NAME=FILE makes a set of its own, with a line for each evaluation beside that of all; may be given more than
    /// once
    #[arg(long, value_name = "[NAME=]FILE|NAME", value_hint = ValueHint::AnyPath, help_heading = "Files")]
    pub eval_data: Vec<PathBuf>,
    /// Hold out the last part of the training data instead; 0.05 is 5 %
    #[arg(
        long,
        value_name = "FRACTION",
        value_parser = number::<f64>,
        allow_negative_numbers = true,
        help_heading = "Files"
    )]
    pub val_split: Option<f64>,
    /// Output folder
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub out: Option<PathBuf>,
    /// Type of the weights in the saved model [default: bf16]
    #[arg(long, value_enum, help_heading = "Files")]
    pub export_dtype: Option<WeightType>,
    /// Write the model for other programs as well, into OUT/FORMAT-TYPE: gguf, compressed-tensors or hf, with :bf16 (the
    /// default), :f16, :f32 or for gguf :q8_0; may be given more than once
    #[arg(long, value_name = "FORMAT[:TYPE]", help_heading = "Files")]
    pub export: Vec<RunExport>,
    /// Remove the run in the output folder and start over
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Files"
    )]
    pub overwrite: Option<bool>,
}

/// A set of held-out data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalFiles {
    /// What it is called; one at most has no name.
    pub name: Option<String>,
    /// Its files, and names in the hub.
    pub files: Vec<PathBuf>,
}

impl EvalFiles {
    /// The sets of what was given, in the order in which they were named first.
    fn sets(given: Vec<PathBuf>) -> Vec<Self> {
        let mut sets: Vec<Self> = Vec::new();
        for path in given {
            let (name, path) = named(&path).map_or((None, path.clone()), |(name, file)| {
                (Some(name.to_owned()), PathBuf::from(file))
            });
            match sets.iter_mut().find(|set| set.name == name) {
                Some(set) => set.files.push(path),
                None => sets.push(Self { name, files: vec![path] }),
            }
        }
        sets
    }

    /// As it would be given.
    pub(super) fn given(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|file| match &self.name {
            Some(name) => format!("{name}={}", file.display()).into(),
            None => file.clone(),
        })
    }
}

/// The name before a file, as in `chats=chats.jsonl`. A path that is there is a path, and `chats=2` a file that is taken twice.
fn named(given: &Path) -> Option<(&str, &str)> {
    let (name, file) = given.to_str().filter(|_| !given.exists())?.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let names = !name.is_empty() && name.chars().all(plain);
    (names && !file.is_empty() && file.parse::<f64>().is_err()).then_some((name, file))
}

/// Where held-out data comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum HeldOut {
    /// There is none: no evaluation.
    None,
    /// These files, in sets; none of them without files.
    Sets(Vec<EvalFiles>),
    /// The last fraction of the training data.
    Split(f64),
}

/// The files of a fine-tune.
#[derive(Debug, Clone, PartialEq)]
pub struct FileOptions {
    /// Folder or name of the model.
    pub model: ModelName,
    /// Files and names of the training data.
    pub data: Vec<PathBuf>,
    /// Held-out data.
    pub held_out: HeldOut,
    /// Output folder.
    pub out: PathBuf,
    /// Type of the weights in the saved model.
    pub export_dtype: WeightType,
    /// What else the model is written as.
    pub exports: Vec<RunExport>,
    /// Whether to remove an earlier run from the output folder.
    pub overwrite: bool,
}

impl FileArgs {
    /// Checks that all that is needed was given.
    ///
    /// Errors: a missing option; an output folder that is the model's; a fraction out of range.
    pub fn resolve(self) -> Result<FileOptions> {
        let held_out = held_out(self.eval_data, self.val_split)?;
        let model = self.model.with_context(|| missing("model", "DIR"))?;
        ensure!(!self.data.is_empty(), "{}", missing("data", "FILE"));
        let out = self.out.with_context(|| missing("out", "DIR"))?;
        ensure!(
            !same_folder(model.as_path(), &out),
            "--out: {} is the model's folder, whose files must stay; choose another folder",
            out.display()
        );
        let exports = self.export;
        for (number, export) in exports.iter().enumerate() {
            ensure!(
                !exports[..number].contains(export),
                "--export: {export} was given twice; leave one out"
            );
        }
        Ok(FileOptions {
            model,
            data: self.data,
            held_out,
            out,
            export_dtype: self.export_dtype.unwrap_or_default(),
            exports,
            overwrite: self.overwrite.unwrap_or(false),
        })
    }
}

fn held_out(files: Vec<PathBuf>, split: Option<f64>) -> Result<HeldOut> {
    match (files.is_empty(), split) {
        (true, None) => Ok(HeldOut::None),
        (false, None) => {
            files.iter().try_for_each(|file| refuse_weight(file))?;
            Ok(HeldOut::Sets(EvalFiles::sets(files)))
        }
        (true, Some(fraction)) => {
            ensure!(
                fraction > 0.0 && fraction < 1.0,
                "--val-split: {fraction} is not between 0 and 1; 0.05 holds out the last 5 %"
            );
            Ok(HeldOut::Split(fraction))
        }
        (false, Some(_)) => bail!(
            "--eval-data and --val-split cannot be used together; give a file, or a fraction of the training data"
        ),
    }
}

/// Refuses a weight behind a file, as in `chats.jsonl=2`, which is for training data.
fn refuse_weight(file: &Path) -> Result<()> {
    let weighed = file.to_str().filter(|_| !file.exists()).and_then(|file| file.rsplit_once('='));
    match weighed.filter(|(_, weight)| weight.parse::<f64>().is_ok()) {
        Some((path, weight)) => bail!(
            "--eval-data {}: held-out data has no weight; leave `={weight}` out of {path}={weight}",
            file.display()
        ),
        None => Ok(()),
    }
}

/// What to say where an option is missing that there is no default for.
fn missing(name: &str, value: &str) -> String {
    format!(
        "--{name} is missing; give --{name} {value}, or `{name} = \"{value}\"` in the settings file"
    )
}

/// Whether both paths lead to the same folder, however they are spelled.
fn same_folder(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_data_has_no_weights() {
        for file in ["a.txt=2", "chats=a.txt=0.5"] {
            let error = held_out(vec![file.into()], None).unwrap_err().to_string();
            assert!(error.contains("no weight") && error.contains(file), "{error}");
        }
        assert!(held_out(vec!["chats=a.txt".into(), "b=c.txt".into()], None).is_ok());
    }

    #[test]
    fn held_out_data_is_in_sets_by_name() {
        let given =
            ["a.txt", "chats=b.jsonl", "b.jsonl=2", "chats=c.jsonl=2", "chats=2", "./x=y", "="];
        let given: Vec<PathBuf> = given.map(PathBuf::from).into();
        let sets = EvalFiles::sets(given.clone());
        let files = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Vec<_>>();
        let plain = files(&["a.txt", "b.jsonl=2", "chats=2", "./x=y", "="]);
        let chats = files(&["b.jsonl", "c.jsonl=2"]);
        assert_eq!(
            sets,
            [
                EvalFiles { name: None, files: plain },
                EvalFiles { name: Some("chats".into()), files: chats },
            ]
        );
        let again: Vec<PathBuf> = sets.iter().flat_map(EvalFiles::given).collect();
        assert_eq!(EvalFiles::sets(again), sets);
    }
}
