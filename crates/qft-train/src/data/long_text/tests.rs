//! Texts in parts give the tokens of the whole, with real tokenizers.

use super::*;
use qft_llama::{LlamaConfig, Tokenizer};
use qft_testing::material::{shared, stories260k};
use std::path::Path;

/// Small parts, so that a short text has many.
const SMALL: Sizes = Sizes { part: 700, reach: 300, max: 20_000 };

fn parts(encoder: &dyn TextEncoder, text: &str, piece: usize, sizes: Sizes) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut take = |more: &[u32]| {
        ids.extend(more);
        Ok(())
    };
    let mut long = LongText { sizes, ..LongText::new(encoder) };
    let mut rest = text;
    while !rest.is_empty() {
        let at = (piece..).find(|&at| at >= rest.len() || rest.is_char_boundary(at)).unwrap();
        let (now, then) = rest.split_at(at.min(rest.len()));
        long.push(now, &mut take).unwrap();
        rest = then;
    }
    long.finish(&mut take).unwrap();
    ids
}

fn tokenizer(dir: &Path) -> Tokenizer {
    let config = match LlamaConfig::from_dir(dir) {
        Ok(config) => config,
        // Of a tokenizer without a model.
        Err(_) => {
            LlamaConfig { vocab_size: 1 << 20, ..LlamaConfig::from_dir(&stories260k()).unwrap() }
        }
    };
    Tokenizer::from_dir(dir, &config).unwrap()
}

fn agree(encoder: &dyn TextEncoder, text: &str) {
    let whole = encoder.encode(text).unwrap();
    for piece in [500, 3000, usize::MAX / 2] {
        assert!(parts(encoder, text, piece, SMALL) == whole, "{piece}");
    }
}

/// Stories, and what is hard to cut: many line breaks, blanks and signs in a row, and characters of several bytes.
fn text() -> String {
    let story = "Once upon a time, there was a little girl named Lily.\n\nShe said: \"Où est-il?\" — 漢字 🙂🙂\n";
    let mut text = String::new();
    for i in 0..400 {
        text.push_str(story);
        match i % 5 {
            0 => text.push_str(&"\n".repeat(i)),
            1 => text.push_str(&" ".repeat(i)),
            2 => text.push_str(&"-".repeat(i)),
            3 => text.push_str(&i.to_string().repeat(7)),
            _ => text.push_str("\r\n\t x"),
        }
    }
    text
}

#[test]
fn parts_give_the_tokens_of_the_whole() {
    agree(&tokenizer(&stories260k()), &text());
    for name in
        ["tokenizers/llama-32k-spm", "tokenizers/dolma2-100k-bpe", "tokenizers/minimind-6400-bpe"]
    {
        if let Some(dir) = shared(&format!("data/{name}")) {
            agree(&tokenizer(&dir), &text());
        }
    }
}

#[test]
fn a_text_without_a_place_to_cut_ends() {
    let encoder = tokenizer(&stories260k());
    for text in ["a".repeat(100_000), "é".repeat(50_000), " ".repeat(70_000)] {
        let sizes = Sizes { max: 3000, ..SMALL };
        let ids = parts(&encoder, &text, 900, sizes);
        let decoded = encoder.decode(&ids).unwrap();
        assert_eq!(
            decoded.trim().chars().filter(|&c| c != ' ').count(),
            text.trim().chars().count()
        );
    }
    assert!(parts(&encoder, "", 10, SMALL).is_empty());
}
