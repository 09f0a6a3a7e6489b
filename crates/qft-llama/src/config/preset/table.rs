//! The numbers of well-known models, a row each: what their `config.json` on the hub says.

use crate::config::Family;

/// The shape of a model.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) family: Family,
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// 0: as many as `heads`.
    pub(super) groups: usize,
    /// 0: `hidden / heads`.
    pub(super) head_dim: usize,
    /// 0: all of `head_dim`.
    pub(super) rotated: usize,
    pub(super) positions: usize,
    pub(super) window: Option<usize>,
    pub(super) theta: f64,
    pub(super) scaling: Scaling,
    pub(super) eps: f32,
    pub(super) tied: bool,
    pub(super) bos: Option<u32>,
    pub(super) eos: u32,
    /// Multipliers of the embedding, of attention, of branches, and the divisor of logits.
    pub(super) granite: Option<[f32; 4]>,
}

/// What the rope of a row is rescaled by.
pub(super) enum Scaling {
    None,
    Llama3 {
        factor: f64,
    },
    Yarn {
        factor: f64,
        attention_factor: f32,
    },
    /// Divisors of sequences beyond the original context; those within it have divisors of 1.
    LongRope {
        factors: &'static [f32],
        original: usize,
    },
}

/// What many rows have in common.
const LLAMA_2: Row = Row {
    name: "",
    family: Family::Llama,
    vocab: 32_000,
    hidden: 0,
    ffn: 0,
    layers: 0,
    heads: 0,
    groups: 0,
    head_dim: 0,
    rotated: 0,
    positions: 2048,
    window: None,
    theta: 10_000.0,
    scaling: Scaling::None,
    eps: 1e-5,
    tied: false,
    bos: Some(1),
    eos: 2,
    granite: None,
};

const LLAMA_3: Row = Row {
    vocab: 128_256,
    groups: 8,
    positions: 131_072,
    theta: 500_000.0,
    bos: Some(128_000),
    eos: 128_001,
    ..LLAMA_2
};

const TIMES_8: Scaling = Scaling::Llama3 { factor: 8.0 };
const TIMES_32: Scaling = Scaling::Llama3 { factor: 32.0 };

const SMOLLM_2: Row = Row {
    vocab: 49_152,
    positions: 8192,
    theta: 100_000.0,
    tied: true,
    bos: Some(0),
    eos: 0,
    ..LLAMA_2
};

const MISTRAL: Row = Row {
    family: Family::Mistral,
    hidden: 4096,
    ffn: 14_336,
    layers: 32,
    heads: 32,
    groups: 8,
    positions: 32_768,
    ..LLAMA_2
};

const QWEN_2: Row = Row {
    family: Family::Qwen2,
    vocab: 151_936,
    positions: 32_768,
    theta: 1e6,
    eps: 1e-6,
    bos: Some(151_643),
    eos: 151_643,
    ..LLAMA_2
};

const QWEN_3: Row = Row {
    family: Family::Qwen3,
    groups: 8,
    head_dim: 128,
    positions: 40_960,
    eos: 151_645,
    ..QWEN_2
};

const SMOLLM_3: Row = Row {
    family: Family::SmolLm3,
    vocab: 128_256,
    positions: 65_536,
    theta: 5e6,
    eps: 1e-6,
    tied: true,
    bos: Some(128_000),
    eos: 128_012,
    ..LLAMA_2
};

const PHI_4: Row = Row {
    family: Family::Phi3,
    vocab: 200_064,
    rotated: 96,
    positions: 131_072,
    window: Some(262_144),
    scaling: Scaling::LongRope { factors: &PHI_4_LONG, original: 4096 },
    tied: true,
    bos: Some(199_999),
    eos: 199_999,
    ..LLAMA_2
};

const OLMO_2: Row = Row {
    family: Family::Olmo2,
    vocab: 100_352,
    positions: 4096,
    theta: 500_000.0,
    eps: 1e-6,
    bos: None,
    eos: 100_257,
    ..LLAMA_2
};

const OLMO_3: Row = Row {
    family: Family::Olmo3,
    vocab: 100_278,
    positions: 65_536,
    window: Some(4096),
    scaling: Scaling::Yarn { factor: 8.0, attention_factor: 1.207_944_2 },
    ..OLMO_2
};

const GRANITE_3: Row = Row {
    family: Family::Granite,
    vocab: 49_155,
    layers: 40,
    heads: 32,
    groups: 8,
    positions: 131_072,
    theta: 5e6,
    tied: true,
    bos: Some(0),
    eos: 0,
    ..LLAMA_2
};

/// The divisors of Phi-4-mini for long sequences.
#[rustfmt::skip]
const PHI_4_LONG: [f32; 48] = [
    1.0, 1.118_320_7, 1.250_641_1, 1.398_617_9, 1.564_103_2, 1.749_169, 1.956_131_8, 2.187_582_7,
    2.446_419, 2.735_880_9, 3.059_592, 3.421_605, 3.826_451_8, 4.279_2, 4.785_517_7, 5.351_743_7,
    5.984_965_3, 6.693_110_5, 7.485_044, 8.370_679, 9.361_104, 10.468_716, 11.707_381, 13.092_607,
    14.641_732, 16.374_151, 18.311_553, 20.478_188, 22.901_18, 25.610_865, 28.641_16, 32.03, 32.1,
    32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16,
    47.77,
];

