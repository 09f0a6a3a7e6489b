//! Where the tokens of documents are.

use crate::error::{Context, Result};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Tokens, each a little-endian `u32` where they are in a file.
#[derive(Debug)]
pub(super) enum Tokens {
    Memory(Vec<u32>),
    /// In a file, from a byte on. It may be unlinked.
    File {
        file: File,
        path: PathBuf,
        start: u64,
    },
}

impl Tokens {
    /// The tokens in `range`.
    ///
    /// Errors: the file cannot be read.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Vec<u32>> {
        let (first, count) = (range.start, (range.end - range.start) as usize);
        match self {
            Self::Memory(tokens) => Ok(tokens[first as usize..][..count].to_vec()),
            Self::File { file, path, start } => {
                let mut bytes = vec![0; count * size_of::<u32>()];
                let read = file.read_exact_at(&mut bytes, start + first * size_of::<u32>() as u64);
                read.with_context(|| {
                    format!(
                        "{}: encoded data cannot be read any more; start again, with --resume to go on",
                        path.display()
                    )
                })?;
                let (words, _) = bytes.as_chunks();
                Ok(words.iter().map(|&word| u32::from_le_bytes(word)).collect())
            }
        }
    }
}
