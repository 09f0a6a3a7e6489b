//! A model's name, by which llama.cpp decides how some special tokens treat the blanks beside them.

use crate::tokenizer::{Added, Tokenizer};

/// Parts of a name, in lower case, that change how llama.cpp reads a text, and by which no other model may be called.
const PHI3: [&str; 2] = ["phi-3", "phi3"];
const OTHERS: [&str; 1] = ["modern-bert"];

/// Tokens of Phi-3 that leave the blanks behind them alone, where its others swallow them.
const PLAIN: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];
/// A token that llama.cpp looks for in Phi-3, besides these.
const END: &str = "</s>";

/// The name of a model that would be called `folder`, if it may have one.
pub(super) fn name(folder: &str, tokenizer: &Tokenizer) -> Option<String> {
    let added = tokenizer.added();
    let lower = folder.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if is_phi3(&added) {
        return Some(if has(&PHI3) { folder.to_owned() } else { format!("Phi-3 {folder}") });
    }
    if let Some(token) = added.iter().find(|token| token.left || token.right) {
        tracing::warn!(
            "the tokenizer swallows blanks beside `{}`, which llama.cpp does not: there its tokens differ",
            token.text
        );
    }
    (!has(&PHI3) && !has(&OTHERS)).then(|| folder.to_owned())
}

/// Whether blanks are swallowed as llama.cpp does it for models with Phi-3 in their name.
fn is_phi3(added: &[Added]) -> bool {
    let as_there = |token: &Added| !token.left && token.right != PLAIN.contains(&&*token.text);
    let there = |text: &str| added.iter().any(|token| token.text == text);
    PLAIN.iter().all(|text| there(text)) && there(END) && added.iter().all(as_there)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::LlamaConfig;
    use qft_testing::material;
    use serde_json::{Value, json};

    /// The tokenizer of stories260k with other tokens that are added.
    fn with(added: Value) -> Tokenizer {
        let source = material::stories260k();
        let dir = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(source.join("tokenizer.json")).unwrap();
        let mut file: Value = serde_json::from_str(&text).unwrap();
        file["added_tokens"] = added;
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        let config = LlamaConfig::from_dir(&source).unwrap();
        Tokenizer::from_dir(dir.path(), &LlamaConfig { vocab_size: 600, ..config }).unwrap()
    }

    fn token(id: u32, text: &str, right: bool) -> Value {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": right,
               "normalized": false, "special": true})
    }

    #[test]
    fn only_what_is_like_phi3_is_called_so() {
        let list = |end: bool| {
            json!([
                token(0, "<unk>", false),
                token(1, "<s>", false),
                token(2, "</s>", end),
                token(512, "<|endoftext|>", false),
                token(513, "<|user|>", true)
            ])
        };
        let phi = with(list(true));
        assert_eq!(name("tuned", &phi).unwrap(), "Phi-3 tuned");
        assert_eq!(name("My-Phi-3", &phi).unwrap(), "My-Phi-3");
        let plain = with(json!([token(0, "<unk>", false), token(1, "<s>", false)]));
        for tokenizer in [plain, with(list(false))] {
            assert_eq!(name("tuned", &tokenizer).unwrap(), "tuned");
            assert_eq!(name("not-phi3", &tokenizer), None);
            assert_eq!(name("Modern-BERT", &tokenizer), None);
        }
    }
}
