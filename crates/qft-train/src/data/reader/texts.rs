//! A file that is one text, a piece at a time.

use super::{Parts, Reader};
use crate::data::documents::DocumentWriter;
use crate::data::long_text::LongText;
use crate::data::windows::Windows;
use crate::error::Result;

/// A text on its way to documents; and what follows it, as a text of its own that is held out.
pub(super) struct Texts<'a> {
    reader: Reader<'a>,
    /// Characters that are trained on and have not come yet.
    left: u64,
    /// Whether `text` is the one that is trained on.
    train: bool,
    text: Text<'a>,
}

impl<'a> Texts<'a> {
    /// The first `kept` characters are trained on.
    pub(super) fn new(reader: Reader<'a>, kept: u64) -> Self {
        Self { reader, left: kept, train: true, text: Text::new(reader) }
    }

    pub(super) fn push(&mut self, text: &str, parts: &mut Parts) -> Result<()> {
        if !self.train {
            return self.text.push(text, parts.documents(false));
        }
        let cut = usize::try_from(self.left).unwrap_or(usize::MAX);
        let Some((at, _)) = text.char_indices().nth(cut) else {
            self.left -= text.chars().count() as u64;
            return self.text.push(text, parts.documents(true));
        };
        let (head, tail) = text.split_at(at);
        self.text.push(head, parts.documents(true))?;
        self.text.finish(parts.documents(true))?;
        self.train = false;
        self.text = Text::new(self.reader);
        self.text.push(tail, parts.documents(false))
    }

    pub(super) fn finish(mut self, parts: &mut Parts) -> Result<()> {
        self.text.finish(parts.documents(self.train))
    }
}

/// One text.
struct Text<'a> {
    reader: Reader<'a>,
    tokens: LongText<'a>,
    ids: Ids,
}

/// The ids of a text on their way to documents.
struct Ids {
    windows: Windows,
    /// What the tokenizer puts before a text. It stands before each document, and is left out where the text has it.
    before: Vec<u32>,
    /// The first ids, as long as they may be `before`.
    beginning: Option<Vec<u32>>,
    /// The last ids, as many as the tokenizer puts after a text.
    ending: Vec<u32>,
    after: usize,
    /// Whether there was a document, learned or not.
    any: bool,
}

impl Ids {
    fn push(&mut self, ids: &[u32], documents: &mut DocumentWriter) -> Result<()> {
        self.ending.extend(&ids[ids.len().saturating_sub(self.after)..]);
        self.ending.drain(..self.ending.len().saturating_sub(self.after));
        let Some(mut beginning) = self.beginning.take() else { return self.cut(ids, documents) };
        beginning.extend(ids);
        if beginning.len() < self.before.len() {
            self.beginning = Some(beginning);
            return Ok(());
        }
        let rest = beginning.strip_prefix(self.before.as_slice()).unwrap_or(&beginning);
        self.cut(rest, documents)
    }

    fn cut(&mut self, ids: &[u32], documents: &mut DocumentWriter) -> Result<()> {
        let any = &mut self.any;
        self.windows.push(ids, |window| {
            *any = true;
            documents.push(window, |_| true)
        })
    }

    fn finish(&mut self, documents: &mut DocumentWriter) -> Result<()> {
        if let Some(beginning) = self.beginning.take() {
            self.cut(&beginning, documents)?;
        }
        match self.windows.finish() {
            Some(last) => documents.push(&last, |_| true),
            None if self.any => Ok(()),
            None => {
                documents.counts.dropped += 1;
                Ok(())
            }
        }
    }
}

impl<'a> Text<'a> {
    fn new(reader: Reader<'a>) -> Self {
        let before = reader.encoder.before_text();
        let ids = Ids {
            windows: Windows::new(before, reader.seq_len),
            before: before.to_vec(),
            beginning: Some(Vec::new()),
            ending: Vec::new(),
            after: reader.encoder.after_text().len(),
            any: false,
        };
        Self { reader, tokens: LongText::new(reader.encoder), ids }
    }

    fn push(&mut self, text: &str, documents: &mut DocumentWriter) -> Result<()> {
        let ids = &mut self.ids;
        self.tokens.push(text, &mut |more| ids.push(more, documents))
    }

    fn finish(&mut self, documents: &mut DocumentWriter) -> Result<()> {
        documents.counts.read += 1;
        let ids = &mut self.ids;
        self.tokens.finish(&mut |more| ids.push(more, documents))?;
        let after = self.reader.encoder.after_text();
        if ids.ending != after {
            ids.push(after, documents)?;
        }
        ids.finish(documents)
    }
}
