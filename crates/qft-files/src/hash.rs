//! SHA-256 of files and streams: whether data is the same as it was.

use crate::error::Error;
use sha2::Digest;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

/// Bytes read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// A SHA-256 of bytes that come in pieces; also a [`Write`], for streams.
#[derive(Debug, Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// The hash of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes, as 64 hexadecimal digits in lower case.
    pub fn hex(self) -> String {
        self.0.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // A String takes everything.
            text
        })
    }
}

impl Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hash of a file's bytes, in hexadecimal. The file is read in blocks, never as a whole.
///
/// Errors: [`Error::Io`].
pub fn sha256_of_file(path: &Path) -> Result<String, Error> {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let (mut hash, mut block) = (Sha256::new(), vec![0; BLOCK_BYTES]);
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok(hash.hex()),
                Ok(count) => hash.update(&block[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    read().map_err(Error::io("read", path, "check that the file exists and is readable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let million = vec![b'a'; 1_000_000];
        let cases: [(&[u8], &str); 3] = [
            (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(sha256_of_file(&path).unwrap(), expected);
            let mut stream = Sha256::new();
            stream.write_all(bytes).unwrap();
            assert_eq!(stream.hex(), expected);
        }
        let error = sha256_of_file(&dir.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
