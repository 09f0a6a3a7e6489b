//! What is told while files are looked for and fetched.

use std::path::Path;
use std::time::Duration;

/// Something that a user may want to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The server could not be asked, so the cache is used as it is.
    CacheOnly {
        /// `org/name`.
        repository: &'a str,
        /// The commit that the cache has.
        commit: &'a str,
        /// Why the server could not be asked.
        why: &'a str,
    },
    /// A branch or tag is at another commit than the cache had.
    Moved {
        /// `org/name`.
        repository: &'a str,
        /// The branch or tag.
        revision: &'a str,
        /// The commit before.
        from: &'a str,
        /// The commit now.
        to: &'a str,
    },
    /// Files are fetched.
    Begins {
        /// `org/name`.
        repository: &'a str,
        /// The commit.
        commit: &'a str,
        /// How many files.
        files: usize,
        /// Bytes of all of them; absent if the server does not say.
        bytes: Option<u64>,
    },
    /// Bytes have come.
    Progress {
        /// The file that they are of.
        file: &'a str,
        /// Bytes of all files that are there.
        done: u64,
        /// Bytes of all files; absent if the server does not say.
        bytes: Option<u64>,
    },
    /// A request failed and is made again.
    Again {
        /// The file, or what else was asked for, and of which repository.
        what: &'a str,
        /// What failed.
        why: &'a str,
        /// What is waited.
        pause: Duration,
    },
    /// A file in the cache is not what it should be, and is fetched anew.
    Damaged {
        /// The file.
        file: &'a Path,
        /// What is wrong.
        why: &'a str,
    },
    /// Another process is fetching a file; this one waits.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// All files are there.
    Ends,
}

/// Who is told.
pub type Watch<'a> = dyn FnMut(&Notice<'_>) + 'a;
