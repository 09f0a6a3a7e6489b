//! Documents that are put together.

use super::stored::StoreWriter;
use super::tokens::Tokens;
use super::{About, Counts, Documents, LeftOut, Part, Reason, TRAINED};
use crate::data::weight::Weight;
use crate::error::{Result, bail};
use qft_files::Sha256;
use std::path::Path;
use std::sync::Arc;

/// Records of each reason that are named.
const MAX_NAMED: usize = 100;

/// Takes documents one by one.
#[derive(Debug)]
pub struct DocumentWriter {
    sink: Sink,
    starts: Vec<u64>,
    /// What became of the data.
    pub counts: Counts,
    left_out: Vec<LeftOut>,
    templates: Vec<String>,
    learned: usize,
    hash: Sha256,
    parts: Vec<Part>,
    vocab_size: usize,
    seq_len: usize,
}

#[derive(Debug)]
enum Sink {
    Memory(Vec<u32>),
    File(StoreWriter),
}

impl DocumentWriter {
    /// Keeps them in memory, for a vocabulary and a largest number of positions.
    pub fn in_memory(vocab_size: usize, seq_len: usize) -> Self {
        Self::new(Sink::Memory(Vec::new()), vocab_size, seq_len)
    }

    /// Writes them to the file `path`, which is there when all are written.
    ///
    /// Errors: it cannot be written.
    pub fn in_file(vocab_size: usize, seq_len: usize, path: &Path) -> Result<Self> {
        Ok(Self::new(Sink::File(StoreWriter::create(path)?), vocab_size, seq_len))
    }

    fn new(sink: Sink, vocab_size: usize, seq_len: usize) -> Self {
        Self {
            sink,
            starts: vec![0],
            counts: Counts::default(),
            left_out: Vec::new(),
            templates: Vec::new(),
            learned: 0,
            hash: Sha256::new(),
            parts: Vec::new(),
            vocab_size,
            seq_len,
        }
    }

    /// Number of documents so far.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a document: its ids, and for each whether the loss counts its prediction. The first is never predicted.
    /// Cut to `seq_len` positions; left out if nothing in it is to be learned.
    ///
    /// Errors: an id outside the vocabulary; the file cannot be written.
    pub fn push(&mut self, ids: &[u32], learned: impl Fn(usize) -> bool) -> Result<()> {
        let limit = self.vocab_size.min(TRAINED as usize);
        if let Some(id) = ids.iter().find(|&&id| id as usize >= limit) {
            bail!(
                "token id {id} is outside the model's vocabulary of {limit}; the tokenizer does not belong to the \
                 model, or has tokens that the model lacks"
            );
        }
        let kept = ids.len().min(self.seq_len + 1);
        self.counts.truncated += usize::from(kept < ids.len());
        let targets = (1..kept).filter(|&i| learned(i)).count();
        if targets == 0 {
            self.counts.dropped += 1;
            return Ok(());
        }
        self.learned += targets;
        let marked = |(i, &id): (usize, &u32)| id | if learned(i) { TRAINED } else { 0 };
        let tokens: Vec<u32> = ids[..kept].iter().enumerate().map(marked).collect();
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        self.hash.update(&bytes);
        self.starts.push(self.starts[self.len()] + kept as u64);
        match &mut self.sink {
            Sink::Memory(all) => all.extend(tokens),
            Sink::File(file) => file.write(&bytes)?,
        }
        Ok(())
    }

    /// Notes a record that was left out or cut, if few were for this reason so far.
    pub(crate) fn leave_out(&mut self, reason: Reason, what: impl FnOnce() -> String) {
        let named = self.left_out.iter().filter(|other| other.reason == reason).count();
        if named < MAX_NAMED {
            self.left_out.push(LeftOut { reason, what: what() });
        }
    }

    /// Notes the source of a template that documents are written with.
    pub(crate) fn add_template(&mut self, source: &str) {
        if !self.templates.iter().any(|known| known == source) {
            self.templates.push(source.to_owned());
        }
    }

    /// Says how often the documents since the last part are taken in a pass.
    pub(crate) fn part(&mut self, weight: Weight) {
        let before: usize = self.parts.iter().map(|part| part.documents).sum();
        let documents = self.len() - before;
        match self.parts.last_mut() {
            Some(last) if last.weight == weight => last.documents += documents,
            _ if documents == 0 => {}
            _ => self.parts.push(Part { documents, weight }),
        }
    }

    /// All documents.
    ///
    /// Errors: the file cannot be written.
    pub fn finish(mut self) -> Result<Documents> {
        self.part(Weight::ONCE);
        for &start in &self.starts {
            self.hash.update(&start.to_le_bytes());
        }
        let about = About {
            counts: self.counts,
            left_out: self.left_out,
            templates: self.templates,
            learned: self.learned,
            sha256: self.hash.hex(),
            seq_len: self.seq_len,
            parts: self.parts,
        };
        let tokens = match self.sink {
            Sink::Memory(tokens) => Tokens::Memory(tokens),
            Sink::File(file) => file.finish(&self.starts, &about)?,
        };
        Ok(Documents { tokens: Arc::new(tokens), starts: self.starts.into(), about })
    }
}
