//! GGUF files read back by a reader of another origin: every value, where it belongs, and every key.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::shared;
use half::{bf16, f16};
use qft_files::Disk;
use qft_llama::export::{GgufWeights, SavedRounding};
use qft_llama::{
    Error, Family, GgufExport, LayerRope, LlamaConfig, RopeScaling, TensorSpec, Tokenizer,
    WeightSource, Weights, export_gguf,
};
use qft_testing::gguf::{self, Contents, Value};
use qft_testing::material;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Case {
    dir: PathBuf,
    config: LlamaConfig,
    tokenizer: Tokenizer,
    template: Option<&'static str>,
}

impl Case {
    /// A model with the tokenizer of stories260k, of as many tokens as the model has rows.
    fn of(dir: &Path) -> Option<Self> {
        let mut config = LlamaConfig::from_dir(dir).ok()?;
        if config.family == Family::SmolLm3 {
            // Layers without positions where llama.cpp has them, which changes no tensor.
            for (layer, kind) in (1..).zip(&mut config.layers) {
                let none = layer % 4 == 0;
                kind.rope = if none { LayerRope::None } else { LayerRope::Scaled };
            }
        }
        if let RopeScaling::Yarn { beta_fast, beta_slow, .. } = &mut config.rope.scaling {
            // The only bounds that llama.cpp has.
            (*beta_fast, *beta_slow) = (32.0, 1.0);
        }
        let large = LlamaConfig { vocab_size: config.vocab_size.max(512), ..config.clone() };
        let tokenizer = Tokenizer::from_dir(&material::stories260k(), &large).unwrap();
        Some(Self { dir: dir.to_path_buf(), config, tokenizer, template: None })
    }

    fn export(
        &self,
        disk: &Disk,
        out: &Path,
        weights: GgufWeights,
        replace: bool,
    ) -> Result<(), Error> {
        let source = WeightSource::open(&self.dir, &self.config);
        let mut fill = |spec: &TensorSpec, rows: Range<usize>, out: &mut [f32]| {
            source.as_ref().unwrap().read_rows(&spec.name, rows, out)
        };
        let Self { dir, config, tokenizer, template } = self;
        let export = GgufExport {
            name: None,
            out,
            source: dir,
            config,
            tokenizer,
            template: *template,
            weights,
            rounding: SavedRounding::Nearest,
            replace,
        };
        export_gguf(disk, &export, &Arc::default(), &mut fill)
    }

    fn written(&self, weights: GgufWeights) -> Contents {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        self.export(&Disk::default(), &out, weights, false).unwrap();
        gguf::read(&out.join(weights.file_name()))
    }

    /// All values of a parameter.
    fn values(&self, name: &str) -> Vec<f32> {
        let source = WeightSource::open(&self.dir, &self.config).unwrap();
        let spec = self.config.tensors().find(|spec| spec.name == name).unwrap();
        let mut values = vec![0.0; spec.elements()];
        source.read_rows(name, 0..spec.rows, &mut values).unwrap();
        values
    }

    fn number(&self, written: &Contents, key: &str) -> Option<f64> {
        let arch = match self.config.family {
            Family::Llama | Family::Mistral => "llama",
            Family::Olmo2 | Family::Olmo3 => "olmo2",
            family => family.model_type(),
        };
        match written.metadata.get(&format!("{arch}.{key}"))? {
            Value::Number(number) => Some(*number),
            other => panic!("{key}: {other:?}"),
        }
    }
}

fn cases() -> Vec<(String, Case)> {
    let name = |dir: &Path| dir.file_name().unwrap().to_string_lossy().into_owned();
    let families = material::families().into_iter();
    families.filter_map(|dir| Some((name(&dir), Case::of(&dir)?))).collect()
}

/// What transformers halves and llama.cpp pairs: `reshape(heads, 2, D / 2, in).swap(1, 2)`.
fn paired(values: &[f32], cols: usize, head: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = values.chunks(cols).collect();
    let mut out = Vec::new();
    for heads in rows.chunks(head) {
        for i in 0..head / 2 {
            out.extend_from_slice(heads[i]);
            out.extend_from_slice(heads[i + head / 2]);
        }
    }
    out
}

/// The parts of names, as llama.cpp's converter maps them.
const NAMES: [(&str, &str); 12] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

