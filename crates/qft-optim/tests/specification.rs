//! The update against its documentation, written down once more element by element: every bit must agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Planes, RESIDUALS, Step, Trained, key, rules};
use half::bf16;
use qft_optim::adamw::MAX_DIRECTION;
use qft_optim::weight::{GROWN_MAX, MAX_STEP};
use qft_optim::{AdamWConfig, LionConfig, MomentCode, Rule, WeightRounding};
use qft_quant::{HybridFormat, Residual};
use qft_tensor::rotation::rotate;
use qft_tensor::{Cpu, CpuConfig, Isa, Philox, Purpose, RngKey};
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
    /// Of each moment.
    codes: Vec<MomentCode>,
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

    /// A row of directions as the weights have them: rotated, or as they are.
    fn in_basis(&self, directions: &[f32], rule: Rule) -> Vec<f32> {
        match rule {
            _ if !self.rotated => directions.to_vec(),
            // Whole numbers over 8, in whatever order they are added.
            Rule::Lion(_) => rotated_by_definition(directions),
            Rule::AdamW(_) => {
                let mut row = directions.to_vec();
                rotate(&mut row);
                row
            }
        }
    }

    /// The directions of a row, and its new moments.
    fn directions(
        &self,
        planes: &Planes,
        n: usize,
        grad: &[f32],
        step: Step,
    ) -> (Vec<f32>, Vec<Vec<f32>>) {
        let old = |moment: usize, c: usize| self.moment(planes, moment, n, c);
        let mut moments = vec![Vec::new(); self.codes.len()];
        let direction = |(c, g): (usize, &f32)| {
            let (g, m) = (g * step.grad_scale, old(0, c));
            match step.rule {
                Rule::Lion(LionConfig { beta1, beta2, .. }) => {
                    moments[0].push(beta2 * m + (1.0 - beta2) * g);
                    sign(beta1 * m + (1.0 - beta1) * g)
                }
                Rule::AdamW(AdamWConfig { beta1, beta2, eps, .. }) => {
                    let t = step.key.step() as i32 + 1;
                    let unbias =
                        [beta1, beta2].map(|beta| (1.0 / (1.0 - f64::from(beta).powi(t))) as f32);
                    let m = beta1 * m + (1.0 - beta1) * g;
                    let v = beta2 * old(1, c) + (1.0 - beta2) * (g * g);
                    moments[0].push(m);
                    moments[1].push(v);
                    let direction = m * unbias[0] / ((v * unbias[1]).sqrt() + eps);
                    if direction.is_nan() {
                        0.0
                    } else {
                        direction.clamp(-MAX_DIRECTION, MAX_DIRECTION)
                    }
                }
            }
        };
        (grad.iter().enumerate().map(direction).collect(), moments)
    }

    /// A moment of an element before the step.
    fn moment(&self, planes: &Planes, moment: usize, n: usize, c: usize) -> f32 {
        let (q, scales) = &planes.moments[moment];
        let scale = scales[n * self.cols.div_ceil(128) + c / 128].to_f32();
        let byte = q[n * self.codes[moment].row_bytes(self.cols) + self.byte(moment, c)];
        match self.codes[moment] {
            MomentCode::Sqrt => f32::from(byte) * f32::from(byte).abs() * (scale / 16_129.0),
            MomentCode::Linear => f32::from(byte) * (scale / 127.0),
            MomentCode::Sqrt4 => {
                let code = f32::from(if c.is_multiple_of(2) { byte << 4 >> 4 } else { byte >> 4 });
                (code + 0.5) * (code + 0.5).abs() * (scale / 56.25)
            }
            MomentCode::Quartic => {
                let root = (f32::from(byte as u8) + 1.0) / 256.0;
                (root * root) * (root * root) * scale
            }
        }
    }

    /// The byte of a column among those of its row.
    fn byte(&self, moment: usize, c: usize) -> usize {
        if self.codes[moment] == MomentCode::Sqrt4 { c / 2 } else { c }
    }

    fn step(&self, planes: &mut Planes, grad: &[f32], step: Step) {
        let philox = Philox::new(step.key);
        let again = Philox::new(step.key.rescaling());
        let stochastic = step.rounding == WeightRounding::Stochastic;
        let weight_decay = step.rule.weight_decay();
        let dither =
            Philox::new(RngKey::new(step.key.seed(), 0, step.key.tensor(), Purpose::MomentDither));
        let golden = step.key.step().wrapping_mul(0x9E37_79B9);
        let start = dither.block(0)[0].wrapping_add(golden);
        let f = self.residual.steps();
        let blocks = self.cols.div_ceil(128);
        let mut at = 0;
        for n in 0..self.rows {
            let words = self.words(&philox, n);
            let mut grad = grad[n * self.cols..][..self.cols].to_vec();
            if self.rotated {
                rotate(&mut grad);
            }
            let (directions, moments) = self.directions(planes, n, &grad, step);
            let directions = self.in_basis(&directions, step.rule);
            let mut ks = Vec::new();
            for b in 0..blocks {
                let columns = b * 128..((b + 1) * 128).min(self.cols);
                for c in columns.clone() {
                    let i = n * self.cols + c;
                    let direction = directions[c];
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
                for (which, moment) in moments.iter().enumerate() {
                    let max =
                        moment[columns.clone()].iter().fold(0.0f32, |max, m| max.max(m.abs()));
                    let max = match self.codes[which] {
                        MomentCode::Sqrt4 => {
                            max.min(2.5 * root_mean_square(&moment[columns.clone()]))
                        }
                        _ => max,
                    };
                    let scale = match self.codes[which] {
                        _ if max < 1e-30 => 0.0,
                        MomentCode::Quartic => round_up(max).log2().ceil().exp2(),
                        _ => round_up(max),
                    };
                    planes.moments[which].1[n * blocks + b] = bf16::from_f32(scale);
                    for c in columns.clone() {
                        let even = (start)
                            .wrapping_add((n as u32).wrapping_mul(0x91E1_0DA6))
                            .wrapping_add((c as u32).wrapping_mul(0xC13F_A9A9));
                        let code = self.codes[which];
                        let word = if code.is_dithered() { even } else { words[c] };
                        self.store_moment(
                            planes,
                            which,
                            (n, c),
                            code_of(code, moment[c], scale, word >> 16),
                        );
                    }
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

    fn store_moment(&self, planes: &mut Planes, moment: usize, (n, c): (usize, usize), k: i32) {
        let at = n * self.codes[moment].row_bytes(self.cols) + self.byte(moment, c);
        let byte = &mut planes.moments[moment].0[at];
        *byte = match self.codes[moment] {
            MomentCode::Sqrt4 if c.is_multiple_of(2) => (*byte as u8 & 0xF0 | k as u8 & 15) as i8,
            MomentCode::Sqrt4 => (*byte as u8 & 15 | (k as u8) << 4) as i8,
            _ => k as i8,
        };
    }
}

/// Of a block, in the order of the specification.
fn root_mean_square(block: &[f32]) -> f32 {
    let square = |i: usize| block.get(i).map_or(0.0, |x| x * x);
    let quads = (0..32).map(|i| 4 * i);
    let mut sums: Vec<f32> =
        quads.map(|i| (square(i) + square(i + 1)) + (square(i + 2) + square(i + 3))).collect();
    while sums.len() > 1 {
        let half = sums.split_off(sums.len() / 2);
        sums.iter_mut().zip(half).for_each(|(a, b)| *a += b);
    }
    (sums[0] / block.len() as f32).sqrt()
}

/// The code of a value, by 16 bits.
fn code_of(code: MomentCode, m: f32, scale: f32, bits: u32) -> i32 {
    let (divisor, most) = match code {
        MomentCode::Sqrt => (16_129.0, 127.0f32),
        MomentCode::Linear => (127.0, 127.0),
        MomentCode::Sqrt4 => return half_code_of(m, scale, bits),
        MomentCode::Quartic => (1.0, 256.0),
    };
    let value = |k: f32| match code {
        MomentCode::Sqrt | MomentCode::Sqrt4 => k * k,
        MomentCode::Linear => k,
        MomentCode::Quartic => {
            let root = k / 256.0;
            (root * root) * (root * root)
        }
    };
    let unit = scale / divisor;
    let a = m.abs() * if unit > 0.0 { 1.0 / unit } else { 0.0 };
    let a = if a.is_nan() { 0.0 } else { a };
    let k = match code {
        MomentCode::Sqrt | MomentCode::Sqrt4 => a.sqrt().floor(),
        MomentCode::Linear => a.floor(),
        MomentCode::Quartic => (256.0 * a.sqrt().sqrt()).floor().clamp(1.0, 255.0),
    };
    let up = a - value(k) > offset(bits) * (value(k + 1.0) - value(k));
    let k = (k + f32::from(u8::from(up))).min(most) as i32;
    match code {
        MomentCode::Quartic => k - 1,
        _ if m < 0.0 => -k,
        _ => k,
    }
}

/// The same for codes that stand for values between whole numbers.
fn half_code_of(m: f32, scale: f32, bits: u32) -> i32 {
    let unit = scale / 56.25;
    let a = m.abs() * if unit > 0.0 { 1.0 / unit } else { 0.0 };
    let a = if a.is_nan() { 0.0 } else { a.min(56.25) };
    let a = if m < 0.0 { -a } else { a };
    let value = |k: f32| (k + 0.5) * (k + 0.5).abs();
    let k = (a.abs().sqrt().copysign(a) - 0.5).floor();
    let up = a - value(k) > offset(bits) * (value(k + 1.0) - value(k));
    k as i32 + i32::from(up)
}

/// A row of signs, rotated by the definition.
fn rotated_by_definition(signs: &[f32]) -> Vec<f32> {
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

fn round_up(x: f32) -> f32 {
    let down = f32::from_bits(x.to_bits() & 0xFFFF_0000);
    if down == x { x } else { f32::from_bits(down.to_bits() + 0x1_0000) }
}

fn compare(cpu: &Cpu, (rows, cols): (usize, usize), format: HybridFormat, seed: u64) {
    let HybridFormat { residual, rotated, .. } = format;
    for (rule, code) in rules() {
        // How weights are rounded, no code of a moment knows.
        let roundings = [WeightRounding::Stochastic, WeightRounding::Nearest];
        let roundings = if code == MomentCode::Sqrt { &roundings[..] } else { &roundings[..1] };
        for &rounding in roundings {
            let mut rng = TestRng::new(seed);
            let mut w = rng.normals(rows * cols, 0.02);
            w[0] = 0.3;
            let mut trained = Trained::in_format(cpu, (rows, cols), &w, format, (rule, code));
            let protected = trained.protected();
            let codes = [code, MomentCode::Quartic][..rule.moments()].to_vec();
            let spec = Spec { rows, cols, residual, codes, rotated, protected };
            let mut want = trained.planes();
            for t in 0..4 {
                let mut grad = rng.normals(rows * cols, 1e-3);
                grad[rows * cols / 2] = 0.0;
                grad[..cols.min(3)].fill(0.5 - t as f32);
                // Steps 1 and 3 are large enough to push weights out of their range.
                let lr = [1e-5, 3e-2, 1e-6, 1e-2][t];
                let step = Step { lr, grad_scale: 0.7, rule, rounding, key: key(seed, t as u32) };
                trained.step(cpu, &grad, step);
                spec.step(&mut want, &grad, step);
                let got = trained.planes();
                let what = format!(
                    "[{rows}, {cols}] {format:?} {rule:?} {code:?} {rounding:?} step {t} on {}",
                    cpu.isa()
                );
                assert_eq!(got.scale, want.scale, "scale: {what}");
                assert!(got.q == want.q, "q: {what}");
                assert!(got.r == want.r, "r: {what}");
                assert!(got.values == want.values, "values: {what}");
                assert!(got.moments == want.moments, "moments: {what}");
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
