//! The contents of files, unpacked where they are packed: what they are is told by their first bytes.

use crate::error::{Context, Result, bail};
use std::io::Read;
use std::path::Path;

/// Endings of packed files.
pub(super) const PACKED: [&str; 3] = ["gz", "zst", "zstd"];

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Beginnings of files that are known but not read, and what to do about each.
const UNREADABLE: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "is a zip archive, which is not read; unpack it first"),
    (
        b"ARROW1",
        "is an Arrow file, which is not read; convert it, as with `datasets.Dataset.to_parquet`",
    ),
    (
        b"\xff\xff\xff\xff",
        "is an Arrow stream, which is not read; convert it, as with `datasets.Dataset.to_parquet`",
    ),
    (b"BZh", "is packed by bzip2, which is not read; unpack it first"),
    (b"\xfd7zXZ", "is packed by xz, which is not read; unpack it first"),
];

/// Reads a file.
///
/// Errors: it cannot be read or unpacked, or is of a kind that is not read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let file = path.display();
    let bytes = std::fs::read(path).with_context(|| {
        format!(
            "{file}: cannot be read; give the path of a text, JSON, CSV or Parquet file, \
             of a folder of such, or a pattern"
        )
    })?;
    let broken = || format!("{file}: cannot be unpacked; is it cut off? fetch it again");
    let bytes = match bytes {
        packed if packed.starts_with(GZIP) => {
            let mut out = Vec::new();
            // Such files may be several, one after the other.
            let mut gzip = flate2::read::MultiGzDecoder::new(packed.as_slice());
            gzip.read_to_end(&mut out).with_context(broken)?;
            out
        }
        packed if packed.starts_with(ZSTD) => unpack_zstd(&packed).with_context(broken)?,
        plain => plain,
    };
    if let Some((_, what)) = UNREADABLE.iter().find(|(start, _)| bytes.starts_with(start)) {
        bail!("{file}: {what}");
    }
    Ok(bytes)
}

fn unpack_zstd(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut rest, mut out) = (packed, Vec::new());
    while !rest.is_empty() {
        let decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest);
        let mut decoder = decoder.map_err(std::io::Error::other)?;
        decoder.read_to_end(&mut out)?;
    }
    Ok(out)
}
