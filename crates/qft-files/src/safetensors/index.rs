//! The index of a model in several files.

use super::MAX_HEADER_BYTES;
use crate::error::Error;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads which file holds which tensor from a `model.safetensors.index.json`. Every file is a plain name: one
/// beside the index.
///
/// Errors: [`Error::Io`], [`Error::Json`]; [`Error::Header`] for a path that leads elsewhere, for no tensor at
/// all, and for an index that is larger than any header may be. `remedy` says what to do about them.
pub fn read_index(path: &Path, remedy: &'static str) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |what: String, expected: String, got: String| {
        Err(Error::Header { file: path.to_path_buf(), what, expected, got, remedy })
    };
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_HEADER_BYTES + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let advice = "check that the file is complete and readable";
    let text = read().map_err(Error::io("read the index of the weights", path, advice))?;
    if text.len() as u64 > MAX_HEADER_BYTES {
        return wrong("length".into(), format!("at most {MAX_HEADER_BYTES} bytes"), "more".into());
    }
    let index: Index = serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "an object with `weight_map`, the shard of each tensor",
        remedy,
        source,
    })?;
    for (tensor, shard) in &index.weight_map {
        if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
            let what = format!("weight_map of `{tensor}`");
            return wrong(what, "a file name without a folder".into(), shard.clone());
        }
    }
    if index.weight_map.is_empty() {
        return wrong("weight_map".into(), "at least one tensor".into(), "none".into());
    }
    Ok(index.weight_map)
}
