//! The tensors of a model, by their Hugging Face names.

use super::LlamaConfig;
use crate::params::{AttentionParams, BlockParams, Linear, MlpParams, Param, Params};

/// Whether a tensor has one dimension or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Two dimensions, `[rows, cols]`.
    Matrix,
    /// One dimension, `[cols]`; `rows` is 1.
    Vector,
}

/// Name and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in Hugging Face folders.
    pub name: String,
    /// Rows; for a linear layer, its output features. 1 for a vector.
    pub rows: usize,
    /// Columns; for a linear layer, its input features.
    pub cols: usize,
    /// Dimensions in files.
    pub kind: TensorKind,
}

impl TensorSpec {
    fn matrix(name: String, rows: usize, cols: usize) -> Self {
        Self { name, rows, cols, kind: TensorKind::Matrix }
    }

    fn vector(name: String, cols: usize) -> Self {
        Self { name, rows: 1, cols, kind: TensorKind::Vector }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// The shape as files have it.
    pub fn file_shape(&self) -> Vec<usize> {
        match self.kind {
            TensorKind::Matrix => vec![self.rows, self.cols],
            TensorKind::Vector => vec![self.cols],
        }
    }
}

impl LlamaConfig {
    /// Names and shapes of all parameters. With tied embeddings there is no head.
    pub fn spec(&self) -> Params<TensorSpec, TensorSpec> {
        let (vocab, hidden) = (self.vocab_size, self.hidden_size);
        let table = |name: &str| TensorSpec::matrix(format!("{name}.weight"), vocab, hidden);
        Params {
            embedding: table("model.embed_tokens"),
            blocks: (0..self.num_hidden_layers).map(|layer| self.block_spec(layer)).collect(),
            norm: TensorSpec::vector("model.norm.weight".into(), hidden),
            head: (!self.tie_word_embeddings).then(|| table("lm_head")),
        }
    }

    fn block_spec(&self, layer: usize) -> BlockParams<TensorSpec, TensorSpec> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.query_size(), self.key_value_size());
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let linear = |part: &str, rows, cols| Linear {
            weight: TensorSpec::matrix(name(part), rows, cols),
            bias: None,
        };
        BlockParams {
            attention_norm: TensorSpec::vector(name("input_layernorm"), hidden),
            attention: AttentionParams {
                q: linear("self_attn.q_proj", q, hidden),
                k: linear("self_attn.k_proj", kv, hidden),
                v: linear("self_attn.v_proj", kv, hidden),
                q_norm: None,
                k_norm: None,
                o: linear("self_attn.o_proj", hidden, q),
            },
            mlp_norm: TensorSpec::vector(name("post_attention_layernorm"), hidden),
            mlp: MlpParams {
                gate: linear("mlp.gate_proj", ffn, hidden),
                up: linear("mlp.up_proj", ffn, hidden),
                down: linear("mlp.down_proj", hidden, ffn),
            },
        }
    }

    /// All tensors, in the order of the walk through the [parameters](Params).
    pub fn tensors(&self) -> impl Iterator<Item = TensorSpec> + use<> {
        self.spec().list().into_iter().map(|(Param::Matrix(spec) | Param::Vector(spec))| spec)
    }

    /// Number of parameters; tied embeddings count once.
    pub fn parameters(&self) -> u64 {
        self.tensors().map(|t| t.elements() as u64).sum()
    }
}
