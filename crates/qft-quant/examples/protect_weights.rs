//! Quantizes a matrix with a few large weights, with and without protecting them.
//!
//! ```text
//! cargo run --release --package qft-quant --example protect_weights
//! ```

use qft_quant::{Error, HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Cpu, CpuConfig};
use std::ops::Range;

const ROWS: usize = 256;
const COLS: usize = 1024;

/// About normal, sigma 0.02; one weight in a thousand is fifty times as large.
fn weights() -> Vec<f32> {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    };
    (0..ROWS * COLS)
        .map(|_| {
            let normal = (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
            0.02 * normal * if uniform() < 0.001 { 50.0 } else { 1.0 }
        })
        .collect()
}

fn main() -> Result<(), Error> {
    let cpu = Cpu::new(CpuConfig::detect()?)?;
    let w = weights();
    println!("protected    weights   mean scale   L2 error   without protection");
    for protected_fraction in [0.0, 0.001, 0.01] {
        let format = HybridFormat { residual: Residual::Bits8, protected_fraction, rotated: false };
        let read = &mut |rows: Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&w[rows.start * COLS..rows.end * COLS]);
            Ok::<(), Error>(())
        };
        let (_, report) = HybridMatrix::encode(&cpu, (ROWS, COLS), format, read)?;
        println!(
            "{:8.2} % {:10} {:12.6} {:10.4} {:20.4}",
            100.0 * report.protected_fraction,
            report.protected,
            report.scale_mean,
            report.l2_error,
            report.l2_error_unprotected,
        );
    }
    Ok(())
}
