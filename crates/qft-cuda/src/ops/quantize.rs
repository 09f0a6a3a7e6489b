//! Quantization and rotation on the GPU: `kernels/quantize.cu`, `kernels/rotation.cu`.

use super::columns::by_columns;
use super::dims::index;
use super::staging;
use crate::{Arg, Cuda, Launch};
use qft_tensor::{
    Dequantize, Error, QuantizeCols, QuantizeOps, QuantizeRows, RotateRows, Rounding, ScaleAxis,
};

const WARP: u32 = 32;

/// Warps of a block.
const WARPS: u32 = 8;

/// Columns of a row for which a warp is worth while.
const COLS_PER_WARP: usize = 512;

/// Columns of a block in `dequantize`: STRETCH in the kernel.
const STRETCH: usize = 1024;

/// Whether to round stochastically, the stream, and the row of its first bits: the last arguments of a kernel that
/// rounds.
fn rounding_args(op: &'static str, rounding: Rounding) -> Result<[Arg; 6], Error> {
    let zero = Arg::U32(0);
    Ok(match rounding {
        Rounding::Nearest => [zero, Arg::U64(0), zero, zero, zero, zero],
        Rounding::Stochastic { key, first_row } => [
            Arg::U32(1),
            Arg::U64(key.seed()),
            Arg::U32(key.step()),
            Arg::U32(key.tensor()),
            Arg::U32(key.purpose_word()),
            Arg::U32(index(op, first_row)?),
        ],
    })
}

/// A warp per row and stretch of columns.
fn by_rows(op: &'static str, rows: usize, cols: usize) -> Result<Launch, Error> {
    let blocks = index(op, rows.div_ceil(WARPS as usize))?;
    Ok(Launch {
        grid: [blocks, index(op, cols.div_ceil(STRETCH))?, 1],
        ..Launch::blocks(1, WARP * WARPS)
    })
}

impl QuantizeOps for Cuda {
    fn quantize_rows(&self, op: QuantizeRows<'_>) -> Result<(), Error> {
        const OP: &str = "quantize_rows";
        op.check()?;
        let QuantizeRows { x, fold, rounding, out } = op;
        let (rows, cols) = (x.rows(), x.cols());
        if rows == 0 || cols == 0 {
            return out.scale.fill_zero(self);
        }
        if out.is_rotated() {
            let staged = staging::row_bytes(self, cols);
            let args = [
                self.read_mat(OP, x)?,
                Arg::size(x.stride()),
                self.write(OP, &mut out.q)?,
                self.write(OP, &mut out.scale)?,
                Arg::U32(index(OP, cols)?),
                Arg::U32(staged.is_some().into()),
            ];
            let launch =
                Launch::blocks(index(OP, rows)?, WARP * WARPS).with_shared(staged.unwrap_or(0));
            return self.launch(OP, "rotate_quantize_rows_f32_i8", launch, &args);
        }
        let warps = cols.div_ceil(COLS_PER_WARP).min(WARPS as usize) as u32;
        let mut args = vec![
            self.read_mat(OP, x)?,
            Arg::size(x.stride()),
            fold.map_or(Ok(Arg::NULL), |fold| self.read_span(OP, fold))?,
            self.write(OP, &mut out.q)?,
            self.write(OP, &mut out.scale)?,
            Arg::U32(index(OP, cols)?),
        ];
        args.extend(rounding_args(OP, rounding)?);
        let launch = Launch::blocks(index(OP, rows)?, WARP * warps);
        self.launch(OP, "quantize_rows_f32_i8", launch, &args)
    }

    fn quantize_cols(&self, op: QuantizeCols<'_>) -> Result<(), Error> {
        const OP: &str = "quantize_cols";
        op.check()?;
        let QuantizeCols { x, fold, rounding, out } = op;
        // Where the largest magnitudes gather.
        out.scale.fill_zero(self)?;
        if x.rows() == 0 || x.cols() == 0 {
            return Ok(());
        }
        let (rows, cols) = (index(OP, x.rows())?, index(OP, x.cols())?);
        let (launch, strip) = by_columns(OP, x.rows(), x.cols())?;
        let shape = [Arg::U32(rows), Arg::U32(cols), Arg::U32(index(OP, strip)?)];
        let fold = fold.map_or(Ok(Arg::NULL), |fold| self.read_span(OP, fold))?;
        let x = [self.read_mat(OP, x)?, Arg::size(x.stride()), fold];
        let scale = self.write(OP, &mut out.scale)?;
        let q = self.write(OP, &mut out.q)?;
        self.launch(OP, "column_absmax_f32", launch, &[&x[..], &[scale], &shape].concat())?;
        let args = [&x[..], &[scale, q], &shape, &rounding_args(OP, rounding)?].concat();
        self.launch(OP, "quantize_cols_f32_i8", launch, &args)?;
        let launch = Launch::blocks(cols.div_ceil(WARP * WARPS), WARP * WARPS);
        self.launch(OP, "column_scales_f32", launch, &[scale, Arg::U32(cols)])
    }

    fn dequantize(&self, op: Dequantize<'_>) -> Result<(), Error> {
        const OP: &str = "dequantize";
        op.check()?;
        let Dequantize { x, mut out } = op;
        let (rows, cols) = (out.rows(), out.cols());
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let args = [
            self.read(OP, &x.q)?,
            self.read(OP, &x.scale)?,
            Arg::U32((x.axis() == ScaleAxis::Row).into()),
            self.write_mat(OP, &mut out)?,
            Arg::size(out.stride()),
            Arg::U32(index(OP, rows)?),
            Arg::U32(index(OP, cols)?),
        ];
        self.launch(OP, "dequantize_i8_f32", by_rows(OP, rows, cols)?, &args)
    }

    fn rotate_rows(&self, op: RotateRows<'_>) -> Result<(), Error> {
        const OP: &str = "rotate_rows";
        let RotateRows { mut x } = op;
        let (rows, cols) = (x.rows(), x.cols());
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let warps = cols.div_ceil(COLS_PER_WARP).min(WARPS as usize) as u32;
        let args = [self.write_mat(OP, &mut x)?, Arg::size(x.stride()), Arg::U32(index(OP, cols)?)];
        self.launch(OP, "rotate_rows_f32", Launch::blocks(index(OP, rows)?, WARP * warps), &args)
    }
}
