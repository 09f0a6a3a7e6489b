//! The type of weights in a file, and how they get there from more bits.

use half::{bf16, f16};
use qft_files::Dtype;
use qft_tensor::rng::{HALF_BLOCK, blocks_per_row, rounding_offsets};
use qft_tensor::{Philox, Purpose, RngKey};
use serde::{Deserialize, Serialize};

/// The type of weights in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum WeightType {
    /// bfloat16: 8 bits of precision, the type of most models.
    #[default]
    Bf16,
    /// float16: 11 bits of precision.
    F16,
    /// float32: all that training has.
    F32,
}

impl WeightType {
    /// The name in a `config.json`.
    pub(super) fn config_name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    pub(super) fn file_type(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
        }
    }

    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// How a weight between two numbers of the file's type becomes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SavedRounding {
    /// The nearer one, ties to even. What a fine-tune has moved by less than half the distance is lost.
    #[default]
    Nearest,
    /// Either, by chance: the nearer, the likelier, so that the mean is right. The same seed gives the same file.
    Stochastic {
        /// The seed of the run.
        seed: u64,
    },
}

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SavedWeights {
    /// Their type.
    pub dtype: WeightType,
    /// How they are rounded to it.
    pub rounding: SavedRounding,
}

impl SavedWeights {
    /// Writes a row of tensor number `tensor` as little-endian bytes.
    ///
    /// Errors: the column of the first weight that is not finite, or is not in the file's type.
    pub(super) fn write_row(
        self,
        (tensor, row): (u32, usize),
        values: &[f32],
        out: &mut [u8],
    ) -> Result<(), usize> {
        let random = match self.rounding {
            SavedRounding::Nearest => None,
            SavedRounding::Stochastic { seed } => {
                Some(Philox::new(RngKey::new(seed, 0, tensor, Purpose::SavedWeights)))
            }
        };
        let first = row * blocks_per_row(values.len());
        let size = self.dtype.size_bytes();
        for (group, (values, out)) in
            values.chunks(HALF_BLOCK).zip(out.chunks_mut(HALF_BLOCK * size)).enumerate()
        {
            // Halfway, and ties to even, unless there is chance.
            let offsets =
                random.map(|philox| rounding_offsets(&philox.block((first + group) as u32)));
            for (i, (&value, out)) in values.iter().zip(out.chunks_exact_mut(size)).enumerate() {
                let offset = offsets.as_ref().map(|offsets| offsets[i]);
                let finite = match self.dtype {
                    WeightType::Bf16 => {
                        let rounded =
                            round(value, offset, bf16::from_f32, bf16::to_f32, |near, up| {
                                bf16::from_bits(neighbour(near.to_bits(), up))
                            });
                        out.copy_from_slice(&rounded.to_le_bytes());
                        rounded.is_finite()
                    }
                    WeightType::F16 => {
                        let rounded =
                            round(value, offset, f16::from_f32, f16::to_f32, |near, up| {
                                f16::from_bits(neighbour(near.to_bits(), up))
                            });
                        out.copy_from_slice(&rounded.to_le_bytes());
                        rounded.is_finite()
                    }
                    WeightType::F32 => {
                        out.copy_from_slice(&value.to_le_bytes());
                        value.is_finite()
                    }
                };
                if !finite {
                    return Err(group * HALF_BLOCK + i);
                }
            }
        }
        Ok(())
    }
}

/// The next number of larger (`up`) or smaller magnitude, in the bits of a float type.
fn neighbour(bits: u16, up: bool) -> u16 {
    if up { bits + 1 } else { bits - 1 }
}

