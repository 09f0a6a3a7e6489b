//! The rounds of an exchange: what goes to each process, and what comes from each.

use super::calls::Operation;
use super::line::{Line, Spare};
use super::packed::{piece_of, rounds};
use std::ops::Range;

/// What the first round brings in front of its bytes: the number of rounds that the sender needs. Only so do all know how many
/// there are, since each knows no more than the lengths of its own parts.
const HEADER_BYTES: usize = size_of::<u32>();

/// One side of an exchange. The part that a process has for itself does not go through the rounds.
pub(crate) struct Exchange<'a> {
    /// The number of this process.
    pub(crate) rank: usize,
    /// Most bytes of a part in a round.
    pub(crate) piece: usize,
    /// All that is sent.
    pub(crate) send: &'a [u8],
    /// What of it to whom.
    pub(crate) send_parts: &'a [Range<usize>],
    /// Where what comes from whom belongs.
    pub(crate) receive_parts: &'a [Range<usize>],
}

impl Exchange<'_> {
    /// Does it, with `receive` for what comes.
    ///
    /// Errors: why the job is lost, in words.
    pub(crate) fn run(&self, line: &mut Line, receive: &mut [u8]) -> Result<(), String> {
        let own = &self.send[self.send_parts[self.rank].clone()];
        receive[self.receive_parts[self.rank].clone()].copy_from_slice(own);
        line.rounds(
            receive,
            self.own_rounds(),
            |_, round, spare| self.fill(round, spare),
            |receive, round, operation| self.empty(receive, round, operation),
        )
    }

    /// How many rounds this process needs, at least one.
    fn own_rounds(&self) -> usize {
        let longest = |parts: &[Range<usize>]| {
            rounds(&parts[..self.rank], self.piece).max(rounds(&parts[self.rank + 1..], self.piece))
        };
        longest(self.send_parts).max(longest(self.receive_parts)).max(1)
    }

    /// What goes out in a round, and room for what comes.
    fn fill(&self, round: usize, spare: &mut Spare) -> Operation {
        let lengths = |parts: &[Range<usize>]| -> Vec<_> {
            (0..parts.len())
                .map(|r| self.header(r, round) + self.of(parts, r, round).len())
                .collect()
        };
        let receive = spare.room(lengths(self.receive_parts).into_iter());
        let mut send = spare.room(lengths(self.send_parts).into_iter());
        let needed =
            u32::try_from(self.own_rounds()).expect("fewer rounds than a buffer has pages");
        for r in 0..self.send_parts.len() {
            let (header, bytes) = send.of_mut(r).split_at_mut(self.header(r, round));
            header.copy_from_slice(&needed.to_le_bytes()[..header.len()]);
            bytes.copy_from_slice(&self.send[self.of(self.send_parts, r, round)]);
        }
        Operation::Exchange { send, receive }
    }

    /// Takes what has come in a round; how many rounds there are at least, which all know after the first.
    fn empty(&self, receive: &mut [u8], round: usize, operation: &Operation) -> usize {
        let mut total = self.own_rounds();
        let Operation::Exchange { receive: received, .. } = operation else { return total };
        for r in 0..self.receive_parts.len() {
            let (header, bytes) = received.of(r).split_at(self.header(r, round));
            if let Ok(needed) = header.try_into().map(u32::from_le_bytes) {
                total = total.max(needed as usize);
            }
            receive[self.of(self.receive_parts, r, round)].copy_from_slice(bytes);
        }
        total
    }

    fn header(&self, rank: usize, round: usize) -> usize {
        if round == 0 && rank != self.rank { HEADER_BYTES } else { 0 }
    }

    fn of(&self, parts: &[Range<usize>], rank: usize, round: usize) -> Range<usize> {
        if rank == self.rank { 0..0 } else { piece_of(&parts[rank], round, self.piece) }
    }
}

#[cfg(test)]
mod tests;
