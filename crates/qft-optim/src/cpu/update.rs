//! The update of a hybrid matrix: row by row, first the moments and then the weights.

use super::moments::{MomentRows, update_moments};
use super::protected::ProtectedRows;
use super::weights::{rescale, update_weights};
use super::{TASK, take};
use crate::moment::{BLOCK, Dither, MomentCode};
use crate::rule::RuleStep;
use crate::{Error, MatrixUpdate, Moment, WeightRounding};
use qft_quant::Residual;
use qft_quant::fixed_point::{BLOCK as WEIGHT_BLOCK, MAX_Q, split};
use qft_tensor::{Cpu, Kernel, Philox, RowShard};
use rayon::prelude::*;
use std::ops::Range;

/// What all rows of an update share.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) residual: Residual,
    pub(super) rule: RuleStep,
    /// Of the first moment.
    pub(super) code: MomentCode,
    pub(super) grad_scale: f32,
    pub(super) lr: f32,
    pub(super) weight_decay: f32,
    /// 1 to round weights stochastically, 0 to round them to nearest.
    pub(super) noise: f32,
    pub(super) philox: Philox,
    pub(super) rescale: Philox,
    pub(super) dither: Dither,
    pub(super) cols: usize,
    /// Whether weights and gradient are rotated.
    pub(super) rotated: bool,
}

/// A row between its moments and its weights.
pub(super) struct Row {
    /// Directions of the step.
    pub(super) direction: Vec<[f32; BLOCK]>,
    /// Random words.
    pub(super) words: Vec<[u32; BLOCK]>,
    /// Fixed-point weights.
    pub(super) fixed: Vec<[i32; BLOCK]>,
}

/// Some rows of all planes; offsets count from the first of them.
struct UpdateTask<'a> {
    step: Step,
    first_row: usize,
    grad: &'a mut [f32],
    stride: usize,
    q: &'a mut [i8],
    r: &'a mut [i8],
    scale: &'a mut [f32],
    /// The second one may be empty.
    moments: [MomentRows<'a>; 2],
    protected: ProtectedRows<'a>,
    reports: &'a mut [RowUpdate],
}

/// What happened to a row.
#[derive(Clone, Copy, Default)]
struct RowUpdate {
    grad_square: f64,
    grown: bool,
}

impl Kernel for UpdateTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.step.residual {
            Residual::None => rows::<0>(self),
            Residual::Bits4 => rows::<4>(self),
            Residual::Bits8 => rows::<8>(self),
        }
    }
}

#[inline(always)]
fn rows<const LOG_F: u32>(mut task: UpdateTask<'_>) {
    const { assert!(BLOCK == WEIGHT_BLOCK) };
    let step = task.step;
    let cols = step.cols;
    let (blocks, row_bytes) = (cols.div_ceil(BLOCK), step.residual.row_bytes(cols));
    let mut room = Row {
        direction: vec![[0.0; BLOCK]; blocks],
        words: vec![[0; BLOCK]; blocks],
        fixed: vec![[0; BLOCK]; blocks],
    };
    for row in 0..task.scale.len() {
        let n = task.first_row + row;
        let mut protected = task.protected.take_rows(1, cols).into_row().peekable();
        let grad = &mut task.grad[row * task.stride..][..cols];
        let q = &mut task.q[row * cols..][..cols];
        let r = &mut task.r[row * row_bytes..][..row_bytes];
        let mut moments = step.split_moments(&mut task.moments, 1);
        let grad_square = update_moments(&step, n, grad, &mut moments, &mut room);
        let scale = &mut task.scale[row];
        let largest = update_weights::<LOG_F>(&step, *scale, q, r, &mut protected, &mut room);
        let grown = largest > MAX_Q << LOG_F;
        if grown {
            let first_random = n * blocks;
            *scale = rescale::<LOG_F>(&step, first_random, &mut room.fixed, largest, *scale);
        }
        let mut rest = r;
        for (k, q) in room.fixed.iter().zip(q.chunks_mut(BLOCK)) {
            let (r, behind) = rest.split_at_mut(step.residual.row_bytes(q.len()));
            split::<LOG_F>(k, q, r);
            rest = behind;
        }
        task.reports[row] = RowUpdate { grad_square, grown };
    }
}

