//! A model as files that others read: a Hugging Face folder, also with weights in 8 bits, or a GGUF file.
//!
//! Weights pass through in blocks of rows, so the model never exists in memory a second time. Everything is
//! written beside its destination first and becomes valid, all of it, when it is complete and on the disk.

mod companions;
mod compressed;
mod config;
mod gguf;
mod place;
mod shard;
mod weights;

pub use companions::is_licence;
pub use gguf::{GgufExport, GgufWeights, check_gguf, export_gguf};
pub use place::Existing;
pub use weights::{SavedRounding, SavedWeights, WeightType};

use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::model::Model;
use crate::params::Param;
use companions::{copy_companions, copy_licences, is_companion};
use place::{ON_ITS_WAY, begin_folder, check_place, refuse_same};
use qft_autograd::{LayerOps, Weight};
use qft_files::atomic::{finish_install, remove_folder};
use qft_files::{Disk, FileRules};
use qft_tensor::Ledger;
use serde_json::{Map, Value, json};
use shard::{Shard, is_weight_file, shard_name};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a weight file before another is begun: what other tools use.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// The files that an export writes. Weights of an older model, or in shards of another size, go, and so does what belongs to
/// an older tokenizer.
const RULES: FileRules = FileRules {
    ours: |name| is_model_file(name) || is_licence(name) || name == CARD,
    together: |name| is_weight_file(name) || is_companion(name),
};

/// Whether a file of this name is one of a model: weights, configuration, tokenizer.
pub fn is_model_file(name: &str) -> bool {
    is_weight_file(name) || is_companion(name) || name == CONFIG
}

/// The model's configuration.
const CONFIG: &str = "config.json";

/// What a model is, for people.
pub const CARD: &str = "README.md";

/// Fills f32 `[rows, cols]` with rows of a tensor. Called for all rows of every tensor, but for those of [`Int8::Stored`].
pub type FillRows<'a> = dyn FnMut(&TensorSpec, Range<usize>, &mut [f32]) -> Result<(), Error> + 'a;

/// Fills i8 `[rows, cols]` with the codes of rows of a linear layer, and f32 `[rows]` with their scales: `weight = scale · code`.
pub type FillCodes<'a> =
    dyn Fn(&TensorSpec, Range<usize>, &mut [i8], &mut [f32]) -> Result<(), Error> + 'a;

/// Where linear layers in 8 bits come from.
#[derive(Clone, Copy)]
pub enum Int8<'a> {
    /// The weights: each row has the scale that its largest weight needs, and is rounded to the nearest.
    Rounded,
    /// A model that has them so: codes and scales are written as they are.
    Stored(&'a FillCodes<'a>),
}

impl fmt::Debug for Int8<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rounded => "Rounded",
            Self::Stored(_) => "Stored",
        })
    }
}

/// What is written as a Hugging Face folder.
#[derive(Debug, Clone, Copy)]
pub struct FolderExport<'a> {
    /// The folder to write.
    pub out: &'a Path,
    /// The folder that the model came from: its configuration (with the type of the weights changed), tokenizer, templates
    /// and licences are taken over. Without it, `config` alone is written.
    pub source: Option<&'a Path>,
    /// A chat template to write in place of the source's.
    pub template: Option<&'a str>,
    /// The model.
    pub config: &'a LlamaConfig,
    /// How weights are written.
    pub saved: SavedWeights,
    /// Whether the weights of linear layers are written in 8 bits, as compressed-tensors has them (W8A8), and where these come
    /// from; the others as `saved` says.
    pub int8: Option<Int8<'a>>,
    /// One file `model.safetensors` if the weights fit into this many bytes, else shards of at most that size (a larger tensor
    /// has one of its own) and `model.safetensors.index.json`.
    pub max_shard_bytes: u64,
    /// Tokens that end a text, which `generation_config.json` must name.
    pub ends: &'a [u32],
    /// What the model is, for people: `README.md`. The one of a folder that is joined stays if it has none of ours.
    pub card: Option<&'a str>,
    /// What becomes of a folder that is there.
    pub existing: Existing,
}

/// Writes the folder `out` as [`FolderExport`] says, with what belongs to a run left out: [`export_folder_on`].
///
/// Errors: as there.
pub fn export_folder(
    out: &Path,
    source: Option<&Path>,
    config: &LlamaConfig,
    saved: SavedWeights,
    max_shard_bytes: u64,
    ledger: &Arc<Ledger>,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    let export = FolderExport {
        out,
        source,
        template: None,
        config,
        saved,
        int8: None,
        max_shard_bytes,
        ends: &[],
        card: None,
        existing: Existing::Joined,
    };
    export_folder_on(&Disk::default(), &export, ledger, fill)
}

