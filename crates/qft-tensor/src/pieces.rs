//! Pieces of a buffer at equal distances, which a device copies at once.

use crate::buffer::RawBuffer;
use crate::{Device, Error};
use std::ops::Range;

/// Pieces of a buffer, all of the same length and distance, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Where the first begins.
    pub start: usize,
    /// Of each.
    pub bytes: usize,
    /// From the beginning of one to that of the next; at least `bytes`.
    pub stride: usize,
    /// How many.
    pub count: usize,
}

impl Pieces {
    /// These ranges of bytes, which rise, in as few groups as neighbours allow.
    pub fn of(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for range in ranges.into_iter().filter(|range| !range.is_empty()) {
            let (start, bytes) = (range.start, range.len());
            match groups.last_mut() {
                Some(last) if last.bytes == bytes && last.count == 1 => {
                    *last = Self { stride: start - last.start, count: 2, ..*last };
                }
                Some(last)
                    if last.bytes == bytes && start == last.start + last.count * last.stride =>
                {
                    last.count += 1;
                }
                _ => groups.push(Self { start, bytes, stride: bytes, count: 1 }),
            }
        }
        groups
    }

    /// As many pieces of the same length, one behind the other from `start` on.
    #[must_use]
    pub fn packed(self, start: usize) -> Self {
        Self { start, stride: self.bytes, ..self }
    }

    /// Each, in order.
    pub fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        let Self { start, bytes, stride, count } = self;
        (0..count).map(move |piece| start + piece * stride..start + piece * stride + bytes)
    }

    /// Bytes of all.
    pub fn len(self) -> usize {
        self.bytes * self.count
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Copies ranges of bytes of `src`, which rise, to `dst`, one behind the other from `start` on; where the last one ends.
///
/// Errors: those of [`Device::copy_pieces_raw`].
pub fn pack(
    device: &dyn Device,
    (dst, mut start): (&mut RawBuffer, usize),
    src: &RawBuffer,
    ranges: impl IntoIterator<Item = Range<usize>>,
) -> Result<usize, Error> {
    for pieces in Pieces::of(ranges) {
        device.copy_pieces_raw(dst, pieces.packed(start), src, pieces)?;
        start += pieces.len();
    }
    Ok(start)
}

/// Copies what lies one behind the other in `src`, from `start` on, to ranges of bytes of `dst`, which rise; where the last one
/// ends in `src`.
///
/// Errors: those of [`Device::copy_pieces_raw`].
pub fn unpack(
    device: &dyn Device,
    dst: &mut RawBuffer,
    (src, mut start): (&RawBuffer, usize),
    ranges: impl IntoIterator<Item = Range<usize>>,
) -> Result<usize, Error> {
    for pieces in Pieces::of(ranges) {
        device.copy_pieces_raw(dst, pieces, src, pieces.packed(start))?;
        start += pieces.len();
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Cpu, CpuConfig, Isa, Owner};

    #[test]
    fn neighbours_of_a_kind_are_one_group() {
        let ranges = [3..5, 10..14, 20..24, 30..34, 41..45, 50..50, 60..61];
        let group = |start, bytes, stride, count| Pieces { start, bytes, stride, count };
        let expected =
            [group(3, 2, 2, 1), group(10, 4, 10, 3), group(41, 4, 4, 1), group(60, 1, 1, 1)];
        assert_eq!(Pieces::of(ranges), expected);
        assert!(Pieces::of([]).is_empty());
    }

    #[test]
    fn what_is_packed_comes_back_to_its_place() {
        let cpu = Cpu::new(CpuConfig { threads: 1, isa: Isa::SCALAR }).unwrap();
        let values: Vec<u8> = (0..100).collect();
        let src = Buffer::from_host(&cpu, Owner::Data, "src", &values).unwrap();
        let mut packed = Buffer::<u8>::zeros(&cpu, Owner::Data, "packed", 30).unwrap();
        let ranges = || [1..4, 10..14, 20..24, 30..34, 90..100];
        let end = pack(&cpu, (packed.raw_mut(), 2), src.raw(), ranges()).unwrap();
        assert_eq!(end, 2 + 3 + 12 + 10);
        let expected: Vec<u8> = ranges().into_iter().flatten().map(|i| i as u8).collect();
        assert_eq!(packed.to_vec(&cpu).unwrap()[2..end], expected);
        let mut back = Buffer::<u8>::zeros(&cpu, Owner::Data, "back", 100).unwrap();
        assert_eq!(unpack(&cpu, back.raw_mut(), (packed.raw(), 2), ranges()).unwrap(), end);
        let back = back.to_vec(&cpu).unwrap();
        for (i, &value) in back.iter().enumerate() {
            let copied = ranges().iter().any(|range| range.contains(&i));
            assert_eq!(usize::from(value), if copied { i } else { 0 });
        }
    }
}
