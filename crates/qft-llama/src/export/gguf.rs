//! A model as a GGUF file, for llama.cpp and programs on top of it.
//!
//! Names, metadata and the order of rows are those that llama.cpp's own converter writes. What llama.cpp would compute
//! otherwise, or split into other tokens, is refused by name.

mod architecture;
mod modelfile;
mod name;
mod rope;
mod rows;
mod splitting;
mod tensors;
mod vocabulary;

use super::companions::copy_licences;
use super::place::{Existing, begin_folder, check_place};
use super::{FillRows, SavedRounding, refuse_same};
use crate::config::LlamaConfig;
use crate::error::Error;
use crate::tokenizer::Tokenizer;
use architecture::Architecture;
use qft_files::gguf::Q8_0_BLOCK;
use qft_files::{Disk, FileRules, GgufTensor, GgufType, GgufValue, GgufWriter};
use qft_tensor::Ledger;
use rows::{Rounded, Rows};
use std::path::Path;
use std::sync::Arc;

/// The file for Ollama.
const MODELFILE: &str = "Modelfile";

/// Version of the format of quantized blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// The files of such a folder.
const RULES: FileRules = FileRules { ours: is_ours, together: is_weight_file };

/// The type of matrices. Vectors are float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufWeights {
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits, with a scale for each 32 elements; matrices whose rows are no multiple of 32 are float16.
    Q8_0,
}

impl GgufWeights {
    /// All of them.
    const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0];

    /// The name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::F32 => "model-f32.gguf",
            Self::F16 => "model-f16.gguf",
            Self::Bf16 => "model-bf16.gguf",
            Self::Q8_0 => "model-q8_0.gguf",
        }
    }

    /// llama.cpp's number for files of this kind.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// The type of a matrix with rows of `cols`.
    fn kind_of(self, cols: usize) -> GgufType {
        match self {
            Self::F32 => GgufType::F32,
            Self::F16 => GgufType::F16,
            Self::Bf16 => GgufType::Bf16,
            Self::Q8_0 if cols.is_multiple_of(Q8_0_BLOCK) => GgufType::Q8_0,
            Self::Q8_0 => GgufType::F16,
        }
    }
}

/// What becomes a GGUF file.
#[derive(Debug, Clone, Copy)]
pub struct GgufExport<'a> {
    /// What the model is called, if not as its folder.
    pub name: Option<&'a str>,
    /// The folder to write: the file, `Modelfile` for Ollama, and licences.
    pub out: &'a Path,
    /// The folder that the model came from.
    pub source: &'a Path,
    /// The model.
    pub config: &'a LlamaConfig,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// A chat template to write in place of the tokenizer's.
    pub template: Option<&'a str>,
    /// The type of its matrices.
    pub weights: GgufWeights,
    /// How these are rounded to F16 and BF16: with the same seed, to the bits of a folder in that type.
    pub rounding: SavedRounding,
    /// Whether a folder that such an export wrote may be replaced.
    pub replace: bool,
}

/// Writes the folder. `fill` gives rows, also those of a tensor twice: with tied embeddings, some architectures want
/// the head.
///
/// Memory: blocks of rows, counted in `ledger`; all tokens of the vocabulary and its merges.
///
/// Numerics: weights are rounded as [`GgufExport::rounding`] says, and in Q8_0 to the nearest.
///
/// Atomicity: the folder appears whole, or replaces another whole.
///
/// Errors: [`Error::Export`] for what llama.cpp would read as another model, and for a folder that stands in the way;
/// [`Error::Files`], [`Error::Io`], [`Error::NotFinite`], and whatever `fill` gives.
pub fn export_gguf(
    disk: &Disk,
    export: &GgufExport<'_>,
    ledger: &Arc<Ledger>,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    let GgufExport { out, source, config, tokenizer, weights, .. } = *export;
    refuse_same(out, source)?;
    let (architecture, metadata) = describe(export)?;
    let entries = tensors::entries(architecture, config, weights);

    let mut folder = begin_folder(disk, out, export.existing(), RULES)?;
    let file = folder.create(weights.file_name())?;
    let path = file.path().to_path_buf();
    let infos: Vec<GgufTensor> = entries.iter().map(|entry| entry.info.clone()).collect();
    let mut writer = GgufWriter::begin(file, &metadata.0, &infos)?;
    drop(metadata);
    let mut rows = Rows::for_entries(ledger, &entries);
    let rounded = Rounded::of(config, export.rounding);
    for entry in &entries {
        rows.write(&mut writer, &path, entry, (fill, &rounded))?;
    }
    writer.finish()?;
    let modelfile = modelfile::text(weights.file_name(), tokenizer);
    folder.write_file(MODELFILE, modelfile.as_bytes())?;
    copy_licences(&mut folder, source, None)?;
    Ok(folder.commit()?)
}

/// Looks whether [`export_gguf`] can do what `export` says. Changes nothing.
///
/// Errors: [`Error::Export`], as there.
pub fn check_gguf(export: &GgufExport<'_>) -> Result<(), Error> {
    refuse_same(export.out, export.source)?;
    check_place(export.out, export.existing(), RULES)?;
    describe(export).map(|_| ())
}

/// Allocates whatever [`export_gguf`] takes, and fetches one block of rows: for memory plans.
pub(super) fn plan(
    ledger: &Arc<Ledger>,
    config: &LlamaConfig,
    fill: &mut FillRows<'_>,
) -> Result<(), Error> {
    Rows::plan(ledger, config, fill)
}

impl GgufExport<'_> {
    fn existing(&self) -> Existing {
        if self.replace { Existing::Replaced } else { Existing::Refused }
    }
}

/// What computes the model, and all that the file says of it.
///
/// Errors: [`Error::Export`] for what llama.cpp would read as another model.
fn describe(export: &GgufExport<'_>) -> Result<(Architecture, Metadata), Error> {
    let GgufExport { name, source, config, tokenizer, template, weights, .. } = *export;
    let architecture = Architecture::of(config, source)?;
    let mut metadata = Metadata::default();
    let text = |value: &str| GgufValue::Text(value.into());
    metadata.add("general.architecture", text(architecture.name));
    metadata.add("general.type", text("model"));
    let folder = || source.file_name()?.to_str();
    if let Some(name) = name.or_else(folder).and_then(|name| name::name(name, tokenizer)) {
        metadata.add("general.name", text(&name));
    }
    metadata.add("general.file_type", GgufValue::U32(weights.file_type()));
    metadata.add("general.quantization_version", GgufValue::U32(QUANTIZATION_VERSION));
    architecture.metadata(config, &mut metadata);
    rope::metadata(architecture, config, &mut metadata);
    vocabulary::metadata(tokenizer, template, &mut metadata)?;
    Ok((architecture, metadata))
}

/// Metadata, in its order.
#[derive(Debug, Default)]
struct Metadata(Vec<(String, GgufValue)>);

impl Metadata {
    fn add(&mut self, key: impl Into<String>, value: GgufValue) {
        self.0.push((key.into(), value));
    }
}

fn is_weight_file(name: &str) -> bool {
    GgufWeights::ALL.iter().any(|weights| weights.file_name() == name)
}

pub(super) fn is_ours(name: &str) -> bool {
    is_weight_file(name) || name == MODELFILE || super::companions::is_licence(name)
}

/// A model that the format, or its readers, cannot hold.
fn refuse(path: &Path, problem: String) -> Error {
    Error::Export {
        path: path.to_path_buf(),
        problem,
        remedy: "export it as a Hugging Face folder, which has no such limit",
    }
}
