//! Float products over plain slices: a safe, deterministic wrapper of the `gemm` crate.

use gemm::Parallelism;
use rayon::prelude::*;
use std::marker::PhantomData;

/// One operand with any strides.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements between two steps along the axis that the operand shares with the result.
    pub outer_stride: usize,
    /// Elements between two steps of the contraction.
    pub k_stride: usize,
}

/// `out[m, n] (+)= sum_k a(m, k) b(n, k)`; see [`crate::GemmF32`].
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the contraction.
    pub k: usize,
    /// First operand; its outer axis is `m`.
    pub a: Operand<'a>,
    /// Second operand; its outer axis is `n`.
    pub b: Operand<'a>,
    /// Elements between two rows of the result, at least `n`.
    pub out_stride: usize,
    /// Whether to add to the result.
    pub accumulate: bool,
}

/// Parts that a large product is cut into, along the longer side of the result.
const PARTS: usize = 16;
/// Parts are multiples of this: whole tiles of every kernel.
const PART_STEP: usize = 48;

/// The result, shared by tasks that write disjoint parts of it.
#[derive(Clone, Copy)]
struct Cells<'a>(*mut f32, PhantomData<&'a mut [f32]>);

impl Cells<'_> {
    fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: each task writes its own range of rows or of columns.
unsafe impl Send for Cells<'_> {}
// SAFETY: as above.
unsafe impl Sync for Cells<'_> {}

/// Computes the product on the current rayon pool.
///
/// Numerics: the order of summation depends on the shape and the processor, not on the thread count. Panics if
/// a slice is too short for the shape: callers check shapes first.
pub fn run(p: &Product<'_>, out: &mut [f32]) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    check(p, out.len());
    if p.k == 0 {
        if !p.accumulate {
            out.chunks_mut(p.out_stride.max(1)).take(p.m).for_each(|row| row[..p.n].fill(0.0));
        }
        return;
    }
    let cells = Cells(out.as_mut_ptr(), PhantomData);
    let by_rows = p.m >= p.n;
    let side = if by_rows { p.m } else { p.n };
    let part = side.div_ceil(PARTS).next_multiple_of(PART_STEP);
    (0..side.div_ceil(part)).into_par_iter().with_max_len(1).for_each(|index| {
        let start = index * part;
        let len = part.min(side - start);
        let (m0, n0, m, n) = if by_rows { (start, 0, len, p.n) } else { (0, start, p.m, len) };
        // SAFETY: rows `m0..m0 + m` and columns `n0..n0 + n` lie inside the shape, and `check` compared the
        // shape with all three slices. `gemm` touches only the elements that the dimensions and strides name;
        // those of the result belong to this part alone.
        unsafe {
            gemm::gemm(
                m,
                n,
                p.k,
                cells.get().add(m0 * p.out_stride + n0),
                1,
                p.out_stride as isize,
                p.accumulate,
                p.a.data.as_ptr().add(m0 * p.a.outer_stride),
                p.a.k_stride as isize,
                p.a.outer_stride as isize,
                p.b.data.as_ptr().add(n0 * p.b.outer_stride),
                p.b.outer_stride as isize,
                p.b.k_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    });
}

/// Every index that the kernel can form lies inside its slice.
fn check(p: &Product<'_>, out: usize) {
    let fits = |(rows, row_stride): (usize, usize), (cols, col_stride): (usize, usize), len| {
        rows == 0
            || cols == 0
            || (rows - 1)
                .checked_mul(row_stride)
                .zip((cols - 1).checked_mul(col_stride))
                .and_then(|(r, c)| r.checked_add(c))
                .is_some_and(|last| last < len && len <= isize::MAX as usize)
    };
    let operand =
        |x: &Operand<'_>, outer| fits((outer, x.outer_stride), (p.k, x.k_stride), x.data.len());
    assert!(operand(&p.a, p.m), "first operand too short");
    assert!(operand(&p.b, p.n), "second operand too short");
    assert!(fits((p.m, p.out_stride), (p.n, 1), out), "result too short");
    assert!(p.m <= 1 || p.out_stride >= p.n, "rows of the result overlap");
}
