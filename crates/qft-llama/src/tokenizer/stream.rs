//! Text of tokens that arrive one at a time.

use super::Tokenizer;
use crate::error::Error;

/// A UTF-8 character has at most 4 bytes; text that is still incomplete after more tokens never gets complete.
const MAX_PENDING_TOKENS: usize = 8;

/// Turns generated tokens into text, and holds back the bytes of a character until it is complete.
/// Special tokens give no text.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The prompt, or the tokens that gave the last text, and the tokens since: their text is compared with
    /// and without the new ones. It begins where a character does, and a decoder that drops the space of a
    /// first word finds an older word there.
    window: Vec<u32>,
    /// Tokens of the window that are not new.
    done: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Self {
        Self { tokenizer, window: prompt.to_vec(), done: prompt.len() }
    }

    /// The text that `id` completes; empty if it completes none.
    ///
    /// Errors: as [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.window.push(id);
        self.emit(self.window.len() - self.done > MAX_PENDING_TOKENS)
    }

    /// The text held back, at the end: an incomplete character shows as U+FFFD.
    ///
    /// Errors: as [`Tokenizer::decode`].
    pub fn finish(mut self) -> Result<String, Error> {
        self.emit(true)
    }

    fn emit(&mut self, force: bool) -> Result<String, Error> {
        let before = self.tokenizer.decode_plain(&self.window[..self.done])?;
        let after = self.tokenizer.decode_plain(&self.window)?;
        if !force && after.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b);
        let text = after[same.map(|(c, _)| c.len_utf8()).sum()..].to_string();
        // A window that began inside a character would never decode it.
        let at_character = force || !before.ends_with(char::REPLACEMENT_CHARACTER);
        if !text.is_empty() && at_character {
            self.window.drain(..self.done);
        }
        self.done = self.window.len();
        Ok(text)
    }
}
