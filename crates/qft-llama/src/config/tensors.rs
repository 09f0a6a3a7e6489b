//! The tensors of a model, by their Hugging Face names.

use super::{AttentionBias, LlamaConfig, NormPlacement, QkNorm};
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
    /// The larger tensor whose rows it is in files, if it has none of its own.
    pub fused: Option<Fused>,
}

/// Rows of a tensor that several parameters share in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fused {
    /// The name of the shared tensor.
    pub name: String,
    /// Rows of the shared tensor.
    pub rows: usize,
    /// The first that belong to this parameter; those of the next parameter follow.
    pub first: usize,
}

impl TensorSpec {
    fn matrix(name: String, rows: usize, cols: usize) -> Self {
        Self { name, rows, cols, kind: TensorKind::Matrix, fused: None }
    }

    fn vector(name: String, cols: usize) -> Self {
        Self { name, rows: 1, cols, kind: TensorKind::Vector, fused: None }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// The name of the tensor that it is in files, or a part of.
    pub fn file_name(&self) -> &str {
        self.fused.as_ref().map_or(&self.name, |fused| &fused.name)
    }

    /// The shape of the tensor that it is in files, or a part of.
    pub fn file_shape(&self) -> Vec<usize> {
        let rows = self.fused.as_ref().map_or(self.rows, |fused| fused.rows);
        match self.kind {
            TensorKind::Matrix => vec![rows, self.cols],
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
        let (q, kv, head) = (self.query_size(), self.key_value_size(), self.head_dim);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let vector = |part: &str, len| TensorSpec::vector(name(&format!("{part}.weight")), len);
        let linear = |part: &str, rows, cols, bias: bool| Linear {
            weight: TensorSpec::matrix(name(&format!("{part}.weight")), rows, cols),
            bias: bias.then(|| TensorSpec::vector(name(&format!("{part}.bias")), rows)),
        };
        let (qkv_bias, o_bias) = match self.attention_bias {
            AttentionBias::None => (false, false),
            AttentionBias::Qkv => (true, false),
            AttentionBias::Qkvo => (true, true),
        };
        let (q_norm, k_norm) = match self.qk_norm {
            None => (None, None),
            Some(QkNorm::Head) => (Some(head), Some(head)),
            Some(QkNorm::Width) => (Some(q), Some(kv)),
        };
        let (attention_norm, mlp_norm) = match self.norms {
            NormPlacement::Before => ("input_layernorm", "post_attention_layernorm"),
            NormPlacement::After => ("post_attention_layernorm", "post_feedforward_layernorm"),
        };
        let mut block = BlockParams {
            attention_norm: vector(attention_norm, hidden),
            attention: AttentionParams {
                q: linear("self_attn.q_proj", q, hidden, qkv_bias),
                k: linear("self_attn.k_proj", kv, hidden, qkv_bias),
                v: linear("self_attn.v_proj", kv, hidden, qkv_bias),
                q_norm: q_norm.map(|len| vector("self_attn.q_norm", len)),
                k_norm: k_norm.map(|len| vector("self_attn.k_norm", len)),
                o: linear("self_attn.o_proj", hidden, q, o_bias),
            },
            mlp_norm: vector(mlp_norm, hidden),
            mlp: MlpParams {
                gate: linear("mlp.gate_proj", ffn, hidden, self.mlp_bias),
                up: linear("mlp.up_proj", ffn, hidden, self.mlp_bias),
                down: linear("mlp.down_proj", hidden, ffn, self.mlp_bias),
            },
        };
        if self.family.fused() {
            self.fuse(layer, &mut block);
        }
        block
    }

    /// Names the tensors that projections share in files: queries, keys and values; gate and up.
    fn fuse(&self, layer: usize, block: &mut BlockParams<TensorSpec, TensorSpec>) {
        let BlockParams { attention, mlp, .. } = block;
        let groups = [
            ("self_attn.qkv_proj", vec![&mut attention.q, &mut attention.k, &mut attention.v]),
            ("mlp.gate_up_proj", vec![&mut mlp.gate, &mut mlp.up]),
        ];
        for (name, parts) in groups {
            let rows = parts.iter().map(|part| part.weight.rows).sum();
            let mut first = 0;
            for part in parts {
                let name = format!("model.layers.{layer}.{name}.weight");
                part.weight.fused = Some(Fused { name, rows, first });
                first += part.weight.rows;
            }
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
