//! A trained model as a Hugging Face folder: safetensors, configuration and tokenizer.
//!
//! Weights pass through in blocks of rows, so the model never exists in memory a second time. Everything is
//! written beside its destination first and becomes valid, all of it, when it is complete and on the disk.

mod shard;
mod weights;

pub use weights::{SavedRounding, SavedWeights, WeightType};

use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::model::Model;
use qft_autograd::LayerOps;
use qft_files::atomic::finish_install;
use qft_files::{AtomicFolder, Disk, FileRules};
use qft_tensor::Ledger;
use serde_json::{Map, Value, json};
use shard::{Shard, is_weight_file, shard_name};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a weight file before another is begun: what other tools use.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// The name that files on their way into a folder have there, before a suffix.
const ON_ITS_WAY: &str = "model";

/// The files that an export writes. Weights of an older model, or in shards of another size, go.
const RULES: FileRules = FileRules { ours: is_model_file, together: is_weight_file };

/// Whether an export writes files of this name.
pub fn is_model_file(name: &str) -> bool {
    is_weight_file(name) || name == CONFIG || COMPANIONS.contains(&name)
}

/// The model's configuration.
const CONFIG: &str = "config.json";

/// Files besides weights and configuration that make a model usable, where the source has them.
const COMPANIONS: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// Fills f32 `[rows, cols]` with rows of a tensor. Called for all rows of every tensor, in order.
pub type FillRows<'a> = dyn FnMut(&TensorSpec, Range<usize>, &mut [f32]) -> Result<(), Error> + 'a;

/// Writes the folder `out`. `source` is the folder the model came from: its `config.json` (with the type of the
/// weights changed) and tokenizer files are taken over; without it, `config` alone is written.
///
/// One file `model.safetensors` if the weights fit `max_shard_bytes`, else shards of at most that size (a larger
/// tensor has one of its own) and `model.safetensors.index.json`.
///
/// Memory: blocks of rows, counted in `ledger`.
///
/// Numerics: weights are rounded as `saved` says.
///
/// Atomicity: a new folder appears whole. If `out` exists, its other files stay, and the new files become valid
/// together, when all of them are on the disk: whatever happens, this crate reads the old or the new model from
/// there, and another reader finds the old, the new, or weights missing; see [`AtomicFolder::into_existing`]. On an
/// error before that, `out` is as it was.
///
/// Errors: [`Error::Files`], [`Error::Export`], [`Error::Io`] for a file of `source`, [`Error::NotFinite`], and
/// whatever `fill` gives.
pub fn export_folder(
    out: &Path,
    source: Option<&Path>,
    config: &LlamaConfig,
    saved: SavedWeights,
    max_shard_bytes: u64,
    ledger: &Arc<Ledger>,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    let disk = Disk::default();
    export_folder_on(&disk, out, source, config, saved, max_shard_bytes, ledger, fill)
}

/// [`export_folder`] on a disk that may be watched, or made to fail.
///
/// Errors: as [`export_folder`].
#[expect(clippy::too_many_arguments, reason = "those of `export_folder`, and a disk")]
pub fn export_folder_on(
    disk: &Disk,
    out: &Path,
    source: Option<&Path>,
    config: &LlamaConfig,
    saved: SavedWeights,
    max_shard_bytes: u64,
    ledger: &Arc<Ledger>,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    if let Some(source) = source {
        refuse_same(out, source)?;
    }
    let mut folder = if out.exists() {
        AtomicFolder::into_existing(disk, out, ON_ITS_WAY, RULES)?
    } else {
        AtomicFolder::new(disk, out, RULES)?
    };
    let shards = Shard::split(config, saved.dtype, max_shard_bytes);
    for (number, shard) in shards.iter().enumerate() {
        let name = shard_name(number, shards.len());
        shard.write(ledger, folder.create(&name)?, saved, fill)?;
    }
    if shards.len() > 1 {
        let text = index(config, &shards);
        folder.write_file("model.safetensors.index.json", text.as_bytes())?;
    }
    let text = match source {
        Some(source) => {
            copy_companions(&mut folder, source)?;
            source_config(&source.join(CONFIG), config, saved.dtype)?
        }
        None => config.to_json(saved.dtype.config_name()),
    };
    folder.write_file(CONFIG, text.as_bytes())?;
    Ok(folder.commit()?)
}

