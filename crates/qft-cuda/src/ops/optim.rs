//! Updates on the GPU: `kernels/update.cu`, `kernels/float_update.cu`.

use super::dims::index;
use crate::scratch::SCRATCH_BYTES;
use crate::{Arg, Cuda, Launch};
use qft_optim::adamw::AdamWFactors;
use qft_optim::moment::{self, Dither};
use qft_optim::{
    AdamWConfig, Error, FloatUpdate, LionConfig, MatrixState, MatrixUpdate, Moment, MomentCode,
    OptimOps, Rule, SquareSum, UpdateStats, WeightRounding,
};
use qft_quant::{HybridMatrix, Residual};
use qft_tensor::RowShard;
use std::mem::size_of;
use std::ops::Range;

const WARP: u32 = 32;

/// Threads of a block in the float kernels.
const THREADS: u32 = 256;

/// Elements of a block in the float kernels, until there are more blocks than fill a GPU.
const ELEMENTS: usize = 1024;

/// Blocks that fill a GPU.
const MOST_BLOCKS: u32 = 2048;

/// Random words of a warp, WARP_WORDS in `stochastic.cuh`.
const WARP_WORDS: usize = 144;

/// The most warps of a row of an update.
const MAX_WARPS: usize = 8;

/// Words of a row that can wait in shared memory for the row's scale.
const SHARED_WORDS: usize = 16_384;

/// Rows of one launch of an update: their statistics take a third of the scratch block.
const MOST_ROWS: usize = 1 << 20;

/// The line of a tensor in the statistics.
fn line(
    cuda: &Cuda,
    op: &'static str,
    stats: &mut UpdateStats,
    tensor: u32,
) -> Result<Arg, qft_tensor::Error> {
    let first = 2 * tensor as usize;
    cuda.write_span(op, &mut stats.sums, first..first + 2)
}

/// The address of a plane with a row for each of `shard`, as a kernel expects it that counts from the first row of the matrix;
/// it goes through `rows`, which are owned in one run.
pub(super) fn shifted(plane: Arg, shard: RowShard, rows: &Range<usize>, row_bytes: usize) -> Arg {
    let left_out = (rows.start - shard.place(rows.start)) * row_bytes;
    match plane {
        Arg::Ptr(start) => Arg::Ptr(start.wrapping_sub(left_out as u64)),
        other => other,
    }
}

/// Adds `count` partial results to a line of the statistics.
fn add_stats(
    cuda: &Cuda,
    op: &'static str,
    squares: Arg,
    grown: Arg,
    count: u32,
    line: Arg,
) -> Result<(), qft_tensor::Error> {
    let args = [squares, grown, Arg::U32(count), line];
    cuda.launch(op, "add_update_stats", Launch::blocks(1, THREADS), &args)
}

/// Groups of a rotated row, at most, as in the kernel.
const fn most_groups(cols: usize) -> usize {
    cols / 64 + 9
}

/// The kernel of an update; the check of the operation lets no other code through.
fn update_kernel(residual: Residual, rule: Rule, code: MomentCode) -> &'static str {
    use MomentCode::{Linear, Quartic, Sqrt, Sqrt4};
    match (rule, residual, code) {
        (Rule::Lion(_), Residual::None, Sqrt | Quartic) => "lion_update_f32_i8_r0_sqrt",
        (Rule::Lion(_), Residual::None, Linear) => "lion_update_f32_i8_r0_linear",
        (Rule::Lion(_), Residual::None, Sqrt4) => "lion_update_f32_i8_r0_sqrt4",
        (Rule::Lion(_), Residual::Bits4, Sqrt | Quartic) => "lion_update_f32_i8_r4_sqrt",
        (Rule::Lion(_), Residual::Bits4, Linear) => "lion_update_f32_i8_r4_linear",
        (Rule::Lion(_), Residual::Bits4, Sqrt4) => "lion_update_f32_i8_r4_sqrt4",
        (Rule::Lion(_), Residual::Bits8, Sqrt | Quartic) => "lion_update_f32_i8_r8_sqrt",
        (Rule::Lion(_), Residual::Bits8, Linear) => "lion_update_f32_i8_r8_linear",
        (Rule::Lion(_), Residual::Bits8, Sqrt4) => "lion_update_f32_i8_r8_sqrt4",
        (Rule::AdamW(_), Residual::None, _) => "adamw_update_f32_i8_r0",
        (Rule::AdamW(_), Residual::Bits4, _) => "adamw_update_f32_i8_r4",
        (Rule::AdamW(_), Residual::Bits8, _) => "adamw_update_f32_i8_r8",
    }
}

/// What a kernel is told of a rule in one step: beta1, beta2, weight decay, and of AdamW eps and both factors of the bias.
fn rule_args(rule: Rule, step: u32) -> [Arg; 6] {
    let (betas, adamw) = match rule {
        Rule::Lion(LionConfig { beta1, beta2, .. }) => ([beta1, beta2], [0.0; 3]),
        Rule::AdamW(config) => {
            let [first, second] = config.at(step).unbias;
            ([config.beta1, config.beta2], [config.eps, first, second])
        }
    };
    let ([beta1, beta2], [eps, first, second]) = (betas, adamw);
    [beta1, beta2, rule.weight_decay(), eps, first, second].map(Arg::F32)
}

