//! All parameters of a model, in one list.
//!
//! [`Params`] is generic over what stands for a matrix and for a vector: names and shapes, the parameters themselves, their
//! gradients. [`Params::map`] walks through all of them, and nothing else decides their order: ids count along it, files are
//! written along it.

mod read;
mod walk;

pub use walk::Map;

/// One parameter, or what stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param<M, V> {
    /// A matrix.
    Matrix(M),
    /// A vector.
    Vector(V),
}

/// A linear layer.
#[derive(Debug, Clone)]
pub struct Linear<M, V> {
    /// Weights `[N, K]`.
    pub weight: M,
    /// What is added to each output `[N]`.
    pub bias: Option<V>,
}

/// Parameters of attention.
///
/// C: width of the residual stream, H: query heads, G: key and value heads, D: size of a head.
#[derive(Debug, Clone)]
pub struct AttentionParams<M, V> {
    /// Queries `[H D, C]`.
    pub q: Linear<M, V>,
    /// Keys `[G D, C]`.
    pub k: Linear<M, V>,
    /// Values `[G D, C]`.
    pub v: Linear<M, V>,
    /// Gain of the norm of the queries: `[D]`, or `[H D]`.
    pub q_norm: Option<V>,
    /// Gain of the norm of the keys: `[D]`, or `[G D]`.
    pub k_norm: Option<V>,
    /// Output `[C, H D]`.
    pub o: Linear<M, V>,
}

/// Parameters of the MLP, of width F.
#[derive(Debug, Clone)]
pub struct MlpParams<M, V> {
    /// Gate `[F, C]`.
    pub gate: Linear<M, V>,
    /// Up `[F, C]`.
    pub up: Linear<M, V>,
    /// Down `[C, F]`.
    pub down: Linear<M, V>,
}

/// Parameters of a transformer block.
#[derive(Debug, Clone)]
pub struct BlockParams<M, V> {
    /// Gain of the norm before attention, or after it `[C]`.
    pub attention_norm: V,
    /// Attention.
    pub attention: AttentionParams<M, V>,
    /// Gain of the norm before the MLP, or after it `[C]`.
    pub mlp_norm: V,
    /// MLP.
    pub mlp: MlpParams<M, V>,
}

/// Parameters of a model.
#[derive(Debug, Clone)]
pub struct Params<M, V> {
    /// Embedding `[V, C]`, with a row for each token of the vocabulary; also the head if tied.
    pub embedding: M,
    /// Blocks, first to last.
    pub blocks: Vec<BlockParams<M, V>>,
    /// Gain of the final norm `[C]`.
    pub norm: V,
    /// Output head `[V, C]`; absent if tied to the embedding.
    pub head: Option<M>,
}
