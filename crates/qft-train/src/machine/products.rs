//! The speed of integer products on a device.

use crate::TrainOps;
use crate::error::Result;
use qft_tensor::{Buffer, GemmI8, Orientation, Owner};
use std::time::Instant;

/// Products between two looks at the clock: on a GPU a single one ends too soon.
const BATCH: usize = 8;

/// The median seconds of one INT8 product `[M, N]` over K, on operands that lie on the device.
///
/// Errors: no memory for the operands.
pub fn seconds(
    ops: &dyn TrainOps,
    orientation: Orientation,
    (m, n, k): (usize, usize, usize),
    rounds: usize,
) -> Result<f64> {
    let values = |len: usize| (0..len).map(|i| (i * 37 % 255) as u8 as i8).collect::<Vec<_>>();
    let (a_shape, b_shape) = match orientation {
        Orientation::Nt => ((m, k), (n, k)),
        Orientation::Nn => ((m, k), (k, n)),
        Orientation::Tn => ((k, m), (k, n)),
    };
    let a = Buffer::from_host(ops, Owner::Loading, "first operand", &values(m * k))?;
    let b = Buffer::from_host(ops, Owner::Loading, "second operand", &values(n * k))?;
    let row_scale = Buffer::from_host(ops, Owner::Loading, "row scales", &vec![0.5f32; m])?;
    let col_scale = Buffer::from_host(ops, Owner::Loading, "column scales", &vec![0.25f32; n])?;
    let mut out = Buffer::<f32>::alloc(ops, Owner::Loading, "result", m * n)?;
    let mut round = || -> Result<f64> {
        let start = Instant::now();
        for _ in 0..BATCH {
            ops.gemm_i8(GemmI8 {
                orientation,
                a: a.mat(a_shape.0, a_shape.1)?,
                b: b.mat(b_shape.0, b_shape.1)?,
                row_scale: Some(row_scale.span(0..m)?),
                col_scale: Some(col_scale.span(0..n)?),
                out: out.mat_mut(m, n)?,
                accumulate: false,
            })?;
        }
        ops.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / BATCH as f64)
    };
    round()?;
    let mut seconds = (0..rounds.max(1)).map(|_| round()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}
