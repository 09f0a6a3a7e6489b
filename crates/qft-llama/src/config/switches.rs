//! What a block has beside LLaMA's parts, one enum for each question.

/// Which projections of attention add a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionBias {
    /// None of them.
    #[default]
    None,
    /// Queries, keys and values; the output projection does not.
    Qkv,
    /// All four.
    Qkvo,
}

/// How queries and keys are normed before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, with one gain `[D]` for all of them.
    Head,
    /// All heads of a token together, with a gain `[H * D]` for queries and `[G * D]` for keys.
    Width,
}

/// Where the two norms of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormPlacement {
    /// Before attention and before the feed-forward layer.
    #[default]
    Before,
    /// After each of them, before the result is added to the residual stream.
    After,
}
