//! A tokenizer as llama.cpp reads it: tokens with their types, merges or scores, and what is put around a text.

use super::{Metadata, refuse, splitting};
use crate::error::Error;
use crate::tokenizer::Tokenizer;
use qft_files::GgufValue;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Types of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The parts of a `tokenizer.json` that decide how a text is split.
#[derive(Deserialize)]
struct Rules {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Two tokens that become one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

impl Merge {
    fn parts(&self) -> (&str, &str) {
        match self {
            Self::Pair(left, right) => (left, right),
            Self::Text(text) => text.split_once(' ').unwrap_or((text, "")),
        }
    }
}

/// Adds everything about `tokenizer`, with another chat `template` if one is given.
///
/// Errors: [`Error::Export`] for a tokenizer that llama.cpp would split texts otherwise with.
pub(super) fn metadata(
    tokenizer: &Tokenizer,
    template: Option<&str>,
    metadata: &mut Metadata,
) -> Result<(), Error> {
    let path = tokenizer.path();
    let file = std::fs::read(path).map_err(|source| {
        Error::io("read the tokenizer", path, "restore it from the model's source", source)
    })?;
    let rules: Rules = serde_json::from_slice(&file).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "a tokenizer with merges, as BPE has them",
        source,
    })?;
    drop(file);
    let kind = rules.model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(refuse(path, format!("its tokenizer is of the kind {kind}, expected BPE")));
    }
    let tokens = Tokens::of(tokenizer)?;
    let mut add =
        |key: &str, value: GgufValue| metadata.add(format!("tokenizer.ggml.{key}"), value);
    let steps = splitting::steps(&rules.pre_tokenizer);
    if steps.iter().any(|step| step["type"] == "ByteLevel") {
        let name = bytes(&rules).map_err(|what| refuse(path, what))?;
        let merge = |merge: &Merge| {
            let (left, right) = merge.parts();
            format!("{left} {right}")
        };
        add("model", GgufValue::Text("gpt2".into()));
        add("pre", GgufValue::Text(name.into()));
        add("merges", GgufValue::Texts(rules.model.merges.iter().map(merge).collect()));
    } else {
        let prefix = pieces(&rules, &tokens).map_err(|what| refuse(path, what))?;
        add("model", GgufValue::Text("llama".into()));
        add("pre", GgufValue::Text("default".into()));
        add("add_space_prefix", GgufValue::Bool(prefix));
        add("scores", GgufValue::F32s(scores(&rules.model.merges, &tokens, path)));
    }
    add("tokens", GgufValue::Texts(tokens.texts));
    add("token_type", GgufValue::I32s(tokens.kinds));
    special(tokenizer, metadata)?;
    templates(tokenizer, template, metadata);
    Ok(())
}

/// A token for each row of the embedding.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
}

impl Tokens {
    fn of(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let added = tokenizer.added().into_iter().map(|token| (token.id, token.special));
        let added: HashMap<u32, bool> = added.collect();
        let (mut texts, mut kinds) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for id in 0..tokenizer.vocab_size() as u32 {
            let text = tokenizer.token(id);
            kinds.push(match (&text, added.get(&id)) {
                (None, _) => UNUSED,
                _ if tokenizer.unknown() == Some(id) => UNKNOWN,
                (_, Some(true)) => CONTROL,
                (_, Some(false)) => USER_DEFINED,
                (Some(text), None) if is_byte(text) => BYTE,
                _ => NORMAL,
            });
            let text = text.unwrap_or_else(|| format!("[PAD{id}]"));
            if !seen.insert(text.clone()) {
                let what =
                    format!("its tokenizer has the token `{text}` twice, the second is {id}");
                return Err(refuse(tokenizer.path(), what));
            }
            texts.push(text);
        }
        Ok(Self { texts, kinds })
    }
}

/// Whether a token stands for a byte that has none of its own: `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// The name of how a tokenizer of bytes splits a text.
///
/// Errors: llama.cpp would get other tokens.
fn bytes(rules: &Rules) -> Result<&'static str, String> {
    // llama.cpp normalizes nothing; text as it is usually stored is in this form.
    if !rules.normalizer.is_null() && rules.normalizer["type"] != "NFC" {
        return Err(format!(
            "its tokenizer changes texts by {}, expected NFC or nothing",
            rules.normalizer
        ));
    }
    splitting::name(&rules.pre_tokenizer, rules.model.ignore_merges).map_err(|what| {
        format!("llama.cpp has no name for how its tokenizer splits text, and would get other tokens: {what}")
    })
}

