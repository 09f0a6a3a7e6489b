//! Documents in a file.
//!
//! The file is [`MAGIC`], the tokens (`u32`), the starts (`u64`), what is known of all as JSON, and a footer of
//! [`FOOTER_BYTES`]; numbers are little-endian.

use super::tokens::Tokens;
use super::{About, Documents};
use crate::error::{Context, Result, ensure};
use qft_files::{AtomicFile, Disk, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 16] = b"qft documents 2\n";

/// Bytes written at a time.
const BLOCK_BYTES: usize = 1 << 18;

/// The last bytes of the file: how many tokens, starts and bytes of JSON there are, and a hash of starts and JSON.
const FOOTER_BYTES: usize = 3 * size_of::<u64>() + 64;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct StoreWriter {
    file: BufWriter<AtomicFile>,
    path: PathBuf,
}

impl StoreWriter {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file =
            BufWriter::with_capacity(BLOCK_BYTES, AtomicFile::create(&Disk::default(), path)?);
        let mut writer = Self { file, path: path.to_path_buf() };
        writer.write(MAGIC)?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| {
            format!(
                "{}: encoded data cannot be written; free space on the disk, or give another folder with --cache, or \
                 --no-cache if the data fits into memory",
                self.path.display()
            )
        })
    }

    /// Writes the rest, and opens the file.
    pub(super) fn finish(mut self, starts: &[u64], about: &About) -> Result<Tokens> {
        let tail = Tail::of(starts, serde_json::to_vec(about)?);
        self.write(&tail.bytes())?;
        let path = self.path;
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        file.with_context(|| format!("{}: cannot be written", path.display()))?.commit()?;
        let file = File::open(&path).with_context(|| cannot_read(&path))?;
        Ok(Tokens::File { file, path, start: MAGIC.len() as u64 })
    }
}

/// What follows the tokens.
struct Tail {
    starts: Vec<u8>,
    about: Vec<u8>,
    tokens: u64,
}

impl Tail {
    fn of(starts: &[u64], about: Vec<u8>) -> Self {
        let tokens = starts.last().copied().unwrap_or(0);
        Self {
            starts: starts.iter().flat_map(|start| start.to_le_bytes()).collect(),
            about,
            tokens,
        }
    }

    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.starts);
        hash.update(&self.about);
        hash.hex()
    }

    fn bytes(&self) -> Vec<u8> {
        let lengths = [self.tokens, self.starts.len() as u64, self.about.len() as u64];
        let lengths: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
        [&self.starts, &self.about, &lengths, self.hash().as_bytes()].concat()
    }
}

/// Opens a file of documents.
///
/// Errors: it is not there, is damaged, or of another version.
pub(in super::super) fn open(path: &Path) -> Result<Documents> {
    let file = File::open(path).with_context(|| cannot_read(path))?;
    let (starts, about) = read_tail(&file).with_context(|| cannot_read(path))?;
    let starts: Vec<u64> =
        starts.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
    let about: About = serde_json::from_slice(&about)?;
    // Documents have two tokens at least.
    let rise =
        starts.windows(2).all(|pair| pair[0].checked_add(2).is_some_and(|least| least <= pair[1]));
    ensure!(rise && starts.first() == Some(&0), "{}: is damaged", path.display());
    let tokens = Tokens::File { file, path: path.to_path_buf(), start: MAGIC.len() as u64 };
    Ok(Documents { tokens: Arc::new(tokens), starts: starts.into(), about })
}

/// The bytes of the starts and of the JSON.
fn read_tail(file: &File) -> Result<(Vec<u8>, Vec<u8>)> {
    let bytes = file.metadata()?.len();
    let part = |start: u64, count: u64| -> Result<Vec<u8>> {
        ensure!(start.checked_add(count).is_some_and(|end| end <= bytes), "is cut off");
        let mut part = vec![0; count as usize];
        file.read_exact_at(&mut part, start)?;
        Ok(part)
    };
    ensure!(part(0, MAGIC.len() as u64)? == MAGIC, "is of another version");
    let end = bytes.saturating_sub(FOOTER_BYTES as u64);
    let footer = part(end, FOOTER_BYTES as u64)?;
    let (lengths, hash) = footer.split_at(FOOTER_BYTES - 64);
    let mut lengths = lengths.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word));
    let mut length = || lengths.next().unwrap_or_default();
    let (tokens, starts, about) = (length(), length(), length());
    let first = tokens.checked_mul(4).and_then(|bytes| bytes.checked_add(MAGIC.len() as u64));
    let total = first.and_then(|first| first.checked_add(starts)?.checked_add(about));
    ensure!(first.is_some() && total == Some(end), "is damaged");
    let first = first.unwrap_or_default();
    let tail = Tail { starts: part(first, starts)?, about: part(first + starts, about)?, tokens };
    ensure!(tail.hash().as_bytes() == hash, "is damaged");
    Ok((tail.starts, tail.about))
}

fn cannot_read(path: &Path) -> String {
    format!("{}: cannot be read", path.display())
}
