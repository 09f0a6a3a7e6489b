//! Whole numbers on their way: each row with as many bytes a value as its largest needs. Nothing is lost.
//!
//! Sums of gradients have a unit far below what a share needs, so most rows take three bytes a value instead of four, and
//! rows without gradient none. A row's bytes lie in planes, the lowest bytes of all values first.

use qft_tensor::Host;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that are to be packed, and how many bytes their values take.
pub(super) struct Rows<'a> {
    rows: Vec<&'a [i32]>,
    widths: Vec<u8>,
}

impl<'a> Rows<'a> {
    /// Those of some ranges of elements, `cols` wide.
    pub(super) fn of(host: &Host, values: &'a [i32], ranges: &[Range<usize>], cols: usize) -> Self {
        let rows = ranges.iter().flat_map(|range| values[range.clone()].chunks_exact(cols));
        let rows: Vec<&[i32]> = rows.collect();
        let widths = host.install(|| rows.par_iter().map(|row| width(row)).collect());
        Self { rows, widths }
    }

    /// The bytes that they take: one for the width of each, then their values.
    pub(super) fn packed_len(&self) -> usize {
        let lens = self.rows.iter().zip(&self.widths);
        self.rows.len() + lens.map(|(row, &width)| usize::from(width) * row.len()).sum::<usize>()
    }

    /// Packs them into so many bytes.
    pub(super) fn pack(&self, host: &Host, bytes: &mut [u8]) {
        let (head, mut rest) = bytes.split_at_mut(self.rows.len());
        head.copy_from_slice(&self.widths);
        let mut places = Vec::with_capacity(self.rows.len());
        for (row, &width) in self.rows.iter().zip(&self.widths) {
            let (place, behind) = rest.split_at_mut(usize::from(width) * row.len());
            places.push(place);
            rest = behind;
        }
        host.install(|| {
            places.into_par_iter().zip(&self.rows).for_each(|(place, row)| pack_row(row, place));
        });
    }
}

/// The most bytes that so many rows can take.
pub(super) fn most(rows: usize, cols: usize) -> usize {
    rows * (1 + cols * size_of::<i32>())
}

/// Adds rows that were packed to `sums`.
///
/// `None`: they are of another shape.
pub(super) fn add(bytes: &[u8], cols: usize, sums: &mut [i32]) -> Option<()> {
    let (widths, mut values) = bytes.split_at_checked(sums.len() / cols)?;
    for (&width, sums) in widths.iter().zip(sums.chunks_exact_mut(cols)) {
        let (row, behind) = values.split_at_checked(usize::from(width) * cols)?;
        add_row(row, width, sums)?;
        values = behind;
    }
    values.is_empty().then_some(())
}

/// Bytes that every value of a row fits into, with its sign; none, if all are zero.
fn width(row: &[i32]) -> u8 {
    let (mut any, mut bits) = (0, 0);
    for &value in row {
        any |= value;
        bits |= value ^ (value >> 31);
    }
    if any == 0 { 0 } else { (33 - bits.leading_zeros()).div_ceil(8) as u8 }
}

fn pack_row(row: &[i32], place: &mut [u8]) {
    for (number, plane) in place.chunks_exact_mut(row.len().max(1)).enumerate() {
        let shift = 8 * number;
        plane.iter_mut().zip(row).for_each(|(byte, value)| *byte = (value >> shift) as u8);
    }
}

/// `None`: no row has such a width.
fn add_row(row: &[u8], width: u8, sums: &mut [i32]) -> Option<()> {
    let low = |byte: u8, number: u32| i32::from(byte) << (8 * number);
    let high = |byte: u8, number: u32| i32::from(byte.cast_signed()) << (8 * number);
    let mut planes = row.chunks_exact(sums.len().max(1));
    let mut plane = || planes.next().unwrap_or_default().iter().copied();
    // A sum of its own for each width: one loop over all planes at once.
    match width {
        0 => {}
        1 => add_each(sums, plane().map(|a| high(a, 0))),
        2 => add_each(sums, plane().zip(plane()).map(|(a, b)| low(a, 0) | high(b, 1))),
        3 => {
            let planes = plane().zip(plane()).zip(plane());
            add_each(sums, planes.map(|((a, b), c)| low(a, 0) | low(b, 1) | high(c, 2)));
        }
        4 => {
            let planes = plane().zip(plane()).zip(plane().zip(plane()));
            let value = |((a, b), (c, d))| low(a, 0) | low(b, 1) | low(c, 2) | high(d, 3);
            add_each(sums, planes.map(value));
        }
        _ => return None,
    }
    Some(())
}

fn add_each(sums: &mut [i32], values: impl Iterator<Item = i32>) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.wrapping_add(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_tensor::{CpuConfig, Isa};

    fn host() -> Host {
        Host::new(CpuConfig { threads: 2, isa: Isa::SCALAR }).unwrap()
    }

    fn pack(host: &Host, values: &[i32], ranges: &[Range<usize>], cols: usize) -> Vec<u8> {
        let rows = Rows::of(host, values, ranges, cols);
        let mut bytes = vec![9; rows.packed_len()];
        rows.pack(host, &mut bytes);
        bytes
    }

    #[test]
    fn every_value_survives_in_the_fewest_bytes() {
        let edges = [0, 1, -1, 127, -128, 128, -129, 32767, -32768, 32768, 8_388_607, -8_388_608];
        let more = [8_388_608, -8_388_609, i32::MAX, i32::MIN];
        for value in edges.into_iter().chain(more) {
            let row = [0, value, 0, 1];
            let bytes = pack(&host(), &row, std::slice::from_ref(&(0..4)), 4);
            let fits = |bytes: u32| {
                let half = 1_i64 << (8 * bytes - 1);
                (-half..half).contains(&i64::from(value))
            };
            let width = (1..=4).find(|&bytes| fits(bytes)).unwrap();
            assert_eq!(bytes.len(), 1 + 4 * width as usize, "{value}");
            let mut sums = [5; 4];
            add(&bytes, 4, &mut sums).unwrap();
            assert_eq!(sums, row.map(|value: i32| value.wrapping_add(5)));
        }
    }

    #[test]
    fn rows_of_several_ranges_lie_one_behind_the_other() {
        let values: Vec<i32> = (0..24).map(|i| if i < 3 { 0 } else { i * i * i * 40 }).collect();
        let bytes = pack(&host(), &values, &[0..6, 18..24], 3);
        assert_eq!(bytes[..4], [0, 2, 3, 3]);
        assert!(bytes.len() <= most(4, 3));
        let mut sums = vec![0; 12];
        add(&bytes, 3, &mut sums).unwrap();
        assert_eq!([&values[0..6], &values[18..24]].concat(), sums);
        let others: [&[u8]; 4] = [&bytes[..bytes.len() - 1], &[], &[9; 40], &[4; 4]];
        for other in others {
            assert_eq!(add(other, 3, &mut sums), None);
        }
    }
}
