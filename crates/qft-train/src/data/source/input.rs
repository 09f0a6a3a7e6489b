//! The bytes of a data file as a stream, unpacked where it is packed: what it is is told by its first bytes.

use crate::data::progress::Tally;
use crate::error::{Context, Error, ErrorKind, Result, bail};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;

/// Endings of packed files.
pub(super) const PACKED: [&str; 3] = ["gz", "zst", "zstd"];

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The end of what begins a frame that holds no data, as `pzstd` writes one before each that does.
const ZSTD_SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];
const PARQUET: &[u8] = b"PAR1";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// The largest window of a Zstandard frame, as a power of two: 128 MiB, the most that `zstd` itself unpacks unasked.
const WINDOW_LOG: u32 = 27;

/// What the library says of a larger one.
const TOO_LARGE: ZSTD_ErrorCode = ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge;

/// Beginnings of files that are known but not read, and what to do about each.
const UNREADABLE: [(&[u8], &str); 6] = [
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
    (
        b"version https://git-lfs.github.com/spec/",
        "is a pointer that Git put in the place of a large file; fetch the file itself, as with `git lfs pull`",
    ),
];

/// What to do about a tar archive.
const A_TAR: &str = "is a tar archive, which is not read; unpack it first";

/// Where a tar archive says what it is, and how.
const TAR: (usize, &[u8]) = (257, b"ustar");

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
    let broken = |error| broken(path, error);
    let start = head(&mut packed, 8).map_err(broken)?;
    if start.starts_with(PARQUET) {
        let file = plain.map_err(broken)?;
        return Ok(Opened::Parquet(file));
    }
    let raw = Cursor::new(start.clone()).chain(packed);
    let mut bytes: Box<dyn BufRead + 'a> = match start {
        start if start.starts_with(GZIP) => {
            // Such files may be several, one after the other.
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw)))
        }
        start if is_zstd(&start) => Box::new(BufReader::new(Zstd::new(raw).map_err(broken)?)),
        _ => Box::new(raw),
    };
    let mut start = head(&mut bytes, (TAR.0 + TAR.1.len()) as u64).map_err(broken)?;
    let known = UNREADABLE.iter().find(|(known, _)| start.starts_with(known));
    let tar = start.get(TAR.0..).is_some_and(|mark| mark.starts_with(TAR.1));
    if let Some(what) = known.map(|(_, what)| *what).or(tar.then_some(A_TAR)) {
        bail!("{}: {what}", path.display());
    }
    if start.starts_with(PARQUET) {
        bytes.read_to_end(&mut start).map_err(broken)?;
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
            let count = count.map_err(|error| self.broken(error))?;
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
        broken(&self.path, error)
    }
}

fn broken(path: &Path, error: io::Error) -> Error {
    let what = match error.kind() {
        io::ErrorKind::Unsupported => "cannot be unpacked",
        _ => "cannot be unpacked or read; is it cut off? fetch it again",
    };
    Error::from(error).context(format!("{}: {what}", path.display())).of_kind(ErrorKind::Data)
}

fn is_zstd(start: &[u8]) -> bool {
    let skipped = start.first().is_some_and(|first| first >> 4 == 5);
    start.starts_with(ZSTD) || skipped && start[1..].starts_with(ZSTD_SKIPPED)
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

/// Zstandard frames, one after the other.
struct Zstd<R: BufRead>(zstd::Decoder<'static, R>);

impl<R: BufRead> Zstd<R> {
    /// Errors: there is no memory for the library.
    fn new(packed: R) -> io::Result<Self> {
        let mut frames = zstd::Decoder::with_buffer(packed)?;
        frames.window_log_max(WINDOW_LOG)?;
        Ok(Self(frames))
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| {
            let of_zstd = error.get_ref().and_then(|error| error.downcast_ref::<zstd::Error>());
            match of_zstd {
                Some(of_zstd) if of_zstd.is(TOO_LARGE) => {
                    let what = format!(
                        "it looks back more than {} MiB, so that reading it takes as much memory; unpack it first, as \
                         with `zstd -d --long=31`",
                        1 << (WINDOW_LOG - 20)
                    );
                    io::Error::new(io::ErrorKind::Unsupported, what)
                }
                _ => error,
            }
        })
    }
}
