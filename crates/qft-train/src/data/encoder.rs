//! What data needs of a tokenizer.

use crate::error::Result;
use qft_llama::Tokenizer;
use std::ops::Range;

/// Turns text into token ids.
pub trait TextEncoder: Sync {
    /// Encodes `text` without adding special tokens; those spelled out in it are recognised.
    ///
    /// Errors: the text has a token that the model does not know.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
    /// As [`TextEncoder::encode`], with the bytes of the text that each token stands for.
    ///
    /// Errors: those of [`TextEncoder::encode`].
    fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)>;
    /// The tokens that the tokenizer puts before a text.
    fn before_text(&self) -> &[u32];
    /// The tokens that the tokenizer puts after a text.
    fn after_text(&self) -> &[u32];
    /// The token that begins a sequence, for chat templates.
    fn bos(&self) -> Option<u32>;
    /// The tokens that end a sequence or a turn; the first is the one to write.
    fn eos(&self) -> &[u32];
    /// The token for what cannot be spelled.
    fn unknown(&self) -> Option<u32>;
    /// The token that fills sequences up.
    fn padding(&self) -> Option<u32>;
    /// Whether a token is one of those that a text is searched for before it is split.
    fn is_added(&self, id: u32) -> bool;
    /// The text of a token.
    fn token(&self, id: u32) -> Option<String>;
}

impl TextEncoder for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(Tokenizer::encode(self, text)?)
    }

    fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        Ok(Tokenizer::encode_with_places(self, text)?)
    }

    fn before_text(&self) -> &[u32] {
        Tokenizer::before_text(self)
    }

    fn after_text(&self) -> &[u32] {
        Tokenizer::after_text(self)
    }

    fn bos(&self) -> Option<u32> {
        Tokenizer::bos(self)
    }

    fn eos(&self) -> &[u32] {
        Tokenizer::eos(self)
    }

    fn unknown(&self) -> Option<u32> {
        Tokenizer::unknown(self)
    }

    fn padding(&self) -> Option<u32> {
        Tokenizer::padding(self)
    }

    fn is_added(&self, id: u32) -> bool {
        Tokenizer::is_added(self, id)
    }

    fn token(&self, id: u32) -> Option<String> {
        Tokenizer::token(self, id)
    }
}

/// The tokens of a text as they stand at the beginning of a sequence: behind those that the tokenizer puts there,
/// unless the text carries them.
///
/// Errors: those of [`TextEncoder::encode`].
pub fn at_start(encoder: &dyn TextEncoder, text: &str) -> Result<Vec<u32>> {
    let ids = encoder.encode(text)?;
    let before = encoder.before_text();
    Ok(if ids.starts_with(before) { ids } else { [before, &ids].concat() })
}
