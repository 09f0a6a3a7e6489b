//! Whole numbers on their way: each row with as many bytes a value as its largest needs. Nothing is lost.
//!
//! Sums of gradients have a unit far below what a share needs, so most rows take three bytes a value instead of four, and
//! rows without gradient none.

use qft_tensor::{Error, Host};
use rayon::prelude::*;
use std::ops::Range;

/// The rows of some ranges of elements, `cols` wide, one behind the other: a byte for the width of each, then their values.
///
/// Errors: there is no host.
pub(super) fn pack(
    host: &Host,
    values: &[i32],
    ranges: &[Range<usize>],
    cols: usize,
) -> Result<Vec<u8>, Error> {
    let rows = ranges.iter().flat_map(|range| values[range.clone()].chunks_exact(cols));
    let rows: Vec<&[i32]> = rows.collect();
    Ok(host.install(|| {
        let widths: Vec<u8> = rows.par_iter().map(|row| width(row)).collect();
        let len: usize = widths.iter().map(|&width| usize::from(width) * cols).sum();
        let mut bytes = vec![0; rows.len() + len];
        let (head, mut rest) = bytes.split_at_mut(rows.len());
        head.copy_from_slice(&widths);
        let mut places = Vec::with_capacity(rows.len());
        for &width in &widths {
            let (place, behind) = rest.split_at_mut(usize::from(width) * cols);
            places.push(place);
            rest = behind;
        }
        let work = places.into_par_iter().zip(rows).zip(&widths);
        work.for_each(|((place, row), &width)| pack_row(row, width, place));
        bytes
    }))
}

/// The most bytes that so many rows can take.
pub(super) fn most(rows: usize, cols: usize) -> usize {
    rows * (1 + cols * size_of::<i32>())
}

/// Adds rows that [`pack`] has packed to `sums`.
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

fn pack_row(row: &[i32], width: u8, place: &mut [u8]) {
    match width {
        1 => place.iter_mut().zip(row).for_each(|(place, value)| *place = *value as u8),
        2 => pack_as::<2>(row, place),
        3 => pack_as::<3>(row, place),
        4 => pack_as::<4>(row, place),
        _ => {}
    }
}

fn pack_as<const W: usize>(row: &[i32], place: &mut [u8]) {
    for (place, value) in place.as_chunks_mut::<W>().0.iter_mut().zip(row) {
        place.copy_from_slice(&value.to_le_bytes()[..W]);
    }
}

/// `None`: no row has such a width.
fn add_row(row: &[u8], width: u8, sums: &mut [i32]) -> Option<()> {
    match width {
        0 => {}
        1 => add_as::<1>(row, sums),
        2 => add_as::<2>(row, sums),
        3 => add_as::<3>(row, sums),
        4 => add_as::<4>(row, sums),
        _ => return None,
    }
    Some(())
}

fn add_as<const W: usize>(row: &[u8], sums: &mut [i32]) {
    for (sum, bytes) in sums.iter_mut().zip(row.as_chunks::<W>().0) {
        // The high bytes, and from there down with the sign.
        let mut word = [0; 4];
        word[4 - W..].copy_from_slice(bytes);
        *sum = sum.wrapping_add(i32::from_le_bytes(word) >> (8 * (4 - W)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_tensor::{CpuConfig, Isa};

    fn host() -> Host {
        Host::new(CpuConfig { threads: 2, isa: Isa::SCALAR }).unwrap()
    }

    #[test]
    fn every_value_survives_in_the_fewest_bytes() {
        let edges = [0, 1, -1, 127, -128, 128, -129, 32767, -32768, 32768, 8_388_607, -8_388_608];
        let more = [8_388_608, -8_388_609, i32::MAX, i32::MIN];
        for value in edges.into_iter().chain(more) {
            let row = [0, value, 0, 1];
            let bytes = pack(&host(), &row, std::slice::from_ref(&(0..4)), 4).unwrap();
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
        let bytes = pack(&host(), &values, &[0..6, 18..24], 3).unwrap();
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
