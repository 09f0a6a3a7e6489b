//! Fits a small least-squares problem by Lion three times: in float, in INT8 with stochastic rounding, and in
//! INT8 with rounding to nearest, at a learning rate of one hundredth of an INT8 step.
//!
//! ```text
//! cargo run --release --package qft-optim --example lion_vs_float
//! ```

use qft_optim::{
    FloatState, FloatUpdate, LionConfig, MatrixState, MatrixUpdate, MomentCode, OptimOps, Rule,
    UpdateStats, WeightRounding,
};
use qft_quant::{DecodeRows, HybridFormat, HybridMatrix, HybridOps, Precision, Residual};
use qft_tensor::{Buffer, Cpu, CpuConfig, Owner, Purpose, RngKey};
use std::error::Error;
use std::ops::Range;

const OUTPUTS: usize = 8;
const INPUTS: usize = 128;
const SAMPLES: usize = 256;
const STEPS: u32 = 1500;

/// Reproducible numbers in (-1, 1).
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// Targets `[SAMPLES, OUTPUTS]` of known weights, and the loss and gradient of others.
struct Problem {
    x: Vec<f32>,
    target: Vec<f32>,
}

impl Problem {
    fn predict(x: &[f32], w: &[f32]) -> Vec<f32> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum();
        x.chunks(INPUTS).flat_map(|x| w.chunks(INPUTS).map(move |w| dot(x, w))).collect()
    }

    fn loss_and_gradient(&self, w: &[f32]) -> (f64, Vec<f32>) {
        let mut grad = vec![0.0; OUTPUTS * INPUTS];
        let mut loss = 0.0;
        let scale = 1.0 / SAMPLES as f32;
        for (i, y) in Self::predict(&self.x, w).into_iter().enumerate() {
            let error = y - self.target[i];
            loss += 0.5 * f64::from(error * error * scale);
            let (t, n) = (i / OUTPUTS, i % OUTPUTS);
            let x = &self.x[t * INPUTS..(t + 1) * INPUTS];
            for (grad, x) in grad[n * INPUTS..(n + 1) * INPUTS].iter_mut().zip(x) {
                *grad += error * x * scale;
            }
        }
        (loss, grad)
    }
}

/// The learning rate falls along a line, so that all runs can settle.
fn rate(peak: f32, step: u32) -> f32 {
    peak * (1.0 - step as f32 / STEPS as f32)
}

fn float(cpu: &Cpu, problem: &Problem, start: &[f32], lr: f32) -> Result<f64, Box<dyn Error>> {
    let rule = Rule::Lion(LionConfig::default());
    let mut weight = Buffer::from_host(cpu, Owner::Weights, "weight", start)?;
    let mut state = FloatState::zeros(cpu, start.len(), rule)?;
    let mut stats = UpdateStats::zeros(cpu, 1)?;
    for step in 0..STEPS {
        let (_, grad) = problem.loss_and_gradient(weight.host()?);
        let grad = Buffer::from_host(cpu, Owner::Gradients, "gradient", &grad)?;
        cpu.float_update(FloatUpdate {
            weight: &mut weight,
            state: &mut state,
            start: 0,
            grad: grad.all(),
            grad_scale: 1.0,
            lr: rate(lr, step),
            rule,
            step,
            tensor: 0,
            stats: &mut stats,
        })?;
    }
    Ok(problem.loss_and_gradient(weight.host()?).0)
}

fn quantized(
    cpu: &Cpu,
    problem: &Problem,
    start: &[f32],
    lr: f32,
    (residual, rounding): (Residual, WeightRounding),
) -> Result<f64, Box<dyn Error>> {
    let shape = (OUTPUTS, INPUTS);
    let format = HybridFormat { residual, protected_fraction: 0.0, rotated: false };
    let read = &mut |rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&start[rows.start * INPUTS..rows.end * INPUTS]);
        Ok::<(), qft_quant::Error>(())
    };
    let (mut weight, _) = HybridMatrix::encode(cpu, shape, format, read)?;
    let rule = Rule::Lion(LionConfig::default());
    let mut state = MatrixState::zeros(cpu, shape, rule, MomentCode::Sqrt)?;
    let mut stats = UpdateStats::zeros(cpu, 1)?;
    let mut decoded = Buffer::alloc(cpu, Owner::Workspace, "decoded", start.len())?;
    let mut loss = 0.0;
    for step in 0..=STEPS {
        let out = decoded.mat_mut(OUTPUTS, INPUTS)?;
        let precision = Precision::Compute;
        cpu.decode_rows(DecodeRows { weight: &weight, rows: 0..OUTPUTS, precision, out })?;
        let (now, grad) = problem.loss_and_gradient(decoded.host()?);
        loss = now;
        if step == STEPS {
            break;
        }
        let mut grad = Buffer::from_host(cpu, Owner::Gradients, "gradient", &grad)?;
        cpu.matrix_update(MatrixUpdate {
            weight: &mut weight,
            state: &mut state,
            rule,
            rows: 0..OUTPUTS,
            grad: grad.mat_mut(OUTPUTS, INPUTS)?,
            grad_scale: 1.0,
            lr: rate(lr, step),
            rounding,
            key: RngKey::new(1, step, 0, Purpose::Update),
            stats: &mut stats,
        })?;
    }
    Ok(loss)
}

fn main() -> Result<(), Box<dyn Error>> {
    let cpu = Cpu::new(CpuConfig::detect()?)?;
    let (x, start) = (noise(SAMPLES * INPUTS, 1), noise(OUTPUTS * INPUTS, 2));
    let change = noise(OUTPUTS * INPUTS, 3);
    let goal: Vec<f32> = start.iter().zip(&change).map(|(w, c)| w + 0.04 * c).collect();
    let problem = Problem { target: Problem::predict(&x, &goal), x };
    let lr = 0.01 / 127.0;
    println!("before                    {:.6}", problem.loss_and_gradient(&start).0);
    println!("float Lion                {:.6}", float(&cpu, &problem, &start, lr)?);
    for (name, mode) in [
        ("INT8, nearest             ", (Residual::None, WeightRounding::Nearest)),
        ("INT8, stochastic          ", (Residual::None, WeightRounding::Stochastic)),
        ("INT8 + 4 bits, stochastic ", (Residual::Bits4, WeightRounding::Stochastic)),
        ("INT8 + 8 bits, stochastic ", (Residual::Bits8, WeightRounding::Stochastic)),
    ] {
        println!("{name}{:.6}", quantized(&cpu, &problem, &start, lr, mode)?);
    }
    Ok(())
}
