//! Tokenizers against reference encodings, and what a folder says about special tokens.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{shared, shared_models};
use qft_llama::{Error, LlamaConfig, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A configuration that allows any id; the larger tokenizers come without a model.
fn any_vocab() -> LlamaConfig {
    let (bos_token_id, eos_token_ids) = (None, vec![]);
    LlamaConfig {
        vocab_size: 1 << 20,
        bos_token_id,
        eos_token_ids,
        ..LlamaConfig::preset("llama-15m").unwrap()
    }
}

fn open(dir: &Path) -> Tokenizer {
    let config = LlamaConfig::from_dir(dir).unwrap_or_else(|_| any_vocab());
    Tokenizer::from_dir(dir, &config).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The reference encodings, and the folder of each tokenizer in them.
fn golden() -> Option<(Value, Vec<(String, PathBuf)>)> {
    let file = shared("tokenizers/golden_encodings.json")?;
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let folder = |(name, reference): (&String, &Value)| {
        Some((name.clone(), shared(reference["path"].as_str()?)?))
    };
    let folders = golden["tokenizers"].as_object().unwrap().iter().filter_map(folder).collect();
    Some((golden, folders))
}

#[test]
fn encodes_and_decodes_as_the_references() {
    let Some((golden, folders)) = golden() else { return };
    assert_eq!(folders.len(), 5);
    let mut wrong = Vec::new();
    for (name, dir) in folders {
        let (tokenizer, reference) = (open(&dir), &golden["tokenizers"][&name]);
        let texts = golden["texts"].as_array().unwrap();
        assert_eq!(texts.len(), 40);
        for (i, text) in texts.iter().enumerate() {
            let text = text.as_str().unwrap();
            let encoded = tokenizer.encode(text).unwrap();
            if encoded != ids(&reference["ids"][i]) {
                wrong.push(format!("{name}: ids of {text:?}: {encoded:?}"));
            }
            let decoded = tokenizer.decode(&encoded).unwrap();
            if decoded != reference["decoded"][i].as_str().unwrap() {
                wrong.push(format!("{name}: text of {text:?}: {decoded:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Token by token, the pieces put together are the text decoded at once, and no piece is a broken character.
#[test]
fn streams_whole_characters() {
    let Some((golden, folders)) = golden() else { return };
    for (name, dir) in folders {
        let tokenizer = open(&dir);
        for text in golden["texts"].as_array().unwrap() {
            let text = text.as_str().unwrap();
            let encoded = tokenizer.encode(text).unwrap();
            for start in [0, encoded.len().min(1), encoded.len().min(5)] {
                let (prompt, rest) = encoded.split_at(start);
                let mut stream = tokenizer.stream(prompt);
                let mut streamed = String::new();
                for &id in rest {
                    let piece = stream.push(id).unwrap();
                    assert!(!piece.ends_with('\u{FFFD}'), "{name}: {text:?}");
                    streamed.push_str(&piece);
                }
                streamed.push_str(&stream.finish().unwrap());
                let whole = tokenizer.decode_plain(&encoded).unwrap();
                let before = tokenizer.decode_plain(prompt).unwrap();
                if let Some(expected) = whole.strip_prefix(&before) {
                    assert_eq!(streamed, expected, "{name}: {text:?} from token {start}");
                }
            }
        }
    }
}

#[test]
fn streams_bytes_that_never_become_a_character() {
    let Some(dir) = shared("models/stories260k") else { return };
    let tokenizer = open(&dir);
    let byte = tokenizer.id("<0xF0>").unwrap();
    let mut stream = tokenizer.stream(&[]);
    let mut text = String::new();
    for _ in 0..40 {
        text.push_str(&stream.push(byte).unwrap());
    }
    assert!(text.chars().count() >= 30, "held back for ever: {text:?}");
    text.push_str(&stream.finish().unwrap());
    assert!(text.chars().all(|c| c == '\u{FFFD}'));
}

#[test]
fn finds_special_tokens() {
    for dir in shared_models() {
        let tokenizer = open(&dir);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), &[2][..]), "{}", dir.display());
        assert_eq!(tokenizer.chat_template(), None);
    }
    if let Some(dir) = shared("tokenizers/dolma2-100k-bpe") {
        let tokenizer = open(&dir);
        assert_eq!(tokenizer.bos(), None);
        assert_eq!(tokenizer.eos(), [tokenizer.id("<|endoftext|>").unwrap()]);
    }
    if let Some(dir) = shared("tokenizers/minimind-6400-bpe") {
        let tokenizer = open(&dir);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), &[2][..]));
        assert!(tokenizer.chat_template().unwrap().contains("<|im_start|>"));
    }
}

/// A tokenizer of three words, and the files that a test adds to its folder.
fn small_folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = r#"{
        "version": "1.0",
        "truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 7}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "word": 2, "late": 3},
                  "unk_token": "<s>"}}"#;
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn vocab(vocab_size: usize) -> LlamaConfig {
    LlamaConfig { vocab_size, ..any_vocab() }
}