/// The rows.
#[rustfmt::skip]
pub(super) const TABLE: [Row; 29] = [
    Row { name: "llama-2-7b", hidden: 4096, ffn: 11_008, layers: 32, heads: 32, positions: 4096, ..LLAMA_2 },
    Row { name: "llama-2-13b", hidden: 5120, ffn: 13_824, layers: 40, heads: 40, positions: 4096, ..LLAMA_2 },
    Row { name: "llama-3-8b", hidden: 4096, ffn: 14_336, layers: 32, heads: 32, positions: 8192, ..LLAMA_3 },
    Row { name: "tinyllama-1.1b", hidden: 2048, ffn: 5632, layers: 22, heads: 32, groups: 4, ..LLAMA_2 },
    Row { name: "llama-110m", hidden: 768, ffn: 2048, layers: 12, heads: 12, tied: true, ..LLAMA_2 },
    Row { name: "llama-15m", hidden: 288, ffn: 768, layers: 6, heads: 6, tied: true, ..LLAMA_2 },
    Row { name: "llama-3.1-8b", hidden: 4096, ffn: 14_336, layers: 32, heads: 32, scaling: TIMES_8, ..LLAMA_3 },
    Row { name: "llama-3.2-1b", hidden: 2048, ffn: 8192, layers: 16, heads: 32, tied: true, scaling: TIMES_32, ..LLAMA_3 },
    Row { name: "llama-3.2-3b", hidden: 3072, ffn: 8192, layers: 28, heads: 24, tied: true, scaling: TIMES_32, ..LLAMA_3 },
    Row { name: "smollm2-135m", hidden: 576, ffn: 1536, layers: 30, heads: 9, groups: 3, ..SMOLLM_2 },
    Row { name: "smollm2-360m", hidden: 960, ffn: 2560, layers: 32, heads: 15, groups: 5, ..SMOLLM_2 },
    Row { name: "smollm2-1.7b", hidden: 2048, ffn: 8192, layers: 24, heads: 32, theta: 130_000.0, ..SMOLLM_2 },
    Row { name: "mistral-7b-v0.1", window: Some(4096), ..MISTRAL },
    Row { name: "mistral-7b-v0.3", vocab: 32_768, theta: 1e6, ..MISTRAL },
    Row { name: "qwen2.5-0.5b", hidden: 896, ffn: 4864, layers: 24, heads: 14, groups: 2, tied: true, ..QWEN_2 },
    Row { name: "qwen2.5-1.5b", hidden: 1536, ffn: 8960, layers: 28, heads: 12, groups: 2, tied: true, ..QWEN_2 },
    Row { name: "qwen2.5-3b", hidden: 2048, ffn: 11_008, layers: 36, heads: 16, groups: 2, tied: true, ..QWEN_2 },
    Row { name: "qwen2.5-7b", vocab: 152_064, hidden: 3584, ffn: 18_944, layers: 28, heads: 28, groups: 4, ..QWEN_2 },
    Row { name: "qwen3-0.6b", hidden: 1024, ffn: 3072, layers: 28, heads: 16, tied: true, ..QWEN_3 },
    Row { name: "qwen3-1.7b", hidden: 2048, ffn: 6144, layers: 28, heads: 16, tied: true, ..QWEN_3 },
    Row { name: "qwen3-4b", hidden: 2560, ffn: 9728, layers: 36, heads: 32, tied: true, ..QWEN_3 },
    Row { name: "qwen3-8b", hidden: 4096, ffn: 12_288, layers: 36, heads: 32, ..QWEN_3 },
    Row { name: "smollm3-3b", hidden: 2048, ffn: 11_008, layers: 36, heads: 16, groups: 4, ..SMOLLM_3 },
    Row { name: "phi-4-mini", hidden: 3072, ffn: 8192, layers: 32, heads: 24, groups: 8, ..PHI_4 },
    Row { name: "olmo-2-1b", hidden: 2048, ffn: 8192, layers: 16, heads: 16, ..OLMO_2 },
    Row { name: "olmo-2-7b", hidden: 4096, ffn: 11_008, layers: 32, heads: 32, ..OLMO_2 },
    Row { name: "olmo-3-7b", hidden: 4096, ffn: 11_008, layers: 32, heads: 32, ..OLMO_3 },
    Row { name: "granite-3.1-2b", hidden: 2048, ffn: 8192, granite: Some([12.0, 0.015_625, 0.22, 8.0]), ..GRANITE_3 },
    Row { name: "granite-3.1-8b", hidden: 4096, ffn: 12_800, theta: 1e7, granite: Some([12.0, 0.007_812_5, 0.22, 16.0]), ..GRANITE_3 },
];