/// The threads of a row of an update, and where its weights wait for their scale.
struct UpdateRow {
    warps: u32,
    shared_bytes: usize,
    /// Bytes of the row's new weights outside of shared memory, and of directions that are floats; 0 if they fit there.
    waiting_bytes: usize,
}

impl UpdateRow {
    fn of(weight: &HybridMatrix, rule: Rule) -> Self {
        let cols = weight.cols();
        let blocks = cols.div_ceil(moment::BLOCK);
        let warps = blocks.div_ceil(4).min(MAX_WARPS);
        let padded = blocks * moment::BLOCK;
        // The directions of Lion are signs, of two bits each.
        let (words, signs) = match rule {
            Rule::Lion(_) => (padded, 2 * (2 * most_groups(cols)).next_multiple_of(4)),
            Rule::AdamW(_) => (2 * padded, 0),
        };
        let bytes = words * size_of::<u32>();
        let (waiting_bytes, shared) = if words > SHARED_WORDS { (bytes, 0) } else { (0, bytes) };
        let marks = if weight.protected.is_some() { padded / 8 } else { 0 };
        let shared_bytes = (warps * WARP_WORDS + signs) * size_of::<u32>() + marks + shared;
        Self { warps: warps as u32, shared_bytes, waiting_bytes }
    }
}

/// Where an update keeps what the rows of one launch need in the scratch block.
struct UpdateScratch {
    grown: usize,
    long_rows: usize,
    bytes: usize,
    /// Blocks of the launch.
    blocks: usize,
}

impl UpdateScratch {
    /// For `rows` rows of `row_bytes` bytes, 0 if a row waits in shared memory.
    fn new(rows: usize, row_bytes: usize) -> Self {
        let grown = rows * size_of::<f64>();
        let long_rows = (grown + rows * size_of::<u32>()).next_multiple_of(16);
        let blocks = match row_bytes {
            0 => rows,
            _ => ((SCRATCH_BYTES - long_rows) / row_bytes).clamp(1, rows),
        };
        Self { grown, long_rows, bytes: long_rows + blocks * row_bytes, blocks }
    }
}

impl Cuda {
    /// The planes of a matrix and its moments, as a kernel gets them for `rows`: it counts rows of the matrix, and where
    /// rows of others are left out, the first is before the plane.
    fn update_planes(
        &self,
        weight: &mut HybridMatrix,
        state: &mut MatrixState,
        rows: &Range<usize>,
    ) -> Result<Vec<Arg>, qft_tensor::Error> {
        let residual_bytes = weight.format().residual.row_bytes(weight.cols());
        let kept = weight.residual_shard();
        let residual = match &mut weight.residual {
            Some(plane) => shifted(self.write(OP, plane)?, kept, rows, residual_bytes),
            None => Arg::NULL,
        };
        let mut planes =
            vec![self.write(OP, &mut weight.q)?, residual, self.write(OP, &mut weight.scale)?];
        planes.extend(self.moment_planes(&mut state.first, rows)?);
        planes.extend(match &mut state.second {
            Some(second) => self.moment_planes(second, rows)?,
            None => [Arg::NULL, Arg::NULL],
        });
        planes.extend(self.updated_protected_args(OP, weight.protected.as_mut())?);
        Ok(planes)
    }

    fn moment_planes(
        &self,
        moment: &mut Moment,
        rows: &Range<usize>,
    ) -> Result<[Arg; 2], qft_tensor::Error> {
        let (own, cols) = (moment.shard(), moment.cols());
        let scale_bytes = cols.div_ceil(moment::BLOCK) * size_of::<u16>();
        let code_bytes = moment.code.row_bytes(cols);
        Ok([
            shifted(self.write(OP, &mut moment.q)?, own, rows, code_bytes),
            shifted(self.write(OP, &mut moment.scale)?, own, rows, scale_bytes),
        ])
    }
}

const OP: &str = "matrix_update";

