//! Files that join others in a folder: valid with one rename, then moved, by whoever comes next if need be.

use super::leftovers::{names_in, remove_ours};
use super::{COMMITTED, FileRules, INSTALLING, is_real_folder};
use crate::disk::{Disk, WRITE_REMEDY};
use crate::error::Error;
use crate::lock::FolderLock;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What to do when it failed after the files became valid.
const FORWARD_REMEDY: &str = "the new files are complete and will be put in their place when qft next opens the \
                              folder; check the disk and the folder's permissions";

/// A set of files on its way into a folder.
///
/// The name of their folder says how far it has come: `.partial`, they are being written; `.qft-committed`, they
/// are valid and older files are being removed; `.qft-installing`, the older files are gone and these are being
/// moved. Therefore nothing has to tell old files from new ones of the same name.
#[derive(Debug)]
pub(super) struct Install {
    dir: PathBuf,
    committed: PathBuf,
    installing: PathBuf,
    rules: FileRules,
}

impl Install {
    pub(super) fn new(dir: &Path, name: &str, rules: FileRules) -> Self {
        let path = |suffix| dir.join(format!("{name}{suffix}"));
        let (committed, installing) = (path(COMMITTED), path(INSTALLING));
        Self { dir: dir.to_path_buf(), committed, installing, rules }
    }

    /// Folders where a file must be removed or put would stop the installation half way.
    pub(super) fn refuse_folders(&self, names: &[String]) -> Result<(), Error> {
        let read = names_in(&self.dir);
        let old = read.map_err(Error::io("read the folder", &self.dir, WRITE_REMEDY))?;
        let old = old.iter().filter(|name| (self.rules.together)(name));
        match old.chain(names).map(|name| self.dir.join(name)).find(|path| path.is_dir()) {
            None => Ok(()),
            Some(path) => {
                let remedy = "remove it, or choose another output folder";
                Err(Error::refused(&path, "is a folder, expected a file or nothing", remedy))
            }
        }
    }

    /// Makes the files in `partial` the valid ones.
    pub(super) fn commit(&self, disk: &Disk, partial: &Path) -> Result<(), Error> {
        let renamed = disk.rename(partial, &self.committed);
        renamed.map_err(Error::io("move the finished files into", &self.dir, WRITE_REMEDY))
    }

    /// Puts valid files in their place, from wherever an earlier attempt ended.
    pub(super) fn roll_forward(&self, disk: &Disk) -> Result<(), Error> {
        let forward = || -> io::Result<()> {
            if is_real_folder(&self.installing) {
                self.move_in(disk)?;
            }
            if is_real_folder(&self.committed) {
                disk.sync_folder(&self.dir)?;
                self.remove_old(disk)?;
                disk.sync_folder(&self.dir)?;
                disk.rename(&self.committed, &self.installing)?;
                disk.sync_folder(&self.dir)?;
                self.move_in(disk)?;
            }
            Ok(())
        };
        forward().map_err(Error::io("move the finished files into", &self.dir, FORWARD_REMEDY))
    }

    /// Removes older files of the kind that is about to come.
    fn remove_old(&self, disk: &Disk) -> io::Result<()> {
        let together = |name: &String| (self.rules.together)(name);
        if !names_in(&self.committed)?.iter().any(together) {
            return Ok(());
        }
        for name in names_in(&self.dir)?.into_iter().filter(together) {
            let path = self.dir.join(name);
            if !is_real_folder(&path) {
                disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Moves the new files, those that must not mix last: in the order of their names, so that an index, which
    /// makes a reader look for the others, comes after `model-...`.
    fn move_in(&self, disk: &Disk) -> io::Result<()> {
        let mut names = names_in(&self.installing)?;
        names.retain(|name| (self.rules.ours)(name));
        names.sort_by_cached_key(|name| ((self.rules.together)(name), name.clone()));
        for name in names {
            disk.rename(&self.installing.join(&name), &self.dir.join(&name))?;
        }
        disk.sync_folder(&self.dir)?;
        remove_ours(disk, &self.installing, self.rules)?;
        disk.sync_folder(&self.dir)
    }
}

/// Finishes what a crash interrupted after files for `dir` became valid; see [`AtomicFolder::into_existing`]. Every
/// reader of such files calls it first. Where there is nothing to do, it only looks.
///
/// Errors: [`Error::Io`], for example in a folder that cannot be written; [`Error::InUse`] while another process
/// puts the files in their place.
///
/// [`AtomicFolder::into_existing`]: super::AtomicFolder::into_existing
pub fn finish_install(disk: &Disk, dir: &Path, name: &str, rules: FileRules) -> Result<(), Error> {
    let install = Install::new(dir, name, rules);
    for folder in [&install.installing, &install.committed] {
        if !is_real_folder(folder) {
            continue;
        }
        let lock = match FolderLock::acquire(folder) {
            // Another process has just finished it.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            lock => lock?,
        };
        tracing::info!("{}: finishing what was interrupted", lock.dir().display());
        install.roll_forward(disk)?;
    }
    Ok(())
}