/// Finishes an export into `dir` that was interrupted after the new model had become the valid one. Readers of a
/// model's folder call it first; where there is nothing to do, it only looks.
///
/// Errors: [`Error::Files`], for example in a folder that cannot be written.
pub fn finish_interrupted(dir: &Path) -> Result<(), Error> {
    Ok(finish_install(&Disk::default(), dir, ON_ITS_WAY, RULES)?)
}

/// Allocates whatever [`export_folder`] takes, and fetches one block of rows: for memory plans.
pub fn plan(
    ledger: &Arc<Ledger>,
    config: &LlamaConfig,
    dtype: WeightType,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    Shard::whole(config, dtype).plan(ledger, fill)
}

/// Rows of the tensors of `model`, for [`export_folder`].
pub fn rows_of<'a>(
    model: &'a Model,
    ops: &'a dyn LayerOps,
) -> impl FnMut(&TensorSpec, Range<usize>, &mut [f32]) -> Result<(), Error> + 'a {
    let params = model.params.as_ref().list();
    let named: HashMap<_, _> = params.into_iter().map(|param| (param.name(), param)).collect();
    move |spec, rows, out| named[spec.name.as_str()].read_rows(ops, rows, out)
}

/// The source must survive: it is the only copy of the weights before training.
fn refuse_same(out: &Path, source: &Path) -> Result<(), Error> {
    let same = match (out.canonicalize(), source.canonicalize()) {
        (Ok(out), Ok(source)) => out == source,
        _ => false,
    };
    if !same {
        return Ok(());
    }
    Err(Error::Export {
        path: out.to_path_buf(),
        problem: "the model would overwrite the one it was made from".into(),
        remedy: "choose another output folder",
    })
}

/// The source's configuration, every key kept, with the type that the weights have now.
///
/// Where it has rotary positions in the style of transformers 5 alone, the older one is added: others would take
/// their default base without a word.
fn source_config(path: &Path, config: &LlamaConfig, dtype: WeightType) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| {
        let remedy = "restore the model's folder; it is read again when the result is written";
        Error::io("read the model's configuration", path, remedy, source)
    })?;
    let mut map: Map<String, Value> =
        serde_json::from_str(&text).map_err(|source| Error::Json {
            path: path.to_path_buf(),
            expected: "an object with the model's hyper-parameters",
            source,
        })?;
    if map.contains_key("rope_parameters") && !map.contains_key("rope_theta") {
        for (key, value) in config.rope_keys() {
            map.entry(key).or_insert(value);
        }
    }
    // transformers 5 writes `dtype`, older versions know only `torch_dtype`.
    let keys = ["dtype", "torch_dtype"].map(|key| (key, map.contains_key(key)));
    for (key, present) in keys {
        if present || (key == "torch_dtype" && !keys[0].1) {
            map.insert(key.into(), dtype.config_name().into());
        }
    }
    Ok(format!("{:#}\n", Value::Object(map)))
}

fn index(config: &LlamaConfig, shards: &[Shard]) -> String {
    let files = (0..shards.len()).map(|number| shard_name(number, shards.len()));
    let entries = shards.iter().zip(files).flat_map(|(shard, file)| {
        shard
            .tensors
            .iter()
            .map(move |(_, spec)| (spec.file_name().to_owned(), Value::from(file.as_str())))
    });
    let weight_map: Map<String, Value> = entries.collect();
    let total_size: u64 = shards.iter().map(Shard::data_bytes).sum();
    let metadata = json!({"total_parameters": config.parameters(), "total_size": total_size});
    format!("{:#}\n", json!({"metadata": metadata, "weight_map": weight_map}))
}

/// Takes over the files besides weights and configuration that `source` has.
fn copy_companions(folder: &mut AtomicFolder, source: &Path) -> Result<(), Error> {
    for name in COMPANIONS {
        let from = source.join(name);
        match std::fs::read(&from) {
            Ok(bytes) => folder.write_file(name, &bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let remedy = "make it readable; it is to be copied to the output folder";
                return Err(Error::io("read", &from, remedy, error));
            }
        }
    }
    Ok(())
}
