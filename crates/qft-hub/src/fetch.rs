//! Fetching files into the cache: gone on with where it was left, checked, and under their names only when whole.

use crate::cache::{RepositoryCache, absent_is_fine, make_folder};
use crate::client::{Answer, Asked, Client, Failure};
use crate::error::Error;
use crate::hash::Hash;
use crate::listing::FileFacts;
use crate::name::Repository;
use crate::notice::{Notice, Watch};
use crate::patience::{Patience, with_patience};
use crate::settings::Retries;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes read at a time.
const BLOCK_BYTES: usize = 128 << 10;

/// Bytes between two notices of progress.
const NOTICE_BYTES: u64 = 4 << 20;

/// Fetches files of one commit.
pub(crate) struct Fetcher<'a, 'w> {
    pub(crate) client: &'a Client,
    pub(crate) retries: Retries,
    pub(crate) cache: &'a RepositoryCache,
    pub(crate) repository: &'a Repository,
    pub(crate) revision: &'a str,
    pub(crate) commit: &'a str,
    pub(crate) watch: &'a mut Watch<'w>,
    /// Bytes of files that are there.
    pub(crate) done: u64,
    /// Bytes of all files, if that is known.
    pub(crate) bytes: Option<u64>,
}

/// A file that is being fetched.
struct Target<'f> {
    path: &'f str,
    url: String,
    size: Option<u64>,
    hash: Hash,
    incomplete: PathBuf,
}

/// How far a file has come.
enum Came {
    /// To the end, as the server has it.
    Whole,
    /// What was there before is of no use: the server has nothing from there on.
    Useless,
}

impl Fetcher<'_, '_> {
    /// Whether a file is in the snapshot, and as long as it should be. One of another length is removed.
    pub(crate) fn has(&mut self, path: &str, facts: &FileFacts) -> Result<bool, Error> {
        let pointer = self.cache.snapshot(self.commit).join(path);
        let Ok(data) = pointer.metadata() else { return Ok(false) };
        let Some(expected) = facts.size.filter(|&size| size != data.len()) else { return Ok(true) };
        let why = format!("it has {} bytes instead of {expected}", data.len());
        (self.watch)(&Notice::Damaged { file: &pointer, why: &why });
        self.cache.forget(&pointer)?;
        Ok(false)
    }

    /// Fetches a file that is not in the snapshot.
    pub(crate) fn fetch(&mut self, path: &str, facts: &FileFacts) -> Result<PathBuf, Error> {
        let url = self.client.file(self.repository, self.commit, path);
        let (size, hash) = match &facts.hash {
            Some(hash) => (facts.size, hash.clone()),
            None => self.facts_of(path, &url, facts.size)?,
        };
        let watch = &mut *self.watch;
        let lock = self.cache.lock(hash.name(), &mut || watch(&Notice::Waiting { file: path }))?;
        let blob = self.cache.blob(hash.name());
        let there = blob.metadata().is_ok_and(|data| size.is_none_or(|size| size == data.len()));
        if !there {
            let incomplete = self.cache.incomplete(hash.name());
            make_folder(incomplete.parent().unwrap_or(&incomplete))?;
            let target = Target { path, url, size, hash: hash.clone(), incomplete };
            self.bring(&target)?;
            let move_into_place = || -> io::Result<()> {
                File::open(&target.incomplete)?.sync_all()?;
                fs::rename(&target.incomplete, &blob)
            };
            move_into_place().map_err(Error::io("move into place", &blob))?;
        }
        self.done += blob.metadata().map_or(0, |data| data.len());
        let pointer = self.cache.link(self.commit, path, hash.name())?;
        drop(lock);
        (self.watch)(&Notice::Progress { file: path, done: self.done, bytes: self.bytes });
        Ok(pointer)
    }

