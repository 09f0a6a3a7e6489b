//! Weights as a stream of rows in f32: from the safetensors files of a folder, or made up from a seed.

pub(crate) mod folder;
mod outliers;
mod synthetic;
mod tied;

pub use outliers::WithOutliers;
pub use synthetic::Synthetic;

use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::export;
use half::{bf16, f16};
use qft_files::safetensors::read_index;
use qft_files::{Advice, Dtype, StoredTensor, TensorFile};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

/// The embedding.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output projection; with tied embeddings, another name of [`EMBEDDING`].
const HEAD: &str = "lm_head.weight";
/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// What to do about files that are not there, or not as they should be.
const ADVICE: Advice = Advice {
    missing: "a model's folder needs model.safetensors, or model.safetensors.index.json and all the \
              shards it names",
    damaged: "fetch the file again",
};

/// Where a model's weights come from. Every tensor of [`LlamaConfig::tensors`] can be read, in any order and
/// repeatedly, with the same result.
pub trait Weights: Send + Sync {
    /// Reads whole rows; a vector is one row.
    ///
    /// Shapes: `out` f32 `[rows, cols]`.
    /// Errors: [`Error::NoSuchRows`] if the rows do not exist or do not fill `out`; [`Error::NotFinite`] for a
    /// NaN or an infinity; [`Error::Files`].
    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error>;
}

/// The safetensors files of a model's folder.
#[derive(Debug)]
pub struct WeightSource {
    files: Vec<TensorFile>,
    tensors: HashMap<String, PlacedTensor>,
}

#[derive(Debug)]
struct PlacedTensor {
    spec: TensorSpec,
    file: usize,
    stored: StoredTensor,
}

impl WeightSource {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, and checks every
    /// header: types, shapes against `config`, and that the data lies inside the file. Reads no weights.
    ///
    /// With tied embeddings the one matrix may be stored as `model.embed_tokens.weight`, as `lm_head.weight`,
    /// or as both, which must be equal; it is read as `model.embed_tokens.weight` in each case.
    ///
    /// An export into this folder that a crash interrupted is finished first.
    ///
    /// Errors: [`Error::Folder`] for weights of another kind, [`Error::Files`] for what is no good file,
    /// [`Error::TensorShape`], [`Error::TensorType`], [`Error::MissingTensor`], [`Error::TiedHead`].
    pub fn open(dir: &Path, config: &LlamaConfig) -> Result<Self, Error> {
        export::finish_interrupted(dir)?;
        folder::refuse_other_weights(dir)?;
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        let (paths, promised) = if !single.exists() && index.exists() {
            let map = read_index(&index, ADVICE.damaged)?;
            let names: BTreeSet<&String> = map.values().collect();
            (names.into_iter().map(|name| dir.join(name)).collect(), map)
        } else {
            (vec![single], BTreeMap::new())
        };

        let (mut files, mut stored) = (Vec::new(), HashMap::new());
        for (number, path) in paths.into_iter().enumerate() {
            let file = TensorFile::open(&path, ADVICE)?;
            for tensor in file.tensors() {
                let place = promised.get(&tensor.name).map(|shard| dir.join(shard));
                if place.is_none_or(|place| place == path) {
                    stored.insert(tensor.name.clone(), (number, tensor.clone()));
                }
            }
            files.push(file);
        }
        if let Some((name, shard)) = promised.iter().find(|(name, _)| !stored.contains_key(*name)) {
            return Err(Error::Files(qft_files::Error::Header {
                file: dir.join(shard),
                what: format!("tensor `{name}`"),
                expected: "it here, as model.safetensors.index.json says".into(),
                got: "no such tensor".into(),
                remedy: ADVICE.damaged,
            }));
        }
        Self::resolve(dir, config, files, stored)
    }