/// Rounds to one of the two numbers of `T` around `value`: the nearest without an offset, else the one of larger
/// magnitude with the probability of how near it is, for `offset` uniform in (0, 1).
fn round<T: Copy>(
    value: f32,
    offset: Option<f32>,
    nearest: impl Fn(f32) -> T,
    to_f32: impl Fn(T) -> f32,
    neighbour: impl Fn(T, bool) -> T,
) -> T {
    let near = nearest(value);
    let back = to_f32(near);
    let Some(offset) = offset else { return near };
    if back == value || !back.is_finite() {
        return near;
    }
    let up = back.abs() < value.abs();
    let other = neighbour(near, up);
    let (small, large) = if up { (near, other) } else { (other, near) };
    let (low, high) = (to_f32(small).abs(), to_f32(large).abs());
    // Exact: the two lie within a factor of two, or one of them is zero.
    let part = (value.abs() - low) / (high - low);
    if offset < part && high.is_finite() { large } else { small }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(saved: SavedWeights, row: usize, values: &[f32]) -> Vec<f32> {
        let size = saved.dtype.size_bytes();
        let mut bytes = vec![0; values.len() * size];
        saved.write_row((3, row), values, &mut bytes).unwrap();
        let float = |bytes: &[u8]| match saved.dtype {
            WeightType::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            WeightType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            WeightType::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        };
        bytes.chunks_exact(size).map(float).collect()
    }

    fn saved(dtype: WeightType, seed: u64) -> SavedWeights {
        SavedWeights { dtype, rounding: SavedRounding::Stochastic { seed } }
    }

    #[test]
    fn the_mean_of_rounded_weights_is_the_weight() {
        for dtype in [WeightType::Bf16, WeightType::F16] {
            // Between two numbers, of either sign, also below the smallest normal float16.
            for (value, step) in [(0.1234f32, 1.0 / 1024.0), (-0.0371, 1.0 / 4096.0), (3e-6, 1e-7)]
            {
                let row = vec![value; 20_000];
                let rounded = written(saved(dtype, 1), 7, &row);
                let mut kinds = rounded.clone();
                kinds.sort_by(f32::total_cmp);
                kinds.dedup();
                assert_eq!(kinds.len(), 2, "{dtype:?} {value}: {kinds:?}");
                let (low, high) = (f64::from(kinds[0]), f64::from(kinds[1]));
                assert!(low < f64::from(value) && f64::from(value) < high, "{dtype:?} {kinds:?}");
                let mean = rounded.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len() as f64;
                // A coin's deviation is at most half of the step.
                let bound = 5.0 * 0.5 * (high - low) / (row.len() as f64).sqrt();
                assert!((mean - f64::from(value)).abs() < bound, "{dtype:?} {value}: {mean}");
                assert!(high - low < 2.0 * step, "{dtype:?} {value}: {low} {high}");
            }
        }
    }

    #[test]
    fn what_the_type_holds_is_written_as_it_is() {
        let exact = [0.0f32, -0.0, 1.0, -1.5, 0.0078125, 240.0, -2.0_f32.powi(-14)];
        for dtype in [WeightType::Bf16, WeightType::F16, WeightType::F32] {
            for seed in 0..3 {
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&written(saved(dtype, seed), 0, &exact)), bits(&exact));
            }
        }
        let value = [0.123_456_79f32];
        assert_eq!(written(saved(WeightType::F32, 0), 0, &value), value);
        let nearest = SavedWeights::default();
        assert_eq!(written(nearest, 0, &value), [bf16::from_f32(value[0]).to_f32()]);
    }

    #[test]
    fn the_seed_and_the_row_decide_and_nothing_else() {
        let row = vec![0.1234f32; 300];
        let first = written(saved(WeightType::Bf16, 5), 2, &row);
        assert_eq!(first, written(saved(WeightType::Bf16, 5), 2, &row));
        assert_ne!(first, written(saved(WeightType::Bf16, 6), 2, &row));
        assert_ne!(first, written(saved(WeightType::Bf16, 5), 3, &row));
    }

    #[test]
    fn what_no_number_of_the_type_can_be_is_told_by_its_column() {
        for (dtype, bad) in [
            (WeightType::Bf16, f32::NAN),
            (WeightType::Bf16, f32::MAX),
            (WeightType::F16, 70_000.0),
            (WeightType::F32, f32::INFINITY),
        ] {
            let mut row = vec![0.1; 200];
            row[150] = bad;
            let mut out = vec![0; 200 * dtype.size_bytes()];
            for rounding in [SavedRounding::Nearest, SavedRounding::Stochastic { seed: 0 }] {
                let saved = SavedWeights { dtype, rounding };
                assert_eq!(saved.write_row((0, 0), &row, &mut out), Err(150), "{dtype:?} {bad}");
            }
        }
    }
}