    fn asked<'f>(&self, target: &Target<'f>) -> Asked<'f>
    where
        Self: 'f,
    {
        Asked { repository: self.repository, revision: self.revision, what: target.path }
    }

    /// Size and hash of a file that the description of the repository says nothing about.
    fn facts_of(
        &mut self,
        path: &str,
        url: &str,
        size: Option<u64>,
    ) -> Result<(Option<u64>, Hash), Error> {
        let asked = Asked { repository: self.repository, revision: self.revision, what: path };
        let client = self.client;
        let head = || client.head(url, &asked);
        let answer = with_patience(client, &asked, self.retries, &mut *self.watch, head)?;
        let Some(hash) = answer.etag.as_deref().and_then(Hash::from_etag) else {
            let problem = "no ETag that could name a file".to_owned();
            return Err(client.wrong(&asked, problem));
        };
        if matches!(hash, Hash::Opaque(_)) {
            tracing::warn!(
                "{path} of {}: the server gives no hash of it, so its length alone is checked",
                self.repository
            );
        }
        Ok((size.or(answer.size), hash))
    }

    /// Brings all of a file to where incomplete ones are, and checks it.
    fn bring(&mut self, target: &Target<'_>) -> Result<(), Error> {
        let mut patience = Patience::new(self.retries);
        let mut resumed = length(&target.incomplete) > 0;
        loop {
            let before = length(&target.incomplete);
            let came = match target.size == Some(before) {
                true => Ok(Came::Whole),
                false => self.stream(target, before),
            };
            match came {
                Ok(Came::Whole) => match self.check(target) {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        remove(&target.incomplete)?;
                        if !std::mem::take(&mut resumed) {
                            return Err(error);
                        }
                        // What was there before may be to blame: all of it once more.
                        let why = "what an earlier try left of it does not fit";
                        (self.watch)(&Notice::Damaged { file: &target.incomplete, why });
                    }
                },
                Ok(Came::Useless) => {
                    remove(&target.incomplete)?;
                    let why = "the server has nothing from there on".to_owned();
                    let failure = Failure::Passing { why, status: None, wait: None };
                    self.wait(failure, target, &mut patience)?;
                }
                Err(failure) => {
                    let now = length(&target.incomplete);
                    if now > before {
                        patience = Patience::new(self.retries);
                    }
                    resumed |= now > 0;
                    self.wait(failure, target, &mut patience)?;
                }
            }
        }
    }

    /// Writes what comes from byte `start` on behind what is there. A server that begins at the start all the same is
    /// followed there: the same bytes are written once more.
    fn stream(&mut self, target: &Target<'_>, start: u64) -> Result<Came, Failure> {
        let answer = self.client.get(&target.url, start, &self.asked(target))?;
        let place = match answer.status {
            206 => match begins_at(&answer) {
                Some(place) if place <= start => place,
                _ => {
                    let problem = "another part of the file than was asked for".to_owned();
                    return Err(Failure::Final(self.client.wrong(&self.asked(target), problem)));
                }
            },
            416 => return Ok(Came::Useless),
            _ => 0,
        };
        let announced = answer.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let write = |error| Failure::Final(self.write_error(target, error));
        let mut file = open(&target.incomplete, place).map_err(write)?;
        let (mut reader, mut block) = (answer.into_reader(), vec![0; BLOCK_BYTES]);
        let (mut at, mut told) = (place, place);
        loop {
            let count = match reader.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(crate::client::passing(&ureq::Error::from(error))),
            };
            file.write_all(&block[..count])
                .map_err(|error| Failure::Final(self.write_error(target, error)))?;
            at += count as u64;
            if target.size.is_some_and(|size| at > size) {
                // No more of it: there is no telling how much would come.
                return Ok(Came::Whole);
            }
            if at - told >= NOTICE_BYTES {
                told = at;
                let (file, done) = (target.path, self.done + at);
                (self.watch)(&Notice::Progress { file, done, bytes: self.bytes });
            }
        }
        if announced.is_some_and(|length| at - place < length) {
            let why = "the connection ended early".to_owned();
            return Err(Failure::Passing { why, status: None, wait: None });
        }
        Ok(Came::Whole)
    }

    /// Whether what is on the disk is what was announced.
    fn check(&self, target: &Target<'_>) -> Result<(), Error> {
        let (endpoint, repository) = (self.client.endpoint(), self.repository.to_string());
        let (file, got) = (target.path.to_owned(), length(&target.incomplete));
        if let Some(expected) = target.size.filter(|&size| size != got) {
            return Err(Error::Length { endpoint, repository, file, expected, got });
        }
        let (got, algorithm) = (target.hash.of_file(&target.incomplete)?, target.hash.algorithm());
        let expected = target.hash.name().to_owned();
        if got != expected {
            return Err(Error::Hash {
                endpoint: endpoint.into(),
                repository: repository.into(),
                file: file.into(),
                algorithm,
                expected: expected.into(),
                got: got.into(),
            });
        }
        Ok(())
    }

    fn wait(
        &mut self,
        failure: Failure,
        target: &Target<'_>,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        let asked = self.asked(target);
        patience.after(failure, self.client, &asked, &mut *self.watch)
    }

    fn write_error(&self, target: &Target<'_>, error: io::Error) -> Error {
        let folder = target.incomplete.parent().unwrap_or(&target.incomplete);
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull {
                file: target.path.to_owned(),
                missing: target.size.unwrap_or(0).saturating_sub(length(&target.incomplete)),
                folder: folder.to_path_buf(),
            },
            _ => Error::Io { action: "write", path: target.incomplete.clone(), source: error },
        }
    }
}

/// Bytes of a file; none of one that is not there.
fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |data| data.len())
}

fn remove(path: &Path) -> Result<(), Error> {
    absent_is_fine(fs::remove_file(path)).map_err(Error::io("remove", path))
}

/// Opens a file to write from `place` on, and keeps the rest.
fn open(path: &Path, place: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.seek(SeekFrom::Start(place))?;
    Ok(file)
}

/// Where a part of a file begins, as `Content-Range` says.
fn begins_at(answer: &Answer) -> Option<u64> {
    let range = answer.header("content-range")?.trim().strip_prefix("bytes")?.trim_start();
    range.split_once('-')?.0.parse().ok()
}