    /// Pairs each tensor of the model with where it is stored.
    fn resolve(
        dir: &Path,
        config: &LlamaConfig,
        files: Vec<TensorFile>,
        mut stored: HashMap<String, (usize, StoredTensor)>,
    ) -> Result<Self, Error> {
        if config.tie_word_embeddings
            && let Some(head) = stored.remove(HEAD)
        {
            if let Some((file, embedding)) = stored.get(EMBEDDING) {
                tied::check((&files[*file], embedding), (&files[head.0], &head.1))?;
            }
            stored.entry(EMBEDDING.into()).or_insert(head);
        }
        let (mut tensors, mut missing) = (HashMap::new(), Vec::new());
        let mut used = HashSet::new();
        for spec in config.tensors() {
            let Some((file, stored)) = stored.get(spec.file_name()).cloned() else {
                missing.push(spec.file_name().to_owned());
                continue;
            };
            used.insert(stored.name.clone());
            let (path, tensor) = (files[file].path().to_path_buf(), stored.name.clone());
            if stored.shape != spec.file_shape() {
                let (expected, got) = (spec.file_shape(), stored.shape);
                return Err(Error::TensorShape { file: path, tensor, expected, got });
            }
            if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                let got = format!("{:?}", stored.dtype);
                return Err(Error::TensorType { file: path, tensor, got });
            }
            tensors.insert(spec.name.clone(), PlacedTensor { spec, file, stored });
        }
        stored.retain(|_, (_, tensor)| !used.contains(&tensor.name));
        if let Some(tensor) = missing.first() {
            refuse_other_names(dir, tensor, stored.keys())?;
            let (dir, tensor) = (dir.to_path_buf(), tensor.clone());
            return Err(Error::MissingTensor { dir, tensor, missing: missing.len() });
        }
        // Old files carry the rotary frequencies, which the configuration determines.
        let mut unused: Vec<String> =
            stored.into_keys().filter(|name| !name.ends_with("rotary_emb.inv_freq")).collect();
        unused.sort_unstable();
        if let Some(first) = unused.first() {
            let (count, dir) = (unused.len(), dir.display());
            tracing::warn!(
                "weights: {dir}: {count} tensors that the model does not use: {first} ..."
            );
        }
        Ok(Self { files, tensors })
    }

    fn placed(&self, name: &str) -> Option<&PlacedTensor> {
        self.tensors.get(name)
    }
}

impl Weights for WeightSource {
    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let entry = self.placed(name).ok_or_else(|| unknown(name))?;
        check_rows(&entry.spec, &rows, out)?;
        let file = &self.files[entry.file];
        let width = entry.stored.dtype.bitsize() / 8;
        let above = entry.spec.fused.as_ref().map_or(0, |fused| fused.first);
        let first = (above + rows.start) * entry.spec.cols;
        let mut position = (first * width) as u64;
        let mut bytes = vec![0; CHUNK_BYTES.min(out.len() * width)];
        for (chunk, values) in out.chunks_mut((bytes.len() / width).max(1)).enumerate() {
            let bytes = &mut bytes[..values.len() * width];
            file.read_at(&entry.stored, position, bytes)?;
            position += bytes.len() as u64;
            if let Some(index) = decode(entry.stored.dtype, bytes, values) {
                let element = first + chunk * (CHUNK_BYTES / width) + index;
                return Err(Error::NotFinite {
                    file: file.path().to_path_buf(),
                    tensor: entry.stored.name.clone(),
                    row: element / entry.spec.cols,
                    col: element % entry.spec.cols,
                    value: values[index],
                    remedy: "the checkpoint is damaged or its training diverged; use another",
                });
            }
        }
        Ok(())
    }
}

/// Refuses a folder in which the embedding is called otherwise: the model is a part of another, or lacks its head.
fn refuse_other_names<'a>(
    dir: &Path,
    missing: &str,
    mut names: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    let other = names.find(|name| name.ends_with("embed_tokens.weight"));
    match other.filter(|_| missing == EMBEDDING) {
        None => Ok(()),
        Some(name) => Err(Error::Folder {
            path: dir.to_path_buf(),
            what: format!("a model with its embedding under the name `{name}`, not `{EMBEDDING}`"),
            remedy:
                "save the language model alone, as with save_pretrained of AutoModelForCausalLM \
                     in transformers"
                    .into(),
        }),
    }
}

/// Converts little-endian elements; returns the index of the first that is not finite.
fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Option<usize> {
    match dtype {
        Dtype::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        // The only other type that `resolve` lets pass.
        _ => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
    out.iter().position(|value| !value.is_finite())
}

fn unknown(name: &str) -> Error {
    Error::NoSuchRows {
        tensor: name.to_string(),
        start: 0,
        end: 0,
        len: 0,
        expected: "the name of a tensor of the model".into(),
    }
}

fn check_rows(spec: &TensorSpec, rows: &Range<usize>, out: &[f32]) -> Result<(), Error> {
    let ordered = rows.start <= rows.end && rows.end <= spec.rows;
    if ordered && out.len() == rows.len() * spec.cols {
        return Ok(());
    }
    Err(Error::NoSuchRows {
        tensor: spec.name.clone(),
        start: rows.start,
        end: rows.end,
        len: out.len(),
        expected: format!("rows within 0..{} of {} values each", spec.rows, spec.cols),
    })
}
