//! A lock on a folder, so that two runs do not write into it at the same time.

use crate::error::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file that is locked. It stays when the lock is given back, and means nothing then.
pub const LOCK_FILE: &str = ".qft.lock";

/// The most that is read of a lock file.
const MAX_HOLDER_BYTES: u64 = 200;

/// A folder that is this process's to write in until this value is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    dir: PathBuf,
    /// Locked; unlocked by closing it.
    _file: File,
}

impl FolderLock {
    /// Locks an existing folder by its file [`LOCK_FILE`], without waiting.
    ///
    /// On a file system that has no locks a warning is logged, and nothing is locked.
    ///
    /// Errors: [`Error::InUse`] if another process, or another value in this one, has the folder; [`Error::Io`]
    /// if the file cannot be opened or written.
    pub fn acquire(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(LOCK_FILE);
        let io = |action| Error::io(action, &path, "check the folder's permissions and the disk");
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse { dir: dir.to_path_buf(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "{}: this file system cannot lock ({error}): nothing keeps two runs from writing here",
                    path.display()
                );
            }
        }
        let name = format!("process {} on {} since {}\n", std::process::id(), host(), now());
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(name.as_bytes())
        };
        write(&mut file).map_err(io("write"))?;
        Ok(Self { dir: dir.to_path_buf(), _file: file })
    }

    /// Looks whether another has the folder, and changes nothing. A folder that does not exist is free.
    ///
    /// Errors: [`Error::InUse`].
    pub fn probe(dir: &Path) -> Result<(), Error> {
        let Ok(mut file) = File::open(dir.join(LOCK_FILE)) else { return Ok(()) };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                Err(Error::InUse { dir: dir.to_path_buf(), holder: holder(&mut file) })
            }
            // Unlocked again as the file is closed. Where there are no locks, none can be found.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }

    /// The folder, as it was named.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// What the holder wrote, as far as it can be read and shown.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.take(MAX_HOLDER_BYTES).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text.lines().next().unwrap_or_default().replace(char::is_control, " ");
    match read {
        Ok(count) if count > 0 => line,
        _ => "it does not say which".into(),
    }
}

fn host() -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname"));
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "an unnamed host".into())
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    utc(since.as_secs())
}

/// A time as people write it, from seconds since 1970.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last of its year; 146,097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let day = day - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again() {
        let dir = tempfile::tempdir().unwrap();
        FolderLock::probe(dir.path()).unwrap();
        assert!(!dir.path().join(LOCK_FILE).exists(), "a look leaves nothing");
        let lock = FolderLock::acquire(dir.path()).unwrap();
        assert!(matches!(FolderLock::probe(dir.path()), Err(Error::InUse { .. })));
        let error = FolderLock::acquire(dir.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        let (text, pid) = (error.to_string(), format!("(process {} on ", std::process::id()));
        for part in [dir.path().to_str().unwrap(), "is in use by another run", &pid, " since 2"] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        drop(lock);
        FolderLock::probe(dir.path()).unwrap();
        // What a longer text left behind is overwritten.
        std::fs::write(dir.path().join(LOCK_FILE), "x".repeat(1000)).unwrap();
        let lock = FolderLock::acquire(dir.path()).unwrap();
        assert_eq!(lock.dir(), dir.path());
        let text = std::fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
        assert!(text.starts_with("process ") && text.lines().count() == 1, "{text}");
        assert!(FolderLock::acquire(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn times_of_known_days() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
