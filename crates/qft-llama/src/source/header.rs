//! Headers of safetensors files, and the index of a sharded model. Nothing in them is believed unchecked.

use crate::error::Error;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The length of the header, before it.
const PREFIX_BYTES: u64 = 8;

/// A tensor as its file describes it.
#[derive(Debug)]
pub(super) struct Stored {
    /// Element type.
    pub(super) dtype: Dtype,
    /// Shape.
    pub(super) shape: Vec<usize>,
    /// Position of the first byte in the file.
    pub(super) start: u64,
}

/// The checked header of one file.
#[derive(Debug)]
pub(super) struct Header {
    /// Tensors in the order of their data.
    pub(super) tensors: Vec<(String, Stored)>,
}

impl Header {
    /// Reads and checks the header of `file`: sizes follow from shapes, data regions lie in the file without
    /// gap or overlap, and the last ends where the file does.
    pub(super) fn read(path: &Path, file: &File) -> Result<Self, Error> {
        let remedy = "check that the file is complete and readable";
        let io = |source| Error::io("read the header of", path, remedy, source);
        let file_bytes = file.metadata().map_err(io)?.len();
        if file_bytes < PREFIX_BYTES {
            let got = format!("{file_bytes} bytes");
            return Err(header_error(path, "length of the file", "8 bytes or more", got));
        }
        let mut prefix = [0; PREFIX_BYTES as usize];
        file.read_exact_at(&mut prefix, 0).map_err(io)?;
        let header_bytes = u64::from_le_bytes(prefix);
        let limit = MAX_HEADER_BYTES.min(file_bytes - PREFIX_BYTES);
        if header_bytes > limit {
            let expected = format!("at most {limit} bytes in a file of {file_bytes}");
            return Err(header_error(path, "length of the header", expected, header_bytes));
        }
        let mut text = vec![0; header_bytes as usize];
        file.read_exact_at(&mut text, PREFIX_BYTES).map_err(io)?;
        let RawHeader(mut raw) = serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.to_path_buf(),
            expected: "a safetensors header with type, shape and offsets of each tensor",
            source,
        })?;
        raw.sort_by_key(|(_, info)| info.data_offsets);

        let data = PREFIX_BYTES + header_bytes;
        let mut end = 0;
        let mut tensors = Vec::with_capacity(raw.len());
        for (name, info) in raw {
            end = check_region(path, &name, &info, end)?;
            let needed = data.saturating_add(end);
            if needed > file_bytes {
                return Err(Error::Truncated {
                    file: path.to_path_buf(),
                    tensor: name,
                    expected: needed,
                    got: file_bytes,
                });
            }
            let start = data + info.data_offsets.0 as u64;
            tensors.push((name, Stored { dtype: info.dtype, shape: info.shape, start }));
        }
        if data + end != file_bytes {
            let expected = format!("{} bytes, where the last tensor ends", data + end);
            return Err(header_error(path, "length of the file", expected, file_bytes));
        }
        Ok(Self { tensors })
    }
}

/// Checks one tensor's region, which must begin at `begin`; returns its end.
fn check_region(path: &Path, name: &str, info: &TensorInfo, begin: u64) -> Result<u64, Error> {
    let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    if start != begin || end < start {
        let what = format!("data_offsets of `{name}`");
        return Err(header_error(
            path,
            what,
            format!("a region from {begin}"),
            format!("{start}..{end}"),
        ));
    }
    let bits = info
        .shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64))
        .and_then(|elements| elements.checked_mul(info.dtype.bitsize() as u64));
    match bits {
        Some(bits) if bits.is_multiple_of(8) && bits / 8 == end - start => Ok(end),
        _ => {
            let what = format!("size of `{name}`");
            let expected = match bits {
                Some(bits) => {
                    format!("{} bytes for {:?} of {:?}", bits / 8, info.shape, info.dtype)
                }
                None => format!("a shape that fits 64 bits, not {:?}", info.shape),
            };
            Err(header_error(path, what, expected, format!("{} bytes", end - start)))
        }
    }
}

fn header_error(
    path: &Path,
    what: impl ToString,
    expected: impl ToString,
    got: impl ToString,
) -> Error {
    Error::Header {
        file: PathBuf::from(path),
        what: what.to_string(),
        expected: expected.to_string(),
        got: got.to_string(),
    }
}

/// The header's tensors; a name that occurs twice is an error, where a map would keep the last.
struct RawHeader(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let (mut tensors, mut seen) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    let value: serde_json::Value = map.next_value()?;
                    if name == "__metadata__" {
                        continue;
                    }
                    let info = TensorInfo::deserialize(value)
                        .map_err(|error| A::Error::custom(format!("tensor `{name}`: {error}")))?;
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("tensor `{name}` occurs twice")));
                    }
                    tensors.push((name, info));
                }
                Ok(RawHeader(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Reads which shard holds which tensor from a `model.safetensors.index.json`.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(path).map_err(|source| {
        let remedy = "check that the file is complete and readable";
        Error::io("read the index of the weights", path, remedy, source)
    })?;
    let index: Index = serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "an object with `weight_map`, the shard of each tensor",
        source,
    })?;
    for (tensor, shard) in &index.weight_map {
        // A shard lies beside its index: a path that leads elsewhere is not followed.
        if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
            return Err(header_error(
                path,
                format!("weight_map of `{tensor}`"),
                "a file name without a folder",
                shard,
            ));
        }
    }
    if index.weight_map.is_empty() {
        return Err(header_error(path, "weight_map", "at least one tensor", "none"));
    }
    Ok(index.weight_map)
}
