//! The system calls of everything that writes, at one place, where a test can stop them.

use crate::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to do when a file cannot be written; nothing was changed then.
pub(crate) const WRITE_REMEDY: &str =
    "free space on the disk or choose another output folder; what was there before is unchanged";

/// One system call that changes the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A new file is created.
    Create(&'a Path),
    /// A block is written to a file.
    Write(&'a Path),
    /// A file's data is brought to the disk.
    Sync(&'a Path),
    /// A folder is made.
    MakeFolder(&'a Path),
    /// A folder's names are brought to the disk.
    SyncFolder(&'a Path),
    /// A file or folder gets another name.
    Rename(&'a Path, &'a Path),
    /// A file is removed.
    RemoveFile(&'a Path),
    /// An empty folder is removed.
    RemoveFolder(&'a Path),
}

type Watcher = dyn Fn(Step<'_>) -> io::Result<()> + Send + Sync;

/// The disk as writers see it. [`Disk::default`] is the real one.
#[derive(Clone, Default)]
pub struct Disk {
    watcher: Option<Arc<Watcher>>,
}

/// Looks whether files can be made in a folder, or if it does not exist, in the one that it would be made in. Leaves nothing.
///
/// Errors: [`Error::Io`].
pub fn check_writable(dir: &Path) -> Result<(), Error> {
    // A relative path begins where the process is.
    let named = |place: &Path| !place.as_os_str().is_empty();
    let mut places = dir.ancestors().map(|place| if named(place) { place } else { Path::new(".") });
    let Some(there) = places.find(|place| place.is_dir()) else { return Ok(()) };
    let remedy = "choose another folder, or change its permissions";
    tempfile::tempfile_in(there).map_err(Error::io("make a file in", there, remedy))?;
    Ok(())
}

impl Disk {
    /// The real disk, where `watcher` is asked before every step; an error of its takes the place of the step.
    ///
    /// A test thus stops a writer anywhere: one error is a failure that the writer must clean up after, errors
    /// from a step on are a crash, after which nothing happens any more.
    pub fn watched(watcher: impl Fn(Step<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { watcher: Some(Arc::new(watcher)) }
    }

    fn step(&self, step: Step<'_>) -> io::Result<()> {
        self.watcher.as_ref().map_or(Ok(()), |watcher| watcher(step))
    }

    /// Creates a file that must not exist. It is readable as any file is (0666 without the umask).
    ///
    /// Errors: [`Error::Io`].
    pub fn create(&self, path: &Path) -> Result<DiskFile, Error> {
        let create = || {
            self.step(Step::Create(path))?;
            OpenOptions::new().write(true).create_new(true).open(path)
        };
        let file = create().map_err(Error::io("create", path, WRITE_REMEDY))?;
        Ok(DiskFile { file, path: path.to_path_buf(), disk: self.clone() })
    }

    /// Makes a folder, which must not exist, and the folders above it that are missing; all are on the disk then.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        let parent = parent(path);
        if !parent.exists() {
            match self.make_folder(parent) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        self.step(Step::MakeFolder(path))?;
        fs::create_dir(path)?;
        self.sync_folder(parent)
    }

    /// Waits until the names in a folder are on the disk. Some network file systems cannot; that is no error.
    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Step::SyncFolder(path))?;
        match File::open(path)?.sync_all() {
            Err(error)
                if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) =>
            {
                Ok(())
            }
            synced => synced,
        }
    }

    /// Waits until the data of a file is on the disk.
    pub(crate) fn sync_file(&self, path: &Path) -> Result<(), Error> {
        let sync = || {
            self.step(Step::Sync(path))?;
            File::open(path)?.sync_all()
        };
        sync().map_err(Error::io("write", path, WRITE_REMEDY))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Rename(from, to))?;
        fs::rename(from, to)
    }

    /// Removes a file; one that is gone already is no error.
    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(Step::RemoveFile(path))?;
        absent_is_fine(fs::remove_file(path))
    }

    /// Removes an empty folder; one that is gone already is no error.
    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Step::RemoveFolder(path))?;
        absent_is_fine(fs::remove_dir(path))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("watched", &self.watcher.is_some()).finish()
    }
}

/// A new file that is being written.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl DiskFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until all data is on the disk.
    ///
    /// Errors: [`Error::Io`].
    pub fn sync(&self) -> Result<(), Error> {
        let sync = || {
            self.disk.step(Step::Sync(&self.path))?;
            self.file.sync_all()
        };
        sync().map_err(Error::io("write", &self.path, WRITE_REMEDY))
    }
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.step(Step::Write(&self.path))?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The folder that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
