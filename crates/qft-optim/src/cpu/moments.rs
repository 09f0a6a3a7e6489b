//! The moments of a row: decoded, moved by the rule, coded again, in blocks of 128.

use super::add_squares;
use super::update::{Row, Step};
use crate::moment::BLOCK;
use crate::rule::RuleStep;
use crate::{AdamWStep, LionConfig, MomentCode};
use half::bf16;
use qft_tensor::Philox;
use qft_tensor::numeric::LANES;
use qft_tensor::rng::BLOCK_WORDS;
use qft_tensor::rotation::rotate;

/// Some rows of a moment, or one.
#[derive(Default)]
pub(super) struct MomentRows<'a> {
    pub(super) codes: &'a mut [i8],
    pub(super) scales: &'a mut [bf16],
}

impl<'a> MomentRows<'a> {
    /// Splits off `rows` rows of `bytes` bytes and `blocks` scales each, or as many as there are.
    pub(super) fn take(&mut self, rows: usize, bytes: usize, blocks: usize) -> MomentRows<'a> {
        let codes = (rows * bytes).min(self.codes.len());
        let scales = (rows * blocks).min(self.scales.len());
        MomentRows {
            codes: super::take(&mut self.codes, codes),
            scales: super::take(&mut self.scales, scales),
        }
    }

    fn block(&mut self, b: usize, code: MomentCode) -> (&mut [i8], &mut bf16) {
        let bytes = code.row_bytes(BLOCK);
        let end = ((b + 1) * bytes).min(self.codes.len());
        (&mut self.codes[b * bytes..end], &mut self.scales[b])
    }
}

/// Moves the moments of a row by its gradient, and leaves the row's random words and directions; returns the gradient's sum of
/// squares.
#[inline(always)]
pub(super) fn update_moments(
    step: &Step,
    n: usize,
    grad: &mut [f32],
    [first, second]: &mut [MomentRows<'_>; 2],
    row: &mut Row,
) -> f64 {
    if step.rotated {
        rotate(grad);
    }
    let blocks = step.cols.div_ceil(BLOCK);
    let mut squares = [0.0; LANES];
    for (b, grad) in grad.chunks(BLOCK).enumerate() {
        draw(&step.philox, n * blocks + b, &mut row.words[b]);
        add_squares(grad, step.grad_scale, &mut squares);
        let (cols, mut room) = (grad.len(), [0.0; BLOCK]);
        let grad = (padded(grad, &mut room), step.grad_scale);
        let (codes, scale) = first.block(b, step.code);
        // Behind the row's end is no weight, though a code may stand for one.
        let mut m = step.code.decode(codes, *scale);
        m[cols..].fill(0.0);
        row.direction[b] = match step.rule {
            RuleStep::Lion(rule) => lion(&rule, grad, &mut m),
            RuleStep::AdamW(rule) => {
                let (codes, scale) = second.block(b, MomentCode::Quartic);
                let mut v = MomentCode::Quartic.decode(codes, *scale);
                v[cols..].fill(0.0);
                let direction = adamw(&rule, grad, &mut m, &mut v);
                *scale = MomentCode::Quartic.encode(&v, &step.dither.block(n, b), (codes, cols));
                direction
            }
        };
        let dither;
        let random = if step.code.is_dithered() {
            dither = step.dither.block(n, b);
            &dither
        } else {
            &row.words[b]
        };
        *scale = step.code.encode(&m, random, (codes, cols));
    }
    if step.rotated {
        rotate(&mut row.direction.as_flattened_mut()[..step.cols]);
    }
    squares.iter().copied().map(f64::from).sum()
}

/// The random words of a block of weights.
#[inline(always)]
fn draw(philox: &Philox, block: usize, words: &mut [u32; BLOCK]) {
    const { assert!(2 * BLOCK_WORDS == BLOCK) };
    for (half, index) in words.as_chunks_mut().0.iter_mut().zip(2 * block as u32..) {
        *half = philox.block(index);
    }
}

/// Up to 128 numbers where they lie, or in `room`, with zeros behind them.
#[inline(always)]
fn padded<'a>(x: &'a [f32], room: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
    match x.first_chunk() {
        Some(x) => x,
        None => {
            room[..x.len()].copy_from_slice(x);
            room
        }
    }
}

/// A block of a gradient, and what it is to be multiplied by.
type Scaled<'a> = (&'a [f32; BLOCK], f32);

#[inline(always)]
fn lion(rule: &LionConfig, (grad, factor): Scaled<'_>, m: &mut [f32; BLOCK]) -> [f32; BLOCK] {
    let mut direction = [0.0; BLOCK];
    for e in 0..BLOCK {
        direction[e] = rule.advance(&mut m[e], grad[e] * factor);
    }
    direction
}

#[inline(always)]
fn adamw(
    rule: &AdamWStep,
    (grad, factor): Scaled<'_>,
    m: &mut [f32; BLOCK],
    v: &mut [f32; BLOCK],
) -> [f32; BLOCK] {
    let mut direction = [0.0; BLOCK];
    for e in 0..BLOCK {
        direction[e] = rule.advance(&mut m[e], &mut v[e], grad[e] * factor);
    }
    direction
}