impl OptimOps for Cuda {
    fn matrix_update(&self, op: MatrixUpdate<'_>) -> Result<(), Error> {
        op.check()?;
        let MatrixUpdate {
            weight,
            state,
            rule,
            rows,
            mut grad,
            grad_scale,
            lr,
            rounding,
            key,
            stats,
        } = op;
        let cols = weight.cols();
        if rows.is_empty() || cols == 0 {
            return Ok(());
        }
        let rotated = weight.format().rotated;
        let UpdateRow { warps, shared_bytes, waiting_bytes } = UpdateRow::of(weight, rule);
        let shared = index(OP, shared_bytes)?;
        let kernel = update_kernel(weight.format().residual, rule, state.first.code);
        let planes = self.update_planes(weight, state, &rows)?;
        let line = line(self, OP, stats, key.tensor())?;
        for first in (0..rows.len()).step_by(MOST_ROWS) {
            let count = MOST_ROWS.min(rows.len() - first);
            let stride = Arg::size(grad.stride());
            let grad = self.write_mat(OP, &mut grad.reborrow().row_range(first..first + count)?)?;
            let places = UpdateScratch::new(count, waiting_bytes);
            let scratch = self.scratch(OP, places.bytes)?;
            let (squares, grown) = (scratch.at(0), scratch.at(places.grown));
            let long = if waiting_bytes == 0 { Arg::NULL } else { scratch.at(places.long_rows) };
            let mut args = planes.clone();
            args.extend([grad, stride, long, squares, grown]);
            args.extend([
                Arg::U32(index(OP, rows.start + first)?),
                Arg::U32(index(OP, count)?),
                Arg::U32(index(OP, cols)?),
                Arg::F32(grad_scale),
                Arg::F32(lr),
            ]);
            args.extend(rule_args(rule, key.step()));
            args.extend([
                Arg::F32(if rounding == WeightRounding::Stochastic { 1.0 } else { 0.0 }),
                Arg::U32(Dither::new(key).start),
                Arg::U32(rotated.into()),
                Arg::U64(key.seed()),
                Arg::U32(key.step()),
                Arg::U32(key.tensor()),
                Arg::U32(key.purpose_word()),
            ]);
            let launch =
                Launch::blocks(index(OP, places.blocks)?, WARP * warps).with_shared(shared);
            self.launch(OP, kernel, launch, &args)?;
            add_stats(self, OP, squares, grown, index(OP, count)?, line)?;
            let updated = rows.start + first..rows.start + first + count;
            if let Some((to, places)) = stats.squares_of(key.tensor(), &updated) {
                let to = self.write_span(OP, to, places)?;
                let launch = Launch::strided(count, THREADS as usize, THREADS, MOST_BLOCKS);
                self.launch(OP, "store_squares", launch, &[squares, to, Arg::size(count)])?;
            }
        }
        Ok(())
    }

    fn float_update(&self, op: FloatUpdate<'_>) -> Result<(), Error> {
        const OP: &str = "float_update";
        op.check()?;
        let FloatUpdate { weight, state, start, grad, grad_scale, lr, rule, step, tensor, stats } =
            op;
        let (count, range) = (grad.len(), start..start + grad.len());
        if count == 0 {
            return Ok(());
        }
        let launch = Launch::strided(count, ELEMENTS, THREADS, MOST_BLOCKS);
        let scratch = self.scratch(OP, launch.grid[0] as usize * size_of::<f64>())?;
        let squares = scratch.at(0);
        let mut args = vec![
            self.write_span(OP, weight, range.clone())?,
            self.write_span(OP, &mut state.m, range.clone())?,
        ];
        if let Some(v) = &mut state.v {
            args.push(self.write_span(OP, v, range)?);
        }
        args.extend([self.read_span(OP, grad)?, squares, Arg::size(count), Arg::F32(grad_scale)]);
        let kernel = match rule {
            Rule::Lion(config) => {
                args.extend([lr, config.beta1, config.beta2, config.weight_decay].map(Arg::F32));
                "lion_update_f32"
            }
            Rule::AdamW(config) => {
                let AdamWFactors { keep, rate, root } = AdamWFactors::new(&config, lr, step);
                let AdamWConfig { beta1, beta2, eps, .. } = config;
                args.extend([beta1, beta2, eps, keep, rate, root].map(Arg::F32));
                "adamw_update_f32"
            }
        };
        self.launch(OP, kernel, launch, &args)?;
        let line = line(self, OP, stats, tensor)?;
        Ok(add_stats(self, OP, squares, Arg::NULL, launch.grid[0], line)?)
    }

    fn square_sum(&self, op: SquareSum<'_>) -> Result<(), Error> {
        const OP: &str = "square_sum";
        op.check()?;
        let SquareSum { grad, first_row, tensor, stats } = op;
        let (rows, cols) = (grad.rows(), grad.cols());
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        if let Some((to, places)) = stats.squares_of(tensor, &(first_row..first_row + rows)) {
            let to = self.write_span(OP, to, places)?;
            let launch = Launch::strided(rows, 1, THREADS, MOST_BLOCKS);
            let stride = Arg::size(grad.stride());
            let (x, rows) = (self.read_mat(OP, grad)?, Arg::size(rows));
            let args = [x, stride, to, rows, Arg::size(cols)];
            return Ok(self.launch(OP, "square_sum_rows_f32", launch, &args)?);
        }
        let mut launch = Launch::strided(cols, ELEMENTS, THREADS, MOST_BLOCKS);
        launch.grid[1] = rows.min((MOST_BLOCKS / launch.grid[0]) as usize) as u32;
        let count = launch.grid[0] * launch.grid[1];
        let scratch = self.scratch(OP, count as usize * size_of::<f64>())?;
        let squares = scratch.at(0);
        let args = [
            self.read_mat(OP, grad)?,
            Arg::size(grad.stride()),
            squares,
            Arg::size(rows),
            Arg::size(cols),
        ];
        self.launch(OP, "square_sum_f32", launch, &args)?;
        let line = line(self, OP, stats, tensor)?;
        Ok(add_stats(self, OP, squares, Arg::NULL, count, line)?)
    }
}
