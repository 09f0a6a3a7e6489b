//! Configurations of models.

use super::{SMALL, Target};
use qft_llama::LlamaConfig;

/// A `config.json`. One that is accepted must be one that can be counted and written.
pub const CONFIG: Target = Target { name: "config", run: read, base_bytes: 4 * SMALL };

fn read(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = LlamaConfig::from_json(text) else { return };
    assert!(config.tensors().take(200_000).count() < 200_000, "few enough tensors to go through");
    let elements = config.tensors().map(|tensor| tensor.elements() as u64);
    let counted = elements.fold(0u64, |sum, count| sum.checked_add(count).expect("a count"));
    assert_eq!(config.parameters(), counted);
    assert!(config.inv_freq().iter().all(|frequency| frequency.is_finite()), "{config:?}");
    let again = LlamaConfig::from_json(&config.to_json("bfloat16"));
    assert_eq!(again.expect("what is written can be read"), config);
}