/// Writes a folder, on a disk that may be watched, or made to fail.
///
/// Memory: blocks of rows, counted in `ledger`.
///
/// Numerics: weights are rounded as [`FolderExport::saved`] says, and in 8 bits as [`Int8`] does.
///
/// Atomicity: a new folder appears whole, and one that is replaced is replaced whole. If `out` is joined, its other files
/// stay, and the new files become valid together, when all of them are on the disk: whatever happens, this crate reads the
/// old or the new model from there, and another reader finds the old, the new, or files missing; see
/// [`AtomicFolder::into_existing`](qft_files::AtomicFolder::into_existing). On an error before that, `out` is as it was.
///
/// Errors: [`Error::Files`], [`Error::Export`], [`Error::Io`] for a file of `source`, [`Error::NotFinite`], and
/// whatever `fill` gives.
pub fn export_folder_on(
    disk: &Disk,
    export: &FolderExport<'_>,
    ledger: &Arc<Ledger>,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    let FolderExport { out, source, config, saved, int8, max_shard_bytes, card, existing, .. } =
        *export;
    if let Some(source) = source {
        refuse_same(out, source)?;
    }
    let joined = (existing == Existing::Joined).then_some(out);
    let stays =
        joined.map(|dir| dir.join(CARD)).is_some_and(|card| card.exists() && !is_own_card(&card));
    let card = card.filter(|_| !stays);
    let mut folder = begin_folder(disk, out, existing, RULES)?;
    let shards = Shard::split(config, saved.dtype, int8.is_some(), max_shard_bytes);
    let codes = match int8 {
        Some(Int8::Stored(codes)) => Some(codes),
        Some(Int8::Rounded) | None => None,
    };
    for (number, shard) in shards.iter().enumerate() {
        let name = shard_name(number, shards.len());
        shard.write(ledger, folder.create(&name)?, saved, (fill, codes))?;
    }
    if shards.len() > 1 {
        let text = index(config, &shards);
        folder.write_file("model.safetensors.index.json", text.as_bytes())?;
    }
    if let Some(source) = source {
        copy_companions(&mut folder, source, export.template, export.ends)?;
        copy_licences(&mut folder, source, joined)?;
    }
    let path = source.map(|source| source.join(CONFIG));
    let text = config::text(path.as_deref(), config, saved.dtype, int8.is_some())?;
    folder.write_file(CONFIG, text.as_bytes())?;
    if let Some(card) = card {
        folder.write_file(CARD, card.as_bytes())?;
    }
    Ok(folder.commit()?)
}

/// Looks whether [`export_folder_on`] may write where `export` says. Changes nothing.
///
/// Errors: [`Error::Export`] for a folder that must stay as it is.
pub fn check_folder(export: &FolderExport<'_>) -> Result<(), Error> {
    if let Some(source) = export.source {
        refuse_same(export.out, source)?;
    }
    check_place(export.out, export.existing, RULES)
}

/// Removes a folder that an export wrote, if it is there. Files in it that no export writes are kept, beside its place.
///
/// Errors: [`Error::Files`].
pub fn remove_export(out: &Path) -> Result<(), Error> {
    let ours = |name: &str| (RULES.ours)(name) || gguf::is_ours(name);
    if !out.is_dir() {
        return Ok(());
    }
    Ok(remove_folder(&Disk::default(), out, FileRules { ours, ..RULES })?)
}

/// The line that a card ends with that a program wrote, and no person since.
pub const CARD_MARK: &str = "<!-- written by qft -->";

/// Whether the card in a file ends with [`CARD_MARK`].
pub fn is_own_card(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim_end().ends_with(CARD_MARK))
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
    Shard::whole(config, dtype, false).plan(ledger, fill)
}

/// The same for every format there is.
pub fn plan_all(
    ledger: &Arc<Ledger>,
    config: &LlamaConfig,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    Shard::whole(config, WeightType::F32, true).plan(ledger, fill)?;
    gguf::plan(ledger, config, fill)
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

/// Codes and scales of the matrices of `model`, for [`Int8::Stored`]. Absent if there is more to its linear layers: residuals
/// are left out, as training's products leave them out, but not protected weights, and a rotation is not undone by any reader.
pub fn codes_of<'a>(model: &'a Model, ops: &'a dyn LayerOps) -> Option<Box<FillCodes<'a>>> {
    let mut named = HashMap::new();
    let specs = model.config.tensors().filter(compressed::is_quantized);
    let params: HashMap<_, _> =
        model.params.as_ref().list().into_iter().map(|param| (param.name(), param)).collect();
    for spec in specs {
        let Param::Matrix(matrix) = params[spec.name.as_str()] else { return None };
        let Weight::Hybrid(weight) = &matrix.weight else { return None };
        if weight.protected.is_some() || matrix.rotated() {
            return None;
        }
        named.insert(spec.name, weight);
    }
    Some(Box::new(move |spec, rows, codes, scales| {
        let weight = named[&spec.name];
        weight.q.download(ops, rows.start * weight.cols(), codes)?;
        weight.scale.download(ops, rows.start, scales)?;
        Ok(())
    }))
}

fn index(config: &LlamaConfig, shards: &[Shard]) -> String {
    let files = (0..shards.len()).map(|number| shard_name(number, shards.len()));
    let entries = shards.iter().zip(files).flat_map(|(shard, file)| {
        shard.infos().into_iter().map(move |info| (info.name, Value::from(file.as_str())))
    });
    let weight_map: Map<String, Value> = entries.collect();
    let total_size: u64 = shards.iter().map(Shard::data_bytes).sum();
    let metadata = json!({"total_parameters": config.parameters(), "total_size": total_size});
    format!("{:#}\n", json!({"metadata": metadata, "weight_map": weight_map}))
}
