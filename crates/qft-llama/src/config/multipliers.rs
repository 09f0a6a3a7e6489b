//! The four numbers that Granite multiplies by.

/// Factors at four places of a model; the default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// What embeddings are multiplied by.
    pub embedding: f32,
    /// What the products of queries and keys are multiplied by, in place of `1 / sqrt(D)`.
    pub attention: Option<f32>,
    /// What the output of each branch is multiplied by before it is added to the residual stream.
    pub residual: f32,
    /// What logits are divided by: the divisor, as in `logits_scaling`, not its reciprocal.
    pub logits: f32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { embedding: 1.0, attention: None, residual: 1.0, logits: 1.0 }
    }
}
