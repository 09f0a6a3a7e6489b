//! Transposes of small blocks, written so that compilers find the shuffles.
//!
//! Laying four quarters of an array side by side, element by element, rotates the bits of every index by two. Two
//! such steps exchange the halves of an 8-bit index: row and column of a square of 16.

/// Begins on a cache line: a vector load of an unaligned column would touch two.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// Side of the float squares.
pub(super) const SIDE: usize = 16;

/// Elements of a square.
const AREA: usize = SIDE * SIDE;

/// `[i][j]` becomes `[j][i]`.
#[inline(always)]
pub(super) fn square(block: &[f32; AREA]) -> [f32; AREA] {
    interleave(&interleave(block))
}

#[inline(always)]
fn interleave(x: &[f32; AREA]) -> [f32; AREA] {
    let mut out = [0.0; AREA];
    for i in 0..AREA / 4 {
        for j in 0..4 {
            out[4 * i + j] = x[AREA / 4 * j + i];
        }
    }
    out
}

/// Rows in a tile of bytes: a column of the tile is a cache line.
pub(super) const TILE_ROWS: usize = 64;

/// Columns transposed at a time: the part of the tile they fill stays in the first-level cache.
const STRIP: usize = 128;

/// `tile[c][t] = x[t][c]` for the up to 64 rows of `x` i8 `[T, tile.len()]`; rows beyond are zero.
///
/// Four rows are packed into words, and the words of four packs laid side by side.
#[inline(always)]
pub(super) fn bytes(x: &[i8], tile: &mut [Aligned<[i8; TILE_ROWS]>]) {
    let cols = tile.len();
    for (s, strip) in tile.chunks_mut(STRIP).enumerate() {
        for quarter in 0..TILE_ROWS / 16 {
            let mut packs = [[0u32; STRIP]; 4];
            for (p, pack) in packs.iter_mut().enumerate() {
                let row = |i: usize| row_strip(x, cols, 16 * quarter + 4 * p + i, s);
                let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
                for (c, word) in pack.iter_mut().enumerate() {
                    *word = u32::from_le_bytes([r0[c], r1[c], r2[c], r3[c]].map(|x| x as u8));
                }
            }
            let mut words = [[0u32; 4]; STRIP];
            for (c, words) in words.iter_mut().enumerate() {
                *words = [packs[0][c], packs[1][c], packs[2][c], packs[3][c]];
            }
            for (column, words) in strip.iter_mut().zip(&words) {
                for (bytes, word) in
                    column.0[16 * quarter..].as_chunks_mut().0.iter_mut().zip(words)
                {
                    *bytes = word.to_le_bytes().map(|x| x as i8);
                }
            }
        }
    }
}

/// Strip `s` of row `t`; beyond the matrix it is zero.
#[inline(always)]
fn row_strip(x: &[i8], cols: usize, t: usize, s: usize) -> [i8; STRIP] {
    let mut out = [0; STRIP];
    if let Some(row) = x.get(t * cols..(t + 1) * cols) {
        let row = &row[s * STRIP..];
        match row.first_chunk::<STRIP>() {
            Some(row) => out = *row,
            None => out[..row.len()].copy_from_slice(row),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_and_tiles_are_transposed() {
        let block: [f32; AREA] = std::array::from_fn(|i| i as f32);
        let turned = square(&block);
        for i in 0..AREA {
            assert_eq!(turned[i], block[i % SIDE * SIDE + i / SIDE]);
        }
        for (rows, cols) in [(64, 128), (64, 300), (1, 1), (63, 127), (17, 129)] {
            let x: Vec<i8> = (0..rows * cols).map(|i| (i * 7919 % 251) as i8).collect();
            let mut tile = vec![Aligned([9; TILE_ROWS]); cols];
            bytes(&x, &mut tile);
            for (c, column) in tile.iter().enumerate() {
                for (t, &value) in column.0.iter().enumerate() {
                    let want = if t < rows { x[t * cols + c] } else { 0 };
                    assert_eq!(value, want, "[{rows}, {cols}] at {t}, {c}");
                }
            }
        }
    }
}
