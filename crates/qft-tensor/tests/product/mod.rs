//! Integer products over plain slices, and their result by definition.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "shared by test binaries")]

use qft_tensor::simd::gemm_i8::{self, Operand, Product};
use qft_tensor::{Cpu, Orientation};
use qft_testing::rng::TestRng;

/// What the elements are.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// All of i8, -128 included.
    Random,
    /// One value per operand.
    Same(i8, i8),
}

/// A product over plain slices.
#[derive(Debug, Clone)]
pub struct Problem {
    pub orientation: Orientation,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Elements between the rows of `a`, `b` and the result.
    pub gaps: [usize; 3],
    pub row_scale: bool,
    pub col_scale: bool,
    /// Whether results are whole numbers of a unit for each row.
    pub units: bool,
    pub accumulate: bool,
    pub values: Values,
    pub seed: u64,
}

pub struct Inputs {
    a: Vec<i8>,
    b: Vec<i8>,
    row_scale: Vec<f32>,
    col_scale: Vec<f32>,
    inverse_units: Vec<f32>,
    /// Words of the result before.
    out: Vec<u32>,
}

impl Problem {
    pub fn new(orientation: Orientation, m: usize, n: usize, k: usize) -> Self {
        let gaps = [0; 3];
        let (row_scale, col_scale, units, accumulate) = (true, true, false, false);
        let (values, seed) = (Values::Random, 1);
        Self { orientation, m, n, k, gaps, row_scale, col_scale, units, accumulate, values, seed }
    }

    fn inputs(&self) -> Inputs {
        let Self { m, n, k, gaps, .. } = *self;
        let (stored_a, stored_b) = match self.orientation {
            Orientation::Nt => ((m, k), (n, k)),
            Orientation::Nn => ((m, k), (k, n)),
            Orientation::Tn => ((k, m), (k, n)),
        };
        let mut rng = TestRng::new(self.seed);
        let mut ints = |(rows, cols): (usize, usize), gap: usize, same: fn(i8, i8) -> i8| {
            // The last row has no gap: the slice ends with its last element.
            let len = (rows * (cols + gap)).saturating_sub(gap);
            match self.values {
                Values::Random => rng.int8(len),
                Values::Same(a, b) => vec![same(a, b); len],
            }
        };
        let (a, b) = (ints(stored_a, gaps[0], |a, _| a), ints(stored_b, gaps[1], |_, b| b));
        Inputs {
            a,
            b,
            row_scale: rng.normals(m, 1.0),
            col_scale: rng.normals(n, 1e-3),
            // The unit of a bound that is not a number is none.
            inverse_units: (0..m).map(|m| [0.25, 4.0, 0.5, f32::NAN][m % 4]).collect(),
            out: rng
                .normals((m * (n + gaps[2])).saturating_sub(gaps[2]), 10.0)
                .into_iter()
                .map(|x| if self.units { x as i32 as u32 } else { x.to_bits() })
                .collect(),
        }
    }

    fn product<'a>(&'a self, inputs: &'a Inputs) -> Product<'a> {
        let Self { m, n, k, gaps, .. } = *self;
        let a_k = self.orientation != Orientation::Tn;
        let b_k = self.orientation == Orientation::Nt;
        Product {
            m,
            n,
            k,
            a: Operand {
                data: &inputs.a,
                stride: gaps[0] + if a_k { k } else { m },
                k_contiguous: a_k,
            },
            b: Operand {
                data: &inputs.b,
                stride: gaps[1] + if b_k { k } else { n },
                k_contiguous: b_k,
            },
            row_scale: self.row_scale.then_some(&inputs.row_scale[..]),
            col_scale: self.col_scale.then_some(&inputs.col_scale[..]),
            inverse_units: self.units.then_some(&inputs.inverse_units[..]),
            out_stride: n + gaps[2],
            accumulate: self.accumulate,
        }
    }

    /// The result as bits, gaps included.
    pub fn run(&self, cpu: &Cpu) -> Vec<u32> {
        let inputs = self.inputs();
        let mut out = inputs.out.clone();
        cpu.install(|| gemm_i8::run(cpu.isa(), &self.product(&inputs), &mut out));
        out
    }

    /// The result by definition, from 64-bit sums.
    pub fn expected(&self) -> Vec<u32> {
        let inputs = self.inputs();
        let p = self.product(&inputs);
        let mut out = inputs.out.clone();
        let at = |x: &Operand<'_>, outer: usize, k: usize| {
            let (row, col) = if x.k_contiguous { (outer, k) } else { (k, outer) };
            i64::from(x.data[row * x.stride + col])
        };
        for m in 0..p.m {
            for n in 0..p.n {
                let sum: i64 = (0..p.k).map(|k| at(&p.a, m, k) * at(&p.b, n, k)).sum();
                let mut value = i32::try_from(sum).unwrap() as f32;
                if self.row_scale {
                    value *= inputs.row_scale[m];
                }
                if self.col_scale {
                    value *= inputs.col_scale[n];
                }
                let cell = &mut out[m * p.out_stride + n];
                *cell = if self.units {
                    let units = f64::from(value) * f64::from(inputs.inverse_units[m]);
                    let whole = units.round_ties_even() as i32;
                    (if self.accumulate { *cell as i32 } else { 0 }).wrapping_add(whole) as u32
                } else {
                    let before = if self.accumulate { f32::from_bits(*cell) } else { -0.0 };
                    (before + value).to_bits()
                };
            }
        }
        out
    }
}
