//! What data needs of a tokenizer.

use crate::error::Result;
use qft_llama::Tokenizer;

/// Turns text into token ids.
pub trait TextEncoder {
    /// Encodes `text` without adding special tokens; those spelled out in it are recognised.
    ///
    /// Errors: the text has a token that the model does not know.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
    /// The token that begins a sequence.
    fn bos(&self) -> Option<u32>;
    /// The tokens that end a sequence or a turn; the first is the one to write.
    fn eos(&self) -> &[u32];
    /// The text of a token.
    fn token(&self, id: u32) -> Option<String>;
}

impl TextEncoder for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(Tokenizer::encode(self, text)?)
    }

    fn bos(&self) -> Option<u32> {
        Tokenizer::bos(self)
    }

    fn eos(&self) -> &[u32] {
        Tokenizer::eos(self)
    }

    fn token(&self, id: u32) -> Option<String> {
        Tokenizer::token(self, id)
    }
}
