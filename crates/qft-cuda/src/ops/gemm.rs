//! Matrix products: which kernel computes which shape, and its launch.

use crate::scratch::ScratchUse;
use crate::{Arg, Cuda, Launch};
use qft_tensor::{DType, Error, GemmF32, GemmI8, GemmOps, GemmOut, Orientation};

/// What the asynchronous copies need of addresses and strides, in bytes.
const ALIGNMENT: u64 = 16;

/// The most rows of the dot product kernels.
const FEW_ROWS: usize = 8;

/// Steps of the contraction per tile in shared memory, which are bytes.
const TILE_K: u32 = 64;

/// Steps of the contraction per tile of the kernel for Hopper, and the alignment that it makes within its memory.
const HOPPER_TILE_K: u32 = 128;
const HOPPER_ALIGNMENT: u32 = 1024;

/// What the other kernels reach of the rate of Hopper's warpgroup products, as a fraction. An estimate, not measured.
const SHARE_WITHOUT_WARPGROUPS: (u64, u64) = (5, 8);

/// INT8 multiplications that a multiprocessor of an H100 does while the device reads and writes one byte of its memory.
/// From the data sheet: 4096 a cycle of 1.83 GHz, 3.35 TB/s.
const PRODUCTS_PER_COPIED_BYTE: u64 = 5;

/// Rows and columns of a tile that is transposed, and the threads for it.
const TRANSPOSE_TILE: (u32, u32) = (64, 256);

/// INT8 multiplications that the tensor cores of a multiprocessor do while one byte arrives from the L2 cache.
/// From data sheets, between 64 (AD102) and 100 (H100): a tile is worth the larger of its two times.
const PRODUCTS_PER_BYTE: u64 = 80;

/// One kernel of an INT8 product that computes the result in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// For each orientation in the order of [`Orientation::ALL`].
    kernels: [&'static str; 3],
    /// The last of them again, with whole numbers for results.
    units: &'static str,
    /// Rows and columns of the result per block.
    rows: u32,
    cols: u32,
    threads: u32,
    /// Tiles of the operands that shared memory holds.
    stages: u32,
}

const ALIGNED: [Tiling; 3] = [
    Tiling {
        kernels: ["gemm_i8_f32_nt_128x256", "gemm_i8_f32_nn_128x256", "gemm_i8_f32_tn_128x256"],
        units: "gemm_i8_i32_tn_128x256",
        rows: 128,
        cols: 256,
        threads: 256,
        stages: 4,
    },
    Tiling {
        kernels: ["gemm_i8_f32_nt_128x128", "gemm_i8_f32_nn_128x128", "gemm_i8_f32_tn_128x128"],
        units: "gemm_i8_i32_tn_128x128",
        rows: 128,
        cols: 128,
        threads: 128,
        stages: 3,
    },
    Tiling {
        kernels: ["gemm_i8_f32_nt_64x64", "gemm_i8_f32_nn_64x64", "gemm_i8_f32_tn_64x64"],
        units: "gemm_i8_i32_tn_64x64",
        rows: 64,
        cols: 64,
        threads: 128,
        stages: 4,
    },
];

const UNALIGNED: Tiling = Tiling {
    kernels: ["gemm_i8_f32_nt_unaligned", "gemm_i8_f32_nn_unaligned", "gemm_i8_f32_tn_unaligned"],
    units: "gemm_i8_i32_tn_unaligned",
    rows: 64,
    cols: 64,
    threads: 128,
    stages: 2,
};

/// On Hopper's warpgroups: rows and columns of the result per block, threads and tiles in shared memory.
const HOPPER_NT: Tiling = Tiling {
    kernels: ["gemm_i8_f32_nt_hopper", "gemm_i8_f32_nn_hopper", "gemm_i8_f32_nn_hopper"],
    units: "gemm_i8_i32_nn_hopper",
    rows: 128,
    cols: 256,
    threads: 256,
    stages: 4,
};

/// The same for operands of which the second one is contiguous along the result's columns.
const HOPPER_NN: Tiling = Tiling { rows: 256, cols: 128, ..HOPPER_NT };

/// Rows and columns of the result per block of the float kernels, and their threads.
const F32_TILE: (u32, u32, u32) = (128, 64, 256);

