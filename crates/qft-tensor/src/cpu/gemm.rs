//! Matrix products on the CPU.

use super::wide::used;
use crate::simd::{gemm_f32, gemm_i8};
use crate::wide::{WIDE, WIDE_RADIX};
use crate::{Cpu, Error, GemmF32, GemmI8, GemmOps, MatMut, Orientation};

impl GemmOps for Cpu {
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), Error> {
        let (m, n, k) = op.check()?;
        let GemmI8 { orientation, a, b, row_scale, col_scale, mut out, accumulate, wide } = op;
        let (channels, high) = match wide {
            // Channels of `a` lie on the contraction axis, those of `b` across it.
            Some(wide) => (
                used(wide.channels.host()?, if orientation == Orientation::Nt { k } else { n }),
                wide.high.host()?,
            ),
            None => (&[][..], &[][..]),
        };
        let of_a = orientation == Orientation::Nt && !channels.is_empty();
        let product = gemm_i8::Product {
            m,
            n,
            k,
            a: gemm_i8::Operand {
                data: a.host()?,
                stride: a.stride(),
                k_contiguous: orientation != Orientation::Tn,
            },
            b: gemm_i8::Operand {
                data: b.host()?,
                stride: b.stride(),
                k_contiguous: orientation == Orientation::Nt,
            },
            row_scale: row_scale.map(|s| s.host()).transpose()?,
            col_scale: col_scale.map(|s| s.host()).transpose()?,
            out_stride: out.stride(),
            accumulate,
            digits: of_a.then_some(gemm_i8::Digits { steps: channels, high }),
        };
        let (isa, cells) = (self.isa(), out.host_mut()?);
        self.install(|| gemm_i8::run(isa, &product, cells));
        if orientation == Orientation::Tn && !channels.is_empty() {
            self.add_wide_columns(&product, channels, high, &mut out)?;
        }
        Ok(())
    }

    fn gemm_f32(&self, op: GemmF32<'_>) -> Result<(), Error> {
        let (m, n, k) = op.check()?;
        let GemmF32 { orientation, a, b, mut out, accumulate } = op;
        let operand = |data, stride, k_contiguous| gemm_f32::Operand {
            data,
            outer_stride: if k_contiguous { stride } else { 1 },
            k_stride: if k_contiguous { 1 } else { stride },
        };
        let product = gemm_f32::Product {
            m,
            n,
            k,
            a: operand(a.host()?, a.stride(), orientation != Orientation::Tn),
            b: operand(b.host()?, b.stride(), orientation == Orientation::Nt),
            out_stride: out.stride(),
            accumulate,
        };
        let out = out.host_mut()?;
        self.install(|| gemm_f32::run(&product, out));
        Ok(())
    }
}

impl Cpu {
    /// Adds 128 times the product with the second digits `[k, WIDE]` of the second operand to the columns `channels`
    /// of `out`.
    fn add_wide_columns(
        &self,
        product: &gemm_i8::Product<'_>,
        channels: &[u32],
        high: &[i8],
        out: &mut MatMut<'_, f32>,
    ) -> Result<(), Error> {
        // The digits are the rows of this product, not its columns: a tile has fewer rows than columns to fill.
        let mut columns = vec![0.0; channels.len() * product.m];
        let transposed = gemm_i8::Product {
            m: channels.len(),
            n: product.m,
            a: gemm_i8::Operand { data: high, stride: WIDE, k_contiguous: false },
            b: product.a,
            row_scale: None,
            col_scale: product.row_scale,
            out_stride: product.m,
            accumulate: false,
            ..*product
        };
        self.install(|| gemm_i8::run(self.isa(), &transposed, &mut columns));
        let (stride, cells) = (out.stride(), out.host_mut()?);
        for (values, &channel) in columns.chunks_exact(product.m.max(1)).zip(channels) {
            let channel = channel as usize;
            let scale = WIDE_RADIX as f32 * product.col_scale.map_or(1.0, |s| s[channel]);
            for (row, value) in cells.chunks_mut(stride.max(1)).zip(values) {
                row[channel] += scale * value;
            }
        }
        Ok(())
    }
}
