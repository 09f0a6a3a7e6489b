//! Well-known models: as many parameters as published, and the same after writing and reading.

use super::parse;
use crate::config::{LlamaConfig, PRESETS};

/// The numbers of parameters that the hub shows (total of the safetensors files); for Qwen3 with tied embeddings, the
/// files hold the head once more, which is not counted here. The first six as in the papers or in earlier versions.
const PUBLISHED: [(&str, u64); 29] = [
    ("llama-2-7b", 6_738_415_616),
    ("llama-2-13b", 13_015_864_320),
    ("llama-3-8b", 8_030_261_248),
    ("tinyllama-1.1b", 1_100_048_384),
    ("llama-110m", 109_529_856),
    ("llama-15m", 15_191_712),
    ("llama-3.1-8b", 8_030_261_248),
    ("llama-3.2-1b", 1_235_814_400),
    ("llama-3.2-3b", 3_212_749_824),
    ("smollm2-135m", 134_515_008),
    ("smollm2-360m", 361_821_120),
    ("smollm2-1.7b", 1_711_376_384),
    ("mistral-7b-v0.1", 7_241_732_096),
    ("mistral-7b-v0.3", 7_248_023_552),
    ("qwen2.5-0.5b", 494_032_768),
    ("qwen2.5-1.5b", 1_543_714_304),
    ("qwen2.5-3b", 3_085_938_688),
    ("qwen2.5-7b", 7_615_616_512),
    ("qwen3-0.6b", 751_632_384 - 151_936 * 1024),
    ("qwen3-1.7b", 2_031_739_904 - 151_936 * 2048),
    ("qwen3-4b", 4_022_468_096),
    ("qwen3-8b", 8_190_735_360),
    ("smollm3-3b", 3_075_098_624),
    ("phi-4-mini", 3_836_021_760),
    ("olmo-2-1b", 1_484_916_736),
    ("olmo-2-7b", 7_298_617_344),
    ("olmo-3-7b", 7_298_011_136),
    ("granite-3.1-2b", 2_533_531_648),
    ("granite-3.1-8b", 8_170_848_256),
];

#[test]
fn have_as_many_parameters_as_published() {
    assert_eq!(PUBLISHED.map(|(name, _)| name), PRESETS);
    let count = |name: &str| LlamaConfig::preset(name).unwrap().parameters();
    assert_eq!(PUBLISHED.map(|(name, _)| (name, count(name))), PUBLISHED);
}

#[test]
fn survive_writing() {
    for name in PRESETS {
        let config = LlamaConfig::preset(name).unwrap();
        let text = config.to_json("bfloat16");
        assert_eq!(parse(&text).unwrap(), config, "{name}: {text}");
    }
}
