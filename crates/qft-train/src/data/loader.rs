//! Data for a run: read by a [`Reader`], or as it was encoded before.

use super::cache::Cache;
use super::documents::{DocumentWriter, Documents};
use super::progress::Progress;
use super::reader::{HeldOut, Parts, Reader};
use super::source::{DataFile, expanded};
use crate::error::{Context, Result};
use crate::options::TemplateChoice;
use qft_files::{Sha256, sha256_of_file};
use std::path::PathBuf;

/// Files that are smaller together are read as fast as they are found.
const MIN_BYTES: u64 = 4 << 20;

/// Reads data, and keeps what it became for the next time.
pub struct Loader<'a> {
    /// Reads what is not in the cache.
    pub reader: Reader<'a>,
    /// A hash of the model's files that decide what text becomes.
    pub model_sha256: &'a str,
    /// Absent: all documents stay in memory.
    pub cache: Option<&'a Cache>,
    /// Hears how far it is; an error of its ends the reading.
    pub told: &'a dyn Fn(Progress) -> Result<()>,
}

impl Loader<'_> {
    /// All documents of the files.
    ///
    /// Errors: those of [`Reader::read`]; the cache cannot be written.
    pub fn read(&self, files: &[PathBuf]) -> Result<Documents> {
        let files = expanded(files)?;
        let key = self.key(&files, None)?;
        if let Some(documents) = self.cached(key.as_deref(), "all") {
            return Ok(documents);
        }
        let mut parts = Parts { train: self.writer(key.as_deref(), "all")?, held_out: None };
        self.reader.fill(&files, &mut parts, self.told)?;
        let documents = parts.train.finish()?;
        self.trim();
        Ok(documents)
    }

    /// All documents of the files, the last `fraction` of each apart.
    ///
    /// Errors: those of [`Reader::read_split`]; the cache cannot be written.
    pub fn read_split(&self, files: &[PathBuf], fraction: f64) -> Result<(Documents, Documents)> {
        let files = expanded(files)?;
        let key = self.key(&files, Some(fraction))?;
        let cached = |part| self.cached(key.as_deref(), part);
        if let (Some(train), Some(held_out)) = (cached("train"), cached("held-out")) {
            return Ok((train, held_out));
        }
        let documents = self.writer(key.as_deref(), "held-out")?;
        let held_out = Some(HeldOut { fraction, documents });
        let mut parts = Parts { train: self.writer(key.as_deref(), "train")?, held_out };
        self.reader.fill(&files, &mut parts, self.told)?;
        let Some(held_out) = parts.held_out else { unreachable!("it was put there") };
        let read = (parts.train.finish()?, held_out.documents.finish()?);
        self.trim();
        Ok(read)
    }

    fn cached(&self, key: Option<&str>, part: &str) -> Option<Documents> {
        self.cache?.get(&format!("{}.{part}", key?))
    }

    fn writer(&self, key: Option<&str>, part: &str) -> Result<DocumentWriter> {
        let (vocab_size, seq_len) = (self.reader.vocab_size, self.reader.seq_len);
        match (self.cache, key) {
            (Some(cache), Some(key)) => {
                let place = cache.place(&format!("{key}.{part}"));
                DocumentWriter::in_file(vocab_size, seq_len, &place)
            }
            _ => Ok(DocumentWriter::in_memory(vocab_size, seq_len)),
        }
    }

    fn trim(&self) {
        if let Some(cache) = self.cache {
            cache.trim();
        }
    }

    /// What decides the documents, as a hash: the files, what the model makes of text, the options, and the program itself.
    /// Absent where nothing is kept.
    fn key(&self, files: &[DataFile], fraction: Option<f64>) -> Result<Option<String>> {
        let size = |file: &DataFile| file.path.metadata().map_or(0, |metadata| metadata.len());
        if self.cache.is_none() || files.iter().map(size).sum::<u64>() < MIN_BYTES {
            return Ok(None);
        }
        let Reader { options, seq_len, vocab_size, encoder: _, templates: _ } = self.reader;
        let mut parts = vec![
            program_sha256()?,
            self.model_sha256.to_string(),
            format!("{options:?} {seq_len} {vocab_size} {fraction:?}"),
        ];
        if let TemplateChoice::File(path) = &options.template {
            let unreadable = || format!("--template: {} cannot be read", path.display());
            parts.push(sha256_of_file(path).with_context(unreadable)?);
        }
        for DataFile { path, weight } in files {
            let unreadable = || format!("--data: {} cannot be read", path.display());
            let contents = sha256_of_file(path).with_context(unreadable)?;
            // Its name is part of what is told of it, and decides how it is read.
            parts.push(format!("{} {contents} {weight:?}", path.display()));
        }
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Ok(Some(hash.hex()))
    }
}

/// A hash of the program: another version may encode otherwise.
fn program_sha256() -> Result<String> {
    let program = std::env::current_exe().context("the program does not find itself")?;
    Ok(sha256_of_file(&program)?)
}
