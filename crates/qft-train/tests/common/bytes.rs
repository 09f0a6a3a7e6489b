//! A tokenizer of bytes, for tests of what becomes of data.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_train::Result;
use qft_train::data::{Documents, ModelTemplates, Reader, TextEncoder};
use qft_train::options::{BuiltIn, ReadingArgs, ReadingOptions, TemplateChoice};
use std::ops::Range;

/// Each byte is a token, and one more ends a text.
pub(crate) struct Bytes;

/// The token that ends a text.
const END: u32 = 256;

impl TextEncoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        Ok((self.encode(text)?, (0..text.len()).map(|i| i..i + 1).collect()))
    }

    fn before_text(&self) -> &[u32] {
        &[]
    }

    fn after_text(&self) -> &[u32] {
        &[]
    }

    fn bos(&self) -> Option<u32> {
        None
    }

    fn eos(&self) -> &[u32] {
        &[END]
    }

    fn unknown(&self) -> Option<u32> {
        None
    }

    fn padding(&self) -> Option<u32> {
        None
    }

    fn is_added(&self, id: u32) -> bool {
        id == END
    }

    fn token(&self, id: u32) -> Option<String> {
        (id == END).then(|| "</s>".into())
    }
}

/// Options with the template ChatML for conversations.
pub(crate) fn options() -> ReadingOptions {
    let template = Some(TemplateChoice::BuiltIn(BuiltIn::Chatml));
    ReadingArgs { template, ..Default::default() }.resolve()
}

/// Reads with sequences that are long enough.
pub(crate) fn reader(options: &ReadingOptions) -> Reader<'_> {
    let templates = ModelTemplates::default();
    Reader { encoder: &Bytes, templates, options, seq_len: 1 << 20, vocab_size: 257 }
}

/// The text of each document, without the token that ends it.
pub(crate) fn texts(documents: &Documents) -> Vec<String> {
    let text = |document| {
        let document = documents.get(document).unwrap();
        let ids = document.marked().map(|(id, _)| id).filter(|&id| id != END);
        let bytes = ids.map(|id| id as u8).collect();
        String::from_utf8(bytes).unwrap()
    };
    (0..documents.len()).map(text).collect()
}
