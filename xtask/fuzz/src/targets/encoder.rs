//! A tokenizer that costs nothing: every byte is a token.

use qft_train::Result;
use qft_train::data::TextEncoder;
use std::ops::Range;

/// Bytes as tokens, and two more around a sequence.
pub(super) struct Bytes;

/// Its vocabulary.
pub(super) const VOCAB_SIZE: usize = 258;

impl TextEncoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        Ok((self.encode(text)?, (0..text.len()).map(|byte| byte..byte + 1).collect()))
    }

    fn before_text(&self) -> &[u32] {
        &[256]
    }

    fn after_text(&self) -> &[u32] {
        &[]
    }

    fn unknown(&self) -> Option<u32> {
        None
    }

    fn padding(&self) -> Option<u32> {
        None
    }

    fn bos(&self) -> Option<u32> {
        Some(256)
    }

    fn eos(&self) -> &[u32] {
        &[257]
    }

    fn is_added(&self, id: u32) -> bool {
        id > 255
    }

    fn token(&self, id: u32) -> Option<String> {
        match id {
            256 => Some("<s>".into()),
            257 => Some("</s>".into()),
            byte => char::from_u32(byte).map(String::from),
        }
    }
}