impl Tiling {
    /// The kernel of an orientation, or that of `tn` with whole numbers.
    fn kernel(&self, orientation: Orientation, units: bool) -> &'static str {
        if units { self.units } else { self.kernels[orientation as usize] }
    }

    /// Its launch for a result `[m, n]`.
    fn launch(&self, m: usize, n: usize) -> Launch {
        let shared_bytes = self.stages * TILE_K * (self.rows + self.cols);
        Launch::blocks(blocks(m, n, self.rows, self.cols), self.threads).with_shared(shared_bytes)
    }

    /// Time until the last multiprocessor is done, per step of the contraction, in multiplications.
    fn cost(&self, m: usize, n: usize, multiprocessors: u32) -> u64 {
        let (rows, cols) = (u64::from(self.rows), u64::from(self.cols));
        let blocks = u64::from(blocks(m, n, self.rows, self.cols));
        let in_turn = blocks.div_ceil(u64::from(multiprocessors.max(1)));
        in_turn * (rows * cols).max(PRODUCTS_PER_BYTE * (rows + cols))
    }
}

/// Tiles of a result `[m, n]`; a count that does not fit is too large for a grid anyway, which the launch reports.
fn blocks(m: usize, n: usize, rows: u32, cols: u32) -> u32 {
    let count = (m.div_ceil(rows as usize) as u64).saturating_mul(n.div_ceil(cols as usize) as u64);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The tiling of Hopper's warpgroups for an orientation; for `tn`, of the product with a transposed first operand.
fn hopper_tiling(orientation: Orientation) -> Tiling {
    if orientation == Orientation::Nt { HOPPER_NT } else { HOPPER_NN }
}

/// A product on Hopper's warpgroups and its launch.
pub(crate) fn hopper(orientation: Orientation, m: usize, n: usize) -> (&'static str, Launch) {
    let tiling = hopper_tiling(orientation);
    (tiling.kernel(orientation, false), hopper_launch(&tiling, m, n))
}

fn hopper_launch(
    &Tiling { rows, cols, threads, stages, .. }: &Tiling,
    m: usize,
    n: usize,
) -> Launch {
    let shared_bytes = stages * HOPPER_TILE_K * (rows + cols) + HOPPER_ALIGNMENT;
    Launch::blocks(blocks(m, n, rows, cols), threads).with_shared(shared_bytes)
}

/// What of a device decides which kernel is the fastest.
#[derive(Debug, Clone, Copy)]
struct DeviceLimits {
    multiprocessors: u32,
    /// Whether the kernels for Hopper may be used.
    warpgroups: bool,
    scratch_bytes: usize,
}

/// How an INT8 product is computed.
#[derive(Debug)]
struct GemmPlan {
    kernel: &'static str,
    launch: Launch,
    /// Whether the first operand is transposed first.
    transpose: bool,
}

/// The fastest way to an INT8 product of `k` steps, with whole numbers for results if `units`.
///
/// The choice changes the time only: all kernels give the same bits.
fn choose(
    (orientation, units): (Orientation, bool),
    (m, n, k): (usize, usize, usize),
    aligned: bool,
    DeviceLimits { multiprocessors, warpgroups, scratch_bytes }: DeviceLimits,
) -> GemmPlan {
    let in_place = |tiling: Tiling| GemmPlan {
        kernel: tiling.kernel(orientation, units),
        launch: tiling.launch(m, n),
        transpose: false,
    };
    if !aligned {
        return in_place(UNALIGNED);
    }
    if orientation == Orientation::Nt && m <= FEW_ROWS {
        let kernel = match m {
            0 | 1 => "gemm_i8_f32_nt_rows_1",
            2 => "gemm_i8_f32_nt_rows_2",
            3 | 4 => "gemm_i8_f32_nt_rows_4",
            _ => "gemm_i8_f32_nt_rows_8",
        };
        // Blocks of eight warps, two columns to a warp.
        let launch = Launch::blocks(blocks(m, n, FEW_ROWS as u32, 16), 256);
        return GemmPlan { kernel, launch, transpose: false };
    }
    let [mut best, others @ ..] = ALIGNED;
    for tiling in others {
        if tiling.cost(m, n, multiprocessors) < best.cost(m, n, multiprocessors) {
            best = tiling;
        }
    }
    let transpose = orientation == Orientation::Tn;
    if warpgroups && (!transpose || transposed_bytes(m, k) <= scratch_bytes) {
        let (numerator, denominator) = SHARE_WITHOUT_WARPGROUPS;
        let copies = if transpose { PRODUCTS_PER_COPIED_BYTE * m as u64 } else { 0 };
        let tiling = hopper_tiling(orientation);
        let cost = tiling.cost(m, n, multiprocessors) + copies;
        if cost * numerator <= best.cost(m, n, multiprocessors) * denominator {
            let kernel = tiling.kernel(orientation, units);
            return GemmPlan { kernel, launch: hopper_launch(&tiling, m, n), transpose };
        }
    }
    in_place(best)
}

/// Bytes from one row to the next of a first operand `[k, m]` that has been transposed, and of all of it.
fn transposed_stride(k: usize) -> usize {
    k.next_multiple_of(ALIGNMENT as usize)
}
fn transposed_bytes(m: usize, k: usize) -> usize {
    m.saturating_mul(transposed_stride(k))
}

/// `m`, `n`, `k` as the kernels take them; they count with signed 32-bit numbers.
fn sizes(op: &'static str, m: usize, n: usize, k: usize) -> Result<[Arg; 3], Error> {
    match [m, n, k].map(i32::try_from) {
        [Ok(m), Ok(n), Ok(k)] => Ok([m, n, k].map(|size| Arg::U32(size.unsigned_abs()))),
        _ => Err(Error::TooLarge { op, rows: m.max(k), cols: n, dtype: DType::F32 }),
    }
}

fn is_aligned(address: Arg, stride: usize) -> bool {
    matches!(address, Arg::Ptr(address) if (address | stride as u64).is_multiple_of(ALIGNMENT))
}

impl Cuda {
    /// Writes the transpose of a first operand `[k, m]` to the start of the scratch block.
    fn transpose(
        &self,
        op: &'static str,
        (m, k): (usize, usize),
        a: Arg,
        stride: usize,
    ) -> Result<ScratchUse<'_>, Error> {
        let scratch = self.scratch(op, transposed_bytes(m, k))?;
        let (tile, threads) = TRANSPOSE_TILE;
        let [rows, cols, _] = sizes(op, k, m, 0)?;
        let args =
            [a, Arg::size(stride), scratch.at(0), Arg::size(transposed_stride(k)), rows, cols];
        let grid = [blocks(k, 1, tile, 1), blocks(m, 1, tile, 1), 1];
        self.launch(
            op,
            "transpose_i8",
            Launch { grid, block: [threads, 1, 1], shared_bytes: 0 },
            &args,
        )?;
        Ok(scratch)
    }
}

