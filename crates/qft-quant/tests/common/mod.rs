//! What the tests of the quantizer share.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use qft_quant::{
    DecodeRows, EncodeReport, Error, HybridFormat, HybridMatrix, HybridOps, Precision,
    ProtectedView, Residual,
};
use qft_tensor::{Buffer, Cpu, CpuConfig, Isa, Owner};
use std::ops::Range;

pub const RESIDUALS: [Residual; 3] = [Residual::None, Residual::Bits4, Residual::Bits8];

pub fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::new(CpuConfig { threads, isa }).unwrap()
}

pub fn encode(
    cpu: &Cpu,
    (rows, cols): (usize, usize),
    w: &[f32],
    residual: Residual,
    protected_fraction: f64,
) -> Result<(HybridMatrix, EncodeReport), Error> {
    let format = HybridFormat { residual, protected_fraction, rotated: false };
    let read = &mut |range: Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&w[range.start * cols..range.end * cols]);
        Ok(())
    };
    HybridMatrix::encode(cpu, (rows, cols), format, read)
}

pub fn decode(
    cpu: &Cpu,
    weight: &HybridMatrix,
    rows: Range<usize>,
    precision: Precision,
) -> Vec<f32> {
    let (count, cols) = (rows.len(), weight.cols());
    let mut out = Buffer::alloc(cpu, Owner::Workspace, "decoded", count * cols).unwrap();
    let op = DecodeRows { weight, rows, precision, out: out.mat_mut(count, cols).unwrap() };
    cpu.decode_rows(op).unwrap();
    out.to_vec(cpu).unwrap()
}

/// Row, column and value of every protected weight.
pub fn protected(weight: &HybridMatrix) -> Vec<(usize, usize, f32)> {
    let mut out = Vec::new();
    if let Some(protected) = &weight.protected {
        let view = ProtectedView::new(protected, weight.cols()).unwrap();
        for n in 0..weight.rows() {
            view.row(n).for_each(|col, value| out.push((n, col, value.to_f32())));
        }
    }
    out
}
