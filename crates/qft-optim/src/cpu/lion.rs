//! Quantized Lion: row by row, in blocks of 128, first the momentum and then the weights.

use super::{TASK, add_squares, sign};
use crate::lion::{GROWN_MAX, MAX_STEP};
use crate::{Error, LionUpdate, MomentumCode, WeightRounding, momentum};
use half::bf16;
use qft_quant::Residual;
use qft_quant::fixed_point::{BLOCK, MAX_Q, join_into, split};
use qft_quant::protected::{BLOCK_COLS, columns};
use qft_tensor::numeric::{LANES, MAGIC, nearest, nearest_bf16};
use qft_tensor::rng::{BLOCK_WORDS, offset_from_bits, rounding_offsets};
use qft_tensor::rotation::rotate;
use qft_tensor::{Cpu, Kernel, Philox, RowShard};
use rayon::prelude::*;
use std::iter::Peekable;

/// What all rows of an update share.
#[derive(Clone, Copy)]
struct Step {
    residual: Residual,
    code: MomentumCode,
    grad_scale: f32,
    lr: f32,
    beta1: f32,
    beta2: f32,
    weight_decay: f32,
    /// 1 to round stochastically, 0 to round to nearest.
    dither: f32,
    philox: Philox,
    rescale: Philox,
    cols: usize,
    /// Whether weights and gradient are rotated.
    rotated: bool,
}

/// Some rows of all planes; offsets count from the first of them.
struct LionTask<'a> {
    step: Step,
    first_row: usize,
    grad: &'a mut [f32],
    stride: usize,
    q: &'a mut [i8],
    r: &'a mut [i8],
    scale: &'a mut [f32],
    m: &'a mut [i8],
    m_scale: &'a mut [bf16],
    protected: ProtectedRows<'a>,
    reports: &'a mut [RowUpdate],
}

/// Protected weights of some rows; empty if the matrix has none.
#[derive(Default)]
struct ProtectedRows<'a> {
    values: &'a mut [bf16],
    cols: &'a [u8],
    counts: &'a [u8],
    /// Ends of the rows' protected weights, counted like `first`.
    row_end: &'a [u32],
    first: u32,
}

/// What happened to a row.
#[derive(Clone, Copy, Default)]
struct RowUpdate {
    grad_square: f64,
    grown: bool,
}

impl Kernel for LionTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match (self.step.residual, self.step.code) {
            (Residual::None, MomentumCode::Sqrt) => rows::<0, true>(self),
            (Residual::None, MomentumCode::Linear) => rows::<0, false>(self),
            (Residual::Bits4, MomentumCode::Sqrt) => rows::<4, true>(self),
            (Residual::Bits4, MomentumCode::Linear) => rows::<4, false>(self),
            (Residual::Bits8, MomentumCode::Sqrt) => rows::<8, true>(self),
            (Residual::Bits8, MomentumCode::Linear) => rows::<8, false>(self),
        }
    }
}

/// A row between its momentum and its weights.
struct Row {
    /// Directions of the step.
    direction: Vec<[f32; BLOCK]>,
    /// Random words.
    words: Vec<Words>,
    /// Fixed-point weights.
    fixed: Vec<[i32; BLOCK]>,
}

