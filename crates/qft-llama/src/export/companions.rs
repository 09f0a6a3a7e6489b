//! The files of a model besides weights and configuration: tokenizer, templates, settings of generation, licences.

use super::CONFIG;
use super::config::CODE;
use crate::error::Error;
use qft_files::AtomicFolder;
use serde_json::{Map, Value, json};
use std::io::ErrorKind;
use std::path::Path;

/// Files that make a model usable, where the source has them.
const FILES: [&str; 7] = [
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    TEMPLATE,
];

/// The settings of generation, with the tokens that end a text.
const GENERATION: &str = "generation_config.json";
/// The settings of the tokenizer.
const TOKENIZER: &str = "tokenizer_config.json";
/// The chat template.
const TEMPLATE: &str = "chat_template.jinja";
/// The setting of the tokenizer with the chat template, or a list of them.
const TEMPLATE_SETTING: &str = "chat_template";
/// Where transformers keeps other templates.
const OTHER_TEMPLATES: &str = "additional_chat_templates";

/// Whether a folder's file of this name comes from its source, other than a licence.
pub(super) fn is_companion(name: &str) -> bool {
    FILES.contains(&name) || name == GENERATION || name == TOKENIZER
}

/// Whether a file of this name says what may be done with a model.
pub fn is_licence(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"].iter().any(|start| name.starts_with(start))
}

/// Takes over what `source` has, with another chat `template` if one is given. `ends` are tokens that end a text, which the
/// settings of generation must name: programs that serve a model stop at no others.
///
/// Errors: [`Error::Io`], [`Error::Json`] for a file of `source`; [`Error::Files`].
pub(super) fn copy_companions(
    folder: &mut AtomicFolder,
    source: &Path,
    template: Option<&str>,
    ends: &[u32],
) -> Result<(), Error> {
    let template = match template {
        Some(text) => Some(text.into()),
        None => list_of_templates(source)?,
    };
    for name in FILES {
        if name == TEMPLATE && template.is_some() {
            continue;
        }
        if let Some(bytes) = read(&source.join(name))? {
            folder.write_file(name, &bytes)?;
        }
    }
    if let Some(bytes) = tokenizer_settings(source, template)? {
        folder.write_file(TOKENIZER, &bytes)?;
    }
    if let Some(bytes) = generation_settings(source, ends)? {
        folder.write_file(GENERATION, &bytes)?;
    }
    Ok(())
}

/// Takes over the licences of `source`; those of the folder `joined` stay.
///
/// Errors: [`Error::Io`] for a file of `source`; [`Error::Files`].
pub(super) fn copy_licences(
    folder: &mut AtomicFolder,
    source: &Path,
    joined: Option<&Path>,
) -> Result<(), Error> {
    let stays = |name: &str| joined.is_some_and(|dir| dir.join(name).exists());
    for name in names(source)?.iter().filter(|name| is_licence(name) && !stays(name)) {
        if let Some(bytes) = read(&source.join(name))?.filter(|_| source.join(name).is_file()) {
            folder.write_file(name, &bytes)?;
        }
    }
    Ok(())
}

/// The names in a folder, sorted; none where there is no folder.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::io("read the folder", dir, REMEDY, error))?,
    };
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

const REMEDY: &str = "make it readable; it is to be copied to the output folder";

/// A file's bytes; `None` where there is none, or a folder.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io("read", path, REMEDY, error)),
    }
}

/// The bytes of a JSON file and the object that they are.
type Object = (Vec<u8>, Map<String, Value>);

fn read_object(path: &Path) -> Result<Option<Object>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let map = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "an object",
        source,
    })?;
    Ok(Some((bytes, map)))
}

fn pretty(map: Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(map)).into_bytes()
}

/// Templates besides the default one, each with its name.
fn other_templates(source: &Path) -> Result<Vec<(String, String)>, Error> {
    let dir = source.join(OTHER_TEMPLATES);
    let mut found = Vec::new();
    for file in names(&dir)? {
        let (Some(name), Some(bytes)) = (file.strip_suffix(".jinja"), read(&dir.join(&file))?)
        else {
            continue;
        };
        found.push((name.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(found)
}

/// Several templates of a source as the list that every version of transformers reads: only the later ones know a folder of
/// them, and then the file of the default template would hide the list.
fn list_of_templates(source: &Path) -> Result<Option<Value>, Error> {
    let others = other_templates(source)?;
    if others.is_empty() {
        return Ok(None);
    }
    let entry = |name: &str, template: &str| json!({"name": name, "template": template});
    let default = match read(&source.join(TEMPLATE))? {
        Some(bytes) => Some(entry("default", &String::from_utf8_lossy(&bytes))),
        None => read_object(&source.join(TOKENIZER))?.and_then(|(_, settings)| {
            Some(entry("default", settings.get(TEMPLATE_SETTING)?.as_str()?))
        }),
    };
    let others = others.iter().map(|(name, template)| entry(name, template));
    Ok(Some(default.into_iter().chain(others).collect()))
}

/// The settings of the tokenizer: as they are, or with other chat templates, which every version of transformers reads there, and
/// without what names code that is not copied.
fn tokenizer_settings(source: &Path, template: Option<Value>) -> Result<Option<Vec<u8>>, Error> {
    let settings = read_object(&source.join(TOKENIZER))?;
    let names_code = settings.as_ref().is_some_and(|(_, map)| map.contains_key(CODE));
    if template.is_none() && !names_code {
        return Ok(settings.map(|(bytes, _)| bytes));
    }
    let mut settings = settings.map(|(_, settings)| settings).unwrap_or_default();
    settings.remove(CODE);
    if let Some(template) = template {
        settings.insert(TEMPLATE_SETTING.into(), template);
    }
    Ok(Some(pretty(settings)))
}

/// The tokens around a text that a model's configuration names, other than its end.
fn tokens_of(config: Option<Object>) -> Map<String, Value> {
    let config = config.map(|(_, map)| map).unwrap_or_default();
    let names = ["bos_token_id", "pad_token_id"].into_iter();
    let named = names.filter_map(|name| Some((name, config.get(name)?)));
    let named = named.filter(|(_, id)| !id.is_null());
    named.map(|(name, id)| (name.to_owned(), id.clone())).collect()
}

/// The settings of generation: as they are, if they name all of `ends`.
///
/// Where there is a file of them, transformers looks for none of their tokens in the model's configuration; so a new one has those
/// that stand there.
fn generation_settings(source: &Path, ends: &[u32]) -> Result<Option<Vec<u8>>, Error> {
    let found = read_object(&source.join(GENERATION))?;
    let mut named: Vec<u32> = match found.as_ref().and_then(|(_, map)| map.get("eos_token_id")) {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    };
    let before = named.len();
    for end in ends {
        if !named.contains(end) {
            named.push(*end);
        }
    }
    match found {
        Some((bytes, _)) if named.len() == before => Ok(Some(bytes)),
        None if named.is_empty() => Ok(None),
        found => {
            let mut map = match found {
                Some((_, map)) => map,
                None => tokens_of(read_object(&source.join(CONFIG))?),
            };
            let ids = match named.as_slice() {
                [one] => json!(one),
                many => json!(many),
            };
            map.insert("eos_token_id".into(), ids);
            Ok(Some(pretty(map)))
        }
    }
}

fn id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}