impl Step {
    fn of(op: &MatrixUpdate<'_>) -> Self {
        let format = op.weight.format();
        Self {
            residual: format.residual,
            rule: op.rule.at(op.key.step()),
            code: op.state.first.code,
            grad_scale: op.grad_scale,
            lr: op.lr,
            weight_decay: op.rule.weight_decay(),
            noise: if op.rounding == WeightRounding::Stochastic { 1.0 } else { 0.0 },
            philox: Philox::new(op.key),
            rescale: Philox::new(op.key.rescaling()),
            dither: Dither::new(op.key),
            cols: op.weight.cols(),
            rotated: format.rotated,
        }
    }

    /// Splits off rows of both moments.
    fn split_moments<'a>(
        &self,
        [first, second]: &mut [MomentRows<'a>; 2],
        rows: usize,
    ) -> [MomentRows<'a>; 2] {
        let blocks = self.cols.div_ceil(BLOCK);
        let bytes = |code: MomentCode| code.row_bytes(self.cols);
        let first = first.take(rows, bytes(self.code), blocks);
        [first, second.take(rows, bytes(MomentCode::Quartic), blocks)]
    }
}

/// Where `rows` are in a plane of rows of `width` elements that has those of a shard.
fn places(shard: RowShard, rows: &Range<usize>, width: usize) -> Range<usize> {
    let first = shard.place(rows.start) * width;
    first..first + rows.len() * width
}

fn moment_rows<'a>(
    moment: &'a mut Moment,
    rows: &Range<usize>,
) -> Result<MomentRows<'a>, qft_tensor::Error> {
    let (shard, cols) = (moment.shard(), moment.cols());
    let codes = places(shard, rows, moment.code.row_bytes(cols));
    let scales = places(shard, rows, cols.div_ceil(BLOCK));
    Ok(MomentRows {
        codes: &mut moment.q.host_mut()?[codes],
        scales: &mut moment.scale.host_mut()?[scales],
    })
}

pub(super) fn matrix_update(cpu: &Cpu, op: MatrixUpdate<'_>) -> Result<(), Error> {
    op.check()?;
    let step = Step::of(&op);
    let MatrixUpdate { weight, state, rows, mut grad, key, stats, .. } = op;
    let (cols, isa) = (step.cols, cpu.isa());
    if rows.is_empty() || cols == 0 {
        return Ok(());
    }
    let row_bytes = step.residual.row_bytes(cols);
    let stride = grad.stride();
    let mut grad = grad.host_mut()?;
    let residual_at = places(weight.residual_shard(), &rows, row_bytes);
    let mut protected = ProtectedRows::of(&mut weight.protected, cols, &rows)?;
    let mut q = &mut weight.q.host_mut()?[rows.start * cols..rows.end * cols];
    let mut r = match &mut weight.residual {
        Some(plane) => &mut plane.host_mut()?[residual_at],
        None => Default::default(),
    };
    let mut scale = &mut weight.scale.host_mut()?[rows.clone()];
    let second = state.second.as_mut().map(|second| moment_rows(second, &rows)).transpose()?;
    let mut moments = [moment_rows(&mut state.first, &rows)?, second.unwrap_or_default()];
    let mut reports = vec![RowUpdate::default(); rows.len()];
    let task_rows = (TASK / cols).max(1);
    let tasks: Vec<UpdateTask<'_>> = (reports.chunks_mut(task_rows).enumerate())
        .map(|(task, reports)| {
            let (count, left) = (reports.len(), grad.len());
            UpdateTask {
                step,
                first_row: rows.start + task * task_rows,
                grad: take(&mut grad, (count * stride).min(left)),
                stride,
                q: take(&mut q, count * cols),
                r: take(&mut r, count * row_bytes),
                scale: take(&mut scale, count),
                moments: step.split_moments(&mut moments, count),
                protected: protected.take_rows(count, cols),
                reports,
            }
        })
        .collect();
    cpu.for_each(tasks.into_par_iter(), |task| isa.run(task));
    if let Some((squares, places)) = stats.squares_of(key.tensor(), &rows) {
        for (to, row) in squares.host_mut()?[places].iter_mut().zip(&reports) {
            *to = row.grad_square as f32;
        }
    }
    let line = &mut stats.sums.host_mut()?[2 * key.tensor() as usize..][..2];
    line[0] += reports.iter().map(|row| row.grad_square).sum::<f64>() as f32;
    line[1] += reports.iter().filter(|row| row.grown).count() as f32;
    Ok(())
}