fn gguf_name(config: &LlamaConfig, name: &str) -> String {
    let fixed = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    for (from, to) in fixed {
        if let Some(rest) = name.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    let rest = name.strip_prefix("model.layers.").unwrap();
    let (layer, rest) = rest.split_once('.').unwrap();
    let (from, mut to) = *NAMES.iter().find(|(from, _)| rest.starts_with(from)).unwrap();
    if to == "ffn_norm" && matches!(config.family, Family::Olmo2 | Family::Olmo3) {
        to = "post_attention_norm";
    }
    format!("blk.{layer}.{to}{}", rest.strip_prefix(from).unwrap())
}

#[test]
fn every_family_is_written_under_its_names() {
    let mut seen = BTreeSet::new();
    for (name, case) in cases() {
        let config = &case.config;
        let written = case.written(GgufWeights::F32);
        let pairs = matches!(
            config.family,
            Family::Llama | Family::Mistral | Family::Granite | Family::SmolLm3
        );
        let mut names = BTreeSet::new();
        for spec in config.tensors() {
            if spec.fused.is_some() {
                continue;
            }
            let to = gguf_name(config, &spec.name);
            let mut want = case.values(&spec.name);
            let part = spec.name.rsplit('.').nth(1).unwrap();
            if pairs && (part == "q_proj" || part == "k_proj") {
                let cols = if spec.name.ends_with("bias") { 1 } else { spec.cols };
                want = paired(&want, cols, config.head_dim);
            }
            let tensor = &written.tensors[&to];
            assert_eq!(tensor.shape, spec.file_shape(), "{name}: {to}");
            assert!(tensor.kind == 0 && tensor.values == want, "{name}: {to}");
            names.insert(to);
        }
        if config.family == Family::Phi3 {
            for layer in 0..config.num_hidden_layers {
                let parts = [
                    (
                        "attn_qkv",
                        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].as_slice(),
                    ),
                    ("ffn_up", ["mlp.gate_proj", "mlp.up_proj"].as_slice()),
                ];
                for (to, parts) in parts {
                    let to = format!("blk.{layer}.{to}.weight");
                    let want: Vec<f32> = parts
                        .iter()
                        .flat_map(|part| {
                            case.values(&format!("model.layers.{layer}.{part}.weight"))
                        })
                        .collect();
                    assert_eq!(written.tensors[&to].values, want, "{name}: {to}");
                    names.insert(to);
                }
            }
        }
        let tied = config.tie_word_embeddings;
        if tied && matches!(config.family, Family::Olmo2 | Family::Olmo3) {
            assert_eq!(
                written.tensors["output.weight"].values,
                case.values("model.embed_tokens.weight")
            );
            names.insert("output.weight".into());
        }
        names.extend(written.tensors.keys().filter(|key| key.starts_with("rope_")).cloned());
        assert!(names.iter().eq(written.tensors.keys()), "{name}: {:?}", written.tensors.keys());
        seen.insert(config.family.model_type());
    }
    assert_eq!(seen.len(), Family::ALL.len(), "{seen:?}");
}

#[test]
fn sizes_are_those_of_the_configuration() {
    for (name, case) in cases() {
        let config = &case.config;
        let written = case.written(GgufWeights::F32);
        for (key, want) in [
            ("context_length", config.longest_sequence()),
            ("embedding_length", config.hidden_size),
            ("block_count", config.num_hidden_layers),
            ("feed_forward_length", config.intermediate_size),
            ("attention.head_count", config.num_attention_heads),
            ("attention.head_count_kv", config.num_key_value_heads),
            ("attention.key_length", config.head_dim),
            ("attention.value_length", config.head_dim),
            ("rope.dimension_count", config.rotated_size()),
            ("vocab_size", config.vocab_size),
        ] {
            // llama.cpp computes the windows of OLMo 3 itself.
            let want = match (config.family, key) {
                (Family::Olmo3, "context_length") => config.max_position_embeddings,
                _ => want,
            };
            assert_eq!(case.number(&written, key), Some(want as f64), "{name}: {key}");
        }
        let eps = case.number(&written, "attention.layer_norm_rms_epsilon");
        assert_eq!(eps, Some(f64::from(config.rms_norm_eps)), "{name}");
        let theta = case.number(&written, "rope.freq_base");
        assert_eq!(theta, Some(f64::from(config.rope.theta as f32)), "{name}");
    }
}

