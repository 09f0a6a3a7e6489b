//! The tokens of a text of any length, by several threads and in little memory.
//!
//! A text is cut into parts that reach into each other. Where two of them agree on a run of tokens they are joined, in
//! the middle of the run: tokens depend on their neighbourhood only, so the result is that of the text as a whole.

use super::encoder::TextEncoder;
use super::parallel::{in_order, threads};
use crate::error::Result;
use std::ops::Range;

/// Bytes of a part. The library of tokenizers is a third slower in parts of 256 KB, which no longer fit into a core's cache.
const PART_BYTES: usize = 64 << 10;
/// Bytes that a part reaches into its neighbours.
const REACH_BYTES: usize = 2 << 10;
/// Parts that a thread takes at a time.
const PARTS_PER_THREAD: usize = 16;
/// Tokens that two parts have to agree on.
const RUN: usize = 16;
/// Bytes of parts that do not agree and are encoded as one; beyond these the text is cut where one ends, as it may be if it
/// repeats a character that often.
const MAX_PART_BYTES: usize = 2 << 20;

/// Sizes of the parts.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    part: usize,
    reach: usize,
    max: usize,
}

/// A token and the byte of the text at which it begins.
type Token = (u32, usize);

/// Encodes a text that comes piece by piece.
pub(super) struct LongText<'a> {
    encoder: &'a dyn TextEncoder,
    sizes: Sizes,
    /// The text from where the tokens in `last` begin.
    text: String,
    /// Of the part that was encoded last: those that are not handed on. Their places count in `text`.
    last: Vec<Token>,
    /// Where that part ends, and the next one begins, without what they reach beyond.
    end: usize,
}

impl<'a> LongText<'a> {
    pub(super) fn new(encoder: &'a dyn TextEncoder) -> Self {
        let sizes = Sizes { part: PART_BYTES, reach: REACH_BYTES, max: MAX_PART_BYTES };
        Self { encoder, sizes, text: String::new(), last: Vec::new(), end: 0 }
    }

    /// Adds text; hands the ids on of what can be told without the rest.
    ///
    /// Errors: the text cannot be tokenized; those of `take`.
    pub(super) fn push(
        &mut self,
        text: &str,
        take: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<()> {
        self.text.push_str(text);
        let Sizes { part, reach, .. } = self.sizes;
        let most = threads() * PARTS_PER_THREAD * part;
        if self.text.len() - self.end < most + reach {
            return Ok(());
        }
        self.encode_up_to(floor(&self.text, self.text.len() - reach), take)
    }

    /// Hands the ids of the rest on.
    ///
    /// Errors: those of [`LongText::push`].
    pub(super) fn finish(&mut self, take: &mut dyn FnMut(&[u32]) -> Result<()>) -> Result<()> {
        self.encode_up_to(self.text.len(), take)?;
        hand_on(&self.last, take)?;
        self.last.clear();
        Ok(())
    }

    /// Encodes what is between the last part and `end`.
    fn encode_up_to(
        &mut self,
        end: usize,
        take: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<()> {
        let mut parts = Vec::new();
        while self.end < end {
            let next = match end - self.end {
                rest if rest <= 2 * self.sizes.part => end,
                _ => floor(&self.text, self.end + self.sizes.part),
            };
            parts.push(self.end..next);
            self.end = next;
        }
        let encode = |part: Range<usize>| (part.clone(), self.encode(self.reaching(part)));
        let mut encoded = Vec::new();
        in_order(parts, encode, |(part, tokens)| {
            encoded.push((part, tokens?));
            Ok(())
        })?;
        for (part, tokens) in encoded {
            self.join(part, tokens, take)?;
        }
        self.forget();
        Ok(())
    }

    /// Hands the tokens of the last part on up to where it agrees with the next one, which becomes the last.
    fn join(
        &mut self,
        part: Range<usize>,
        mut tokens: Vec<Token>,
        take: &mut dyn FnMut(&[u32]) -> Result<()>,
    ) -> Result<()> {
        if part.start == 0 && self.last.is_empty() {
            self.last = tokens;
            return Ok(());
        }
        let reach = self.sizes.reach;
        let near = self.last.partition_point(|&(_, start)| start + 2 * reach < part.start);
        if let Some((left, right)) = agreement(&self.last[near..], &tokens) {
            hand_on(&self.last[..near + left], take)?;
            tokens.drain(..right);
            self.last = tokens;
            return Ok(());
        }
        let start = self.last.first().map_or(part.start, |&(_, start)| start);
        let end = self.reaching(part.clone()).end;
        if end - start <= self.sizes.max {
            let mut both = self.encode(floor(&self.text, start.saturating_sub(reach))..end)?;
            both.retain(|token| token.1 >= start);
            self.last = both;
        } else {
            hand_on(&self.encode(start..part.start)?, take)?;
            self.last = self.encode(part.start..end)?;
        }
        Ok(())
    }

    /// Lets the text go that the last part does not reach.
    fn forget(&mut self) {
        let start = self.last.first().map_or(self.end, |&(_, start)| start.min(self.end));
        let start = floor(&self.text, start.saturating_sub(self.sizes.reach));
        self.text.drain(..start);
        self.end -= start;
        self.last.iter_mut().for_each(|token| token.1 -= start);
    }

    fn reaching(&self, part: Range<usize>) -> Range<usize> {
        let reach = self.sizes.reach;
        let end = self.text.len().min(part.end + reach);
        floor(&self.text, part.start.saturating_sub(reach))..floor(&self.text, end)
    }

    fn encode(&self, range: Range<usize>) -> Result<Vec<Token>> {
        let (ids, places) = self.encoder.encode_with_places(&self.text[range.clone()])?;
        let place = |place: Range<usize>| range.start + place.start;
        Ok(ids.into_iter().zip(places.into_iter().map(place)).collect())
    }
}

fn hand_on(tokens: &[Token], take: &mut dyn FnMut(&[u32]) -> Result<()>) -> Result<()> {
    take(&tokens.iter().map(|&(id, _)| id).collect::<Vec<u32>>())
}

/// The last border of characters at or before a byte.
fn floor(text: &str, byte: usize) -> usize {
    (0..=byte).rev().find(|&byte| text.is_char_boundary(byte)).unwrap_or(0)
}

/// The first tokens of both behind the middle of a run on which they agree, at a place where a token begins anew.
fn agreement(left: &[Token], right: &[Token]) -> Option<(usize, usize)> {
    let (mut i, mut j, mut run) = (0, 0, 0);
    while let (Some(a), Some(b)) = (left.get(i), right.get(j)) {
        if a == b {
            run += 1;
            // The tokens `run / 2` back are in the middle.
            let (l, r) = (i + 1 - run / 2, j + 1 - run / 2);
            if run >= RUN && l > 0 && left[l].1 > left[l - 1].1 {
                return Some((l, r));
            }
            (i, j) = (i + 1, j + 1);
            continue;
        }
        run = 0;
        match a.1.cmp(&b.1) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j) = (i + 1, j + 1),
        }
    }
    None
}

#[cfg(test)]
mod tests;
