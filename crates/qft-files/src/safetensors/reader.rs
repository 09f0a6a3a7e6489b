//! A file whose header has been checked, and any part of its tensors.

use super::header::{self, StoredTensor};
use crate::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What to tell the user when a file is not as it should be: it depends on what the file is for.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    /// When it cannot be opened.
    pub missing: &'static str,
    /// When its header is wrong or its end is missing.
    pub damaged: &'static str,
}

/// An open safetensors file with a checked header.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: Vec<StoredTensor>,
}

impl TensorFile {
    /// Opens a file and checks its header: sizes follow from shapes, data regions lie in the file without gap or
    /// overlap, no name occurs twice, and the last region ends where the file does. Reads no data.
    ///
    /// Errors: [`Error::Io`], [`Error::Json`], [`Error::Header`], [`Error::Truncated`].
    pub fn open(path: &Path, advice: Advice) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path, advice.missing))?;
        let tensors = header::read(path, &file, advice.damaged)?;
        Ok(Self { path: path.to_path_buf(), file, tensors })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors, in the order of their data.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// Reads the bytes of a tensor of this file from byte `start` of the tensor on, as many as `out` holds.
    ///
    /// Errors: [`Error::OutOfTensor`], and nothing is read; [`Error::Io`] if the file has changed since.
    pub fn read_at(&self, tensor: &StoredTensor, start: u64, out: &mut [u8]) -> Result<(), Error> {
        let end = start.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > tensor.bytes) {
            return Err(Error::OutOfTensor {
                file: self.path.clone(),
                tensor: tensor.name.clone(),
                start,
                len: out.len(),
                bytes: tensor.bytes,
            });
        }
        let remedy = "check the disk, and that nothing else writes to this file";
        let read = self.file.read_exact_at(out, tensor.start + start);
        read.map_err(Error::io("read", &self.path, remedy))
    }
}
