//! The tensors of a model, by their names in llama.cpp, and in its order of rows.

use super::architecture::Architecture;
use super::{GgufWeights, rope};
use crate::config::{LlamaConfig, NormPlacement, TensorKind, TensorSpec};
use crate::params::{BlockParams, Linear};
use qft_files::{GgufTensor, GgufType};

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the file describes it.
    pub(super) info: GgufTensor,
    /// Where its values come from.
    pub(super) source: Source,
}

/// Where values come from.
#[derive(Debug)]
pub(super) enum Source {
    /// The rows of these, one after the other.
    Model(Vec<TensorSpec>),
    /// Rows of heads of this many. Hugging Face turns row `i` of a head with row `i + D / 2`; here they stand side by
    /// side.
    Pairs(TensorSpec, usize),
    /// These.
    Values(Vec<f32>),
}

/// All tensors of `config`.
pub(super) fn entries(
    architecture: Architecture,
    config: &LlamaConfig,
    weights: GgufWeights,
) -> Vec<Entry> {
    let mut list = List { architecture, config, weights, entries: Vec::new() };
    let params = config.spec();
    for (name, values) in rope::tensors(config) {
        list.push(name.into(), GgufType::F32, vec![values.len()], Source::Values(values));
    }
    let embedding = params.embedding;
    let head = params.head.or_else(|| architecture.needs_head.then(|| embedding.clone()));
    list.whole("token_embd.weight", embedding);
    for (layer, block) in params.blocks.into_iter().enumerate() {
        list.block(layer, block);
    }
    list.whole("output_norm.weight", params.norm);
    if let Some(head) = head {
        list.whole("output.weight", head);
    }
    list.entries
}

struct List<'a> {
    architecture: Architecture,
    config: &'a LlamaConfig,
    weights: GgufWeights,
    entries: Vec<Entry>,
}

impl List<'_> {
    fn push(&mut self, name: String, kind: GgufType, shape: Vec<usize>, source: Source) {
        self.entries.push(Entry { info: GgufTensor { name, kind, shape }, source });
    }

    /// The type of a parameter: vectors stay F32, as llama.cpp computes with them so.
    fn kind(&self, spec: &TensorSpec) -> GgufType {
        match spec.kind {
            TensorKind::Vector => GgufType::F32,
            TensorKind::Matrix => self.weights.kind_of(spec.cols),
        }
    }

    fn whole(&mut self, name: &str, spec: TensorSpec) {
        let kind = self.kind(&spec);
        let shape = match spec.kind {
            TensorKind::Vector => vec![spec.cols],
            TensorKind::Matrix => vec![spec.rows, spec.cols],
        };
        self.push(name.into(), kind, shape, Source::Model(vec![spec]));
    }

    fn linear(&mut self, name: &str, linear: Linear<TensorSpec, TensorSpec>) {
        self.whole(&format!("{name}.weight"), linear.weight);
        if let Some(bias) = linear.bias {
            self.whole(&format!("{name}.bias"), bias);
        }
    }

    /// Queries or keys.
    fn rotated(&mut self, name: &str, linear: Linear<TensorSpec, TensorSpec>) {
        if !self.architecture.pairs {
            return self.linear(name, linear);
        }
        let size = self.config.head_dim;
        let (kind, shape) =
            (self.kind(&linear.weight), vec![linear.weight.rows, linear.weight.cols]);
        self.push(format!("{name}.weight"), kind, shape, Source::Pairs(linear.weight, size));
        if let Some(bias) = linear.bias {
            let shape = vec![bias.cols];
            self.push(format!("{name}.bias"), GgufType::F32, shape, Source::Pairs(bias, size));
        }
    }

    /// Parameters whose rows are one tensor.
    fn fused(&mut self, name: &str, parts: Vec<TensorSpec>) {
        let rows = parts.iter().map(|part| part.rows).sum();
        let Some(first) = parts.first() else { return };
        let (kind, cols) = (self.kind(first), first.cols);
        self.push(format!("{name}.weight"), kind, vec![rows, cols], Source::Model(parts));
    }

    fn block(&mut self, layer: usize, block: BlockParams<TensorSpec, TensorSpec>) {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let BlockParams { attention_norm, attention, mlp_norm, mlp } = block;
        let (attention_name, mlp_name) = match self.config.norms {
            NormPlacement::Before => ("attn_norm", "ffn_norm"),
            NormPlacement::After => ("post_attention_norm", "post_ffw_norm"),
        };
        self.whole(&name(&format!("{attention_name}.weight")), attention_norm);
        if self.config.family.fused() {
            let parts = [attention.q, attention.k, attention.v].map(|linear| linear.weight);
            self.fused(&name("attn_qkv"), parts.into());
            self.fused(&name("ffn_up"), vec![mlp.gate.weight, mlp.up.weight]);
        } else {
            self.rotated(&name("attn_q"), attention.q);
            self.rotated(&name("attn_k"), attention.k);
            self.linear(&name("attn_v"), attention.v);
            self.linear(&name("ffn_gate"), mlp.gate);
            self.linear(&name("ffn_up"), mlp.up);
        }
        for (part, norm) in [("attn_q_norm", attention.q_norm), ("attn_k_norm", attention.k_norm)] {
            if let Some(norm) = norm {
                self.whole(&name(&format!("{part}.weight")), norm);
            }
        }
        self.linear(&name("attn_output"), attention.o);
        self.whole(&name(&format!("{mlp_name}.weight")), mlp_norm);
        self.linear(&name("ffn_down"), mlp.down);
    }
}
