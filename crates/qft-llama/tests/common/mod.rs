//! Where the shared test material is, and folders made for one test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod figures;

use qft_llama::{LlamaConfig, TensorSpec};
use qft_testing::material;
use qft_testing::rng::TestRng;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `path` below the `data` of the shared material; `None`, said on one line, where it is absent.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    material::shared(&format!("data/{path}"))
}

/// The three model folders of the shared material; empty where it is absent.
pub(crate) fn shared_models() -> Vec<PathBuf> {
    ["stories260k", "tinystories-656k", "tinystories-656k-bf16-sharded"]
        .iter()
        .filter_map(|name| shared(&format!("models/{name}")))
        .collect()
}

/// Name, type, shape and bytes of a stored tensor.
pub(crate) type RawTensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A model of one layer, small enough to write in every test.
pub(crate) fn tiny_config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 16,
        hidden_size: 8,
        intermediate_size: 12,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        max_position_embeddings: 32,
        tie_word_embeddings: false,
        ..LlamaConfig::preset("llama-15m").unwrap().with_layers(1)
    }
}

/// Random f32 weights of `config`, as they would be stored.
pub(crate) fn tiny_tensors(config: &LlamaConfig) -> Vec<RawTensor> {
    let mut rng = TestRng::new(1);
    let mut tensor = |spec: TensorSpec| {
        let values = rng.normals(spec.elements(), 0.1);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (spec.name.clone(), "F32", spec.file_shape(), bytes)
    };
    config.tensors().map(&mut tensor).collect()
}

/// Writes a safetensors file of any contents, also of contents that are wrong.
pub(crate) fn write_safetensors(path: &Path, tensors: &[RawTensor]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), info);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length, header.as_bytes(), &data].concat()).unwrap();
}
