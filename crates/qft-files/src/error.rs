//! The error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong with a file or folder. Each message names the place and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read, write, move or remove something.
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
    /// A file that must be JSON is not, or has another structure.
    #[error("json: {}, expected {expected}; {remedy}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// Where the parser stopped, and why.
        #[source]
        source: serde_json::Error,
    },
    /// The header of a safetensors file contradicts itself, the file, or its index.
    #[error("safetensors: {}: {what}, expected {expected}, got {got}; {remedy}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// The part of the header.
        what: String,
        /// What it should say.
        expected: String,
        /// What it says.
        got: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The file ends before the data that its header announces.
    #[error("safetensors: {}: truncated in tensor `{tensor}`, expected at least {expected} bytes, got {got}; {remedy}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The first tensor whose data is incomplete.
        tensor: String,
        /// Bytes the file needs so that this tensor is complete.
        expected: u64,
        /// Bytes it has.
        got: u64,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Bytes were asked for that lie outside of a tensor.
    #[error("safetensors: {}: {len} bytes from byte {start} of `{tensor}`, expected a part of its {bytes} bytes", file.display())]
    OutOfTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The first byte asked for.
        start: u64,
        /// Bytes asked for.
        len: usize,
        /// Bytes of the tensor.
        bytes: u64,
    },
    /// A safetensors file was given more or less data than its header announces.
    #[error("safetensors: {}: {got} bytes of data, expected the {expected} that the header announces", file.display())]
    WrongLength {
        /// The file.
        file: PathBuf,
        /// Bytes of all tensors of the header.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// A GGUF file was begun with, or given, what it cannot hold.
    #[error("gguf: {}: {what}; this is a bug in qft", file.display())]
    Gguf {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file or folder stands in the way, and it is not ours to replace.
    #[error("{}: {problem}; {remedy}", path.display())]
    Refused {
        /// What stands in the way.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Another process works in the folder.
    #[error("{} is in use by another run ({holder}); wait until it ends, or choose another folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who uses it, as far as it says.
        holder: String,
    },
}

impl Error {
    /// Makes [`Error::Io`] of a reason; for `map_err`.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
        remedy: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_path_buf(), remedy, source }
    }

    /// Makes [`Error::Refused`].
    pub(crate) fn refused(path: &Path, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self::Refused { path: path.to_path_buf(), problem: problem.into(), remedy }
    }
}
