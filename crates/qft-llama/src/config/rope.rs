//! Rotary frequencies, plain and rescaled for longer contexts, as `ROPE_INIT_FUNCTIONS` of transformers computes them.

use std::f32::consts::TAU;

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base of the geometric series of wavelengths.
    pub theta: f64,
    /// How many dimensions of a head are rotated, the first ones; `None` for all. Even.
    pub rotated: Option<usize>,
    /// How the frequencies are rescaled.
    pub scaling: RopeScaling,
}

/// A rescaling of rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// A larger base for sequences longer than the model's positions; nothing for shorter ones.
    Dynamic {
        /// How much the base grows.
        factor: f64,
        /// The model's positions.
        max_position_embeddings: usize,
    },
    /// Llama 3: low frequencies divided, high ones kept, those between interpolated.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths longer than the original context over this are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths shorter than the original context over this are high frequencies.
        high_freq_factor: f64,
        /// The context length that the model was pretrained with.
        original_max_position_embeddings: usize,
    },
    /// YaRN: as Llama 3, with a ramp over the index of the frequency, and a factor for sines and cosines.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// The context length that the model was pretrained with.
        original_max_position_embeddings: usize,
        /// Frequencies that turn more often within the original context are kept.
        beta_fast: f64,
        /// Frequencies that turn less often within it are divided.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole indices.
        truncate: bool,
        /// What sines and cosines are multiplied by.
        attention_factor: f32,
    },
    /// LongRoPE: a divisor for each frequency, and a factor for sines and cosines.
    LongRope {
        /// The divisors for sequences up to the original context, `[rotated / 2]`.
        short_factor: Vec<f32>,
        /// The divisors for longer sequences, `[rotated / 2]`.
        long_factor: Vec<f32>,
        /// The context length that the model was pretrained with.
        original_max_position_embeddings: usize,
        /// What sines and cosines are multiplied by.
        attention_factor: f32,
    },
}

impl Rope {
    /// Frequencies `[rotated / 2]`, in radians per position, for a sequence of `seq_len` tokens.
    ///
    /// The length counts for [`RopeScaling::LongRope`], which takes its long factors if it exceeds the original
    /// context, and for [`RopeScaling::Dynamic`]. transformers takes the highest position of each batch, plus one; a
    /// training run passes its sequence length.
    ///
    /// Numerics: the steps of transformers, each rounded to f32; only the power is taken in f64 first, so that
    /// it does not depend on the platform's f32 library.
    pub fn inv_freq(&self, head_dim: usize, seq_len: usize) -> Vec<f32> {
        let dim = self.rotated.unwrap_or(head_dim);
        let plain = powers(self.theta, dim).map(|power| 1.0 / power);
        match &self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / *factor as f32).collect(),
            RopeScaling::Dynamic { factor, max_position_embeddings: positions } => {
                let theta = stretched(self.theta, *factor, seq_len, *positions, dim);
                powers(theta, dim).map(|power| 1.0 / power).collect()
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            } => {
                let (factor, low, high) = (*factor as f32, *low as f32, *high as f32);
                let context = *context as f32;
                plain.map(|f| llama3(f, factor, low, high, context)).collect()
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: context,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                let turns = |beta: f64| turning_index(beta, dim, self.theta, *context);
                let ramp = Ramp::new(turns(*beta_fast), turns(*beta_slow), dim, *truncate);
                let factor = *factor as f32;
                let blend = |(i, power): (usize, f32)| {
                    let kept = 1.0 - ramp.at(i);
                    1.0 / (factor * power) * (1.0 - kept) + 1.0 / power * kept
                };
                powers(self.theta, dim).enumerate().map(blend).collect()
            }
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings: context,
                ..
            } => {
                let factors = if seq_len > *context { long_factor } else { short_factor };
                powers(self.theta, dim).zip(factors).map(|(power, f)| 1.0 / (f * power)).collect()
            }
        }
    }

    /// Frequencies `[head_dim / 2]` of the base alone: those of [`LayerRope::Plain`](super::LayerRope::Plain).
    pub fn plain_inv_freq(&self, head_dim: usize) -> Vec<f32> {
        let dim = self.rotated.unwrap_or(head_dim);
        powers(self.theta, dim).map(|power| 1.0 / power).collect()
    }

    /// What sines and cosines of rescaled layers are multiplied by.
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. }
            | RopeScaling::LongRope { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }
}

/// `theta ^ (2 i / dim)` for each pair.
fn powers(theta: f64, dim: usize) -> impl Iterator<Item = f32> {
    let theta = f64::from(theta as f32);
    (0..dim / 2).map(move |i| {
        let exponent = (2 * i) as f32 / dim as f32;
        theta.powf(f64::from(exponent)) as f32
    })
}

/// The base of dynamic scaling for a sequence of `seq_len` tokens.
fn stretched(theta: f64, factor: f64, seq_len: usize, positions: usize, dim: usize) -> f64 {
    if seq_len <= positions || dim <= 2 {
        return theta;
    }
    let ratio = factor * seq_len as f64 / positions as f64 - (factor - 1.0);
    theta * ratio.powf(dim as f64 / (dim - 2) as f64)
}

fn llama3(frequency: f32, factor: f32, low: f32, high: f32, context: f32) -> f32 {
    let wavelength = TAU / frequency;
    if wavelength < context / high {
        frequency
    } else if wavelength > context / low {
        frequency / factor
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * (frequency / factor) + smooth * frequency
    }
}

/// The index, not whole, of the frequency that turns `turns` times within the original context.
fn turning_index(turns: f64, dim: usize, theta: f64, context: usize) -> f64 {
    let ratio = context as f64 / (turns * std::f64::consts::TAU);
    dim as f64 * ratio.ln() / (2.0 * theta.ln())
}

/// YaRN's ramp over the index of a frequency: 0 for those that are kept, 1 for those that are divided.
struct Ramp {
    start: f32,
    width: f32,
}

impl Ramp {
    fn new(fast: f64, slow: f64, dim: usize, truncate: bool) -> Self {
        let (low, high) = if truncate { (fast.floor(), slow.ceil()) } else { (fast, slow) };
        let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
        if low == high {
            // A step instead of a division by zero.
            high += 0.001;
        }
        Self { start: low as f32, width: (high - low) as f32 }
    }

    fn at(&self, index: usize) -> f32 {
        ((index as f32 - self.start) / self.width).clamp(0.0, 1.0)
    }
}

/// YaRN's factor for sines and cosines where none is given; a scale of 0 counts as not given.
pub(super) fn yarn_attention_factor(factor: f64, mscale: f64, mscale_all_dim: f64) -> f64 {
    let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    if mscale != 0.0 && mscale_all_dim != 0.0 {
        scale(mscale) / scale(mscale_all_dim)
    } else {
        scale(1.0)
    }
}

/// LongRoPE's factor for sines and cosines where none is given.
pub(super) fn longrope_attention_factor(factor: f64, original_positions: usize) -> f64 {
    if factor <= 1.0 {
        return 1.0;
    }
    (1.0 + factor.ln() / (original_positions as f64).ln()).sqrt()
}
