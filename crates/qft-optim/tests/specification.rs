//! The update against its documentation, written down once more element by element: every bit must agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{CODES, Planes, RESIDUALS, Step, Trained, key};
use half::bf16;
use qft_optim::lion::{GROWN_MAX, MAX_STEP};
use qft_optim::{LionConfig, MomentumCode, WeightRounding};
use qft_quant::{HybridFormat, Residual};
use qft_tensor::rotation::rotate;
use qft_tensor::{Cpu, CpuConfig, Isa, Philox};
use qft_testing::rng::TestRng;

fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

fn offset(bits: u32) -> f32 {
    (bits as f32 + 0.5) / 65_536.0
}

struct Spec {
    rows: usize,
    cols: usize,
    residual: Residual,
    code: MomentumCode,
    rotated: bool,
    protected: Vec<bool>,
}

impl Spec {
    fn weight(&self, planes: &Planes, n: usize, c: usize) -> i32 {
        let q = i32::from(planes.q[n * self.cols + c]);
        let row = n * self.residual.row_bytes(self.cols);
        match self.residual {
            Residual::None => q,
            Residual::Bits8 => 256 * q + i32::from(planes.r[row + c]),
            Residual::Bits4 => {
                let byte = planes.r[row + c / 2] as u8;
                let nibble = i32::from(if c.is_multiple_of(2) { byte & 15 } else { byte >> 4 });
                16 * q + if nibble >= 8 { nibble - 16 } else { nibble }
            }
        }
    }

    fn store(&self, planes: &mut Planes, n: usize, c: usize, k: i32) {
        let f = self.residual.steps();
        let q = (k + f / 2).div_euclid(f);
        let r = k - q * f;
        planes.q[n * self.cols + c] = i8::try_from(q).unwrap();
        let row = n * self.residual.row_bytes(self.cols);
        match self.residual {
            Residual::None => assert_eq!(r, 0),
            Residual::Bits8 => planes.r[row + c] = i8::try_from(r).unwrap(),
            Residual::Bits4 => {
                let byte = &mut planes.r[row + c / 2];
                let nibble = (r & 15) as u8;
                let (low, high) = (*byte as u8 & 15, *byte as u8 >> 4);
                *byte =
                    if c.is_multiple_of(2) { nibble | high << 4 } else { low | nibble << 4 } as i8;
            }
        }
    }

    /// The random words of a row, 128 per block of weights.
    fn words(&self, philox: &Philox, n: usize) -> Vec<u32> {
        let blocks = self.cols.div_ceil(128);
        (2 * n * blocks..2 * (n + 1) * blocks).flat_map(|b| philox.block(b as u32)).collect()
    }

    /// The signs of a row as the weights have them: rotated by the definition, or as they are.
    fn directions(&self, signs: &[f32]) -> Vec<f32> {
        if !self.rotated {
            return signs.to_vec();
        }
        let (mut out, mut first) = (Vec::new(), 0);
        for size in [64usize, 16, 4, 1] {
            let groups = (signs.len() - first) / size;
            for i in 0..size {
                for group in 0..groups {
                    let term = |j: usize| {
                        let odd = (i & j).count_ones() % 2 == 1;
                        let sign = signs[first + j * groups + group];
                        if odd { -sign } else { sign }
                    };
                    out.push((0..size).map(term).sum::<f32>() / (size as f32).sqrt());
                }
            }
            first += groups * size;
        }
        out
    }

    /// The signs of a row's directions, from its gradient and momentum.
    fn signs(&self, planes: &Planes, n: usize, grad: &[f32], step: Step) -> Vec<f32> {
        let beta1 = step.config.beta1;
        let direction = |(c, g): (usize, &f32)| {
            sign(beta1 * self.moment(planes, n, c) + (1.0 - beta1) * (g * step.grad_scale))
        };
        grad.iter().enumerate().map(direction).collect()
    }

    /// The momentum of an element before the step.
    fn moment(&self, planes: &Planes, n: usize, c: usize) -> f32 {
        let scale = planes.m_scale[n * self.cols.div_ceil(128) + c / 128].to_f32();
        let code = f32::from(planes.m[n * self.cols + c]);
        match self.code {
            MomentumCode::Sqrt => code * code.abs() * (scale / 16_129.0),
            MomentumCode::Linear => code * (scale / 127.0),
        }
    }

