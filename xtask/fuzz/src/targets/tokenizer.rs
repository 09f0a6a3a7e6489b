//! Tokenizers, and the files beside them.

use super::{RENDERING, Target, scratch};
use qft_llama::{LlamaConfig, Tokenizer};

/// A `tokenizer.json`, which then encodes and decodes.
pub const TOKENIZER: Target = Target { name: "tokenizer", run: read, base_bytes: RENDERING };

/// `tokenizer_config.json`, `special_tokens_map.json` or `generation_config.json`, whichever the first byte says, and
/// the chat template in it.
pub const SPECIAL_TOKENS: Target =
    Target { name: "special_tokens", run: read_special_tokens, base_bytes: RENDERING };

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5}"#;

/// A tokenizer of four words.
const FOUR_WORDS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"<s>": 1, "</s>": 2, "a": 3, "<unk>": 0}, "unk_token": "<unk>"}}"#;

const TEXTS: [&str; 4] =
    ["", "Once upon a time, <s> there \u{e9}\u{4f60}\u{597d} 12\n\n  was", "\u{0}\u{fffd}", "</s>"];

fn read(bytes: &[u8]) {
    let dir = scratch::folder("tokenizer");
    scratch::write(&dir, "tokenizer.json", bytes);
    let config = LlamaConfig::from_json(MODEL).expect("a model");
    let Ok(tokenizer) = Tokenizer::from_dir(&dir, &config) else { return };
    for text in TEXTS {
        let Ok(ids) = tokenizer.encode(text) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < config.vocab_size), "{ids:?}");
        let _ = tokenizer.decode(&ids);
        let mut stream = tokenizer.stream(&[]);
        for id in ids {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
    }
    let all: Vec<u32> = (0..config.vocab_size as u32).collect();
    let _ = tokenizer.decode_plain(&all);
}

fn read_special_tokens(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    let dir = scratch::folder("special_tokens");
    let names = ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];
    for (index, name) in names.into_iter().enumerate() {
        let chosen = usize::from(*which) % names.len() == index;
        scratch::write(&dir, name, if chosen { bytes } else { b"{}" });
    }
    scratch::write(&dir, "tokenizer.json", FOUR_WORDS.as_bytes());
    let config = LlamaConfig::from_json(MODEL).expect("a model");
    let Ok(tokenizer) = Tokenizer::from_dir(&dir, &config) else { return };
    assert!(tokenizer.bos().into_iter().chain(tokenizer.eos().iter().copied()).all(|id| id < 512));
    if let Some(source) = tokenizer.chat_template() {
        super::template::check(source, &qft_train::chat::Conversation::ask("Hi"));
    }
}
