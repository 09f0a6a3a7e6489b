//! A model's folder, as every command opens it.

use super::named;
use crate::TrainOps;
use crate::data::{ModelTemplates, Reader};
use crate::error::{Context, ErrorKind, OfKind, Result, ensure};
use crate::options::ReadingOptions;
use qft_files::{Sha256, sha256_of_file};
use qft_hub::{ModelName, Need, Origin, Watch};
use qft_llama::model::{Model, WeightFormat};
use qft_llama::{LlamaConfig, Tokenizer, WeightSource, Weights};
use qft_quant::EncodeReport;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A model's folder: its configuration and tokenizer.
#[derive(Debug)]
pub struct ModelFolder {
    /// Where it is.
    pub dir: PathBuf,
    /// Where it came from, if it was named.
    pub origin: Option<Origin>,
    /// `config.json`.
    pub config: LlamaConfig,
    /// `tokenizer.json` and what belongs to it.
    pub tokenizer: Tokenizer,
}

impl ModelFolder {
    /// Finds a model by its folder or its name in the hub, from where what is needed is fetched if it is not there; then
    /// as [`ModelFolder::open`]. `watch` hears what happens meanwhile.
    pub fn find(name: &ModelName, need: Need, watch: &mut Watch<'_>) -> Result<Self> {
        let (dir, origin) = named::model(name, need, watch)?;
        Ok(Self { origin, ..Self::open(&dir)? })
    }

    /// Reads configuration and tokenizer of a folder; no weights yet.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::read(dir).of_kind(ErrorKind::Model)
    }

    fn read(dir: &Path) -> Result<Self> {
        ensure!(
            dir.exists(),
            "--model: there is no {}; give a Hugging Face model folder with config.json, \
             model.safetensors and tokenizer.json, or the name of a model in the hub, as ORG/NAME",
            dir.display()
        );
        let config = LlamaConfig::from_dir(dir)?;
        let tokenizer = Tokenizer::from_dir(dir, &config)?;
        Ok(Self { dir: dir.to_path_buf(), origin: None, config, tokenizer })
    }

    /// The same model for sequences of `tokens`.
    #[must_use]
    pub fn for_sequences(self, tokens: usize) -> Self {
        Self { config: self.config.for_sequences(tokens), ..self }
    }

    /// The same model, whose texts end where turns do as well, in conversations that are read as `reading` says: what a base
    /// model's files name may be the end of a document alone.
    ///
    /// Errors: the file of `--template` cannot be read or is not valid.
    pub fn for_chats(mut self, reading: &ReadingOptions) -> Result<Self> {
        if let Some(id) = self.reader(reading, 0).end_of_turn().of_kind(ErrorKind::Data)? {
            self.tokenizer.add_end(id)?;
        }
        Ok(self)
    }

    /// Loads the weights, unless `stop` is set meanwhile; `report` hears of every quantized matrix.
    pub fn load(
        &self,
        ops: &dyn TrainOps,
        format: WeightFormat,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&str, &EncodeReport),
    ) -> Result<Model> {
        let mut load = || -> Result<Model> {
            let weights = WeightSource::open(&self.dir, &self.config)?;
            let weights = Stoppable { weights: &weights, stop };
            Ok(Model::load(ops, &self.config, &weights, format, report)?)
        };
        let place = || format!("cannot load {}", self.dir.display());
        load().of_kind(ErrorKind::Model).with_context(place)
    }

    /// A SHA-256 of the files that decide what text becomes: all but the weights.
    ///
    /// Errors: the folder cannot be read.
    pub fn text_sha256(&self) -> Result<String> {
        let unreadable = || format!("{}: cannot be read", self.dir.display());
        let mut files = Vec::new();
        for folder in [self.dir.clone(), self.dir.join("additional_chat_templates")] {
            if !folder.exists() {
                continue;
            }
            for entry in std::fs::read_dir(&folder).with_context(unreadable)? {
                let path = entry.with_context(unreadable)?.path();
                let ending =
                    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
                if path.is_file() && ["json", "jinja", "txt", "model"].contains(&ending) {
                    files.push(path);
                }
            }
        }
        files.sort();
        let mut hash = Sha256::new();
        for path in files {
            let name = path.strip_prefix(&self.dir).unwrap_or(&path).to_string_lossy();
            hash.update(format!("{name} {}\n", sha256_of_file(&path)?).as_bytes());
        }
        Ok(hash.hex())
    }

    /// A reader of data for this model.
    pub fn reader<'b>(&'b self, options: &'b ReadingOptions, seq_len: usize) -> Reader<'b> {
        Reader {
            encoder: &self.tokenizer,
            templates: ModelTemplates {
                default: self.tokenizer.chat_template(),
                with_tools: self.tokenizer.chat_template_with_tools(),
            },
            options,
            seq_len,
            vocab_size: self.config.vocab_size,
        }
    }
}

/// Weights that can be read until a flag is set.
struct Stoppable<'a> {
    weights: &'a dyn Weights,
    stop: &'a AtomicBool,
}

impl Weights for Stoppable<'_> {
    fn read_rows(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), qft_llama::Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(qft_llama::Error::Stopped { what: "loading the model" });
        }
        self.weights.read_rows(name, rows, out)
    }
}
