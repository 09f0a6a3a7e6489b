//! Outlier channels put into a model that has none: the same function, in numbers that are hard to quantize.

use super::{Weights, check_rows, unknown};
use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use std::collections::HashMap;
use std::ops::Range;

/// What the activations of the outlier channels are multiplied by: the range that large LLaMA models show.
const FACTORS: [f32; 4] = [20.0, 30.0, 45.0, 60.0];

/// The weights of a model with four outlier channels in the input of every linear layer of its blocks.
///
/// Channels of a norm's output are multiplied by way of its gain, those of attention's output by rows of the value
/// projection, those of SwiGLU's output by rows of the up projection; the columns of the next weights are divided
/// by the same. In exact arithmetic the model computes what it did.
#[derive(Debug)]
pub struct WithOutliers<'a, W> {
    inner: &'a W,
    config: LlamaConfig,
    specs: HashMap<String, TensorSpec>,
}

impl<'a, W: Weights> WithOutliers<'a, W> {
    /// Around the weights of a model of shape `config`.
    pub fn new(inner: &'a W, config: &LlamaConfig) -> Self {
        let specs = config.tensors().map(|spec| (spec.name.clone(), spec)).collect();
        Self { inner, config: config.clone(), specs }
    }

    /// The factor of channel `index` of `width`.
    fn factor(index: usize, width: usize) -> f32 {
        let place = |i: usize| (2 * i + 1) * width / (2 * FACTORS.len());
        (0..FACTORS.len()).find(|&i| place(i) == index).map_or(1.0, |i| FACTORS[i])
    }

    /// Which channel of the value projection `[G D]` column `column` of the output projection `[C, H D]` reads.
    fn value_channel(&self, column: usize) -> usize {
        let LlamaConfig { num_attention_heads, num_key_value_heads, head_dim, .. } = self.config;
        let head = column / head_dim / (num_attention_heads / num_key_value_heads);
        head * head_dim + column % head_dim
    }
}

impl<W: Weights> Weights for WithOutliers<'_, W> {
    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let spec = self.specs.get(name).ok_or_else(|| unknown(name))?;
        check_rows(spec, &rows, out)?;
        self.inner.read_rows(name, rows.clone(), out)?;
        let (hidden, ffn) = (self.config.hidden_size, self.config.intermediate_size);
        let values = self.config.key_value_size();
        let part = name.strip_prefix("model.layers.").and_then(|name| name.split_once('.'));
        let part = part.map_or("", |(_, part)| part.trim_end_matches(".weight"));
        for (row, cells) in rows.zip(out.chunks_exact_mut(spec.cols)) {
            for (column, cell) in cells.iter_mut().enumerate() {
                match part {
                    "input_layernorm" | "post_attention_layernorm" => {
                        *cell *= Self::factor(column, hidden);
                    }
                    "self_attn.q_proj" | "self_attn.k_proj" | "mlp.gate_proj" => {
                        *cell /= Self::factor(column, hidden);
                    }
                    "self_attn.v_proj" => {
                        *cell *= Self::factor(row, values) / Self::factor(column, hidden);
                    }
                    "self_attn.o_proj" => {
                        *cell /= Self::factor(self.value_channel(column), values);
                    }
                    "mlp.up_proj" => {
                        *cell *= Self::factor(row, ffn) / Self::factor(column, hidden);
                    }
                    "mlp.down_proj" => *cell /= Self::factor(column, ffn),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
