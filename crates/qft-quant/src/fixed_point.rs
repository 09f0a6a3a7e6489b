//! The two planes of a weight as one fixed-point integer, 128 at a time.
//!
//! `k = q * F + r` with `F = 2^LOG_F`; `q = (k + F / 2) >> LOG_F`, so `r` is in `-F / 2..F / 2`. Everything that
//! reads or writes weights on the CPU goes through here.

/// Weights in a block: those that share a momentum scale and two blocks of random words.
pub const BLOCK: usize = 128;

/// The largest magnitude of `q`; a fixed-point weight is within `MAX_Q * F`.
pub const MAX_Q: i32 = 127;

/// Joins the planes of up to 128 weights; the rest of the result is zero.
///
/// `r` holds [`crate::Residual::row_bytes`] bytes for the weights of `q`, and is empty for `LOG_F = 0`.
#[inline(always)]
pub fn join<const LOG_F: u32>(q: &[i8], r: &[i8]) -> [i32; BLOCK] {
    let mut k = [0; BLOCK];
    join_into::<LOG_F>(q, r, &mut k);
    k
}

/// The same into `k`.
#[inline(always)]
pub fn join_into<const LOG_F: u32>(q: &[i8], r: &[i8], k: &mut [i32; BLOCK]) {
    match q.first_chunk::<BLOCK>() {
        // A known length compiles to straight vector code.
        Some(q) => join_slice::<LOG_F>(q, r, k),
        None => {
            let (k, rest) = k.split_at_mut(q.len());
            join_slice::<LOG_F>(q, r, k);
            rest.fill(0);
        }
    }
}

#[inline(always)]
fn join_slice<const LOG_F: u32>(q: &[i8], r: &[i8], k: &mut [i32]) {
    match LOG_F {
        0 => {
            for (k, &q) in k.iter_mut().zip(q) {
                *k = i32::from(q);
            }
        }
        4 => {
            let r = &r[..q.len().div_ceil(2)];
            let mut low = [0i8; BLOCK];
            for (pair, &byte) in low.as_chunks_mut::<2>().0.iter_mut().zip(r) {
                *pair = [(byte << 4) >> 4, byte >> 4];
            }
            for ((k, &q), &r) in k.iter_mut().zip(q).zip(&low) {
                *k = (i32::from(q) << 4) + i32::from(r);
            }
        }
        _ => {
            let r = &r[..q.len()];
            for ((k, &q), &r) in k.iter_mut().zip(q).zip(r) {
                *k = (i32::from(q) << LOG_F) + i32::from(r);
            }
        }
    }
}

/// Splits up to 128 fixed-point weights, each within `MAX_Q * F`, into planes: the inverse of [`join`].
#[inline(always)]
pub fn split<const LOG_F: u32>(k: &[i32; BLOCK], q: &mut [i8], r: &mut [i8]) {
    match q.first_chunk_mut::<BLOCK>() {
        Some(q) => split_into::<LOG_F>(k, q, r),
        None => split_into::<LOG_F>(k, q, r),
    }
}

#[inline(always)]
fn split_into<const LOG_F: u32>(k: &[i32; BLOCK], q: &mut [i8], r: &mut [i8]) {
    let half = (1i32 << LOG_F) >> 1;
    for (q, &k) in q.iter_mut().zip(k) {
        *q = ((k + half) >> LOG_F) as i8;
    }
    match LOG_F {
        0 => {}
        4 => {
            // Columns beyond the end are zero in `k`, so an odd row ends in an empty nibble.
            let r = &mut r[..q.len().div_ceil(2)];
            for (r, pair) in r.iter_mut().zip(k.as_chunks::<2>().0) {
                *r = ((pair[0] & 15) | (pair[1] << 4)) as i8;
            }
        }
        _ => {
            let r = &mut r[..q.len()];
            for (r, &k) in r.iter_mut().zip(k) {
                *r = k as i8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<const LOG_F: u32>() {
        let max = MAX_Q << LOG_F;
        let all: Vec<i32> = (-max..=max).collect();
        for chunk in all.chunks(BLOCK) {
            let mut k = [0; BLOCK];
            k[..chunk.len()].copy_from_slice(chunk);
            for len in [1, 3, 64, 127, 128] {
                let (mut q, mut r) = (vec![99; len], vec![99; len]);
                split::<LOG_F>(&k, &mut q, &mut r);
                let mut want = k;
                want[len..].fill(0);
                // The odd neighbour shares a byte with the last weight and is dropped on the way back.
                assert_eq!(join::<LOG_F>(&q, &r), want, "F = 2^{LOG_F}, {len} weights");
                assert!(q.iter().all(|&q| q > -128));
            }
        }
    }

    #[test]
    fn every_weight_survives_both_ways() {
        round_trip::<0>();
        round_trip::<4>();
        round_trip::<8>();
    }
}
