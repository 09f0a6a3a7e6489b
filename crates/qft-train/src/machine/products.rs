//! The speed of integer products on a device, and whether they are right at sizes that keep all of it busy.

use crate::TrainOps;
use crate::error::{Result, ensure};
use qft_tensor::{Buffer, GemmI8, GemmOut, Orientation, Owner};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// Products between two looks at the clock: on a GPU a single one ends too soon.
const BATCH: usize = 8;

/// Elements of a result that are computed anew, by the definition.
const SAMPLES: usize = 256;

/// Scales that leave the bits of a sum as they are.
const SCALES: (f32, f32) = (0.5, 0.25);

/// A product `[M, N]` over K of random operands, which lie on the device.
struct Product<'a> {
    ops: &'a dyn TrainOps,
    orientation: Orientation,
    /// M, N, K.
    shape: (usize, usize, usize),
    /// What the operands hold.
    values: [Vec<i8>; 2],
    operands: [Buffer<i8>; 2],
    row_scale: Buffer<f32>,
    col_scale: Buffer<f32>,
    out: Buffer<f32>,
}

impl<'a> Product<'a> {
    fn new(
        ops: &'a dyn TrainOps,
        orientation: Orientation,
        shape: (usize, usize, usize),
    ) -> Result<Self> {
        let (m, n, k) = shape;
        let values = [random(m * k, 1), random(n * k, 2)];
        let buffer = |values: &[i8]| Buffer::from_host(ops, Owner::Loading, "operand", values);
        let scales = |len, scale| {
            Buffer::from_host(ops, Owner::Loading, "scales of a product", &vec![scale; len])
        };
        Ok(Self {
            ops,
            orientation,
            shape,
            operands: [buffer(&values[0])?, buffer(&values[1])?],
            values,
            row_scale: scales(m, SCALES.0)?,
            col_scale: scales(n, SCALES.1)?,
            out: Buffer::alloc(ops, Owner::Loading, "result", m * n)?,
        })
    }

    fn compute(&mut self) -> Result<()> {
        let (m, n, k) = self.shape;
        let (a_shape, b_shape) = match self.orientation {
            Orientation::Nt => ((m, k), (n, k)),
            Orientation::Nn => ((m, k), (k, n)),
            Orientation::Tn => ((k, m), (k, n)),
        };
        let [a, b] = &self.operands;
        Ok(self.ops.gemm_i8(GemmI8 {
            orientation: self.orientation,
            a: a.mat(a_shape.0, a_shape.1)?,
            b: b.mat(b_shape.0, b_shape.1)?,
            row_scale: Some(self.row_scale.span(0..m)?),
            col_scale: Some(self.col_scale.span(0..n)?),
            out: GemmOut::floats(self.out.mat_mut(m, n)?),
        })?)
    }

    /// An element, by the definition.
    fn element(&self, row: usize, col: usize) -> f32 {
        let (m, n, k) = self.shape;
        let [a, b] = &self.values;
        let term = |i: usize| {
            let (left, right) = match self.orientation {
                Orientation::Nt => (row * k + i, col * k + i),
                Orientation::Nn => (row * k + i, i * n + col),
                Orientation::Tn => (i * m + row, i * n + col),
            };
            i32::from(a[left]) * i32::from(b[right])
        };
        (0..k).map(term).sum::<i32>() as f32 * (SCALES.0 * SCALES.1)
    }
}

/// Random bytes, none of them -128: regular ones take less power, and flatter the clocks.
fn random(len: usize, seed: u64) -> Vec<i8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % 255) as i16 as i8
    };
    (0..len).map(next).map(|value: i8| value.max(-127)).collect()
}

/// The median seconds of one INT8 product `[M, N]` over K, on random operands that lie on the device.
///
/// Errors: no memory for the operands.
pub fn seconds(
    ops: &dyn TrainOps,
    orientation: Orientation,
    shape: (usize, usize, usize),
    rounds: usize,
) -> Result<f64> {
    let mut product = Product::new(ops, orientation, shape)?;
    let mut round = || -> Result<f64> {
        let start = Instant::now();
        for _ in 0..BATCH {
            product.compute()?;
        }
        ops.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / BATCH as f64)
    };
    round()?;
    let mut seconds = (0..rounds.max(1)).map(|_| round()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// Computes a product `rounds` times: all must have the same bits, and samples those of the definition. A hash of the result, which
/// is the same on all devices.
///
/// Errors: no memory; a result that is wrong, with its place.
pub fn check(
    ops: &dyn TrainOps,
    orientation: Orientation,
    shape: (usize, usize, usize),
    rounds: usize,
) -> Result<u64> {
    let (m, n, _) = shape;
    let mut product = Product::new(ops, orientation, shape)?;
    let mut values = vec![0f32; m * n];
    let mut hash = None;
    for round in 0..rounds.max(1) {
        product.compute()?;
        product.out.download(ops, 0, &mut values)?;
        let mut hasher = DefaultHasher::new();
        values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        let found = hasher.finish();
        ensure!(
            *hash.get_or_insert(found) == found,
            "{orientation:?} {shape:?}: round {round} has other bits than the first"
        );
    }
    for i in 0..SAMPLES {
        // Both sides of each border, and all over the result.
        let place = i * (m * n - 1) / (SAMPLES - 1);
        let (row, col) = (place / n, place % n);
        let (found, expected) = (values[place], product.element(row, col));
        ensure!(
            found.to_bits() == expected.to_bits(),
            "{orientation:?} {shape:?}: row {row}, column {col} is {found}, expected {expected}"
        );
    }
    Ok(hash.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_tensor::{Cpu, CpuConfig};

    #[test]
    fn products_of_the_cpu_are_right() {
        let cpu = Cpu::new(CpuConfig::detect().unwrap()).unwrap();
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            check(&cpu, orientation, (65, 130, 200), 2).unwrap();
        }
    }
}
