//! The hub's cache on the disk, in the layout of `huggingface_hub`, which shares it.
//!
//! `models--org--name/` has `blobs/HASH`, the contents; `refs/REVISION`, the commit that a branch or tag was at; and
//! `snapshots/COMMIT/FILE`, relative links to blobs. `.locks/models--org--name/HASH.lock` is locked by whoever fetches.

use crate::error::Error;
use crate::listing::Listing;
use crate::name::{Repository, is_commit};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ending of a blob that is being fetched.
const INCOMPLETE: &str = "incomplete";

/// How often a lock is tried that another holds.
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// Bytes of a file that names a commit, at most.
const MAX_REF_BYTES: u64 = 200;

/// The files of a repository in the cache.
#[derive(Debug, Clone)]
pub(crate) struct RepositoryCache {
    root: PathBuf,
    locks: PathBuf,
}

/// A blob that is this process's to fetch, until this value is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct BlobLock {
    /// Locked; unlocked by closing it.
    _file: File,
}

impl RepositoryCache {
    pub(crate) fn new(cache: &Path, repository: &Repository) -> Self {
        let folder = repository.folder();
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// The commit that `revision` was at when it was last asked for; none if its files are not there.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        let known = if is_commit(revision) {
            revision.to_owned()
        } else {
            let path = self.root.join("refs").join(revision);
            let small = path.metadata().is_ok_and(|data| data.len() <= MAX_REF_BYTES);
            small.then(|| fs::read_to_string(&path).ok())??.trim().to_owned()
        };
        (is_commit(&known) && self.snapshot(&known).is_dir()).then_some(known)
    }

    /// Remembers that `revision` is at `commit`.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), Error> {
        let path = self.root.join("refs").join(revision);
        if is_commit(revision) || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        write_whole(&path, commit)
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// What is remembered of the files of a commit.
    pub(crate) fn listing(&self, commit: &str) -> Option<Listing> {
        Listing::from_tree(commit, &fs::read(self.tree(commit)).ok()?)
    }

    /// Remembers the files of a commit, those too that are not fetched.
    pub(crate) fn remember(&self, listing: &Listing) -> Result<(), Error> {
        let path = self.tree(&listing.commit);
        match listing.to_tree().filter(|_| !path.exists()) {
            Some(text) => write_whole(&path, &text),
            None => Ok(()),
        }
    }

    fn tree(&self, commit: &str) -> PathBuf {
        self.root.join("trees").join(format!("{commit}.json"))
    }

    /// Where the contents of a file are.
    pub(crate) fn blob(&self, name: &str) -> PathBuf {
        self.root.join("blobs").join(name)
    }

    /// Where they are while they come.
    pub(crate) fn incomplete(&self, name: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{name}.{INCOMPLETE}"))
    }

    /// Waits until the blob is this process's to fetch; `waiting` is called once if another has it. The lock is the one
    /// that `huggingface_hub` takes. A file system without locks is told in the log; there, whatever two
    /// processes write is the same at the same place, and is checked when it is whole.
    pub(crate) fn lock(&self, name: &str, waiting: &mut dyn FnMut()) -> Result<BlobLock, Error> {
        make_folder(&self.locks)?;
        let path = self.locks.join(format!("{name}.lock"));
        let mut told = false;
        loop {
            let open =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = open.map_err(Error::io("open", &path))?;
            match file.try_lock() {
                // Other programs may remove the file when they are done: a lock on what is gone keeps nobody out.
                Ok(()) if is_at(&file, &path) => return Ok(BlobLock { _file: file }),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        waiting();
                    }
                    std::thread::sleep(LOCK_EVERY);
                }
                Err(TryLockError::Error(error)) => {
                    tracing::warn!("{}: this file system cannot lock ({error})", path.display());
                    return Ok(BlobLock { _file: file });
                }
            }
        }
    }

    /// Makes `path` of the snapshot of `commit` lead to a blob. Where there are no links, it becomes a copy.
    pub(crate) fn link(&self, commit: &str, path: &str, blob: &str) -> Result<PathBuf, Error> {
        let pointer = self.snapshot(commit).join(path);
        let own = with_ending(&pointer, &format!("{}.{INCOMPLETE}", std::process::id()));
        make_folder(parent(&pointer))?;
        // Up to the snapshot's folder, then up to the repository's.
        let up = "../".repeat(path.split('/').count() + 1);
        let make = || -> io::Result<()> {
            absent_is_fine(fs::remove_file(&own))?;
            if symlink(Path::new(&format!("{up}blobs/{blob}")), &own).is_err() {
                fs::copy(self.blob(blob), &own)?;
            }
            fs::rename(&own, &pointer)
        };
        make().map_err(Error::io("make the link", &pointer))?;
        Ok(pointer)
    }

    /// Removes a file of a snapshot, and the blob that it leads to.
    pub(crate) fn forget(&self, pointer: &Path) -> Result<(), Error> {
        let blob = fs::canonicalize(pointer).ok().filter(|blob| {
            self.root.canonicalize().is_ok_and(|root| blob.starts_with(root.join("blobs")))
        });
        for path in blob.iter().map(PathBuf::as_path).chain([pointer]) {
            absent_is_fine(fs::remove_file(path)).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("make the folder", path))
}

/// A removal of what is gone already is none to complain of.
pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a small file that others see whole or not at all, also where several write it.
fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    make_folder(parent(path))?;
    let own = with_ending(path, &format!("{}.{INCOMPLETE}", std::process::id()));
    let write = || fs::write(&own, text).and_then(|()| fs::rename(&own, path));
    write().map_err(Error::io("write", path))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

/// Whether an open file is still the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |data: io::Result<fs::Metadata>| data.ok().map(|data| (data.dev(), data.ino()));
    id(file.metadata()).is_some_and(|own| id(path.metadata()) == Some(own))
}

/// Where open files cannot be removed, they are.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}
