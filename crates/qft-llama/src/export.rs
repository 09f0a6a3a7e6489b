//! A trained model as a Hugging Face folder: bf16 safetensors, configuration and tokenizer.
//!
//! Weights pass through in blocks of rows, so the model never exists in memory a second time. Everything is
//! written beside its destination first and moved there when it is complete and on the disk.

mod shard;
mod staging;

use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::model::Model;
use qft_autograd::{LayerOps, TensorId};
use qft_tensor::Ledger;
use serde_json::{Map, Value, json};
use shard::{Shard, shard_name};
use staging::Staging;
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a weight file before another is begun, as other tools have it.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// What to do when a file cannot be written; nothing was changed then.
pub(crate) const WRITE_REMEDY: &str =
    "free space on the disk or choose another output folder; what was there before is unchanged";

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
/// Numerics: weights are rounded to the nearest bf16, ties to even.
///
/// Atomicity: a new folder appears whole. If `out` exists, its other files stay, each new file replaces its
/// predecessor by a rename after all of them were written, and weight files of another sharding are removed. On
/// an error before that, `out` is as it was.
///
/// Errors: [`Error::Io`], [`Error::Export`], [`Error::NotFinite`], and whatever `fill` gives.
pub fn export_folder(
    out: &Path,
    source: Option<&Path>,
    config: &LlamaConfig,
    max_shard_bytes: u64,
    ledger: &Arc<Ledger>,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    if let Some(source) = source {
        refuse_same(out, source)?;
    }
    let mut staging = Staging::new(out)?;
    let shards = Shard::split(config, max_shard_bytes);
    for (number, shard) in shards.iter().enumerate() {
        let name = shard_name(number, shards.len());
        let (file, path) = staging.create(&name)?;
        shard.write(ledger, file, &path, fill)?;
    }
    if shards.len() > 1 {
        write(&mut staging, "model.safetensors.index.json", &index(config, &shards))?;
    }
    let text = match source {
        Some(source) => source_config(&source.join("config.json"))?,
        None => config.to_json(),
    };
    for name in source.iter().flat_map(|_| COMPANIONS) {
        copy(&mut staging, &source.unwrap_or(out).join(name), name)?;
    }
    write(&mut staging, "config.json", &text)?;
    staging.commit()
}

/// Allocates whatever [`export_folder`] takes, and fetches one block of rows: for memory plans.
pub fn plan(
    ledger: &Arc<Ledger>,
    config: &LlamaConfig,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    Shard { tensors: config.tensors().collect() }.plan(ledger, fill)
}

/// Rows of the tensors of `model`, for [`export_folder`].
pub fn rows_of<'a>(
    model: &'a Model,
    ops: &'a dyn LayerOps,
) -> impl FnMut(&TensorSpec, Range<usize>, &mut [f32]) -> Result<(), Error> + 'a {
    let names = model.config.tensors().map(|spec| spec.name);
    let ids: HashMap<String, u32> = names.zip(0..).collect();
    move |spec, rows, out| model.read_rows(ops, TensorId(ids[&spec.name]), rows, out)
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

/// The source's configuration, every key kept, with bfloat16 as the type of the weights.
fn source_config(path: &Path) -> Result<String, Error> {
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
    // transformers 5 writes `dtype`, older versions know only `torch_dtype`.
    let keys = ["dtype", "torch_dtype"].map(|key| (key, map.contains_key(key)));
    for (key, present) in keys {
        if present || (key == "torch_dtype" && !keys[0].1) {
            map.insert(key.into(), "bfloat16".into());
        }
    }
    Ok(format!("{:#}\n", Value::Object(map)))
}

fn index(config: &LlamaConfig, shards: &[Shard]) -> String {
    let files = (0..shards.len()).map(|number| shard_name(number, shards.len()));
    let entries = shards.iter().zip(files).flat_map(|(shard, file)| {
        shard.tensors.iter().map(move |spec| (spec.name.clone(), Value::from(file.as_str())))
    });
    let weight_map: Map<String, Value> = entries.collect();
    let total_size: u64 = shards.iter().map(Shard::data_bytes).sum();
    let metadata = json!({"total_parameters": config.parameters(), "total_size": total_size});
    format!("{:#}\n", json!({"metadata": metadata, "weight_map": weight_map}))
}

fn write(staging: &mut Staging, name: &str, text: &str) -> Result<(), Error> {
    let (mut file, path) = staging.create(name)?;
    let io = |source| Error::io("write", &path, WRITE_REMEDY, source);
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

fn copy(staging: &mut Staging, from: &Path, name: &str) -> Result<(), Error> {
    let read = |source| {
        let remedy = "make it readable; it belongs into the output folder";
        Error::io("read", from, remedy, source)
    };
    let bytes = match std::fs::read(from) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(read(error)),
    };
    let (mut file, path) = staging.create(name)?;
    let io = |source| Error::io("write", &path, WRITE_REMEDY, source);
    file.write_all(&bytes).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Waits until the names in `dir` are on the disk.
fn sync_dir(dir: &Path, remedy: &'static str) -> Result<(), Error> {
    let io = |source| Error::io("write the folder", dir, remedy, source);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}
