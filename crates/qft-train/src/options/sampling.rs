//! How a model chooses what it writes: options of the commands that let it write.

use super::value::{number, whole};
use crate::error::{Result, ensure};
use qft_llama::sampling::TokenSampler;

/// How a model chooses what it writes, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct SamplingArgs {
    /// Maximum number of tokens to generate [default: 200; in a chat 1024]
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true, help_heading = "Sampling")]
    pub max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 takes the likeliest token [default: 0; in a chat 0.7]
    #[arg(long, value_name = "X", value_parser = number::<f32>, allow_negative_numbers = true, help_heading = "Sampling")]
    pub temperature: Option<f32>,
    /// Sample from the likeliest tokens, as many as make up this probability [default: 1; in a chat 0.95]
    #[arg(long, value_name = "P", value_parser = number::<f32>, allow_negative_numbers = true, help_heading = "Sampling")]
    pub top_p: Option<f32>,
    /// Seed of the sampling [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true, help_heading = "Sampling")]
    pub seed: Option<u64>,
}

/// How a model chooses what it writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Probability mass to sample from.
    pub top_p: f32,
    /// Seed of the sampling.
    pub seed: u64,
}

impl SamplingOptions {
    /// For texts: the likeliest ones.
    pub const TEXT: Self = Self { max_new_tokens: 200, temperature: 0.0, top_p: 1.0, seed: 0 };

    /// For a talk, which the likeliest words make dull.
    pub const CHAT: Self = Self { max_new_tokens: 1024, temperature: 0.7, top_p: 0.95, seed: 0 };

    /// Draws tokens.
    ///
    /// Errors: none of options that were checked.
    pub fn sampler(&self) -> Result<TokenSampler> {
        Ok(TokenSampler::new(self.temperature, self.top_p, self.seed)?)
    }
}

impl SamplingArgs {
    /// Fills in `default` and checks everything.
    ///
    /// Errors: a value out of its range; one that has no effect.
    pub(super) fn resolve(self, default: SamplingOptions) -> Result<SamplingOptions> {
        let temperature = self.temperature.unwrap_or(default.temperature);
        ensure!(
            temperature >= 0.0 && temperature.is_finite(),
            "--temperature: {temperature} is out of range; give 0 or more"
        );
        let top_p = match self.top_p {
            Some(top_p) => top_p,
            None if temperature == 0.0 => 1.0,
            None => default.top_p,
        };
        ensure!(
            top_p > 0.0 && top_p <= 1.0,
            "--top-p: {top_p} is out of range; give a number above 0 and at most 1"
        );
        ensure!(
            top_p == 1.0 || temperature > 0.0,
            "--top-p has no effect at temperature 0, which takes the likeliest token; \
             give --temperature as well"
        );
        Ok(SamplingOptions {
            max_new_tokens: self.max_new_tokens.unwrap_or(default.max_new_tokens),
            temperature,
            top_p,
            seed: self.seed.unwrap_or(default.seed),
        })
    }
}