#[test]
fn adds_and_loses_no_token() {
    let dir = small_folder(&[]);
    let tokenizer = Tokenizer::from_dir(dir.path(), &vocab(4)).unwrap();
    assert_eq!(tokenizer.encode("word late word").unwrap(), [2, 3, 2]);
}

#[test]
fn refuses_ids_outside_the_model() {
    let dir = small_folder(&[]);
    let tokenizer = Tokenizer::from_dir(dir.path(), &vocab(3)).unwrap();
    assert_eq!(tokenizer.encode("word word").unwrap(), [2, 2]);
    for error in [tokenizer.encode("word late").unwrap_err(), tokenizer.decode(&[3]).unwrap_err()] {
        let text = error.to_string();
        for part in ["tokenizer.json", "`late`", "id 3", "below 3", "4 entries"] {
            assert!(text.contains(part), "{text}");
        }
    }
    let dir = small_folder(&[("tokenizer_config.json", r#"{"eos_token": "late"}"#)]);
    let error = Tokenizer::from_dir(dir.path(), &vocab(3)).unwrap_err();
    assert!(matches!(error, Error::TokenId { id: 3, .. }), "{error}");
}

#[test]
fn collects_end_tokens_of_every_file() {
    let dir = small_folder(&[
        ("tokenizer_config.json", r#"{"bos_token": {"content": "<s>"}, "eos_token": "word"}"#),
        ("special_tokens_map.json", r#"{"eos_token": {"content": "late"}, "bos_token": "gone"}"#),
        ("generation_config.json", r#"{"bos_token_id": 2, "eos_token_id": [3, 1]}"#),
    ]);
    let config = LlamaConfig { eos_token_ids: vec![0], ..vocab(4) };
    let tokenizer = Tokenizer::from_dir(dir.path(), &config).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), &[2, 3, 1, 0][..]));
    assert_eq!(tokenizer.token(3).as_deref(), Some("late"));
}

/// The files of a folder, by name and text, and the template that must be found.
type TemplateCase<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

#[test]
fn finds_the_chat_template_in_each_of_its_places() {
    let named = r#"{"chat_template": [{"name": "tool", "template": "T"},
                                      {"name": "default", "template": "D"}]}"#;
    let object = r#"{"chat_template": {"tool_use": "T", "default": "D"}}"#;
    let only = r#"{"chat_template": [{"name": "chat", "template": "O"}]}"#;
    let none =
        r#"{"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]}"#;
    let cases: [TemplateCase; 7] = [
        (&[], None),
        (&[("tokenizer_config.json", r#"{"chat_template": "C"}"#)], Some("C")),
        (&[("tokenizer_config.json", named)], Some("D")),
        (&[("tokenizer_config.json", object)], Some("D")),
        (&[("tokenizer_config.json", only)], Some("O")),
        (&[("tokenizer_config.json", none)], None),
        (&[("tokenizer_config.json", named), ("chat_template.jinja", "J")], Some("J")),
    ];
    for (files, expected) in cases {
        let dir = small_folder(files);
        let tokenizer = Tokenizer::from_dir(dir.path(), &vocab(4)).unwrap();
        assert_eq!(tokenizer.chat_template(), expected);
    }
}

#[test]
fn names_files_that_are_absent_or_broken() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Tokenizer::from_dir(dir.path(), &any_vocab()).unwrap_err();
    let error = open();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    // Cut off where the library would panic, and whole with what it panics at.
    let four_words = r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#;
    let dropped = format!(r#"{{"model": {four_words}, "decoder": {{"type": "ByteLevel", "#);
    for text in ["{\"model\"", &dropped] {
        std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        let error = open();
        assert!(matches!(error, Error::Json { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
    std::fs::write(dir.path().join("tokenizer.json"), "{\"model\": {}}").unwrap();
    let error = open();
    assert!(matches!(error, Error::Tokenizer { .. }), "{error}");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    let dir = small_folder(&[("tokenizer_config.json", "[")]);
    let error = Tokenizer::from_dir(dir.path(), &vocab(4)).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
    assert!(error.to_string().contains("tokenizer_config.json"), "{error}");
}

/// Tokens that stand beside `tokenizer.json` are one id each; one that would get another id is refused by name.
#[test]
fn tokens_beside_the_file_are_tokens() {
    let source = qft_testing::material::stories260k();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("added_tokens.json", r#"{"<|a|>": 512}"#);
    write(
        "tokenizer_config.json",
        r#"{"added_tokens_decoder": {"513": {"content": "<|b|>", "special": true}},
            "additional_special_tokens": ["<|c|>", {"content": "<|a|>"}]}"#,
    );
    let tokenizer = Tokenizer::from_dir(dir.path(), &any_vocab()).unwrap();
    assert_eq!(tokenizer.encode("<|c|><|b|><|a|>").unwrap(), [514, 513, 512]);
    assert_eq!(tokenizer.decode(&[512, 514]).unwrap(), "<|a|><|c|>");
    // Beyond the embedding: only where it is used.
    let small = LlamaConfig { vocab_size: 514, ..any_vocab() };
    let tokenizer = Tokenizer::from_dir(dir.path(), &small).unwrap();
    assert!(tokenizer.encode("<|b|>").is_ok());
    assert!(tokenizer.encode("<|c|>").unwrap_err().to_string().contains("<|c|>"));
    write("added_tokens.json", r#"{"<|a|>": 600}"#);
    let error = Tokenizer::from_dir(dir.path(), &any_vocab()).unwrap_err();
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("`<|b|>`") && told.contains("513"), "{told}");
}

/// What the tokenizer puts around a text is what its own encoding with special tokens has there.
#[test]
fn special_tokens_stand_where_the_tokenizer_puts_them() {
    let Some((golden, folders)) = golden() else { return };
    for (name, dir) in folders {
        let (tokenizer, reference) = (open(&dir), &golden["tokenizers"][&name]);
        for (i, text) in golden["texts"].as_array().unwrap().iter().enumerate() {
            let (bare, places) = tokenizer.encode_with_places(text.as_str().unwrap()).unwrap();
            assert_eq!(places.len(), bare.len());
            assert!(places.is_sorted_by_key(|place| place.start), "{name}: {places:?}");
            let whole = [tokenizer.before_text(), &bare, tokenizer.after_text()].concat();
            assert_eq!(whole, ids(&reference["ids_special"][i]), "{name}: {text}");
        }
    }
}

/// Of named templates, the one for tools is another.
#[test]
fn templates_by_name() {
    let source = qft_testing::material::stories260k();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let templates = || {
        let tokenizer = Tokenizer::from_dir(dir.path(), &any_vocab()).unwrap();
        let own = |template: Option<&str>| template.map(str::to_string);
        (own(tokenizer.chat_template()), own(tokenizer.chat_template_with_tools()))
    };
    assert_eq!(templates(), (None, None));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#,
    );
    assert_eq!(templates(), (Some("d".into()), Some("t".into())));
    write("chat_template.jinja", "j");
    assert_eq!(templates(), (Some("j".into()), None));
    std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/tool_use.jinja", "u");
    assert_eq!(templates(), (Some("j".into()), Some("u".into())));
}
