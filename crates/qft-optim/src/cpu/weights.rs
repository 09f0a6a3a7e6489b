//! The weights of a row: moved in fixed point along the directions of the step, and given a larger scale where they outgrow theirs.

use super::protected::update_protected;
use super::update::{Row, Step};
use crate::weight::{GROWN_MAX, MAX_STEP};
use half::bf16;
use qft_quant::fixed_point::{BLOCK, join_into};
use qft_tensor::numeric::nearest;
use qft_tensor::rng::{offset_from_bits, rounding_offsets};
use std::iter::Peekable;

/// Moves the weights of a row, which are left in fixed point; returns the largest magnitude.
#[inline(always)]
pub(super) fn update_weights<'a, const LOG_F: u32>(
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

/// Moves up to 128 weights, `k` in fixed point, along their directions.
#[inline(always)]
fn move_block(
    step: &Step,
    lr_steps: f32,
    direction: &[f32; BLOCK],
    words: &[u32; BLOCK],
    k: &mut [i32; BLOCK],
) {
    let decay = step.lr * step.weight_decay;
    for ((k, direction), word) in k.iter_mut().zip(direction).zip(words) {
        let u = offset_from_bits(word & 0xFFFF) - 0.5;
        let change = -(lr_steps * direction) - decay * *k as f32;
        *k += nearest(clamp(change, MAX_STEP) + step.noise * u);
    }
}

/// To `-limit..=limit`; NaN becomes `-limit`.
#[inline(always)]
fn clamp(x: f32, limit: f32) -> f32 {
    let x = if x > -limit { x } else { -limit };
    if x < limit { x } else { limit }
}

/// Gives a row a larger scale and expresses its weights in it; returns the scale.
#[inline(never)]
pub(super) fn rescale<const LOG_F: u32>(
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
            *k = nearest(*k as f32 * ratio + step.noise * (u - 0.5));
        }
    }
    grown
}
