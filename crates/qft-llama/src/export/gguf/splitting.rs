//! The name that llama.cpp has for how a tokenizer splits a text before it merges bytes.

use serde_json::Value;

/// GPT-2's words, which `ByteLevel` has built in.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Every digit by itself.
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The patterns that text is split by, one after the other; whether a word that is a token is taken whole, whatever the
/// merges (`ignore_merges`); and the name. Compared with the patterns of `src/llama-vocab.cpp` of llama.cpp.
const KNOWN: [(&[&str], bool, &str); 8] = [
    (&[GPT2], false, "gpt-2"),
    (&[DIGIT, GPT2], false, "smollm"),
    (&[LLAMA3], true, "llama-bpe"),
    (&[LLAMA3], false, "dbrx"),
    (&[QWEN2], false, "qwen2"),
    (&[QWEN35], false, "qwen35"),
    (&[GPT4O], false, "gpt-4o"),
    (&[TEKKEN], true, "tekken"),
];

/// The name for a `pre_tokenizer` that ends in bytes.
///
/// Errors: what it does that has no name.
pub(super) fn name(pre_tokenizer: &Value, ignore_merges: bool) -> Result<&'static str, String> {
    let patterns = patterns(pre_tokenizer)?;
    let known = KNOWN
        .iter()
        .find(|(known, ignores, _)| *ignores == ignore_merges && patterns.iter().eq(known.iter()));
    known.map(|(_, _, name)| *name).ok_or_else(|| {
        let whole =
            if ignore_merges { "words that are tokens taken whole" } else { "all words merged" };
        format!("it splits text by the patterns {patterns:?}, {whole}")
    })
}

/// The steps of a pre-tokenizer, one after the other.
pub(super) fn steps(pre_tokenizer: &Value) -> Vec<&Value> {
    match pre_tokenizer.get("pretokenizers").and_then(Value::as_array) {
        Some(list) => list.iter().flat_map(steps).collect(),
        None if pre_tokenizer.is_null() => Vec::new(),
        None => vec![pre_tokenizer],
    }
}

fn patterns(pre_tokenizer: &Value) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    let is = |step: &Value, key: &str| step.get(key).and_then(Value::as_bool);
    for step in steps(pre_tokenizer) {
        match step["type"].as_str() {
            Some("Digits") if is(step, "individual_digits") == Some(true) => found.push(DIGIT),
            Some("Split") => found.push(split(step)?),
            Some("ByteLevel") => {
                if is(step, "add_prefix_space") != Some(false) {
                    return Err("it puts a space before a text (add_prefix_space)".into());
                }
                if is(step, "use_regex") != Some(false) {
                    found.push(GPT2);
                }
            }
            _ => return Err(format!("it has the step {step}")),
        }
    }
    Ok(found)
}

/// The pattern of a step that leaves nothing out.
fn split(step: &Value) -> Result<&str, String> {
    let inverted = step["invert"].as_bool() == Some(true);
    let whole = match step["behavior"].as_str() {
        Some("Isolated") => !inverted,
        // What the pattern does not match is removed; the patterns that are known match everything.
        Some("Removed") => inverted,
        _ => false,
    };
    let pattern = step["pattern"]["Regex"].as_str().filter(|_| whole);
    pattern.ok_or_else(|| format!("it has the step {step}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn split_by(pattern: &str) -> Value {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes]})
    }

    #[test]
    fn patterns_have_the_names_of_llama_cpp() {
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        assert_eq!(name(&gpt2, false), Ok("gpt-2"));
        let digits = json!({"type": "Digits", "individual_digits": true});
        let smollm = json!({"type": "Sequence", "pretokenizers": [digits, gpt2]});
        assert_eq!(name(&smollm, false), Ok("smollm"));
        for (patterns, ignores, expected) in
            KNOWN.iter().filter(|(_, _, name)| !["gpt-2", "smollm"].contains(name))
        {
            assert_eq!(name(&split_by(patterns[0]), *ignores), Ok(*expected));
        }
        let mut removed = split_by(LLAMA3);
        removed["pretokenizers"][0]["behavior"] = "Removed".into();
        assert!(name(&removed, false).is_err());
        removed["pretokenizers"][0]["invert"] = true.into();
        assert_eq!(name(&removed, false), Ok("dbrx"));
    }

    #[test]
    fn what_has_no_name_is_refused_with_what_it_is() {
        let told = |value: &Value, ignores| name(value, ignores).unwrap_err();
        assert!(told(&split_by(r"\w+"), false).contains(r"\\w+"));
        assert!(told(&split_by(QWEN2), true).contains("taken whole"));
        let prefix = json!({"type": "ByteLevel", "add_prefix_space": true});
        assert!(told(&prefix, false).contains("add_prefix_space"));
        let blank = json!({"type": "Whitespace"});
        assert!(told(&blank, false).contains("Whitespace"));
        let digits = json!({"type": "Digits", "individual_digits": false});
        assert!(told(&digits, false).contains("Digits"));
    }
}
