//! The tensors of a model, by their Hugging Face names.

use super::LlamaConfig;

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
    /// All tensors, in the order of the forward pass. With tied embeddings there is no `lm_head.weight`.
    pub fn tensors(&self) -> impl Iterator<Item = TensorSpec> + use<> {
        let (vocab, hidden) = (self.vocab_size, self.hidden_size);
        let (ffn, q, kv) = (self.intermediate_size, self.query_size(), self.key_value_size());
        let first = TensorSpec::matrix("model.embed_tokens.weight".into(), vocab, hidden);
        let blocks = (0..self.num_hidden_layers).flat_map(move |layer| {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            [
                TensorSpec::vector(name("input_layernorm"), hidden),
                TensorSpec::matrix(name("self_attn.q_proj"), q, hidden),
                TensorSpec::matrix(name("self_attn.k_proj"), kv, hidden),
                TensorSpec::matrix(name("self_attn.v_proj"), kv, hidden),
                TensorSpec::matrix(name("self_attn.o_proj"), hidden, q),
                TensorSpec::vector(name("post_attention_layernorm"), hidden),
                TensorSpec::matrix(name("mlp.gate_proj"), ffn, hidden),
                TensorSpec::matrix(name("mlp.up_proj"), ffn, hidden),
                TensorSpec::matrix(name("mlp.down_proj"), hidden, ffn),
            ]
        });
        let norm = TensorSpec::vector("model.norm.weight".into(), hidden);
        let head = (!self.tie_word_embeddings)
            .then(|| TensorSpec::matrix("lm_head.weight".into(), vocab, hidden));
        std::iter::once(first).chain(blocks).chain(std::iter::once(norm)).chain(head)
    }

    /// Number of parameters; tied embeddings count once.
    pub fn parameters(&self) -> u64 {
        self.tensors().map(|t| t.elements() as u64).sum()
    }
}
