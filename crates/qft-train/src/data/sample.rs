//! A record as tokens, of which some are learned.

use super::encoder::TextEncoder;
use crate::error::Result;
use std::ops::Range;

/// Tokens, and for each whether the loss counts its prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) ids: Vec<u32>,
    pub(super) learned: Vec<bool>,
    /// Spans that begin within a token: it stands for what is before them as well.
    pub(super) merged: usize,
}

impl Sample {
    /// A text of which `spans` are learned. A token that reaches into a span from outside belongs to it: without it,
    /// the span's beginning would never be predicted.
    ///
    /// Errors: the text cannot be tokenized.
    pub(super) fn of_spans(
        encoder: &dyn TextEncoder,
        text: &str,
        spans: &[Range<usize>],
    ) -> Result<Self> {
        let (ids, places) = encoder.encode_with_places(text)?;
        let mut learned = vec![false; ids.len()];
        let (mut first, mut merged) = (0, 0);
        for span in spans {
            // Places rise; a token without bytes stands at one.
            let before = |place: &&Range<usize>| place.end.max(place.start + 1) <= span.start;
            first += places[first..].iter().take_while(before).count();
            merged += usize::from(places.get(first).is_some_and(|place| place.start < span.start));
            let within = places[first..].iter().take_while(|place| place.start < span.end);
            let count = within.count();
            learned[first..first + count].fill(true);
        }
        Ok(Self { ids, learned, merged })
    }

    /// A text that is learned as a whole.
    ///
    /// Errors: the text cannot be tokenized.
    pub(super) fn whole(encoder: &dyn TextEncoder, text: &str) -> Result<Self> {
        let ids = encoder.encode(text)?;
        let learned = vec![true; ids.len()];
        Ok(Self { ids, learned, merged: 0 })
    }

    /// Puts the tokens before it that the tokenizer puts before a text, unless they are there.
    pub(super) fn begin(&mut self, encoder: &dyn TextEncoder) {
        let before = encoder.before_text();
        if !self.ids.starts_with(before) {
            self.ids.splice(..0, before.iter().copied());
            self.learned.splice(..0, before.iter().map(|_| false));
        }
    }

    /// Adds a learned token.
    pub(super) fn end(&mut self, id: u32) {
        self.ids.push(id);
        self.learned.push(true);
    }

    /// The ids that are learned, each run of them by itself.
    pub(super) fn spans(&self) -> impl Iterator<Item = &[u32]> {
        let runs = self.learned.chunk_by(|a, b| a == b);
        let starts =
            runs.clone().scan(0, |start, run| Some(std::mem::replace(start, *start + run.len())));
        let learned = starts.zip(runs).filter(|(_, run)| run[0]);
        learned.map(|(start, run)| &self.ids[start..start + run.len()])
    }

    /// The learned tokens.
    pub(super) fn targets(&self) -> impl Iterator<Item = u32> {
        let both = self.ids.iter().zip(&self.learned).skip(1);
        both.filter(|(_, learned)| **learned).map(|(&id, _)| id)
    }

    /// Positions: each token but the last predicts the next.
    pub(super) fn positions(&self) -> usize {
        self.ids.len().saturating_sub(1)
    }

    /// The tokens in `range`, as a sample of its own.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let (ids, learned) = (self.ids[range.clone()].to_vec(), self.learned[range].to_vec());
        Self { ids, learned, merged: 0 }
    }
}