/// Whether a SentencePiece tokenizer puts a space before a text.
///
/// Errors: llama.cpp would get other tokens.
fn pieces(rules: &Rules, tokens: &Tokens) -> Result<bool, String> {
    if tokens.kinds.iter().filter(|&&kind| kind == BYTE).count() != 256
        || !rules.model.byte_fallback
    {
        return Err(
            "its tokenizer has no token for each byte (byte_fallback), which llama.cpp needs"
                .into(),
        );
    }
    let prefix = match (normalized(&rules.normalizer), &splitting::steps(&rules.pre_tokenizer)[..])
    {
        (Some(prefix), []) => Some(prefix),
        (None, [step]) if rules.normalizer.is_null() => metaspace(step),
        _ => None,
    };
    prefix.ok_or_else(|| {
        format!(
            "llama.cpp would get other tokens: its tokenizer has the normalizer {} and the pre-tokenizer {}, expected \
             Prepend and Replace of spaces, or Metaspace that does not split",
            rules.normalizer, rules.pre_tokenizer
        )
    })
}

/// Whether a normalizer that writes spaces as SentencePiece does puts one before a text; `None` for others.
fn normalized(normalizer: &Value) -> Option<bool> {
    let one = std::slice::from_ref(normalizer);
    let list = normalizer.get("normalizers").and_then(Value::as_array).map_or(one, Vec::as_slice);
    let replaces = |step: &Value| {
        step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE
    };
    match list {
        [prepend, replace] if prepend["type"] == "Prepend" && prepend["prepend"] == SPACE => {
            replaces(replace).then_some(true)
        }
        [replace] => replaces(replace).then_some(false),
        _ => None,
    }
}

/// The same of a pre-tokenizer.
fn metaspace(step: &Value) -> Option<bool> {
    let whole =
        step["type"] == "Metaspace" && step["replacement"] == SPACE && step["split"] == false;
    match step["prepend_scheme"].as_str() {
        Some("never") => whole.then_some(false),
        Some("always") => whole.then_some(true),
        Some("first") => {
            tracing::warn!(
                "llama.cpp puts a space before the text behind each special token, where this tokenizer puts one at the \
                 beginning only: there its tokens differ"
            );
            whole.then_some(true)
        }
        _ => None,
    }
}

/// Of each token, the negative rank of the first merge that makes it: llama.cpp joins what has the highest score.
fn scores(merges: &[Merge], tokens: &Tokens, path: &Path) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        let (left, right) = merge.parts();
        ranks.entry([left, right].concat()).or_insert(rank);
    }
    let mut unmade = 0;
    let score = |(text, kind): (&String, &i32)| match ranks.get(text) {
        Some(&rank) => -(rank as f32),
        None => {
            unmade += usize::from(*kind == NORMAL && text.chars().nth(1).is_some());
            0.0
        }
    };
    let scores = tokens.texts.iter().zip(&tokens.kinds).map(score).collect();
    if unmade > 0 {
        tracing::warn!(
            "{}: {unmade} tokens are made by no merge; llama.cpp may put them together where this tokenizer does not",
            path.display()
        );
    }
    scores
}

/// Adds the tokens that begin, end and fill texts.
fn special(tokenizer: &Tokenizer, metadata: &mut Metadata) -> Result<(), Error> {
    let path = tokenizer.path();
    let one = |place: &str, ids: &[u32]| match ids {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        many => {
            let texts: Vec<_> = many.iter().filter_map(|&id| tokenizer.token(id)).collect();
            Err(refuse(
                path,
                format!("it puts {texts:?} {place} a text, expected at most one token"),
            ))
        }
    };
    let before = one("before", tokenizer.before_text())?;
    let after = one("after", tokenizer.after_text())?;
    let mut ends = tokenizer.eos().to_vec();
    if let Some(after) = after {
        ends.retain(|&id| id != after);
        ends.insert(0, after);
    }
    let mut add =
        |key: &str, value: GgufValue| metadata.add(format!("tokenizer.ggml.{key}"), value);
    let ids = [
        ("bos_token_id", before.or(tokenizer.bos())),
        ("unknown_token_id", tokenizer.unknown()),
        ("padding_token_id", tokenizer.padding()),
        // llama.cpp ends a text with any of these, and with others that it knows by their texts.
        ("eos_token_id", ends.first().copied()),
        ("eot_token_id", ends.get(1).copied()),
        ("eom_token_id", ends.get(2).copied()),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            add(key, GgufValue::U32(id));
        }
    }
    add("add_bos_token", GgufValue::Bool(before.is_some()));
    add("add_eos_token", GgufValue::Bool(after.is_some()));
    Ok(())
}

/// Adds the chat template that is given, or those of the tokenizer.
fn templates(tokenizer: &Tokenizer, template: Option<&str>, metadata: &mut Metadata) {
    let mut add = |key: &str, value: GgufValue| metadata.add(format!("tokenizer.{key}"), value);
    if let Some(template) = template.or(tokenizer.chat_template()) {
        add("chat_template", GgufValue::Text(template.into()));
    }
    if let Some(other) = tokenizer.chat_template_with_tools().filter(|_| template.is_none()) {
        let name = "tool_use";
        add("chat_templates", GgufValue::Texts(vec![name.into()]));
        add(&format!("chat_template.{name}"), GgufValue::Text(other.into()));
    }
}
