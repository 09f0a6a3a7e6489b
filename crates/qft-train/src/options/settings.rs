//! The settings file: the options of `qft finetune` as TOML, and how flags win over it.

use super::finetune::FinetuneArgs;
use crate::error::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Options of which only one may be given: a flag for one of them overrides the other in the file.
const EXCLUSIVE: [(&str, &str); 3] =
    [("steps", "epochs"), ("eval-data", "val-split"), ("resume", "overwrite")];

/// Words that a key of another tool's settings is likely to stand for.
const SYNONYMS: [(&str, &str); 14] = [
    ("no-shuffle", "shuffle"),
    ("outliers", "protected"),
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

fn read(path: &Path, text: &str) -> Result<FinetuneArgs> {
    let place = path.display();
    let table: toml::Table =
        toml::from_str(text).with_context(|| format!("--config: {place} is not valid TOML"))?;
    let known = known_keys();
    for (key, value) in &table {
        if known.iter().any(|name| name == key) {
            if value.as_float().is_some_and(|number| !number.is_finite()) {
                bail!("--config: {place}: `{key}` is {value}; give a finite number");
            }
            // Alone, so that the message can name it.
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            FinetuneArgs::deserialize(alone)
                .with_context(|| format!("--config: {place}: `{key}` has an invalid value"))?;
            continue;
        }
        let near = near_names(key, &known);
        let hint = match near.as_slice() {
            [] => "`qft finetune --help` lists all options".to_string(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        bail!("--config: {place}: unknown option `{key}`; {hint}");
    }
    FinetuneArgs::deserialize(table).with_context(|| format!("--config: {place}"))
}

/// The options that are given, by name.
fn options_of(args: &FinetuneArgs) -> Result<Map<String, Value>> {
    let Value::Object(mut map) = serde_json::to_value(args)? else { return Ok(Map::new()) };
    map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    Ok(map)
}

/// Names of all options that a settings file may hold.
fn known_keys() -> Vec<String> {
    let command = FinetuneArgs::augment_args(clap::Command::new("finetune"));
    let names = command.get_arguments().filter_map(clap::Arg::get_long);
    let skip = ["config", "no-shuffle", "help", "version"];
    names.filter(|name| !skip.contains(name)).map(str::to_string).collect()
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
