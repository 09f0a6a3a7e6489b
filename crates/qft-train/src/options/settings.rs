//! The settings file: the options of `qft finetune` as TOML, and how flags win over it.

use super::finetune::FinetuneArgs;
use super::home::expanded_text;
use crate::error::{Context, Result, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, FromArgMatches};
use serde_json::{Map, Value};
use std::path::Path;

/// Options of which only one may be given: a flag for one of them overrides the other in the file.
const EXCLUSIVE: [(&str, &str); 4] = [
    ("steps", "epochs"),
    ("eval-data", "val-split"),
    ("resume", "overwrite"),
    ("cache", "no-cache"),
];

/// Words that a key of another tool's settings is likely to stand for.
const SYNONYMS: [(&str, &str); 19] = [
    ("no-shuffle", "shuffle"),
    ("outliers", "protected"),
    ("memory", "memory-limit"),
    ("learning-rate", "lr"),
    ("num-train-epochs", "epochs"),
    ("max-steps", "steps"),
    ("gradient-accumulation-steps", "accumulate"),
    ("per-device-train-batch-size", "batch-size"),
    ("warmup-ratio", "warmup"),
    ("warmup-steps", "warmup"),
    ("lr-scheduler-type", "schedule"),
    ("max-length", "seq-len"),
    ("cutoff-len", "seq-len"),
    ("output-dir", "out"),
    ("packing", "pack"),
    ("early-stopping-patience", "patience"),
    ("load-best-model-at-end", "keep-best"),
    ("eval-steps", "eval-every"),
    ("save-steps", "checkpoint-every"),
];

/// `flags`, completed by what their settings file gives.
pub(super) fn merge(flags: FinetuneArgs) -> Result<FinetuneArgs> {
    let Some(path) = flags.config.clone() else { return Ok(flags) };
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("--config: cannot read {}; give the path of a TOML file", path.display())
    })?;
    let mut options = options_of(&read(&path, &text)?)?;
    let given = options_of(&flags)?;
    for (a, b) in EXCLUSIVE {
        for (given_key, other) in [(a, b), (b, a)] {
            if given.contains_key(given_key) && !given.contains_key(other) {
                options.remove(other);
            }
        }
    }
    options.extend(given);
    let merged: FinetuneArgs = serde_json::from_value(Value::Object(options))?;
    let mut merged = FinetuneArgs { config: flags.config, ..merged };
    merged.layout.no_shuffle = flags.layout.no_shuffle;
    Ok(merged)
}

/// The text of a settings file as options. A value is read as it would be on the command line, by the same rules.
fn read(path: &Path, text: &str) -> Result<FinetuneArgs> {
    let place = path.display();
    let table: toml::Table =
        toml::from_str(text).with_context(|| format!("--config: {place} is not valid TOML"))?;
    let command = command();
    let mut words = Vec::new();
    for (key, value) in &table {
        let Some(option) = command.get_arguments().find(|option| is_key(option, key)) else {
            bail!("--config: {place}: unknown option `{key}`; {}", hint(key));
        };
        // Alone, so that the message can name it.
        let own = words_of(option, key, value).and_then(|own| match parse(&own) {
            Ok(_) => Ok(own),
            Err(error) => Err(reason(&error)),
        });
        match own {
            Ok(own) => words.extend(own),
            Err(why) => bail!("--config: {place}: `{key}` is {}: {why}", shown(value)),
        }
    }
    match parse(&words) {
        Ok(args) => Ok(args),
        Err(error) => bail!("--config: {place}: {}", reason(&error)),
    }
}

/// The options of `qft finetune`.
pub(super) fn command() -> clap::Command {
    FinetuneArgs::augment_args(clap::Command::new("finetune").no_binary_name(true))
}

/// Options as words of the command line.
fn parse(words: &[String]) -> Result<FinetuneArgs, clap::Error> {
    FinetuneArgs::from_arg_matches(&command().try_get_matches_from(words)?)
}

/// Whether a settings file may hold `option` as `key`.
fn is_key(option: &clap::Arg, key: &str) -> bool {
    option.get_long() == Some(key) && !["config", "print-config", "no-shuffle"].contains(&key)
}

/// A value as the command line would have it: a list is an option that is given again and again, and so is a table, of
/// `name=value`.
fn words_of(option: &clap::Arg, key: &str, value: &toml::Value) -> Result<Vec<String>, String> {
    let plain = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Array(_) | toml::Value::Table(_) => {
            Err("expected texts and numbers, not lists within lists".to_owned())
        }
        other => Ok(other.to_string()),
    };
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value {
            toml::Value::Boolean(true) => Ok(vec![format!("--{key}")]),
            toml::Value::Boolean(false) => Ok(Vec::new()),
            _ => Err("expected true or false".into()),
        };
    }
    let many = matches!(option.get_action(), ArgAction::Append);
    let values: Vec<String> = match value {
        toml::Value::Array(values) if many => values.iter().map(plain).collect::<Result<_, _>>()?,
        toml::Value::Table(table) if many => (table.iter())
            .map(|(name, value)| Ok(format!("{name}={}", plain(value)?)))
            .collect::<Result<_, String>>()?,
        toml::Value::Array(_) | toml::Value::Table(_) => return Err("expected one value".into()),
        one => vec![plain(one)?],
    };
    Ok(values.into_iter().map(|value| expanded_text(format!("--{key}={value}"))).collect())
}

/// What is wrong with a value, in the words of the option.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("expected one of {}", valid.join(", "))
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    }
}

/// A value as it stands in the file, or its beginning.
fn shown(value: &toml::Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What an unknown key may have meant.
fn hint(key: &str) -> String {
    match near_names(key, &known_keys()).as_slice() {
        [] => "`qft finetune --help` lists all options".to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// The options that are given, by name.
pub(super) fn options_of(args: &FinetuneArgs) -> Result<Map<String, Value>> {
    let Value::Object(mut map) = serde_json::to_value(args)? else { return Ok(Map::new()) };
    map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    Ok(map)
}

/// Names of all options that a settings file may hold.
fn known_keys() -> Vec<String> {
    let command = command();
    let names = command.get_arguments().filter_map(|option| {
        let name = option.get_long()?;
        is_key(option, name).then(|| name.to_owned())
    });
    names.collect()
}

/// The known names that look most like `key`: at most three.
fn near_names<'a>(key: &str, known: &'a [String]) -> Vec<&'a str> {
    let key = key.to_lowercase().replace('_', "-");
    if let Some((_, name)) = SYNONYMS.iter().find(|(synonym, _)| *synonym == key) {
        return known.iter().filter(|known| known == name).map(String::as_str).collect();
    }
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|name| (edit_distance(&key, name), name.as_str()))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(key: &str) -> Vec<String> {
        near_names(key, &known_keys()).into_iter().map(str::to_string).collect()
    }

    #[test]
    fn near_names_are_found() {
        assert_eq!(near("batch_size"), ["batch-size"]);
        assert_eq!(near("sed"), ["seed"]);
        assert_eq!(near("learning_rate"), ["lr"]);
        assert!(near("xyzzy").is_empty());
        for (_, name) in SYNONYMS {
            assert!(known_keys().iter().any(|known| known == name), "{name}");
        }
        for name in EXCLUSIVE.iter().flat_map(|(a, b)| [a, b]) {
            assert!(known_keys().iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("lr", "lr", 0)] {
            assert_eq!(edit_distance(a, b), distance);
        }
    }
}
