//! Sums and maxima over 16 lanes in a fixed order, and scratch memory per thread.

use qft_tensor::numeric::LANES;
use std::cell::RefCell;

/// The sum of the lanes, as a tree: halves onto each other.
#[inline(always)]
pub(super) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum of a[i] * b[i]`, element `i` in lane `i % 16`.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a_head, a_tail), (b_head, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_head.iter().zip(b_head) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane = a.mul_add(b, *lane);
    }
    sum(lanes)
}

/// The largest element; negative infinity if there is none. NaN is passed over.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (head, tail) = x.as_chunks::<LANES>();
    for chunk in head {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane = if x > *lane { x } else { *lane };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// Calls `f` with `len` floats of unspecified values on a 64-byte boundary, kept by the thread for the next call.
pub(super) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|kept| {
        if kept.len() < len + LANES {
            kept.resize(len + LANES, 0.0);
        }
        let start = kept.as_ptr().align_offset(64).min(LANES);
        f(&mut kept[start..start + len])
    })
}
