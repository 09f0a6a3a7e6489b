//! One linear layer learns another by gradient descent: forward and backward in INT8 and in float, side by side.

use qft_autograd::layers::linear::{self, PendingGradient};
use qft_autograd::{
    Activations, Compute, Context, Error, GradientSink, Matrix, Outlet, Products, TensorId, Vector,
    Weight,
};
use qft_quant::{HybridFormat, HybridMatrix, Residual};
use qft_tensor::rotation::rotate;
use qft_tensor::{Buffer, Cpu, CpuConfig, Owner};
use qft_testing::rng::TestRng;
use std::ops::Range;
use std::sync::Arc;

const TOKENS: usize = 64;
const INPUTS: usize = 48;
const OUTPUTS: usize = 32;

/// Keeps the gradient of the one matrix there is, rotated back.
struct Keep(Vec<f32>);

impl GradientSink for Keep {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        let start = rows.start * matrix.cols();
        let len = rows.len() * matrix.cols();
        let grad = &mut grad.host_mut()?[..len];
        if matrix.rotated() {
            grad.chunks_exact_mut(matrix.cols()).for_each(rotate);
        }
        self.0[start..start + len].copy_from_slice(grad);
        Ok(())
    }

    fn vector(&mut self, _: &mut Vector, _: &Buffer<f32>) -> Result<(), Error> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpu = Cpu::new(CpuConfig::detect()?)?;
    let mut rng = TestRng::new(1);
    let x = rng.normals(TOKENS * INPUTS, 1.0);
    let teacher = rng.normals(OUTPUTS * INPUTS, 0.1);
    let target: Vec<f32> = (0..TOKENS * OUTPUTS)
        .map(|i| {
            let (t, n) = (i / OUTPUTS, i % OUTPUTS);
            (0..INPUTS).map(|k| x[t * INPUTS + k] * teacher[n * INPUTS + k]).sum()
        })
        .collect();
    for compute in [Products::FLOAT, Products::INT8] {
        let mut weights = vec![0.0f32; OUTPUTS * INPUTS];
        println!("{compute}");
        for step in 0..=40 {
            let ctx =
                Context { ops: &cpu, compute, seed: 0, step, micro_batch: 0, micro_batches: 1 };
            let mut matrix = build(&cpu, compute, &weights)?;
            let device = Buffer::from_host(&cpu, Owner::Activations, "x", &x)?;
            let rows = match compute.forward {
                Compute::Int8 => {
                    Activations::quantize(&cpu, "x", &device, (TOKENS, INPUTS), matrix.rotated())?
                }
                Compute::Float => Activations::Float { data: device, rows: TOKENS, cols: INPUTS },
            };
            let mut y = Buffer::zeros(&cpu, Owner::Activations, "y", TOKENS * OUTPUTS)?;
            linear::forward(&ctx, &matrix, 0..OUTPUTS, &rows, &mut y, false)?;
            let scale = 1.0 / (TOKENS * OUTPUTS) as f32;
            let (mut loss, mut dy) = (0.0, Vec::new());
            for (y, target) in y.host()?.iter().zip(&target) {
                loss += (y - target).powi(2) * scale;
                dy.push(2.0 * (y - target) * scale);
            }
            if step % 10 == 0 {
                println!("  step {step:2}: loss {loss:.6}");
            }
            let dy = Buffer::from_host(&cpu, Owner::Activations, "dy", &dy)?;
            let (_, rounding) = linear::rounding(&ctx, &matrix)?;
            let share =
                PendingGradient::new(&ctx, &matrix, &Arc::new(rows), &dy, OUTPUTS, rounding)?;
            let mut sink = Keep(vec![0.0; weights.len()]);
            linear::flush(&ctx, &mut matrix, &mut vec![share], &mut Outlet::new(&mut sink))?;
            for (w, g) in weights.iter_mut().zip(&sink.0) {
                *w -= 8.0 * g;
            }
        }
    }
    Ok(())
}

fn build(cpu: &Cpu, compute: Products, weights: &[f32]) -> Result<Matrix, Error> {
    let shape = (OUTPUTS, INPUTS);
    if compute == Products::FLOAT {
        let mut matrix = Matrix::float(cpu, TensorId(0), "w", shape)?;
        if let Weight::Float(data) = &mut matrix.weight {
            data.upload(cpu, 0, weights)?;
        }
        return Ok(matrix);
    }
    let format = HybridFormat { residual: Residual::Bits8, protected_fraction: 0.0, rotated: true };
    let read = &mut |rows: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&weights[rows.start * INPUTS..rows.end * INPUTS]);
        Ok::<_, qft_quant::Error>(())
    };
    Ok(Matrix::hybrid(TensorId(0), "w", HybridMatrix::encode(cpu, shape, format, read)?.0))
}
