//! The options of `qft export`, and of what a run exports besides its model.

use crate::error::{ErrorKind, OfKind, Result, bail, ensure};
use clap::ValueEnum;
use clap::ValueHint;
use qft_hub::ModelName;
use qft_llama::export::{GgufWeights, WeightType};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Options of `qft export`, as given.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ExportArgs {
    /// Model: a folder with config.json, safetensors and tokenizer.json, or a name in the Hugging Face hub: org/name,
    /// org/name@revision
    #[arg(long, value_name = "DIR|NAME", value_hint = ValueHint::DirPath)]
    pub model: ModelName,
    /// What to write
    #[arg(long, value_enum)]
    pub to: ExportKind,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Type of the weights; with compressed-tensors, of those that are not INT8 [default: bf16]
    #[arg(long, value_enum)]
    pub dtype: Option<ExportDtype>,
    /// Replace an output folder that an export of the same kind wrote
    #[arg(long)]
    pub overwrite: bool,
}

/// What `qft export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportKind {
    /// A Hugging Face folder, for transformers, vLLM, TGI and others
    Hf,
    /// A GGUF file for llama.cpp and LM Studio, and a Modelfile for Ollama
    Gguf,
    /// A Hugging Face folder with linear layers in INT8 (W8A8), for vLLM and transformers
    CompressedTensors,
}

/// The type of weights in an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExportDtype {
    /// bfloat16: as saved models have it
    #[default]
    Bf16,
    /// float16
    F16,
    /// float32
    F32,
    /// 8 bits with a scale for each 32 weights; GGUF only
    #[value(name = "q8_0")]
    Q8_0,
}

/// Checked options of `qft export`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportOptions {
    /// Folder or name of the model.
    pub model: ModelName,
    /// Output folder.
    pub out: PathBuf,
    /// What to write there.
    pub format: ExportFormat,
    /// Whether to replace what is there.
    pub overwrite: bool,
}

/// What to write, with the type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A Hugging Face folder; whether its linear layers are in INT8.
    Folder {
        /// The type of all weights, or of those that are not INT8.
        dtype: WeightType,
        /// Whether linear layers are in INT8.
        int8: bool,
    },
    /// A GGUF file.
    Gguf(GgufWeights),
}

impl ExportArgs {
    /// Checks that they go together.
    ///
    /// Errors: a type that the format lacks; an output folder that is there.
    pub fn resolve(self) -> Result<ExportOptions> {
        let dtype = self.dtype.unwrap_or_default();
        let check = || -> Result<ExportFormat> {
            ensure!(
                self.overwrite || self.out.symlink_metadata().is_err(),
                "--out: {} already exists; give --overwrite to replace what an export wrote there, or another folder",
                self.out.display()
            );
            let Some(format) = ExportFormat::of(self.to, dtype) else {
                bail!(
                    "--dtype {dtype} is a type of GGUF files, and --to {} has none; give bf16, f16 or f32, or --to gguf",
                    self.to
                );
            };
            Ok(format)
        };
        let format = check().of_kind(ErrorKind::Options)?;
        let Self { model, out, overwrite, .. } = self;
        Ok(ExportOptions { model, out, format, overwrite })
    }
}

impl ExportFormat {
    /// A kind with a type; absent if it has none such.
    fn of(kind: ExportKind, dtype: ExportDtype) -> Option<Self> {
        let int8 = kind == ExportKind::CompressedTensors;
        Some(match (kind, dtype) {
            (ExportKind::Gguf, dtype) => Self::Gguf(match dtype {
                ExportDtype::Bf16 => GgufWeights::Bf16,
                ExportDtype::F16 => GgufWeights::F16,
                ExportDtype::F32 => GgufWeights::F32,
                ExportDtype::Q8_0 => GgufWeights::Q8_0,
            }),
            (_, ExportDtype::Bf16) => Self::Folder { dtype: WeightType::Bf16, int8 },
            (_, ExportDtype::F16) => Self::Folder { dtype: WeightType::F16, int8 },
            (_, ExportDtype::F32) => Self::Folder { dtype: WeightType::F32, int8 },
            (_, ExportDtype::Q8_0) => return None,
        })
    }
}

impl fmt::Display for ExportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hf => "hf",
            Self::Gguf => "gguf",
            Self::CompressedTensors => "compressed-tensors",
        })
    }
}

impl fmt::Display for ExportDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
        })
    }
}

/// What a run exports besides its model: KIND or KIND:TYPE, as `qft export` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunExport {
    kind: ExportKind,
    dtype: ExportDtype,
    /// What to write.
    pub format: ExportFormat,
}

impl RunExport {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let kinds = ExportKind::value_variants().iter();
        kinds.flat_map(|&kind| {
            let dtypes = ExportDtype::value_variants().iter();
            dtypes.filter_map(move |&dtype| Self::of(kind, dtype))
        })
    }

    fn of(kind: ExportKind, dtype: ExportDtype) -> Option<Self> {
        Some(Self { kind, dtype, format: ExportFormat::of(kind, dtype)? })
    }

    /// The name of its folder, in the output folder of the run.
    pub fn folder(self) -> String {
        format!("{}-{}", self.kind, self.dtype)
    }
}

impl FromStr for RunExport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, dtype) = text.split_once(':').unwrap_or((text, "bf16"));
        let kind = ExportKind::from_str(kind, false)
            .map_err(|_| format!("`{kind}` is not one of hf, gguf, compressed-tensors"))?;
        let dtype = ExportDtype::from_str(dtype, false)
            .map_err(|_| format!("`{dtype}` is not one of bf16, f16, f32, q8_0"))?;
        Self::of(kind, dtype).ok_or_else(|| {
            format!("{dtype} is a type of GGUF files; give {kind}:bf16, {kind}:f16 or {kind}:f32")
        })
    }
}

impl fmt::Display for RunExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.dtype)
    }
}

impl From<RunExport> for String {
    fn from(export: RunExport) -> Self {
        export.to_string()
    }
}

impl TryFrom<String> for RunExport {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