#[test]
fn what_only_some_models_have() {
    for (name, case) in cases() {
        let written = case.written(GgufWeights::F16);
        let number = |key: &str| case.number(&written, key);
        let text = |key: &str| written.metadata.get(key).cloned();
        let near = |key: &str, want: f64| {
            let got = number(key).unwrap();
            assert!((got / want - 1.0).abs() < 1e-6, "{name}: {key}: {got} {want}");
        };
        match name.as_str() {
            "granite" => {
                let numbers = &case.config.multipliers;
                near("attention.scale", f64::from(numbers.attention.unwrap()));
                near("embedding_scale", f64::from(numbers.embedding));
                near("residual_scale", f64::from(numbers.residual));
                near("logit_scale", f64::from(numbers.logits));
            }
            "llama-linear" => {
                assert_eq!(text("llama.rope.scaling.type"), Some(Value::Text("linear".into())));
                assert!(number("rope.scaling.factor").unwrap() > 1.0);
            }
            "llama-yarn" => {
                let RopeScaling::Yarn { factor, attention_factor, beta_fast, .. } =
                    case.config.rope.scaling
                else {
                    panic!("{:?}", case.config.rope)
                };
                assert_eq!(text("llama.rope.scaling.type"), Some(Value::Text("yarn".into())));
                near("rope.scaling.factor", factor);
                near("rope.scaling.yarn_beta_fast", beta_fast);
                // What llama.cpp multiplies by of itself, times this.
                let own = 0.1 * factor.ln() + 1.0;
                near("rope.scaling.attn_factor", f64::from(attention_factor) / own);
            }
            "phi3-longrope" => {
                let tensors = ["rope_factors_long.weight", "rope_factors_short.weight"];
                let half = case.config.rotated_size() / 2;
                for tensor in tensors {
                    assert_eq!(written.tensors[tensor].shape, [half], "{tensor}");
                }
                assert!(number("rope.scaling.attn_factor").unwrap() > 1.0);
            }
            "olmo3" => {
                assert!(number("attention.sliding_window").unwrap() > 0.0);
                let pattern = written.metadata["olmo2.attention.sliding_window_pattern"].clone();
                let want = case.config.layers.iter();
                let want = want.map(|l| f64::from(u8::from(l.window.is_some()))).collect();
                assert_eq!(pattern, Value::Numbers(want));
            }
            _ => {}
        }
    }
}

/// The divisors of Llama 3's rope, and that frequencies which are kept have the divisor 1.
#[test]
fn llama3_rope_is_a_tensor() {
    let dir = material::stories260k();
    let mut case = Case::of(&dir).unwrap();
    case.config.rope.scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    let written = case.written(GgufWeights::Q8_0);
    let tensor = &written.tensors["rope_freqs.weight"];
    let (plain, scaled) = (case.config.plain_inv_freq(), case.config.inv_freq());
    let want: Vec<f32> = plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled).collect();
    assert_eq!((tensor.kind, &tensor.values), (0, &want));
    assert_eq!((want[0], want[3]), (1.0, 8.0));
    assert!(!written.metadata.contains_key("llama.rope.scaling.type"));
}

#[test]
fn types_round_as_they_should() {
    let case = Case::of(&material::stories260k()).unwrap();
    let name = "model.layers.1.self_attn.v_proj.weight";
    let original = case.values(name);
    let tensor = |weights| case.written(weights).tensors["blk.1.attn_v.weight"].clone();
    let map = |round: fn(f32) -> f32| -> Vec<f32> { original.iter().map(|&v| round(v)).collect() };
    let (half, brain) = (tensor(GgufWeights::F16), tensor(GgufWeights::Bf16));
    assert_eq!((half.kind, half.values), (1, map(|v| f16::from_f32(v).to_f32())));
    assert_eq!((brain.kind, brain.values), (30, map(|v| bf16::from_f32(v).to_f32())));
    let blocks = tensor(GgufWeights::Q8_0);
    assert_eq!(blocks.kind, 8);
    for (got, want) in blocks.values.chunks(32).zip(original.chunks(32)) {
        let most = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        for (got, want) in got.iter().zip(want) {
            // Half a step, and that of the scale's rounding.
            assert!((got - want).abs() <= 0.501 * most / 127.0, "{got} {want}");
        }
    }
    let written = case.written(GgufWeights::Q8_0);
    for (name, tensor) in &written.tensors {
        // Rows of 172 are no multiple of 32.
        let kind = match (tensor.shape.as_slice(), name.contains("ffn_down")) {
            ([_], _) => 0,
            (_, true) => 1,
            _ => 8,
        };
        assert_eq!(tensor.kind, kind, "{name}");
    }
    assert_eq!(written.metadata["general.file_type"], Value::Number(7.0));
    assert_eq!(written.metadata["general.quantization_version"], Value::Number(2.0));
}

