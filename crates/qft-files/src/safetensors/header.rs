//! Headers of safetensors files. Nothing in them is believed unchecked.

use super::{Dtype, MAX_DIMENSIONS, MAX_HEADER_BYTES, PREFIX_BYTES, tensor_bytes};
use crate::error::Error;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A tensor as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Position of the first byte in the file.
    pub start: u64,
    /// Bytes of all elements.
    pub bytes: u64,
}

/// Reads and checks the header of `file`: sizes follow from shapes, data regions lie in the file without gap or
/// overlap, and the last ends where the file does. Gives the tensors in the order of their data.
///
/// Memory: a few times the bytes of the header, all of which are in the file; no number in it decides how much is allocated.
pub(super) fn read(
    path: &Path,
    file: &File,
    remedy: &'static str,
) -> Result<Vec<StoredTensor>, Error> {
    let header_error = |what: String, expected: String, got: String| Error::Header {
        file: path.to_path_buf(),
        what,
        expected,
        got,
        remedy,
    };
    let io = |source| Error::io("read the header of", path, "check that it is readable")(source);
    let file_bytes = file.metadata().map_err(io)?.len();
    if file_bytes < PREFIX_BYTES {
        let got = format!("{file_bytes} bytes");
        return Err(header_error("length of the file".into(), "8 bytes or more".into(), got));
    }
    let mut prefix = [0; PREFIX_BYTES as usize];
    file.read_exact_at(&mut prefix, 0).map_err(io)?;
    let header_bytes = u64::from_le_bytes(prefix);
    let limit = MAX_HEADER_BYTES.min(file_bytes - PREFIX_BYTES);
    if header_bytes > limit {
        let expected = format!("at most {limit} bytes in a file of {file_bytes}");
        return Err(header_error(
            "length of the header".into(),
            expected,
            header_bytes.to_string(),
        ));
    }
    let mut text = vec![0; header_bytes as usize];
    file.read_exact_at(&mut text, PREFIX_BYTES).map_err(io)?;
    let RawHeader(mut raw) = serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        expected: "a safetensors header with type, shape and offsets of each tensor",
        remedy,
        source,
    })?;
    drop(text);
    raw.sort_by_key(|(_, info)| info.data_offsets);

    let data = PREFIX_BYTES + header_bytes;
    let mut end = 0;
    let mut tensors = Vec::with_capacity(raw.len());
    for (name, info) in raw {
        let begin = end;
        end = check_region(&name, &info, begin)
            .map_err(|(what, expected, got)| header_error(what, expected, got))?;
        let needed = data.saturating_add(end);
        if needed > file_bytes {
            return Err(Error::Truncated {
                file: path.to_path_buf(),
                tensor: name,
                expected: needed,
                got: file_bytes,
                remedy,
            });
        }
        let RawInfo { dtype, shape: Shape(shape), .. } = info;
        let (start, bytes) = (data + begin, end - begin);
        tensors.push(StoredTensor { name, dtype, shape, start, bytes });
    }
    if data + end != file_bytes {
        let expected = format!("{} bytes, where the last tensor ends", data + end);
        return Err(header_error("length of the file".into(), expected, file_bytes.to_string()));
    }
    Ok(tensors)
}

/// Checks one tensor's region, which must begin at `begin`; returns its end, or what is wrong, what is expected,
/// and what is there.
fn check_region(name: &str, info: &RawInfo, begin: u64) -> Result<u64, (String, String, String)> {
    let ((start, end), Shape(shape)) = (info.data_offsets, &info.shape);
    if start != begin || end < start {
        let expected = format!("a region from {begin}");
        return Err((format!("data_offsets of `{name}`"), expected, format!("{start}..{end}")));
    }
    let expected = match tensor_bytes(info.dtype, shape) {
        Some(bytes) if bytes == end - start => return Ok(end),
        Some(bytes) => format!("{bytes} bytes for {shape:?} of {:?}", info.dtype),
        None => format!("a shape that fits 64 bits and whole bytes, not {shape:?}"),
    };
    Err((format!("size of `{name}`"), expected, format!("{} bytes", end - start)))
}

/// What the header says of a tensor.
#[derive(Deserialize)]
struct RawInfo {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A shape of few dimensions, whatever the header holds.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_DIMENSIONS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if sizes.len() == MAX_DIMENSIONS {
                        return Err(A::Error::invalid_length(sizes.len() + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// The header's tensors; a name that occurs twice is an error, where a map would keep the last.
struct RawHeader(Vec<(String, RawInfo)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut tensors: Vec<(String, RawInfo)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info = map
                        .next_value()
                        .map_err(|error| A::Error::custom(format!("tensor `{name}`: {error}")))?;
                    tensors.push((name, info));
                }
                tensors.sort_by(|a, b| a.0.cmp(&b.0));
                if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    return Err(A::Error::custom(format!("tensor `{}` occurs twice", pair[0].0)));
                }
                Ok(RawHeader(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
