//! The error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong with a model, its folder, or its tokens. Each message names the place and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] qft_tensor::Error),
    /// A quantizer operation failed.
    #[error(transparent)]
    Quant(#[from] qft_quant::Error),
    /// A layer failed.
    #[error(transparent)]
    Autograd(#[from] qft_autograd::Error),
    /// A file or folder could not be read or written, or its contents are not what they should be.
    #[error(transparent)]
    Files(#[from] qft_files::Error),
    /// A sequence is longer than the model, or the room kept for it, allows.
    #[error(
        "sequence: {tokens} tokens, expected at most {most}; use a shorter text or sequence length"
    )]
    SequenceTooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Tokens allowed.
        most: usize,
    },
    /// Somebody asked for it to end.
    #[error("stopped while {what}")]
    Stopped {
        /// What was being done.
        what: &'static str,
    },
    /// There is nothing to continue.
    #[error("prompt: no tokens, expected at least one; the begin-of-sequence token will do")]
    EmptyPrompt,
    /// The operating system refused to read a file.
    #[error("cannot {action}: {}; {remedy}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
        /// The reason the system gives.
        #[source]
        source: std::io::Error,
    },
    /// A path is something else than the folder of a model.
    #[error(
        "model: {} is {what}, expected a Hugging Face folder with config.json, model.safetensors and tokenizer.json; {remedy}", path.display()
    )]
    Folder {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A head is stored that differs from the embedding, which the configuration says it is.
    #[error(
        "weights: {}: `{head}` differs from `{embedding}` in row {row}, expected the same values, as tie_word_embeddings is true in config.json or by default; set it to false to keep both", file.display()
    )]
    TiedHead {
        /// The file with the head.
        file: PathBuf,
        /// The head.
        head: &'static str,
        /// The embedding.
        embedding: &'static str,
        /// The first row that differs.
        row: usize,
    },
    /// A file that must be JSON is not, or has another structure.
    #[error("json: {}, expected {expected}; restore the file from the model's source", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Where the parser stopped, and why.
        #[source]
        source: serde_json::Error,
    },
    /// A model's configuration is invalid, or asks for something that is not implemented.
    #[error("config: {}: `{key}`, expected {expected}, got {got}; {remedy}", file.display())]
    Config {
        /// The file that holds the value.
        file: PathBuf,
        /// The key.
        key: String,
        /// Values that would work.
        expected: String,
        /// The value found.
        got: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// No built-in shape has this name.
    #[error("preset: unknown name `{name}`, expected one of {known}")]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A stored tensor has another shape than the configuration implies.
    #[error("safetensors: {}: shape of `{tensor}`, expected {expected:?}, got {got:?}; config.json belongs to another model, or the file does", file.display())]
    TensorShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape by the configuration.
        expected: Vec<usize>,
        /// The stored shape.
        got: Vec<usize>,
    },
    /// A stored tensor has an element type that weights are not read from.
    #[error("safetensors: {}: type of `{tensor}`, expected F32, F16 or BF16, got {got}; convert the model, for example with save_pretrained of transformers", file.display())]
    TensorType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The stored type.
        got: String,
    },
    /// A tensor of the model is stored nowhere in its folder.
    #[error("weights: {}: tensor `{tensor}` is missing ({missing} missing in all); fetch the model again, or correct config.json", dir.display())]
    MissingTensor {
        /// The folder.
        dir: PathBuf,
        /// The first tensor that is missing.
        tensor: String,
        /// How many are missing.
        missing: usize,
    },
    /// The model has no tensor of this name, or not so many rows.
    #[error("weights: `{tensor}` rows {start}..{end} into {len} values, expected {expected}")]
    NoSuchRows {
        /// The tensor asked for.
        tensor: String,
        /// First row asked for.
        start: usize,
        /// One past the last.
        end: usize,
        /// Values the destination holds.
        len: usize,
        /// What would be right.
        expected: String,
    },
    /// A weight is NaN, infinite, or too large for the type it is written in.
    #[error("weights: {}: `{tensor}` row {row} column {col}, expected a finite number of its type, got {value}; {remedy}", file.display())]
    NotFinite {
        /// The file read or written.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The value.
        value: f32,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The tokenizer's file could not be used, or it failed on a text.
    #[error("tokenizer: {}: cannot {action}; restore tokenizer.json from the model's source", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The reason the tokenizer gives.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer produced, or was given, an id that the model has no embedding for.
    #[error(
        "tokenizer: {}: token `{token}` has id {id}, expected an id below {vocab_size}, the model's vocab_size; the tokenizer has {tokenizer_size} entries: use the tokenizer that belongs to the model", path.display()
    )]
    TokenId {
        /// The tokenizer's file.
        path: PathBuf,
        /// The token's text.
        token: String,
        /// Its id.
        id: u32,
        /// Entries of the tokenizer.
        tokenizer_size: usize,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// A folder cannot be written as asked.
    #[error("export: {}: {problem}; {remedy}", path.display())]
    Export {
        /// The file or folder in the way.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A sampling option is out of its range, or there is nothing to sample from.
    #[error("sampling: {what}, expected {expected}, got {got}")]
    Sampling {
        /// The option, or the logits.
        what: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value.
        got: String,
    },
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
        remedy: &'static str,
        source: std::io::Error,
    ) -> Self {
        Self::Io { action, path: path.to_path_buf(), remedy, source }
    }
}
