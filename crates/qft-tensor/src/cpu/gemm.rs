//! Matrix products on the CPU.

use crate::numeric::sum_unit;
use crate::simd::{gemm_f32, gemm_i8};
use crate::{Cpu, Error, GemmF32, GemmI8, GemmOps, GemmOut, Orientation};

impl GemmOps for Cpu {
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), Error> {
        let (m, n, k) = op.check()?;
        let GemmI8 { orientation, a, b, row_scale, col_scale, out } = op;
        let inverse_units: Option<Vec<f32>> = match &out {
            GemmOut::Floats { .. } => None,
            GemmOut::Units { bound, count, .. } => {
                Some(bound.host()?.iter().map(|&bound| 1.0 / sum_unit(bound, *count)).collect())
            }
        };
        let (mut floats, mut units);
        let (cells, out_stride, accumulate): (&mut [u32], _, _) = match out {
            GemmOut::Floats { out, accumulate } => {
                floats = out;
                let stride = floats.stride();
                (bytemuck::cast_slice_mut(floats.host_mut()?), stride, accumulate)
            }
            GemmOut::Units { sum, accumulate, .. } => {
                units = sum;
                let stride = units.stride();
                (bytemuck::cast_slice_mut(units.host_mut()?), stride, accumulate)
            }
        };
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
            inverse_units: inverse_units.as_deref(),
            out_stride,
            accumulate,
        };
        let isa = self.isa();
        self.install(|| gemm_i8::run(isa, &product, cells));
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