impl GemmOps for Cuda {
    fn gemm_i8(&self, op: GemmI8<'_>) -> Result<(), Error> {
        const OP: &str = "gemm_i8";
        let (m, n, k) = op.check()?;
        let GemmI8 { orientation, a, b, row_scale, col_scale, out } = op;
        let [m_arg, n_arg, k_arg] = sizes(OP, m, n, k)?;
        let (a_arg, b_arg) = (self.read_mat(OP, a)?, self.read_mat(OP, b)?);
        let scale = |span: Option<_>| span.map_or(Ok(Arg::NULL), |span| self.read_span(OP, span));
        let aligned = is_aligned(a_arg, a.stride()) && is_aligned(b_arg, b.stride());
        let limits = DeviceLimits {
            multiprocessors: self.driver().properties().multiprocessors,
            warpgroups: self.has_warpgroup_products(),
            scratch_bytes: self.scratch_block().bytes(),
        };
        let GemmPlan { kernel, launch, transpose } =
            choose((orientation, matches!(out, GemmOut::Units { .. })), (m, n, k), aligned, limits);
        let (row_scale, col_scale) = (scale(row_scale)?, scale(col_scale)?);
        // What only results in whole numbers need stands at the end.
        let (out_arg, out_stride, accumulate, unit) = match out {
            GemmOut::Floats { mut out, accumulate } => {
                (self.write_mat(OP, &mut out)?, out.stride(), accumulate, None)
            }
            GemmOut::Units { mut sum, bound, count, accumulate } => {
                let unit = [self.read_span(OP, bound)?, Arg::U32(count)];
                (self.write_mat(OP, &mut sum)?, sum.stride(), accumulate, Some(unit))
            }
        };
        // Held until the product that reads it has been started.
        let scratch =
            if transpose { Some(self.transpose(OP, (m, k), a_arg, a.stride())?) } else { None };
        let (first_arg, first_stride) = match &scratch {
            Some(scratch) => (scratch.at(0), transposed_stride(k)),
            None => (a_arg, a.stride()),
        };
        let mut args = vec![
            first_arg,
            Arg::size(first_stride),
            b_arg,
            Arg::size(b.stride()),
            row_scale,
            col_scale,
            out_arg,
            Arg::size(out_stride),
            m_arg,
            n_arg,
            k_arg,
            Arg::U32(accumulate.into()),
        ];
        args.extend(unit.into_iter().flatten());
        self.launch(OP, kernel, launch, &args)
    }

