//! From what is given as data to files: a file, all data files of a folder, or those that a pattern finds.

use super::input::PACKED;
use crate::data::weight::Weight;
use crate::error::{Context, Result, bail, ensure};
use qft_hub::splits_of_folder;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Endings of the files that are taken from a folder, as a message names them.
const ENDINGS: [&str; 8] = ["json", "jsonl", "ndjson", "csv", "tsv", "parquet", "txt", "text"];

/// The largest weight.
const MAX_WEIGHT: f64 = 1000.0;

/// A data file, and how often it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct DataFile {
    pub(in super::super) path: PathBuf,
    pub(in super::super) weight: Weight,
}

/// The files that are named, folders and patterns resolved.
///
/// Errors: a folder without data files; a pattern that finds nothing; a weight that is none; a file that is named twice.
pub(in super::super) fn expanded(given: &[PathBuf]) -> Result<Vec<DataFile>> {
    let mut files = Vec::new();
    let mut known = HashMap::new();
    for given in given {
        let (named, weight) = weighted(given)?;
        for path in expand(&named)? {
            // What cannot be found is said when it is opened.
            let place = path.canonicalize().unwrap_or_else(|_| path.clone());
            if let Some(before) = known.insert(place, given) {
                bail!(
                    "{} is named twice, by {} and by {}; name it once, with how often it is to be taken behind it, as \
                     in chats.jsonl=2",
                    path.display(),
                    before.display(),
                    given.display()
                );
            }
            files.push(DataFile { path, weight });
        }
    }
    Ok(files)
}

/// A file that is among those of both lists, each of paths, folders and patterns.
///
/// Errors: a name that stands for no file; a file that a list names twice.
pub fn common(some: &[PathBuf], others: &[PathBuf]) -> Result<Option<PathBuf>> {
    let place = |file: &DataFile| file.path.canonicalize().ok();
    let others: HashSet<_> = expanded(others)?.iter().filter_map(place).collect();
    let both = |file: &DataFile| place(file).is_some_and(|place| others.contains(&place));
    Ok(expanded(some)?.into_iter().find(both).map(|file| file.path))
}

/// A path, and how often what it holds is taken in each pass: `chats.jsonl=2` is taken twice.
///
/// Errors: a number that is no weight.
fn weighted(given: &Path) -> Result<(PathBuf, Weight)> {
    let once = || Ok((given.to_path_buf(), Weight::ONCE));
    let text = given.to_str().filter(|_| !given.exists());
    let Some((path, times)) = text.and_then(|text| text.rsplit_once('=')) else { return once() };
    let Ok(times) = times.parse::<f64>() else { return once() };
    match Weight::of(times).filter(|_| times <= MAX_WEIGHT) {
        Some(weight) => Ok((path.into(), weight)),
        None => bail!(
            "--data: {}: how often data is taken is a number from 0.001 to {MAX_WEIGHT}, with three decimals at most, as \
             in chats.jsonl=2 or old.jsonl=0.25",
            given.display()
        ),
    }
}

/// The files that `given` names, in the order of their names.
fn expand(given: &Path) -> Result<Vec<PathBuf>> {
    if given.is_dir() {
        return in_folder(given);
    }
    let pattern = given.to_str().filter(|text| text.contains(['*', '?', '[']));
    match pattern {
        Some(pattern) if !given.exists() => matching(pattern),
        _ => Ok(vec![given.to_path_buf()]),
    }
}

/// The data files of a folder, without those of folders within.
///
/// Errors: there are none; they are of several splits by their names, and it is not said which are meant.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    let place = || format!("{}: cannot be read; make it readable", folder.display());
    for entry in std::fs::read_dir(folder).with_context(place)? {
        let path = entry.with_context(place)?.path();
        if path.is_file() {
            let name = path.file_name().and_then(OsStr::to_str);
            let name = name
                .with_context(|| format!("{}: its name is not UTF-8; rename it", path.display()))?;
            names.push(name.to_owned());
        }
    }
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let splits = splits_of_folder(&names);
    ensure!(
        !splits.is_empty(),
        "{}: has no data files (folders within it are not looked into); give a folder with files that end in .{}, packed or \
         not",
        folder.display(),
        ENDINGS.join(", .")
    );
    ensure!(
        splits.len() == 1,
        "{}: has files of several splits by their names: {}; name those that are meant, as in '{}'",
        folder.display(),
        splits
            .iter()
            .map(|(split, files)| format!("{split} ({})", files.join(", ")))
            .collect::<Vec<_>>()
            .join("; "),
        folder.join("*train*").display()
    );
    let mut files: Vec<_> = splits.into_values().flatten().map(|name| folder.join(name)).collect();
    files.sort();
    Ok(files)
}

fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let paths = match glob::glob(pattern) {
        Ok(paths) => paths,
        Err(error) => bail!("--data: {pattern} is not a valid pattern: {error}"),
    };
    let files: Vec<PathBuf> = paths.filter_map(Result::ok).filter(|path| path.is_file()).collect();
    ensure!(!files.is_empty(), "--data: {pattern} finds no file; give another pattern, or a path");
    Ok(files)
}

/// The ending of a file's name in small letters, without that of a packed file.
pub(super) fn ending(path: &Path) -> String {
    let of = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = of(path);
    if PACKED.contains(&ending.as_str()) { of(&path.with_extension("")) } else { ending }
}
