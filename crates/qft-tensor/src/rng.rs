//! Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
//!
//! A number depends only on its [`RngKey`] and on the index of the element it is for. Thread count,
//! instruction set, device and order of evaluation cannot change it, and a resumed run needs no saved
//! generator.
//!
//! Numbers come in blocks of 64 words, [`Philox::block`], laid out for vector units: word `16 * j + l` of
//! block `b` is output `j` of the counter `16 * b + l`. Matrices start a new block at each row, see
//! [`blocks_per_row`].

use crate::numeric::LANES;
use crate::purpose::{MAX_MICRO_BATCHES, MAX_PARTS, PART_BITS, RESCALING};
use crate::{Error, Purpose};

/// Words in a block.
pub const BLOCK_WORDS: usize = 64;

/// Names one stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RngKey {
    seed: u64,
    step: u32,
    tensor: u32,
    /// The purpose, the micro-batch and the part of the tensor: see [`crate::purpose`].
    purpose: u32,
}

impl RngKey {
    /// The stream that `purpose` has at optimizer step `step` of a run with this seed, for this tensor of the model:
    /// where it has one for each micro-batch and part, that of the first.
    pub const fn new(seed: u64, step: u32, tensor: u32, purpose: Purpose) -> Self {
        Self { seed, step, tensor, purpose: purpose.word() }
    }

    /// The same stream of one part of the tensor in one micro-batch.
    ///
    /// Errors: [`Error::StreamRange`] from [`MAX_MICRO_BATCHES`] and [`MAX_PARTS`] on, or for anything but the first
    /// if the purpose knows no others.
    pub fn of_part(
        seed: u64,
        step: u32,
        tensor: u32,
        purpose: Purpose,
        (micro_batch, part): (usize, usize),
    ) -> Result<Self, Error> {
        let limit = |most| if purpose.has_parts() { most } else { 1 };
        for (what, got, limit) in [
            ("micro-batch", micro_batch, limit(MAX_MICRO_BATCHES)),
            ("part of a tensor", part, limit(MAX_PARTS)),
        ] {
            if got >= limit {
                return Err(Error::StreamRange { purpose, what, got, limit });
            }
        }
        let place = (micro_batch << PART_BITS | part) as u32;
        Ok(Self { seed, step, tensor, purpose: purpose.word() | place })
    }

    /// The stream of the rows that are rescaled in an update with this key: [`Purpose::Rescale`] for
    /// [`Purpose::Update`].
    pub const fn rescaling(self) -> Self {
        Self { purpose: self.purpose ^ RESCALING, ..self }
    }

    /// The seed of the run.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The optimizer step.
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// The tensor within the model.
    pub const fn tensor(&self) -> u32 {
        self.tensor
    }

    /// The word of the purpose, with the micro-batch and the part of the tensor.
    pub const fn purpose_word(&self) -> u32 {
        self.purpose
    }
}

/// The generator of one stream.
#[derive(Debug, Clone, Copy)]
pub struct Philox {
    key: [u32; 2],
    /// The upper counter words: purpose, tensor, step. The lowest word counts.
    upper: [u32; 3],
}

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

impl Philox {
    /// The stream named by `key`.
    pub fn new(key: RngKey) -> Self {
        Self {
            key: [key.seed as u32, (key.seed >> 32) as u32],
            upper: [key.purpose, key.tensor, key.step],
        }
    }

    /// 64 uniformly distributed words. A stream has 2^28 blocks (2^34 words); the index wraps there.
    #[inline(always)]
    pub fn block(&self, index: u32) -> [u32; BLOCK_WORDS] {
        // Each 32-bit word sits in the lower half of a 64-bit lane: the products need no shuffles. What the
        // upper halves hold is never looked at.
        let low = |word: u64| word & 0xFFFF_FFFF;
        let mut c0 = [0u64; LANES];
        for (lane, c) in c0.iter_mut().enumerate() {
            *c = u64::from(index.wrapping_mul(LANES as u32).wrapping_add(lane as u32));
        }
        let [mut c1, mut c2, mut c3] = self.upper.map(|word| [u64::from(word); LANES]);
        let [mut k0, mut k1] = self.key;
        for _ in 0..10 {
            for lane in 0..LANES {
                let p0 = u64::from(M0) * low(c0[lane]);
                let p1 = u64::from(M1) * low(c2[lane]);
                c0[lane] = (p1 >> 32) ^ c1[lane] ^ u64::from(k0);
                c2[lane] = (p0 >> 32) ^ c3[lane] ^ u64::from(k1);
                c1[lane] = p1;
                c3[lane] = p0;
            }
            k0 = k0.wrapping_add(W0);
            k1 = k1.wrapping_add(W1);
        }
        let mut out = [0u32; BLOCK_WORDS];
        for (out, words) in out.as_chunks_mut::<LANES>().0.iter_mut().zip([c0, c1, c2, c3]) {
            for (out, word) in out.iter_mut().zip(words) {
                *out = word as u32;
            }
        }
        out
    }

