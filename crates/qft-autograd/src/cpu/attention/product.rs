//! Products of small matrices in registers: one element of the left operand times a vector of the right.
//!
//! Each element of a result is one chain of fused multiply-adds in order of the contraction, whatever the tile:
//! tile sizes differ between instruction sets, results do not.

use qft_tensor::numeric::LANES;

type Vector = [f32; LANES];

/// A tile of the result: `R` rows of `V` vectors.
type Tile<const R: usize, const V: usize> = [[Vector; V]; R];

/// `a * b + c`. Vectors go by value: so the compiler keeps each in a register.
#[inline(always)]
fn fma(a: f32, b: Vector, c: Vector) -> Vector {
    let mut out = [0.0; LANES];
    for l in 0..LANES {
        out[l] = a.mul_add(b[l], c[l]);
    }
    out
}

#[inline(always)]
fn vector(x: &[f32]) -> Vector {
    let mut out = [0.0; LANES];
    out.copy_from_slice(&x[..LANES]);
    out
}

/// `tile[r] += sum over k of left(k, r) * right[k]`; `right` has `stride` elements a row.
#[inline(always)]
fn multiply<const R: usize, const V: usize>(
    mut tile: Tile<R, V>,
    k: usize,
    left: impl Fn(usize, usize) -> f32,
    right: &[f32],
    stride: usize,
) -> Tile<R, V> {
    for k in 0..k {
        let row = &right[k * stride..][..V * LANES];
        let vectors: [Vector; V] = std::array::from_fn(|v| vector(&row[v * LANES..]));
        for (r, tile) in tile.iter_mut().enumerate() {
            let x = left(k, r);
            for v in 0..V {
                tile[v] = fma(x, vectors[v], tile[v]);
            }
        }
    }
    tile
}

#[inline(always)]
fn load<const R: usize, const V: usize>(
    out: &[f32],
    stride: usize,
    rows: usize,
    accumulate: bool,
) -> Tile<R, V> {
    let mut tile = [[[0.0; LANES]; V]; R];
    if accumulate {
        for (r, tile) in tile.iter_mut().enumerate() {
            if r < rows {
                for (v, vector) in tile.iter_mut().enumerate() {
                    vector.copy_from_slice(&out[r * stride + v * LANES..][..LANES]);
                }
            }
        }
    }
    tile
}

#[inline(always)]
fn store<const R: usize, const V: usize>(
    tile: &Tile<R, V>,
    out: &mut [f32],
    stride: usize,
    rows: usize,
) {
    for (r, tile) in tile.iter().enumerate() {
        if r < rows {
            for (v, vector) in tile.iter().enumerate() {
                out[r * stride + v * LANES..][..LANES].copy_from_slice(vector);
            }
        }
    }
}

/// The left operand, and the lengths of a product.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    /// The elements.
    pub(super) data: &'a [f32],
    /// Elements between two rows of the operand as it lies.
    pub(super) stride: usize,
    /// Rows of the result.
    pub(super) m: usize,
    /// Length of the contraction.
    pub(super) k: usize,
}

/// `out[m, ..n] (+)= left[m, k] * right[k, ..n]`: rows of `left` lie along the contraction. `n` is a multiple of
/// the vectors of a tile.
#[inline(always)]
pub(super) fn rows<const R: usize, const V: usize>(
    left: Left<'_>,
    (right, right_stride): (&[f32], usize),
    (out, out_stride): (&mut [f32], usize),
    n: usize,
    accumulate: bool,
) {
    let Left { data, stride, m, k } = left;
    for first in (0..m).step_by(R) {
        let valid = R.min(m - first);
        // Rows past the end repeat the last one; their results are not stored.
        let lines: [&[f32]; R] =
            std::array::from_fn(|r| &data[(first + r.min(valid - 1)) * stride..][..k]);
        for col in (0..n).step_by(V * LANES) {
            let out = &mut out[first * out_stride + col..];
            let tile = load::<R, V>(out, out_stride, valid, accumulate);
            let tile = multiply(tile, k, |k, r| lines[r][k], &right[col..], right_stride);
            store(&tile, out, out_stride, valid);
        }
    }
}

/// `out[m, ..n] += left[k, m]^T * right[k, ..n]`: rows of `left` lie along the rows of the result.
#[inline(always)]
pub(super) fn columns<const R: usize, const V: usize>(
    left: Left<'_>,
    (right, right_stride): (&[f32], usize),
    (out, out_stride): (&mut [f32], usize),
    n: usize,
) {
    let whole = left.m / R * R;
    for first in (0..whole).step_by(R) {
        column_tile::<R, V>(left, first, (right, right_stride), (&mut *out, out_stride), n);
    }
    for first in whole..left.m {
        column_tile::<1, V>(left, first, (right, right_stride), (&mut *out, out_stride), n);
    }
}

#[inline(always)]
fn column_tile<const R: usize, const V: usize>(
    left: Left<'_>,
    first: usize,
    (right, right_stride): (&[f32], usize),
    (out, out_stride): (&mut [f32], usize),
    n: usize,
) {
    for col in (0..n).step_by(V * LANES) {
        let out = &mut out[first * out_stride + col..];
        let tile = load::<R, V>(out, out_stride, R, true);
        let at = |k: usize, r: usize| left.data[k * left.stride + first..][..R][r];
        let tile = multiply(tile, left.k, at, &right[col..], right_stride);
        store(&tile, out, out_stride, R);
    }
}
