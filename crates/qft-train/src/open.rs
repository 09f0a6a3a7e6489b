//! Opens what every command needs: a model folder and its tokenizer.

use crate::TrainOps;
use crate::data::Reader;
use crate::options::{DataOptions, StateOptions};
use anyhow::{Context, Result, ensure};
use qft_llama::model::Model;
use qft_llama::{LlamaConfig, Tokenizer, WeightSource};
use qft_quant::EncodeReport;
use std::path::Path;

/// A model folder: its configuration and tokenizer.
#[derive(Debug)]
pub struct Folder<'a> {
    /// Where it is.
    pub dir: &'a Path,
    /// `config.json`.
    pub config: LlamaConfig,
    /// `tokenizer.json` and what belongs to it.
    pub tokenizer: Tokenizer,
}

impl<'a> Folder<'a> {
    /// Reads configuration and tokenizer; no weights yet.
    pub fn open(dir: &'a Path) -> Result<Self> {
        ensure!(
            dir.is_dir(),
            "--model: {} is not a folder; give a Hugging Face model folder with config.json, \
             model.safetensors and tokenizer.json",
            dir.display()
        );
        let config = LlamaConfig::from_dir(dir)?;
        let tokenizer = Tokenizer::from_dir(dir, &config)?;
        Ok(Self { dir, config, tokenizer })
    }

    /// Loads the weights; `report` hears of every quantized matrix.
    pub fn load(
        &self,
        ops: &dyn TrainOps,
        state: &StateOptions,
        report: &mut dyn FnMut(&str, &EncodeReport),
    ) -> Result<Model> {
        let weights = WeightSource::open(self.dir, &self.config)?;
        Model::load(ops, &self.config, &weights, state.format(), report)
            .with_context(|| format!("cannot load {}", self.dir.display()))
    }

    /// A reader of data for this model.
    pub fn reader<'b>(&'b self, options: &'b DataOptions, seq_len: usize) -> Reader<'b> {
        Reader {
            encoder: &self.tokenizer,
            chat_template: self.tokenizer.chat_template(),
            options,
            seq_len,
            vocab_size: self.config.vocab_size,
        }
    }
}
