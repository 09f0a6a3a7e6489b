//! Rotary embedding on the CPU.

use super::lanes::with_scratch;
use crate::Error;
use crate::ops::Rope;
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

/// Positions that share a coarse angle.
const STEP: usize = 64;

/// Tokens per task.
const TOKENS: usize = 16;

struct Rotate<'a> {
    /// One row, `[heads, D]`.
    x: &'a mut [f32],
    /// D.
    size: usize,
    /// Cosines `[R / 2]`.
    cos: &'a [f32],
    /// Sines `[R / 2]`.
    sin: &'a [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(self.size) {
            let (low, high) = head[..2 * half].split_at_mut(half);
            for (((a, b), &cos), &sin) in low.iter_mut().zip(high).zip(self.cos).zip(self.sin) {
                let (x, y) = (*a, *b);
                *a = x.mul_add(cos, -(y * sin));
                *b = y.mul_add(cos, x * sin);
            }
        }
    }
}

/// `(sin, cos)` of `position * inv_freq[i]` for one position: f64 `[R / 2]`.
fn angles(position: usize, inv_freq: &[f32]) -> impl Iterator<Item = (f64, f64)> {
    inv_freq.iter().map(move |&f| (position as f64 * f64::from(f)).sin_cos())
}

/// Sines and cosines of coarse and fine angles, whose sums are all the angles of a batch.
///
/// Sines of few positions are taken directly, of many through tables; the sums are the same, and so are the bits.
struct Table<'a> {
    inv_freq: &'a [f32],
    /// `[positions / STEP, R / 2]`, or nothing.
    coarse: Vec<(f64, f64)>,
    /// `[STEP, R / 2]`, or nothing.
    fine: Vec<(f64, f64)>,
}

impl<'a> Table<'a> {
    fn new(positions: &[u32], inv_freq: &'a [f32]) -> Self {
        let steps = positions.iter().max().map_or(0, |&p| p as usize / STEP + 1);
        if 2 * positions.len() < steps + STEP {
            return Self { inv_freq, coarse: Vec::new(), fine: Vec::new() };
        }
        let coarse = (0..steps).flat_map(|i| angles(i * STEP, inv_freq)).collect();
        let fine = (0..STEP).flat_map(|i| angles(i, inv_freq)).collect();
        Self { inv_freq, coarse, fine }
    }

    /// Writes the cosines and sines of one position, in f32, times their factors.
    fn fill(&self, position: usize, factors: (f32, f32), cos: &mut [f32], sin: &mut [f32]) {
        let half = self.inv_freq.len();
        let (step, rest) = (position / STEP, position % STEP);
        let mut write = |pairs: &mut dyn Iterator<Item = ((f64, f64), (f64, f64))>| {
            for (((s0, c0), (s1, c1)), (cos, sin)) in pairs.zip(cos.iter_mut().zip(sin.iter_mut()))
            {
                *cos = (c0 * c1 - s0 * s1) as f32 * factors.0;
                *sin = (s0 * c1 + c0 * s1) as f32 * factors.1;
            }
        };
        if self.fine.is_empty() {
            write(&mut angles(step * STEP, self.inv_freq).zip(angles(rest, self.inv_freq)));
        } else {
            let coarse = self.coarse[step * half..][..half].iter().copied();
            write(&mut coarse.zip(self.fine[rest * half..][..half].iter().copied()));
        }
    }
}

pub(super) fn rope(cpu: &Cpu, op: Rope<'_>) -> Result<(), Error> {
    op.check()?;
    let Rope { x, positions, inv_freq, heads, size, scale, inverse } = op;
    let (isa, x) = (cpu.isa(), x.host_mut()?);
    let (positions, inv_freq) = (positions.host()?, inv_freq.host()?);
    let half = inv_freq.len();
    let row = heads * size;
    if x.is_empty() || half == 0 {
        return Ok(());
    }
    let table = Table::new(positions, inv_freq);
    let factors = (scale, if inverse { -scale } else { scale });
    let tasks = x.par_chunks_mut(TOKENS * row).zip(positions.par_chunks(TOKENS));
    cpu.for_each(tasks, |(x, positions)| {
        with_scratch(2 * half, |scratch| {
            let (cos, sin) = scratch.split_at_mut(half);
            for (x, &position) in x.chunks_exact_mut(row).zip(positions) {
                table.fill(position as usize, factors, cos, sin);
                isa.run(Rotate { x, size, cos, sin });
            }
        });
    });
    Ok(())
}
