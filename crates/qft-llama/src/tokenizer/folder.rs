//! Special tokens and the chat template: several files may give them.

use crate::config::LlamaConfig;
use crate::error::Error;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

/// Tokens around a sequence.
pub(super) struct SpecialTokens {
    pub(super) bos: Option<u32>,
    pub(super) eos: Vec<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
}

/// Collects begin and end tokens: by text from `tokenizer_config.json` or `special_tokens_map.json`, by id from
/// `generation_config.json` and the model's configuration. The first begin token counts; every end token does,
/// as chat models end a turn with another token than a text.
pub(super) fn special_tokens(
    dir: &Path,
    config: &LlamaConfig,
    id_of: impl Fn(&str) -> Option<u32>,
) -> Result<SpecialTokens, Error> {
    let (mut bos, mut eos) = (Vec::new(), Vec::new());
    let (mut unknown, mut padding) = (None, None);
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let map = read_object(&dir.join(file))?;
        for (key, found) in [("unk_token", &mut unknown), ("pad_token", &mut padding)] {
            *found = found.or(map.get(key).and_then(token_text).and_then(&id_of));
        }
        for (key, found) in [("bos_token", &mut bos), ("eos_token", &mut eos)] {
            let Some(text) = map.get(key).and_then(token_text) else { continue };
            match id_of(text) {
                Some(id) => found.push(id),
                None => {
                    let dir = dir.display();
                    tracing::warn!(
                        "tokenizer: {dir}/{file}: {key} `{text}` is no entry of tokenizer.json"
                    );
                }
            }
        }
    }
    let generation = read_object(&dir.join("generation_config.json"))?;
    for (key, found) in [("bos_token_id", &mut bos), ("eos_token_id", &mut eos)] {
        let ids = match generation.get(key) {
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
            None => &[],
        };
        found.extend(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
    }
    // A tokenizer that says it has none has none, whatever number the model's configuration keeps.
    let none =
        read_object(&dir.join("tokenizer_config.json"))?.get("bos_token") == Some(&Value::Null);
    if !none {
        bos.extend(config.bos_token_id);
    }
    eos.extend(&config.eos_token_ids);
    let mut seen = HashSet::new();
    eos.retain(|&id| seen.insert(id));
    Ok(SpecialTokens { bos: bos.first().copied(), eos, unknown, padding })
}

/// The chat templates of a model.
#[derive(Debug, Default)]
pub(super) struct ChatTemplates {
    pub(super) default: Option<String>,
    /// For conversations with tools, if that is another.
    pub(super) with_tools: Option<String>,
}

/// The name of the template for all conversations.
const DEFAULT: &str = "default";

/// The name of a template for conversations with tools.
const WITH_TOOLS: &str = "tool_use";

/// The chat template: `chat_template.jinja`, with others in `additional_chat_templates`, or `chat_template` of
/// `tokenizer_config.json`, which is a text, or named texts as a list or an object; of several, the one named `default`, as
/// in transformers.
pub(super) fn chat_templates(dir: &Path) -> Result<ChatTemplates, Error> {
    let file = dir.join("chat_template.jinja");
    if let Some(text) = read_if_present(&file)? {
        let other = dir.join("additional_chat_templates").join(format!("{WITH_TOOLS}.jinja"));
        return Ok(ChatTemplates { default: Some(text), with_tools: read_if_present(&other)? });
    }
    let map = read_object(&dir.join("tokenizer_config.json"))?;
    let named: Vec<(&str, &str)> = match map.get("chat_template") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![(DEFAULT, text)],
        Some(Value::Array(list)) => list.iter().filter_map(named_template).collect(),
        Some(Value::Object(map)) => {
            map.iter().filter_map(|(name, text)| Some((name.as_str(), text.as_str()?))).collect()
        }
        Some(_) => Vec::new(),
    };
    let find = |name: &str| {
        let found = named.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| (*text).to_owned())
    };
    let default = match named.as_slice() {
        [(_, only)] => Some((*only).to_owned()),
        _ => find(DEFAULT),
    };
    if default.is_none() && !named.is_empty() {
        let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
        tracing::warn!(
            "tokenizer: {}: none of the chat templates [{}] is named `{DEFAULT}`, so none is used",
            dir.join("tokenizer_config.json").display(),
            names.join(", ")
        );
    }
    Ok(ChatTemplates { default, with_tools: find(WITH_TOOLS) })
}

/// The name and the text of an entry in a list of templates.
fn named_template(entry: &Value) -> Option<(&str, &str)> {
    Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?))
}

/// A special token is a text, or an object with the text as `content`.
pub(super) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, Error> {
    let Some(text) = read_if_present(path)? else { return Ok(Map::new()) };
    serde_json::from_str(&text).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "an object",
        source,
    })
}

fn read_if_present(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => {
            let remedy = "make it readable, or restore it from the model's source";
            Err(Error::io("read the tokenizer's settings", path, remedy, source))
        }
    }
}
