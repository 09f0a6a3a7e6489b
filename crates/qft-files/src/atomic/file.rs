//! One file that replaces another at once.

use super::{PARTIAL, with_suffix};
use crate::disk::{Disk, DiskFile, WRITE_REMEDY, parent};
use crate::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is being written under the name `NAME.partial`. Dropped without [`AtomicFile::commit`], it
/// disappears, and what was there before stays.
#[derive(Debug)]
pub struct AtomicFile {
    disk: Disk,
    target: PathBuf,
    /// `None` once it has its final name.
    file: Option<DiskFile>,
}

impl AtomicFile {
    /// Begins a file that will be `target`. What an interrupted writer left of it is removed.
    ///
    /// Errors: [`Error::Io`]; [`Error::Refused`] if `target` has no name.
    pub fn create(disk: &Disk, target: &Path) -> Result<Self, Error> {
        let partial = with_suffix(target, PARTIAL)
            .ok_or_else(|| Error::refused(target, "has no name", "choose another file"))?;
        if partial.symlink_metadata().is_ok() {
            disk.remove_file(&partial).map_err(Error::io(
                "replace",
                &partial,
                "remove it by hand",
            ))?;
        }
        let file = Some(disk.create(&partial)?);
        Ok(Self { disk: disk.clone(), target: target.to_path_buf(), file })
    }

    /// Writes a whole file: `target` holds `bytes` afterwards, or what it held before.
    ///
    /// Errors: [`Error::Io`], [`Error::Refused`].
    pub fn write_whole(disk: &Disk, target: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut file = Self::create(disk, target)?;
        file.write_all(bytes).map_err(Error::io("write", target, WRITE_REMEDY))?;
        file.commit()
    }

    /// Brings the data to the disk and gives the file its name.
    ///
    /// Errors: [`Error::Io`].
    pub fn commit(mut self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync()?;
        let renamed = self.disk.rename(file.path(), &self.target);
        renamed.map_err(Error::io("move into place", &self.target, WRITE_REMEDY))?;
        self.file = None;
        let folder = parent(&self.target);
        let remedy = "the new file is in place; check the disk, as a power cut may still lose it";
        self.disk.sync_folder(folder).map_err(Error::io("write the folder", folder, remedy))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take()
            && let Err(error) = self.disk.remove_file(file.path())
        {
            tracing::warn!("cannot remove {}: {error}", file.path().display());
        }
    }
}