#[test]
fn pieces_have_types_scores_and_marks() {
    let case = Case::of(&material::stories260k()).unwrap();
    let written = case.written(GgufWeights::F32);
    let key = |key: &str| written.metadata[&format!("tokenizer.ggml.{key}")].clone();
    let number = |value: f64| Value::Number(value);
    assert_eq!(
        (key("model"), key("pre")),
        (Value::Text("llama".into()), Value::Text("default".into()))
    );
    let (Value::Texts(tokens), Value::Numbers(kinds), Value::Numbers(scores)) =
        (key("tokens"), key("token_type"), key("scores"))
    else {
        panic!("lists")
    };
    assert_eq!((tokens.len(), kinds.len(), scores.len()), (512, 512, 512));
    assert_eq!(&tokens[..4], ["<unk>", "<s>", "</s>", "<0x00>"]);
    assert_eq!((&kinds[..4], kinds[258], kinds[259]), (&[2.0, 3.0, 3.0, 6.0][..], 6.0, 1.0));
    let piece = |text: &str| tokens.iter().position(|token| token == text).unwrap();
    // The first two merges of the file.
    assert_eq!((scores[piece("\u{2581}t")], scores[piece("he")]), (0.0, -1.0));
    for (name, value) in [
        ("bos_token_id", 1.0),
        ("eos_token_id", 2.0),
        ("unknown_token_id", 0.0),
        ("add_bos_token", 1.0),
        ("add_eos_token", 0.0),
        ("add_space_prefix", 1.0),
    ] {
        assert_eq!(key(name), number(value), "{name}");
    }
    // Rows without a token.
    let large = LlamaConfig { vocab_size: 514, ..case.config.clone() };
    let tokenizer = Tokenizer::from_dir(&case.dir, &large).unwrap();
    let case = Case { tokenizer, ..case };
    let written = case.written(GgufWeights::F32);
    let Value::Texts(tokens) = &written.metadata["tokenizer.ggml.tokens"] else { panic!() };
    assert_eq!(&tokens[512..], ["[PAD512]", "[PAD513]"]);
    // Another template than the model's own.
    let case = Case { template: Some("{{ messages }}"), ..case };
    let written = case.written(GgufWeights::F32);
    assert_eq!(written.metadata["tokenizer.chat_template"], Value::Text("{{ messages }}".into()));
}

/// Tokenizers of bytes, and all that is outside the repository.
#[test]
fn tokenizers_of_bytes_have_the_name_of_their_pattern() {
    for (name, pre, merges) in [
        ("smollm2-49k-bpe", "gpt-2", 48900),
        ("minimind-6400-bpe", "gpt-2", 6108),
        ("dolma2-100k-bpe", "dbrx", 100_000),
    ] {
        let Some(dir) = shared(&format!("tokenizers/{name}")) else { return };
        let small = Case::of(&material::stories260k()).unwrap();
        let config = LlamaConfig { vocab_size: 110_000, ..small.config.clone() };
        let case = Case { tokenizer: Tokenizer::from_dir(&dir, &config).unwrap(), ..small };
        let written = case.written(GgufWeights::F32);
        let key = |key: &str| written.metadata[&format!("tokenizer.ggml.{key}")].clone();
        assert_eq!(
            (key("model"), key("pre")),
            (Value::Text("gpt2".into()), Value::Text(pre.into())),
            "{name}"
        );
        let Value::Texts(list) = key("merges") else { panic!("{name}") };
        assert_eq!(list.len(), merges, "{name}");
        assert!(list.iter().all(|merge| merge.split(' ').count() == 2), "{name}");
        assert_eq!(key("add_bos_token"), Value::Number(0.0), "{name}");
        let template = case.tokenizer.chat_template().map(|text| Value::Text(text.into()));
        assert_eq!(written.metadata.get("tokenizer.chat_template"), template.as_ref(), "{name}");
    }
}

