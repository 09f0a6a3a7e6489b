//! The options of `qft export`.

use crate::error::{ErrorKind, OfKind, Result, bail, ensure};
use clap::ValueEnum;
use clap::ValueHint;
use qft_hub::ModelName;
use qft_llama::export::{GgufWeights, WeightType};
use std::fmt;
use std::path::PathBuf;

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
            let int8 = self.to == ExportKind::CompressedTensors;
            Ok(match (self.to, dtype) {
                (ExportKind::Gguf, dtype) => ExportFormat::Gguf(match dtype {
                    ExportDtype::Bf16 => GgufWeights::Bf16,
                    ExportDtype::F16 => GgufWeights::F16,
                    ExportDtype::F32 => GgufWeights::F32,
                    ExportDtype::Q8_0 => GgufWeights::Q8_0,
                }),
                (_, ExportDtype::Bf16) => ExportFormat::Folder { dtype: WeightType::Bf16, int8 },
                (_, ExportDtype::F16) => ExportFormat::Folder { dtype: WeightType::F16, int8 },
                (_, ExportDtype::F32) => ExportFormat::Folder { dtype: WeightType::F32, int8 },
                (kind, ExportDtype::Q8_0) => bail!(
                    "--dtype q8_0 is a type of GGUF files, and --to {kind} has none; give bf16, f16 or f32, or --to gguf"
                ),
            })
        };
        let format = check().of_kind(ErrorKind::Options)?;
        let Self { model, out, overwrite, .. } = self;
        Ok(ExportOptions { model, out, format, overwrite })
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
