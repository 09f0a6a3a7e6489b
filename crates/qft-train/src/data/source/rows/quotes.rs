//! Whether a quote of a CSV file is never closed: all that follows it would be one field.

use std::cell::Cell;
use std::io::{self, Read};

/// Where a reader stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A field begins.
    Start,
    /// In a field without quotes, in which they are signs as any other.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote that ends a field, unless another follows.
    Ended,
}

/// Passes bytes on, and says at their end whether a quote is open.
pub(super) struct Quotes<'a, R> {
    bytes: R,
    delimiter: u8,
    state: State,
    line: usize,
    /// The line of the quote that is open at the end.
    open: &'a Cell<Option<usize>>,
    /// The line of the last quote that began a field.
    began: usize,
}

impl<'a, R: Read> Quotes<'a, R> {
    pub(super) fn new(bytes: R, delimiter: u8, open: &'a Cell<Option<usize>>) -> Self {
        Self { bytes, delimiter, state: State::Start, line: 1, open, began: 1 }
    }

    fn pass(&mut self, byte: u8) {
        let between = byte == self.delimiter || matches!(byte, b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (State::Start, b'"') => {
                self.began = self.line;
                State::Quoted
            }
            (State::Quoted, b'"') => State::Ended,
            (State::Quoted, _) | (State::Ended, b'"') => State::Quoted,
            _ if between => State::Start,
            _ => State::Plain,
        };
        self.line += usize::from(byte == b'\n');
    }
}

impl<R: Read> Read for Quotes<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(out)?;
        out[..count].iter().for_each(|&byte| self.pass(byte));
        if count == 0 {
            self.open.set((self.state == State::Quoted).then_some(self.began));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_never_closed_is_found() {
        for (text, line) in [
            ("a,b\nc,d\n", None),
            ("a,b\n\"c\",\"d\ne\"\n", None),
            ("a,b\nc,5\" pipe\n", None),
            ("a,b\n\"c \"\"x\"\"\",d", None),
            ("a,b\n\"c,d\ne,f\n", Some(2)),
            ("a,b\nc,\"d\"\"\ne\n", Some(2)),
            ("a,b\n\"c\",d\ne,\"f", Some(3)),
        ] {
            let open = Cell::new(None);
            let mut all = String::new();
            let mut quotes = Quotes::new(text.as_bytes(), b',', &open);
            quotes.read_to_string(&mut all).unwrap();
            assert_eq!((all.as_str(), open.get()), (text, line));
        }
    }
}
