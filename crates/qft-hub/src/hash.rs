//! The hash that the hub knows a file by: SHA-256 of large files, and Git's of small ones.

use crate::error::Error;
use qft_files::sha256_of_file;
use sha1::Digest;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// What is known of the contents of a file, as the name of its blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hash {
    /// SHA-256, in 64 hexadecimal digits.
    Sha256(String),
    /// SHA-1 of Git's header and the contents, in 40 hexadecimal digits.
    Git(String),
    /// A name that says nothing of the contents.
    Opaque(String),
}

impl Hash {
    /// From an `ETag`: `"…"` or `W/"…"`. None for what can be no name of a file.
    pub(crate) fn from_etag(etag: &str) -> Option<Self> {
        let name = etag.trim().trim_start_matches("W/").trim_matches('"');
        let hex = name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        match name.len() {
            64 if hex => Some(Self::Sha256(name.into())),
            40 if hex => Some(Self::Git(name.into())),
            1..=200 if plain && !name.starts_with('.') => Some(Self::Opaque(name.into())),
            _ => None,
        }
    }

    /// The name of the blob.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::Git(name) | Self::Opaque(name) => name,
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "Git hash",
            Self::Opaque(_) => "name",
        }
    }

    /// What a file has in the place of this hash, by reading it from the disk; the name itself if it says nothing.
    ///
    /// Errors: the file cannot be read.
    pub(crate) fn of_file(&self, path: &Path) -> Result<String, Error> {
        match self {
            Self::Sha256(_) => Ok(sha256_of_file(path)?),
            Self::Git(_) => git_hash_of_file(path).map_err(Error::io("read", path)),
            Self::Opaque(name) => Ok(name.clone()),
        }
    }
}

/// Git's hash of a file's contents.
fn git_hash_of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = sha1::Sha1::new();
    hash.update(format!("blob {}\0", file.metadata()?.len()));
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(count) => hash.update(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().iter().fold(String::with_capacity(40), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // A String takes everything.
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags() {
        let sha = "a0".repeat(32);
        assert_eq!(Hash::from_etag(&format!("\"{sha}\"")), Some(Hash::Sha256(sha)));
        let git = "0b".repeat(20);
        assert_eq!(Hash::from_etag(&format!("W/\"{git}\"")), Some(Hash::Git(git)));
        assert_eq!(Hash::from_etag("\"abc-1\""), Some(Hash::Opaque("abc-1".into())));
        for wrong in ["", "\"\"", "\"../x\"", "\"a/b\"", "\".a\"", "\"a b\""] {
            assert_eq!(Hash::from_etag(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hashes_of_git() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // As `git hash-object` has them.
        for (text, expected) in [
            ("", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
            ("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
        ] {
            std::fs::write(&path, text).unwrap();
            let hash = Hash::Git(expected.into());
            assert_eq!(hash.of_file(&path).unwrap(), expected);
        }
    }
}
