//! What every configuration must satisfy, wherever it comes from.

mod rope;

use super::LlamaConfig;
use crate::Error;
use std::path::Path;

const CORRUPT: &str = "correct config.json, or restore it from the model's source";

/// Sizes no model reaches: products of two of them stay far inside the address space.
const LIMITS: [(&str, usize); 8] = [
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 20),
    ("intermediate_size", 1 << 22),
    ("num_hidden_layers", MAX_LAYERS),
    ("num_attention_heads", 1 << 16),
    ("num_key_value_heads", 1 << 16),
    ("head_dim", 1 << 16),
    ("max_position_embeddings", 1 << 30),
];

/// The most layers a model may have.
pub(super) const MAX_LAYERS: usize = 1 << 14;

/// More parameters than this (4 bytes each) cannot be addressed on any machine this runs on.
const MAX_PARAMETERS: u64 = 1 << 45;

impl LlamaConfig {
    /// Checks every value against the others; `file` stands in the errors.
    ///
    /// Errors: [`Error::Config`].
    pub fn validate(&self, file: &Path) -> Result<(), Error> {
        let fail = |key: &str, expected: String, got: String| {
            let (file, key) = (file.to_path_buf(), key.to_string());
            Err(Error::Config { file, key, expected, got, remedy: CORRUPT })
        };
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.max_position_embeddings,
        ];
        for ((key, limit), size) in LIMITS.into_iter().zip(sizes) {
            if !(1..=limit).contains(&size) {
                return fail(key, format!("1 to {limit}"), size.to_string());
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a divisor of num_attention_heads {}", self.num_attention_heads);
            return fail("num_key_value_heads", expected, self.num_key_value_heads.to_string());
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = "an even number, as rotary positions turn pairs".to_string();
            return fail("head_dim", expected, self.head_dim.to_string());
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            let expected = "a number between 0 and 1".to_string();
            return fail("rms_norm_eps", expected, self.rms_norm_eps.to_string());
        }
        if self.checked_parameters().is_none_or(|n| n > MAX_PARAMETERS) {
            let expected = format!("at most {MAX_PARAMETERS} parameters in all");
            let got = format!(
                "{} layers of {} x {}",
                self.num_hidden_layers, self.hidden_size, self.intermediate_size
            );
            return fail("hidden_size", expected, got);
        }
        rope::check(self).or_else(|(key, expected, got)| fail(key, expected, got))?;
        self.validate_layers().or_else(|(key, expected, got)| fail(key, expected.into(), got))?;
        let ids = self.bos_token_id.iter().map(|id| ("bos_token_id", id));
        for (key, &id) in ids.chain(self.eos_token_ids.iter().map(|id| ("eos_token_id", id))) {
            if id as usize >= self.vocab_size {
                let expected = format!("an id below vocab_size {}", self.vocab_size);
                return fail(key, expected, id.to_string());
            }
        }
        Ok(())
    }

    /// One kind for each layer, windows of one size, and multipliers that are numbers.
    fn validate_layers(&self) -> Result<(), (&'static str, &'static str, String)> {
        if self.layers.len() != self.num_hidden_layers {
            let got = self.layers.len().to_string();
            return Err(("layer_types", "an entry for each layer", got));
        }
        let windows = || self.layers.iter().filter_map(|layer| layer.window);
        if let Some(other) = windows().find(|&window| Some(window) != windows().next()) {
            return Err(("sliding_window", "one size for all windows", other.to_string()));
        }
        let numbers = [
            ("embedding_multiplier", self.multipliers.embedding),
            ("attention_multiplier", self.multipliers.attention.unwrap_or(1.0)),
            ("residual_multiplier", self.multipliers.residual),
            ("logits_scaling", self.multipliers.logits),
        ];
        match numbers.into_iter().find(|(_, number)| !(*number > 0.0 && number.is_finite())) {
            Some((key, number)) => Err((key, "a number above 0", number.to_string())),
            None => Ok(()),
        }
    }

    fn checked_parameters(&self) -> Option<u64> {
        let mul = |a: usize, b: usize| (a as u64).checked_mul(b as u64);
        let hidden = self.hidden_size as u64;
        let heads = self.num_attention_heads.checked_add(self.num_key_value_heads)?;
        let attention = mul(heads, self.head_dim)?.checked_mul(2)?.checked_mul(hidden)?;
        let ffn = mul(self.intermediate_size, 3)?.checked_mul(hidden)?;
        let layer = attention.checked_add(ffn)?.checked_add(hidden.checked_mul(2)?)?;
        let embeddings = mul(self.vocab_size, 2)?.checked_mul(hidden)?;
        layer
            .checked_mul(self.num_hidden_layers as u64)?
            .checked_add(embeddings)?
            .checked_add(hidden)
    }
}