    /// One word of the stream, computed alone: word `index % 64` of block `index / 64`.
    pub fn word(&self, index: u64) -> u32 {
        self.block((index / BLOCK_WORDS as u64) as u32)[(index % BLOCK_WORDS as u64) as usize]
    }

    /// A uniform number in [0, 1) with 24 bits, from word `index` of the stream.
    pub fn uniform(&self, index: u64) -> f32 {
        (self.word(index) >> 8) as f32 * (1.0 / 16_777_216.0)
    }
}

/// Elements of a row that share one block when each element takes 16 bits.
///
/// Element `e < 64` of such a group takes the lower half of word `e`, element `64 + e` the upper half.
pub const HALF_BLOCK: usize = 2 * BLOCK_WORDS;

/// Blocks that a row of `cols` elements takes at 16 bits an element; row `r` starts at block
/// `r * blocks_per_row(cols)`.
pub const fn blocks_per_row(cols: usize) -> usize {
    cols.div_ceil(HALF_BLOCK)
}

/// The 128 offsets in (0, 1) that stochastic rounding adds before `floor`, from one block.
#[inline(always)]
pub fn rounding_offsets(words: &[u32; BLOCK_WORDS]) -> [f32; HALF_BLOCK] {
    let mut out = [0.0; HALF_BLOCK];
    for e in 0..BLOCK_WORDS {
        out[e] = offset_from_bits(words[e] & 0xFFFF);
        out[BLOCK_WORDS + e] = offset_from_bits(words[e] >> 16);
    }
    out
}

/// `(bits + 1/2) / 65536`: the centre of the 16-bit cell.
#[inline(always)]
pub fn offset_from_bits(bits: u32) -> f32 {
    (bits as i32 as f32 + 0.5) * (1.0 / 65_536.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123 for Philox4x32-10.
    #[test]
    fn known_answers() {
        let zero = Philox { key: [0, 0], upper: [0, 0, 0] }.block(0);
        assert_eq!(
            [zero[0], zero[16], zero[32], zero[48]],
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        let ones = Philox { key: [!0, !0], upper: [!0, !0, !0] }.block(0x0FFF_FFFF);
        assert_eq!(
            [ones[15], ones[31], ones[47], ones[63]],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn every_field_of_the_key_matters() {
        let base = RngKey::new(1, 2, 3, Purpose::Update);
        let first = Philox::new(base).block(0);
        let of_part = |place| RngKey::of_part(1, 2, 3, Purpose::Update, place).unwrap();
        assert_eq!(base, of_part((0, 0)));
        for key in [
            RngKey::new(5, 2, 3, Purpose::Update),
            RngKey::new(1 << 40, 2, 3, Purpose::Update),
            RngKey::new(1, 5, 3, Purpose::Update),
            RngKey::new(1, 2, 5, Purpose::Update),
            RngKey::new(1, 2, 3, Purpose::InputGradient),
            of_part((1, 0)),
            of_part((0, 1)),
            base.rescaling(),
        ] {
            assert_ne!(first, Philox::new(key).block(0), "{key:?}");
        }
        assert_ne!(first, Philox::new(base).block(1));
    }

    #[test]
    fn places_without_a_stream_of_their_own_are_refused() {
        let word = |purpose, place| {
            RngKey::of_part(1, 2, 3, purpose, place).map(|key| key.purpose_word()).ok()
        };
        let last = (MAX_MICRO_BATCHES - 1, MAX_PARTS - 1);
        assert_eq!(word(Purpose::WeightGradient, (5, 7)), Some(0x0300_5007));
        assert_eq!(word(Purpose::WeightGradient, last), Some(0x03FF_FFFF));
        assert_eq!(word(Purpose::WeightGradient, (MAX_MICRO_BATCHES, 0)), None);
        assert_eq!(word(Purpose::WeightGradient, (0, MAX_PARTS)), None);
        assert_eq!(word(Purpose::DataOrder, (0, 0)), Some(Purpose::DataOrder.word()));
        assert_eq!(word(Purpose::DataOrder, (1, 0)), None);
        let rescaling = RngKey::new(1, 2, 3, Purpose::Update).rescaling();
        assert_eq!(rescaling, RngKey::new(1, 2, 3, Purpose::Rescale));
    }

    #[test]
    fn offsets_are_uniform() {
        let philox = Philox::new(RngKey::new(7, 0, 0, Purpose::SelfTest));
        let (mut sum, mut square, n) = (0.0f64, 0.0f64, 1000);
        for block in 0..n {
            for u in rounding_offsets(&philox.block(block)) {
                assert!(u > 0.0 && u < 1.0);
                sum += f64::from(u);
                square += f64::from(u) * f64::from(u);
            }
        }
        let n = f64::from(n) * HALF_BLOCK as f64;
        // Five standard deviations of the mean of a uniform variable, and of its square.
        assert!((sum / n - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / n).sqrt());
        assert!((square / n - 1.0 / 3.0).abs() < 5.0 * (4.0f64 / 45.0 / n).sqrt());
    }
}
