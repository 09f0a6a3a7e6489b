//! The bytes of a data file as a stream, unpacked where it is packed: what it is is told by its first bytes.

use crate::data::progress::Tally;
use crate::error::{Context, Error, ErrorKind, Result, bail};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// Endings of packed files.
pub(super) const PACKED: [&str; 3] = ["gz", "zst", "zstd"];

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const PARQUET: &[u8] = b"PAR1";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 16;

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

/// A file that is read from its beginning to its end.
pub(super) struct Input<'a> {
    /// The file.
    pub(super) path: PathBuf,
    /// What is left of its bytes, unpacked.
    pub(super) bytes: Box<dyn BufRead + 'a>,
    /// Bytes of a byte order mark, which are left out.
    pub(super) skipped: u64,
}

/// What a file is by its first bytes.
pub(super) enum Opened<'a> {
    /// Text or JSON, without a byte order mark.
    Stream(Input<'a>),
    /// A Parquet file.
    Parquet(File),
    /// A Parquet file that was packed as a whole.
    PackedParquet(Vec<u8>),
}

/// Opens a file; `tally` is told how much of it is read.
///
/// Errors: it cannot be read or unpacked, or is of a kind that is not read.
pub(super) fn open<'a>(path: &Path, tally: &'a Tally<'_>) -> Result<Opened<'a>> {
    let file = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    let file = file.with_context(|| {
        format!(
            "{}: cannot be read; give the path of a text, JSON, CSV or Parquet file, \
             of a folder of such, or a pattern",
            path.display()
        )
    })?;
    let plain = file.try_clone();
    let mut packed = BufReader::with_capacity(BLOCK_BYTES, Counted { file, tally });
    let start = head(&mut packed, 8).with_context(|| broken(path))?;
    if start.starts_with(PARQUET) {
        let file = plain.with_context(|| broken(path))?;
        return Ok(Opened::Parquet(file));
    }
    let raw = Cursor::new(start.clone()).chain(packed);
    let mut bytes: Box<dyn BufRead + 'a> = match start {
        start if start.starts_with(GZIP) => {
            // Such files may be several, one after the other.
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw)))
        }
        start if start.starts_with(ZSTD) => Box::new(BufReader::new(Frames::Between(raw))),
        _ => Box::new(raw),
    };
    let mut start = head(&mut bytes, 8).with_context(|| broken(path))?;
    if let Some((_, what)) = UNREADABLE.iter().find(|(known, _)| start.starts_with(known)) {
        bail!("{}: {what}", path.display());
    }
    if start.starts_with(PARQUET) {
        bytes.read_to_end(&mut start).with_context(|| broken(path))?;
        return Ok(Opened::PackedParquet(start));
    }
    let skipped = if start.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    start.drain(..skipped);
    let bytes = Box::new(Cursor::new(start).chain(bytes));
    Ok(Opened::Stream(Input { path: path.to_path_buf(), bytes, skipped: skipped as u64 }))
}

impl Input<'_> {
    /// White space, and the first line with something on it.
    ///
    /// Errors: the file cannot be read.
    pub(super) fn beginning(&mut self) -> Result<Vec<u8>> {
        let mut beginning = Vec::new();
        loop {
            let start = beginning.len();
            let count = self.bytes.read_until(b'\n', &mut beginning);
            let count = count.with_context(|| broken(&self.path))?;
            if count == 0 || !beginning[start..].trim_ascii().is_empty() {
                return Ok(beginning);
            }
        }
    }

    /// Puts bytes back that were read last.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        let rest = std::mem::replace(&mut self.bytes, Box::new(io::empty()));
        self.bytes = Box::new(Cursor::new(bytes).chain(rest));
    }

    /// What to say where reading fails.
    pub(super) fn broken(&self, error: io::Error) -> Error {
        Error::from(error).context(broken(&self.path)).of_kind(ErrorKind::Data)
    }
}

fn broken(path: &Path) -> String {
    format!("{}: cannot be unpacked or read; is it cut off? fetch it again", path.display())
}

/// The next `count` bytes, or those that are left.
fn head(bytes: &mut dyn BufRead, count: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    bytes.take(count).read_to_end(&mut head)?;
    Ok(head)
}

/// A file of which it is told how much was read.
struct Counted<'a> {
    file: File,
    tally: &'a Tally<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(out)?;
        self.tally.add(count as u64);
        Ok(count)
    }
}

type Zstd<R> = ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>;

/// Zstandard frames, one after the other.
enum Frames<R: BufRead> {
    Between(R),
    Within(Box<Zstd<R>>),
    /// A frame could not be begun.
    Broken,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            *self = match std::mem::replace(self, Self::Broken) {
                Self::Broken => return Err(io::ErrorKind::InvalidData.into()),
                Self::Between(mut packed) => {
                    if packed.fill_buf()?.is_empty() {
                        *self = Self::Between(packed);
                        return Ok(0);
                    }
                    Self::Within(Box::new(Zstd::new(packed).map_err(io::Error::other)?))
                }
                Self::Within(mut frame) => {
                    let count = frame.read(out)?;
                    if count > 0 || out.is_empty() {
                        *self = Self::Within(frame);
                        return Ok(count);
                    }
                    Self::Between(frame.into_inner())
                }
            }
        }
    }
}
