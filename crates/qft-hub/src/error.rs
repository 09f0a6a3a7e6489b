//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong between a name and its files. Each message names the place and a remedy; none holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The token has characters that no header can have.
    #[error(
        "the token for the hub (HF_TOKEN, or the file that `hf auth login` writes) has characters that no token has; set it anew"
    )]
    Token,
    /// Nothing says where the cache is.
    #[error("there is no home folder for the hub's cache; set HF_HOME to a folder")]
    NoHome,
    /// The certificates cannot be read.
    #[error("SSL_CERT_FILE: {}: {problem}; give a file of certificates in PEM, or unset it", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The server cannot be reached.
    #[error(
        "cannot reach {endpoint} for {what}: {why}; check the network and HF_ENDPOINT, or fetch it elsewhere and copy the cache"
    )]
    Unreachable {
        /// The server.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// Why, in the words of the system.
        why: String,
    },
    /// The server fails again and again.
    #[error("{endpoint} answers {status} to {what}{message}, again and again; try later")]
    Failing {
        /// The server.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What it says about it.
        message: String,
    },
    /// The repository does not exist, or is not shown.
    #[error(
        "{endpoint} has no {kind} {repository} that {reader} may see; check the name; a private one needs {need}"
    )]
    NoRepository {
        /// The server.
        endpoint: String,
        /// What was asked for: a model or data set.
        kind: &'static str,
        /// `org/name`.
        repository: String,
        /// Who asks.
        reader: &'static str,
        /// What is needed to see it.
        need: &'static str,
    },
    /// The conditions of the repository were not accepted.
    #[error(
        "{repository} is gated{message}; accept its conditions at {endpoint}/{path}, then give a token of that account in HF_TOKEN, or log in with `hf auth login`"
    )]
    Gated {
        /// The server.
        endpoint: String,
        /// `org/name`.
        repository: String,
        /// Its page.
        path: String,
        /// What the server says about it.
        message: String,
    },
    /// The token is not accepted.
    #[error(
        "{endpoint} does not accept the token for {what} ({status}{message}); make a new one at {endpoint}/settings/tokens and set HF_TOKEN, or log in with `hf auth login`"
    )]
    Unauthorized {
        /// The server.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What it says about it.
        message: String,
    },
    /// The branch, tag or commit does not exist.
    #[error(
        "{repository} has no branch, tag or commit `{revision}`; leave out @{revision}, or give one that {endpoint}/{path} shows"
    )]
    NoRevision {
        /// The server.
        endpoint: String,
        /// `org/name`.
        repository: String,
        /// Its page.
        path: String,
        /// What was asked for.
        revision: String,
    },
    /// The server answers something that cannot be used.
    #[error(
        "{endpoint} answers {what} with {problem}; is it a server of the hub? check HF_ENDPOINT, and whether a proxy answers instead"
    )]
    Answer {
        /// The server.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The cache lacks what is asked for, and nothing may be fetched.
    #[error("{repository}@{revision} is not in the cache {} ({why}), and {offline}; fetch it once with network, as with `hf download {repository}`", cache.display())]
    NotCached {
        /// `org/name`.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// The cache.
        cache: PathBuf,
        /// What is missing.
        why: String,
        /// Why nothing is fetched.
        offline: String,
    },
    /// The repository holds no model in safetensors files.
    #[error("{repository} has no {missing} (it has {found}); {remedy}")]
    NoModel {
        /// `org/name`.
        repository: String,
        /// What is missing.
        missing: &'static str,
        /// What it has instead.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The data files of a name cannot be told, or there are none.
    #[error("{name}: {problem}")]
    NoData {
        /// As it was given.
        name: String,
        /// What is wrong, what there is, and what to do.
        problem: String,
    },
    /// A file does not have the hash that the server announced.
    #[error(
        "{file} of {repository}: the {algorithm} of what came is {got}, expected {expected}; it was removed; try again, and if it stays so, do not trust {endpoint}"
    )]
    Hash {
        /// The server.
        endpoint: Box<str>,
        /// `org/name`.
        repository: Box<str>,
        /// The file.
        file: Box<str>,
        /// Which hash.
        algorithm: &'static str,
        /// What was announced.
        expected: Box<str>,
        /// What came.
        got: Box<str>,
    },
    /// A file does not have the length that the server announced.
    #[error(
        "{file} of {repository}: {got} bytes came, expected {expected}; it was removed; try again, and if it stays so, do not trust {endpoint}"
    )]
    Length {
        /// The server.
        endpoint: String,
        /// `org/name`.
        repository: String,
        /// The file.
        file: String,
        /// What was announced.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The disk is full.
    #[error("no space for {file}: {missing} bytes of it are still to come, and {} is full; free that much, or set HF_HUB_CACHE to a folder on another disk; what has come is kept", folder.display())]
    DiskFull {
        /// The file.
        file: String,
        /// Bytes that are missing.
        missing: u64,
        /// Where it is written.
        folder: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}; check the permissions of the hub's cache, or set HF_HUB_CACHE to another folder", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason the system gives.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read again to be checked.
    #[error(transparent)]
    Files(#[from] qft_files::Error),
}

impl Error {
    /// Makes [`Error::Io`] of a reason; for `map_err`.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    /// Whether the server is not there, rather than that it refuses.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failing { .. })
    }
}
