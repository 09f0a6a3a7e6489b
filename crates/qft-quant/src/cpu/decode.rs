//! Rows of a hybrid matrix as floats.

use crate::fixed_point::{BLOCK, join};
use crate::protected::ProtectedView;
use crate::{DecodeRows, Error, Precision, Residual};
use qft_tensor::{Cpu, Kernel};
use rayon::prelude::*;

struct DecodeRow<'a> {
    residual: Residual,
    q: &'a [i8],
    r: &'a [i8],
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for DecodeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.residual {
            Residual::None => {
                for (out, &q) in self.out.iter_mut().zip(self.q) {
                    *out = self.scale * f32::from(q);
                }
            }
            Residual::Bits4 => decode::<4>(self),
            Residual::Bits8 => decode::<8>(self),
        }
    }
}

#[inline(always)]
fn decode<const LOG_F: u32>(row: DecodeRow<'_>) {
    let step = 1.0 / (1 << LOG_F) as f32;
    let bytes = row.residual.row_bytes(BLOCK);
    for ((out, q), r) in row.out.chunks_mut(BLOCK).zip(row.q.chunks(BLOCK)).zip(row.r.chunks(bytes))
    {
        let k = join::<LOG_F>(q, r);
        for (out, &k) in out.iter_mut().zip(&k) {
            *out = row.scale * (k as f32 * step);
        }
    }
}

pub(super) fn decode_rows(cpu: &Cpu, op: DecodeRows<'_>) -> Result<(), Error> {
    op.check()?;
    let DecodeRows { weight, rows, precision, mut out } = op;
    let (cols, stride, isa) = (weight.cols(), out.stride(), cpu.isa());
    if rows.is_empty() || cols == 0 {
        return Ok(());
    }
    let (q, scale) = (weight.q.host()?, weight.scale.host()?);
    let (residual, r) = match (precision, &weight.residual) {
        (Precision::Full, Some(plane)) => (weight.format().residual, plane.host()?),
        _ => (Residual::None, &[][..]),
    };
    let (row_bytes, shard) = (residual.row_bytes(cols), weight.residual_shard());
    let protected = weight.protected.as_ref().map(|o| ProtectedView::new(o, cols)).transpose()?;
    let tasks = out.host_mut()?.par_chunks_mut(stride).enumerate();
    cpu.for_each(tasks, |(i, out)| {
        let n = rows.start + i;
        let out = &mut out[..cols];
        let place = if row_bytes == 0 { 0 } else { shard.place(n) };
        let (q, r) = (&q[n * cols..][..cols], &r[place * row_bytes..][..row_bytes]);
        isa.run(DecodeRow { residual, q, r, scale: scale[n], out });
        if let Some(protected) = &protected {
            protected.row(n).for_each(|col, value| out[col] = value.to_f32());
        }
    });
    Ok(())
}
