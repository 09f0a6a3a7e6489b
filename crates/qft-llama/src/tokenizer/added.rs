//! Tokens that stand beside `tokenizer.json`, in files of older tokenizers.

use super::folder::{read_object, token_text};
use crate::error::Error;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokenizers::AddedToken;

/// Adds the tokens that `added_tokens.json`, `added_tokens_decoder` and `additional_special_tokens` name and
/// `tokenizer.json` lacks. Otherwise they would be split into pieces.
///
/// Errors: the files cannot be read; a token would get another id than the file says, by its name.
pub(super) fn complete(dir: &Path, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), Error> {
    let config = read_object(&dir.join("tokenizer_config.json"))?;
    let map = read_object(&dir.join("special_tokens_map.json"))?;
    let known: BTreeSet<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    let missing = |token: &AddedToken| !token.content.is_empty() && !known.contains(&token.content);
    let mut by_id = with_ids(dir, config.get("added_tokens_decoder"))?;
    by_id.retain(|_, token| missing(token));
    for (id, token) in by_id {
        let text = token.content.clone();
        let refuse = |source: Box<dyn std::error::Error + Send + Sync>| Error::Tokenizer {
            path: dir.join("tokenizer.json"),
            action: "add a token of added_tokens.json or added_tokens_decoder",
            source,
        };
        tokenizer.add_tokens([token]).map_err(refuse)?;
        let given = tokenizer.token_to_id(&text);
        if given != Some(id) {
            let given = given.map_or("none".into(), |id| id.to_string());
            let why = format!(
                "`{text}` is to have the id {id}, expected {given}, which follows tokenizer.json"
            );
            return Err(refuse(why.into()));
        }
    }
    let lists = [&config, &map]
        .into_iter()
        .filter_map(|file| file.get("additional_special_tokens")?.as_array());
    let texts = lists.flatten().filter_map(token_text).map(|text| AddedToken::from(text, true));
    let texts: Vec<_> = texts.filter(missing).collect();
    tokenizer.add_tokens(texts).map_err(|source| Error::Tokenizer {
        path: dir.join("tokenizer.json"),
        action: "add additional_special_tokens",
        source,
    })?;
    Ok(())
}

/// The tokens that have an id, in the order of these; `decoder` says more of them than `added_tokens.json`.
fn with_ids(dir: &Path, decoder: Option<&Value>) -> Result<BTreeMap<u32, AddedToken>, Error> {
    let mut tokens = BTreeMap::new();
    for (text, id) in read_object(&dir.join("added_tokens.json"))? {
        if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) {
            tokens.insert(id, AddedToken::from(text, true));
        }
    }
    for (id, entry) in decoder.and_then(Value::as_object).into_iter().flatten() {
        let (Ok(id), Some(text)) = (id.parse(), token_text(entry)) else { continue };
        let is = |key: &str| entry.get(key).and_then(Value::as_bool).unwrap_or(false);
        let token = AddedToken::from(text, is("special"))
            .single_word(is("single_word"))
            .lstrip(is("lstrip"))
            .rstrip(is("rstrip"))
            .normalized(is("normalized"));
        tokens.insert(id, token);
    }
    Ok(tokens)
}