#[inline(always)]
fn rows<const LOG_F: u32, const SQRT: bool>(mut task: LionTask<'_>) {
    let step = task.step;
    let cols = step.cols;
    let (blocks, row_bytes) = (cols.div_ceil(BLOCK), step.residual.row_bytes(cols));
    let mut room = Row {
        direction: vec![[0.0; BLOCK]; blocks],
        words: vec![[[0; BLOCK_WORDS]; 2]; blocks],
        fixed: vec![[0; BLOCK]; blocks],
    };
    for row in 0..task.scale.len() {
        let mut protected = task.protected.take_rows(1, cols).into_row().peekable();
        let grad = &mut task.grad[row * task.stride..][..cols];
        let q = &mut task.q[row * cols..][..cols];
        let r = &mut task.r[row * row_bytes..][..row_bytes];
        let m = &mut task.m[row * cols..][..cols];
        let m_scale = &mut task.m_scale[row * blocks..][..blocks];
        let first_random = (task.first_row + row) * blocks;
        let grad_square = update_momentum::<SQRT>(&step, first_random, grad, m, m_scale, &mut room);
        let scale = &mut task.scale[row];
        let largest = update_weights::<LOG_F>(&step, *scale, q, r, &mut protected, &mut room);
        let grown = largest > MAX_Q << LOG_F;
        if grown {
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

/// Updates the momentum of a row, and leaves the row's words and directions; returns the gradient's sum of squares.
#[inline(always)]
fn update_momentum<const SQRT: bool>(
    step: &Step,
    first_random: usize,
    grad: &mut [f32],
    codes: &mut [i8],
    scales: &mut [bf16],
    row: &mut Row,
) -> f64 {
    if step.rotated {
        rotate(grad);
    }
    let mut squares = [0.0; LANES];
    let inputs = grad.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales);
    let outputs = row.words.iter_mut().zip(&mut row.direction);
    for (b, (((grad, codes), scale), (words, direction))) in inputs.zip(outputs).enumerate() {
        *words = draw(&step.philox, first_random + b);
        add_squares(grad, step.grad_scale, &mut squares);
        *direction = momentum_block::<SQRT>(step, grad, words, codes, scale);
    }
    if step.rotated {
        rotate(&mut row.direction.as_flattened_mut()[..step.cols]);
    }
    squares.iter().copied().map(f64::from).sum()
}

/// Moves the weights of a row, which are left in fixed point; returns the largest magnitude.
#[inline(always)]
fn update_weights<'a, const LOG_F: u32>(
    step: &Step,
    scale: f32,
    q: &[i8],
    r: &[i8],
    protected: &mut Peekable<impl Iterator<Item = (usize, &'a mut bf16)>>,
    row: &mut Row,
) -> i32 {
    let lr_steps = (1 << LOG_F) as f32 * step.lr / scale;
    let (bytes, mut largest) = (step.residual.row_bytes(BLOCK), 0);
    let blocks = row.direction.iter().zip(&row.words).zip(&mut row.fixed).zip(q.chunks(BLOCK));
    for (b, (((direction, words), k), q)) in blocks.enumerate() {
        let r = &r[(b * bytes).min(r.len())..];
        join_into::<LOG_F>(q, &r[..step.residual.row_bytes(q.len())], k);
        move_block(step, lr_steps, direction, words, k);
        update_protected(protected, step, b, direction, k, words);
        largest = k.iter().fold(largest, |largest, k| largest.max(k.abs()));
    }
    largest
}

/// The random words of a block of weights, for each half of it.
type Words = [[u32; BLOCK_WORDS]; 2];

#[inline(always)]
fn draw(philox: &Philox, block: usize) -> Words {
    const { assert!(2 * BLOCK_WORDS == BLOCK) };
    [philox.block(2 * block as u32), philox.block(2 * block as u32 + 1)]
}

/// Up to 128 elements where they lie, or in `room`, filled up with zeros.
#[inline(always)]
fn padded<'a, T: Copy>(x: &'a [T], room: &'a mut [T; BLOCK]) -> &'a [T; BLOCK] {
    match x.first_chunk() {
        Some(x) => x,
        None => {
            room[..x.len()].copy_from_slice(x);
            room
        }
    }
}

/// Updates up to 128 momenta of a row; returns the directions. Beyond the row's end everything is zero and stays so.
#[inline(always)]
fn momentum_block<const SQRT: bool>(
    step: &Step,
    grad: &[f32],
    words: &Words,
    codes: &mut [i8],
    scale: &mut bf16,
) -> [f32; BLOCK] {
    let (mut grad_room, mut code_room) = ([0.0; BLOCK], [0; BLOCK]);
    let (grad, old) = (padded(grad, &mut grad_room), padded(codes, &mut code_room));
    let (rest1, rest2) = (1.0 - step.beta1, 1.0 - step.beta2);
    let unit = unit::<SQRT>(scale.to_f32());
    let (mut m, mut direction) = ([0.0; BLOCK], [0.0; BLOCK]);
    for e in 0..BLOCK {
        let g = grad[e] * step.grad_scale;
        let before = decode::<SQRT>(old[e], unit);
        direction[e] = sign(step.beta1 * before + rest1 * g);
        m[e] = step.beta2 * before + rest2 * g;
    }
    encode::<SQRT>(&m, words, codes, scale);
    direction
}

/// Moves up to 128 weights, `k` in fixed point, along their directions.
#[inline(always)]
fn move_block(
    step: &Step,
    lr_steps: f32,
    direction: &[f32; BLOCK],
    words: &Words,
    k: &mut [i32; BLOCK],
) {
    let decay = step.lr * step.weight_decay;
    for ((k, direction), word) in k.iter_mut().zip(direction).zip(words.as_flattened()) {
        let u = offset_from_bits(word & 0xFFFF) - 0.5;
        let change = -(lr_steps * direction) - decay * *k as f32;
        *k += nearest(clamp(change, MAX_STEP) + step.dither * u);
    }
}

/// To `-limit..=limit`; NaN becomes `-limit`.
#[inline(always)]
fn clamp(x: f32, limit: f32) -> f32 {
    let x = if x > -limit { x } else { -limit };
    if x < limit { x } else { limit }
}

/// Factor from `k |k|` (square root) or `k` (linear) to the momentum.
#[inline(always)]
fn unit<const SQRT: bool>(scale: f32) -> f32 {
    scale / if SQRT { 16_129.0 } else { 127.0 }
}

/// The momentum of a code; the product is an exact integer.
#[inline(always)]
fn decode<const SQRT: bool>(code: i8, unit: f32) -> f32 {
    let k = f32::from(code);
    (if SQRT { k * k.abs() } else { k }) * unit
}

/// Lane by lane in pairs: one after the other, each would wait for the last.
#[inline(always)]
fn largest(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (a, &b) in low.iter_mut().zip(&*high) {
            *a = if b > *a { b } else { *a };
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn encode<const SQRT: bool>(m: &[f32; BLOCK], words: &Words, codes: &mut [i8], scale: &mut bf16) {
    let mut lanes = [0.0f32; LANES];
    for chunk in m.as_chunks::<LANES>().0 {
        for (lane, &m) in lanes.iter_mut().zip(chunk) {
            *lane = if m.abs() > *lane { m.abs() } else { *lane };
        }
    }
    *scale = momentum::block_scale(largest(lanes));
    let unit = unit::<SQRT>(scale.to_f32());
    let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
    let mut out = [0i8; BLOCK];
    let halves = m.as_chunks::<BLOCK_WORDS>().0.iter().zip(out.as_chunks_mut::<BLOCK_WORDS>().0);
    for ((m, out), words) in halves.zip(words) {
        for e in 0..BLOCK_WORDS {
            let u = offset_from_bits(words[e] >> 16);
            let a = m[e].abs() * inverse;
            // Not a number becomes zero.
            let a = if a > 0.0 { a } else { 0.0 };
            let (k, rest, width);
            if SQRT {
                k = a.sqrt().floor();
                (rest, width) = (a - k * k, 2.0 * k + 1.0);
            } else {
                k = a.floor();
                (rest, width) = (a - k, 1.0);
            }
            let k = if rest > u * width { k + 1.0 } else { k };
            let k = if k < 127.0 { k } else { 127.0 };
            let k = if m[e] < 0.0 { -k } else { k };
            out[e] = (k + MAGIC).to_bits() as i8;
        }
    }
    match codes.first_chunk_mut::<BLOCK>() {
        Some(codes) => *codes = out,
        None => codes.copy_from_slice(&out[..codes.len()]),
    }
}

/// Gives a row a larger scale and expresses its weights in it; returns the scale.
#[inline(never)]
fn rescale<const LOG_F: u32>(
    step: &Step,
    first_random: usize,
    fixed: &mut [[i32; BLOCK]],
    largest: i32,
    scale: f32,
) -> f32 {
    let grown = scale * (largest as f32 / (GROWN_MAX << LOG_F) as f32);
    let ratio = scale / grown;
    for (b, block) in fixed.iter_mut().enumerate() {
        let offsets = rounding_offsets(&step.rescale.block((first_random + b) as u32));
        for (k, u) in block.iter_mut().zip(offsets) {
            *k = nearest(*k as f32 * ratio + step.dither * (u - 0.5));
        }
    }
    grown
}

impl<'a> ProtectedRows<'a> {
    /// Splits off some rows.
    fn take_rows(&mut self, rows: usize, cols: usize) -> Self {
        let (row_end, ends) = self.row_end.split_at(rows.min(self.row_end.len()));
        self.row_end = ends;
        let first = self.first;
        self.first = row_end.last().copied().unwrap_or(first);
        let count = (self.first - first) as usize;
        let blocks = (rows * cols.div_ceil(BLOCK_COLS)).min(self.counts.len());
        let (here, behind) = self.cols.split_at(count);
        let (counts, counts_behind) = self.counts.split_at(blocks);
        (self.cols, self.counts) = (behind, counts_behind);
        Self { values: take(&mut self.values, count), cols: here, counts, row_end, first }
    }

    /// Columns and values, columns rising within each row.
    fn into_row(self) -> impl Iterator<Item = (usize, &'a mut bf16)> {
        columns(self.counts, self.cols).zip(self.values)
    }
}

/// Updates the protected weights of block `b` of a row, and keeps their fixed-point weights at zero.
#[inline(always)]
fn update_protected<'a>(
    protected: &mut Peekable<impl Iterator<Item = (usize, &'a mut bf16)>>,
    step: &Step,
    b: usize,
    direction: &[f32; BLOCK],
    k: &mut [i32; BLOCK],
    words: &Words,
) {
    while let Some((col, value)) = protected.next_if(|(col, _)| *col < (b + 1) * BLOCK) {
        let e = col % BLOCK;
        k[e] = 0;
        let v = value.to_f32();
        let new = v - step.lr * (direction[e] + step.weight_decay * v);
        *value = if step.dither == 0.0 {
            nearest_bf16(new)
        } else {
            // Adding below the last bit kept and cutting there rounds up with the probability of the fraction.
            let bits = new.to_bits().wrapping_add(words.as_flattened()[e] & 0xFFFF);
            bf16::from_bits((bits >> 16) as u16)
        };
    }
}

/// Splits off the first `count` elements.
fn take<'a, T>(slice: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (here, behind) = std::mem::take(slice).split_at_mut(count);
    *slice = behind;
    here
}

pub(super) fn lion_update(cpu: &Cpu, op: LionUpdate<'_>) -> Result<(), Error> {
    op.check()?;
    op.config.check()?;
    let LionUpdate {
        weight,
        momentum,
        rows,
        mut grad,
        grad_scale,
        lr,
        config,
        rounding,
        key,
        stats,
    } = op;
    let (cols, residual, isa) = (weight.cols(), weight.format().residual, cpu.isa());
    if rows.is_empty() || cols == 0 {
        return Ok(());
    }
    let step = Step {
        residual,
        code: momentum.code,
        grad_scale,
        lr,
        beta1: config.beta1,
        beta2: config.beta2,
        weight_decay: config.weight_decay,
        dither: if rounding == WeightRounding::Stochastic { 1.0 } else { 0.0 },
        philox: Philox::new(key),
        rescale: Philox::new(key.rescaling()),
        cols,
        rotated: weight.format().rotated,
    };
    let (row_bytes, blocks) = (residual.row_bytes(cols), cols.div_ceil(BLOCK));
    // Where they are in a plane that has the rows of a shard.
    let at = |shard: RowShard, width: usize| {
        let first = shard.place(rows.start) * width;
        first..first + rows.len() * width
    };
    let residual_at = at(weight.residual_shard(), row_bytes);
    let stride = grad.stride();
    let mut grad = grad.host_mut()?;
    let mut protected = match &mut weight.protected {
        None => ProtectedRows::default(),
        Some(protected) => {
            let row_start = &protected.row_start.host()?[rows.start..=rows.end];
            let protected_blocks = cols.div_ceil(BLOCK_COLS);
            let range = row_start[0] as usize..row_start[rows.len()] as usize;
            ProtectedRows {
                values: &mut protected.values.host_mut()?[range.clone()],
                cols: &protected.cols.host()?[range],
                counts: &protected.counts.host()?
                    [rows.start * protected_blocks..rows.end * protected_blocks],
                row_end: &row_start[1..],
                first: row_start[0],
            }
        }
    };
    let mut q = &mut weight.q.host_mut()?[rows.start * cols..rows.end * cols];
    let mut r = match &mut weight.residual {
        Some(plane) => &mut plane.host_mut()?[residual_at],
        None => Default::default(),
    };
    let mut scale = &mut weight.scale.host_mut()?[rows.clone()];
    let own = momentum.shard();
    let mut m = &mut momentum.q.host_mut()?[at(own, cols)];
    let mut m_scale = &mut momentum.scale.host_mut()?[at(own, blocks)];
    let mut reports = vec![RowUpdate::default(); rows.len()];
    let task_rows = (TASK / cols).max(1);
    let tasks: Vec<LionTask<'_>> = (reports.chunks_mut(task_rows).enumerate())
        .map(|(task, reports)| {
            let (count, left) = (reports.len(), grad.len());
            LionTask {
                step,
                first_row: rows.start + task * task_rows,
                grad: take(&mut grad, (count * stride).min(left)),
                stride,
                q: take(&mut q, count * cols),
                r: take(&mut r, count * row_bytes),
                scale: take(&mut scale, count),
                m: take(&mut m, count * cols),
                m_scale: take(&mut m_scale, count * blocks),
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