    fn step(&self, planes: &mut Planes, grad: &[f32], step: Step) {
        let philox = Philox::new(step.key);
        let again = Philox::new(step.key.rescaling());
        let stochastic = step.rounding == WeightRounding::Stochastic;
        let LionConfig { beta2, weight_decay, .. } = step.config;
        let f = self.residual.steps();
        let blocks = self.cols.div_ceil(128);
        let mut at = 0;
        for n in 0..self.rows {
            let words = self.words(&philox, n);
            let mut grad = grad[n * self.cols..][..self.cols].to_vec();
            if self.rotated {
                rotate(&mut grad);
            }
            let directions = self.directions(&self.signs(planes, n, &grad, step));
            let mut ks = Vec::new();
            for b in 0..blocks {
                let columns = b * 128..((b + 1) * 128).min(self.cols);
                let mut moments = Vec::new();
                for c in columns.clone() {
                    let i = n * self.cols + c;
                    let (g, m) = (grad[c] * step.grad_scale, self.moment(planes, n, c));
                    let direction = directions[c];
                    moments.push(beta2 * m + (1.0 - beta2) * g);
                    let low = words[c] & 0xFFFF;
                    if self.protected[i] {
                        let v = planes.values[at].to_f32();
                        let new = v - step.lr * (direction + weight_decay * v);
                        planes.values[at] = if stochastic {
                            bf16::from_bits(((new.to_bits() + low) >> 16) as u16)
                        } else {
                            bf16::from_f32(new)
                        };
                        at += 1;
                        ks.push(0);
                        continue;
                    }
                    let k = self.weight(planes, n, c);
                    let change = -(f as f32 * step.lr / planes.scale[n] * direction)
                        - step.lr * weight_decay * k as f32;
                    let u = if stochastic { offset(low) - 0.5 } else { 0.0 };
                    let change = change.clamp(-MAX_STEP, MAX_STEP) + u;
                    ks.push(k + change.round_ties_even() as i32);
                }
                let max = moments.iter().fold(0.0f32, |max, m| max.max(m.abs()));
                let new_scale = if max < 1e-30 { 0.0 } else { round_up(max) };
                planes.m_scale[n * blocks + b] = bf16::from_f32(new_scale);
                for (c, m) in columns.zip(moments) {
                    let u = offset(words[c] >> 16);
                    planes.m[n * self.cols + c] = self.code_of(m, new_scale, u);
                }
            }
            let largest = ks.iter().map(|k| k.abs()).max().unwrap();
            if largest > 127 * f {
                let old = planes.scale[n];
                planes.scale[n] = old * (largest as f32 / (GROWN_MAX * f) as f32);
                let ratio = old / planes.scale[n];
                for (c, k) in ks.iter_mut().enumerate() {
                    let (b, e) = (c / 128, c % 128);
                    let word = again.block((n * blocks + b) as u32)[e % 64];
                    let u = offset(if e < 64 { word & 0xFFFF } else { word >> 16 }) - 0.5;
                    let u = if stochastic { u } else { 0.0 };
                    *k = (*k as f32 * ratio + u).round_ties_even() as i32;
                }
            }
            for (c, k) in ks.into_iter().enumerate() {
                self.store(planes, n, c, k);
            }
        }
    }

    fn code_of(&self, m: f32, scale: f32, u: f32) -> i8 {
        let (k, up);
        match self.code {
            MomentumCode::Sqrt => {
                let unit = scale / 16_129.0;
                let a = m.abs() * if unit > 0.0 { 1.0 / unit } else { 0.0 };
                k = a.sqrt().floor();
                up = a - k * k > u * (2.0 * k + 1.0);
            }
            MomentumCode::Linear => {
                let unit = scale / 127.0;
                let a = m.abs() * if unit > 0.0 { 1.0 / unit } else { 0.0 };
                k = a.floor();
                up = a - k > u;
            }
        }
        (sign(m) * (k + f32::from(u8::from(up))).min(127.0)) as i8
    }
}

fn round_up(x: f32) -> f32 {
    let down = f32::from_bits(x.to_bits() & 0xFFFF_0000);
    if down == x { x } else { f32::from_bits(down.to_bits() + 0x1_0000) }
}

fn compare(cpu: &Cpu, (rows, cols): (usize, usize), format: HybridFormat, seed: u64) {
    let HybridFormat { residual, rotated, .. } = format;
    for code in CODES {
        for rounding in [WeightRounding::Stochastic, WeightRounding::Nearest] {
            let mut rng = TestRng::new(seed);
            let mut w = rng.normals(rows * cols, 0.02);
            w[0] = 0.3;
            let mut trained = Trained::in_format(cpu, (rows, cols), &w, format, code);
            let protected = trained.protected();
            let spec = Spec { rows, cols, residual, code, rotated, protected };
            let mut want = trained.planes();
            for t in 0..4 {
                let mut grad = rng.normals(rows * cols, 1e-3);
                grad[rows * cols / 2] = 0.0;
                grad[..cols.min(3)].fill(0.5 - t as f32);
                let config = LionConfig { weight_decay: 0.1, ..LionConfig::default() };
                // Steps 1 and 3 are large enough to push weights out of their range.
                let lr = [1e-5, 3e-2, 1e-6, 1e-2][t];
                let step = Step { lr, grad_scale: 0.7, config, rounding, key: key(seed, t as u32) };
                trained.step(cpu, &grad, step);
                spec.step(&mut want, &grad, step);
                let got = trained.planes();
                let what = format!(
                    "[{rows}, {cols}] {format:?} {code:?} {rounding:?} step {t} on {}",
                    cpu.isa()
                );
                assert_eq!(got.scale, want.scale, "scale: {what}");
                assert!(got.q == want.q, "q: {what}");
                assert!(got.r == want.r, "r: {what}");
                assert!(got.values == want.values, "values: {what}");
                assert!(got.m_scale == want.m_scale, "momentum scale: {what}");
                assert!(got.m == want.m, "momentum: {what}");
            }
            let grown = trained.stats.sums.host().unwrap()[1];
            assert!(grown > 0.0, "the test must reach the rescaling of a row");
        }
    }
}

#[test]
fn every_bit_is_as_documented() {
    for isa in Isa::available() {
        for threads in [1, 2] {
            let cpu = Cpu::new(CpuConfig { threads, isa }).unwrap();
            println!("{cpu:?}");
            for residual in RESIDUALS {
                for (i, shape) in [(5, 256), (3, 172), (4, 1), (2, 64), (3, 257), (70, 600)]
                    .into_iter()
                    .enumerate()
                {
                    for (protected_fraction, rotated) in
                        [(0.0, false), (0.01, true), (0.05, false), (0.0, true)]
                    {
                        let format = HybridFormat { residual, protected_fraction, rotated };
                        compare(&cpu, shape, format, i as u64);
                    }
                }
            }
        }
    }
}