/// What llama.cpp would read as another model, by what it is.
#[test]
fn what_llama_cpp_does_not_compute_is_refused() {
    let refused = |dir: &str, change: fn(&mut LlamaConfig), part: &str| {
        let mut case =
            Case::of(&material::families().into_iter().find(|d| d.ends_with(dir)).unwrap())
                .unwrap();
        change(&mut case.config);
        let root = tempfile::tempdir().unwrap();
        let error =
            case.export(&Disk::default(), &root.path().join("out"), GgufWeights::F16, false);
        let error = error.unwrap_err();
        assert!(
            matches!(error, Error::Export { .. }) && error.to_string().contains(part),
            "{error}"
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    };
    refused("qwen3", |c| c.attention_bias = qft_llama::AttentionBias::Qkvo, "attention_bias");
    refused("smollm3", |c| c.layers[1].rope = LayerRope::None, "no_rope_layers");
    refused("llama-linear", |c| c.layers[0].rope = LayerRope::None, "no_rope_layers");
    refused("qwen2", |c| c.head_dim *= 2, "dimensions together");
    refused("smollm3", |c| c.mlp_bias = true, "mlp_bias");
    let llama3 = |c: &mut LlamaConfig| {
        c.rope.scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
    };
    refused("qwen2", llama3, "llama3");
    refused(
        "llama-yarn",
        |c| match &mut c.rope.scaling {
            RopeScaling::Yarn { truncate, .. } => *truncate = false,
            other => panic!("{other:?}"),
        },
        "truncate",
    );
    refused(
        "olmo3",
        |c| match &mut c.rope.scaling {
            RopeScaling::Yarn { beta_slow, .. } => *beta_slow = 0.25,
            other => panic!("{other:?}"),
        },
        "beta_slow 0.25",
    );
    // A tokenizer without a token for each byte.
    let root = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let text = std::fs::read_to_string(material::stories260k().join(name)).unwrap();
        let text = text.replace("\"byte_fallback\": true", "\"byte_fallback\": false");
        std::fs::write(root.path().join(name), text).unwrap();
    }
    let config = LlamaConfig::from_dir(root.path()).unwrap();
    let tokenizer = Tokenizer::from_dir(root.path(), &config).unwrap();
    let case = Case { dir: root.path().to_path_buf(), config, tokenizer, template: None };
    let error = case.export(&Disk::default(), &root.path().join("out"), GgufWeights::F16, false);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("byte_fallback"), "{error}");
}

/// Stopped at every system call, nothing that is not whole has its name.
#[test]
fn stopped_anywhere_a_file_is_whole_or_absent() {
    let case = Case::of(&material::stories260k()).unwrap();
    let reference = case.written(GgufWeights::Q8_0);
    let mut found = [0, 0];
    for at in 0.. {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        let steps = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&steps);
        let disk = Disk::watched(move |_| {
            let crashed = count.fetch_add(1, Ordering::Relaxed) >= at;
            if crashed { Err(ErrorKind::Other.into()) } else { Ok(()) }
        });
        let result = case.export(&disk, &out, GgufWeights::Q8_0, false);
        let whole = out.exists();
        if whole {
            assert_eq!(gguf::read(&out.join("model-q8_0.gguf")), reference);
            let modelfile = fs::read_to_string(out.join("Modelfile")).unwrap();
            assert_eq!(modelfile, "FROM ./model-q8_0.gguf\nPARAMETER stop \"</s>\"\n");
        }
        if steps.load(Ordering::Relaxed) <= at {
            result.unwrap();
            break;
        }
        found[usize::from(whole)] += 1;
        // The next one leaves nothing of it.
        case.export(&Disk::default(), &out, GgufWeights::Q8_0, whole).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "step {at}");
    }
    assert!(found[0] > 5, "{found:?}");
}