    fn gemm_f32(&self, op: GemmF32<'_>) -> Result<(), Error> {
        const OP: &str = "gemm_f32";
        let (m, n, k) = op.check()?;
        let GemmF32 { orientation, a, b, mut out, accumulate } = op;
        let [m_arg, n_arg, k_arg] = sizes(OP, m, n, k)?;
        let kernel = match orientation {
            Orientation::Nt => "gemm_f32_f32_nt",
            Orientation::Nn => "gemm_f32_f32_nn",
            Orientation::Tn => "gemm_f32_f32_tn",
        };
        let (rows, cols, threads) = F32_TILE;
        let launch = Launch::blocks(blocks(m, n, rows, cols), threads);
        let args = [
            self.read_mat(OP, a)?,
            Arg::size(a.stride()),
            self.read_mat(OP, b)?,
            Arg::size(b.stride()),
            self.write_mat(OP, &mut out)?,
            Arg::size(out.stride()),
            m_arg,
            n_arg,
            k_arg,
            Arg::U32(accumulate.into()),
        ];
        self.launch(OP, kernel, launch, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which result's rows and columns a block computes.
    fn tile(m: usize, n: usize, multiprocessors: u32) -> (u32, u32) {
        let limits = DeviceLimits { multiprocessors, warpgroups: false, scratch_bytes: 0 };
        let GemmPlan { kernel, .. } = choose((Orientation::Nn, false), (m, n, 1), true, limits);
        let tiling = ALIGNED.iter().find(|tiling| tiling.kernels.contains(&kernel)).unwrap();
        (tiling.rows, tiling.cols)
    }

    #[test]
    fn large_results_take_large_tiles_and_small_ones_fill_the_device() {
        // LLaMA-2-7B, 2048 tokens: forward products, and a block of 1024 rows of a weight gradient.
        for (m, n) in [(2048, 4096), (2048, 11_008), (1024, 4096), (1024, 11_008)] {
            assert_eq!(tile(m, n, 132), (128, 256), "{m} x {n}");
        }
        assert_eq!(tile(2048, 1024, 132), (128, 128));
        assert_eq!(tile(512, 512, 132), (64, 64));
        // One multiprocessor: whatever wastes least.
        assert_eq!(tile(128, 256, 1), (128, 256));
        assert_eq!(tile(128, 128, 1), (128, 128));
        assert_eq!(tile(64, 64, 1), (64, 64));
    }

    #[test]
    fn few_rows_and_unaligned_operands_have_their_kernels() {
        let limits = DeviceLimits { multiprocessors: 132, warpgroups: false, scratch_bytes: 0 };
        let name = |orientation, m, aligned| {
            choose((orientation, false), (m, 500, 64), aligned, limits).kernel
        };
        assert_eq!(name(Orientation::Nt, 1, true), "gemm_i8_f32_nt_rows_1");
        assert_eq!(name(Orientation::Nt, 3, true), "gemm_i8_f32_nt_rows_4");
        assert_eq!(name(Orientation::Nt, 8, true), "gemm_i8_f32_nt_rows_8");
        assert_eq!(name(Orientation::Nt, 9, true), "gemm_i8_f32_nt_64x64");
        assert_eq!(name(Orientation::Tn, 1, true), "gemm_i8_f32_tn_64x64");
        assert_eq!(name(Orientation::Nt, 1, false), "gemm_i8_f32_nt_unaligned");
        assert!(is_aligned(Arg::Ptr(1 << 40), 4096));
        assert!(!is_aligned(Arg::Ptr((1 << 40) + 8), 4096) && !is_aligned(Arg::Ptr(1 << 40), 172));
    }

    #[test]
    fn hopper_takes_products_that_fill_the_device() {
        let scratch_bytes = crate::scratch::HOPPER_SCRATCH_BYTES;
        let limits = DeviceLimits { multiprocessors: 132, warpgroups: true, scratch_bytes };
        let is_hopper = |orientation, (m, n, k), aligned| {
            choose((orientation, false), (m, n, k), aligned, limits).kernel.ends_with("_hopper")
        };
        for (m, n) in [(2048, 4096), (2048, 11_008), (2048, 1024), (32_768, 4096)] {
            for orientation in [Orientation::Nt, Orientation::Nn] {
                assert!(is_hopper(orientation, (m, n, 4096), true), "{orientation:?} {m} x {n}");
                assert!(!is_hopper(orientation, (m, n, 4096), false), "{orientation:?} {m} x {n}");
            }
        }
        // A block of rows of a weight gradient over 2048 and 65,536 tokens.
        assert!(is_hopper(Orientation::Tn, (2048, 4096, 2048), true));
        assert!(is_hopper(Orientation::Tn, (768, 11_008, 65_536), true));
        // More than the scratch block holds; nothing to gain from; too few large tiles for the device.
        assert!(!is_hopper(Orientation::Tn, (2048, 4096, 100_000), true));
        assert!(!is_hopper(Orientation::Tn, (32_768, 256, 512), true));
        assert!(!is_hopper(Orientation::Nt, (512, 512, 4096), true));
        assert!(!is_hopper(Orientation::Nt, (8, 4096, 4096), true));
    }
}
