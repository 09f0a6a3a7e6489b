//! Encoded data of earlier runs, in files.

use super::documents::{self, Documents};
use crate::error::{Context, Result};
use crate::options::CacheOptions;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ending of the files.
const ENDING: &str = ".documents";

/// A file of another process that is this old is not being written any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of encoded data, of limited size. Processes share it: a file appears whole, under a name of its own, and one
/// that is removed stays readable for who has it open.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
}

impl Cache {
    /// The cache that is asked for, if any. One that was not and cannot be made is done without, which is told.
    ///
    /// Errors: the folder that was asked for cannot be made.
    pub fn of(options: &CacheOptions) -> Result<Option<Self>> {
        let Some(folder) = &options.folder else { return Ok(None) };
        match Self::open(folder, options.limit_bytes) {
            Err(error) if !options.asked => {
                tracing::warn!("{error:#}; encoded data stays in memory");
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// The cache in `folder`, which is made if it is missing.
    fn open(folder: &Path, limit_bytes: u64) -> Result<Self> {
        let folder = folder.join("data");
        fs::create_dir_all(&folder).with_context(|| {
            format!(
                "--cache: {} cannot be made; give another folder, or --no-cache",
                folder.display()
            )
        })?;
        Ok(Self { folder, limit_bytes })
    }

    /// The documents that were stored under `key`, if they are there and whole.
    pub(super) fn get(&self, key: &str) -> Option<Documents> {
        let mut found = self.files().into_iter().filter(|file| file.key() == Some(key));
        found.find_map(|file| {
            let documents = documents::open(&file.path)
                .inspect_err(|error| tracing::warn!("{error:#}; it is encoded again"))
                .ok()?;
            // That it was used says what to keep; a cache of others may not be writable.
            let touched = File::options().append(true).open(&file.path);
            let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
            Some(documents)
        })
    }

    /// A new file for what belongs to `key`.
    pub(super) fn place(&self, key: &str) -> PathBuf {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.folder.join(format!("{key}-{now:x}-{:x}{ENDING}", std::process::id()))
    }

    /// Removes what was used longest ago, until the rest is within the limit, and what other processes left unfinished.
    pub(super) fn trim(&self) {
        let mut files = self.files();
        files.sort_by_key(|file| std::cmp::Reverse(file.used));
        let mut total = 0;
        for (i, file) in files.iter().enumerate() {
            total += file.bytes;
            let old = file.used.elapsed().is_ok_and(|age| age > ABANDONED);
            let goes = if file.key().is_some() { i > 0 && total > self.limit_bytes } else { old };
            if goes && let Err(error) = fs::remove_file(&file.path) {
                tracing::warn!("cannot remove {}: {error}", file.path.display());
            }
        }
    }

    fn files(&self) -> Vec<Stored> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let stored = entries.filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let used = metadata.modified().ok()?;
            Some(Stored { path: entry.path(), bytes: metadata.len(), used })
        });
        stored.collect()
    }
}

/// A file of the cache.
struct Stored {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Stored {
    /// What it was stored under; absent for one that is not finished.
    fn key(&self) -> Option<&str> {
        let name = self.path.file_name()?.to_str()?;
        name.strip_suffix(ENDING)?.rsplitn(3, '-').nth(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DocumentWriter;

    fn put(cache: &Cache, key: &str, token: u32) -> PathBuf {
        let place = cache.place(key);
        let mut writer = DocumentWriter::in_file(100, 8, &place).unwrap();
        writer.push(&[1, token], |_| true).unwrap();
        writer.finish().unwrap();
        place
    }

    #[test]
    fn what_was_stored_is_found_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("a/b"), 1 << 20).unwrap();
        assert!(cache.get("k").is_none());
        let place = put(&cache, "k", 7);
        put(&cache, "kk", 8);
        let target = |key| cache.get(key).map(|found| found.get(0).unwrap().targets().next());
        assert_eq!((target("k"), target("kk"), target("x")), (Some(Some(7)), Some(Some(8)), None));
        // Damaged, it is not found; a whole one beside it is.
        let bytes = fs::read(&place).unwrap();
        fs::write(&place, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(target("k"), None);
        put(&cache, "k", 9);
        assert_eq!(target("k"), Some(Some(9)));
    }

    #[test]
    fn what_was_used_last_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 0).unwrap();
        let places: Vec<PathBuf> = ["a", "b", "c"].iter().map(|key| put(&cache, key, 1)).collect();
        let partial = cache.place("d").with_extension("documents.partial");
        fs::write(&partial, "x").unwrap();
        for (age, place) in
            [(30, &places[0]), (20, &places[1]), (10, &places[2]), (100_000, &partial)]
        {
            let then = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(place).unwrap().set_modified(then).unwrap();
        }
        let open = cache.get("a").unwrap();
        cache.trim();
        assert!(cache.get("a").is_some() && cache.get("b").is_none() && !partial.exists());
        put(&cache, "e", 1);
        cache.trim();
        // It is gone for others, and still here.
        assert!(cache.get("a").is_none() && open.get(0).is_ok());
    }
}
