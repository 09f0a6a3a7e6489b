//! A folder of files that become valid together.

use super::install::{self, Install};
use super::leftovers::{clear_partial, discard, remove_ours, restore_folder};
use super::{FileRules, PARTIAL, REPLACED, with_suffix};
use crate::disk::{Disk, DiskFile, WRITE_REMEDY, parent};
use crate::error::Error;
use crate::lock::{FolderLock, LOCK_FILE};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What to do when only the last step failed.
const PLACED_REMEDY: &str =
    "the new files are in place; check the disk, as a power cut may still lose them";

/// Files that are being written into a folder of their own, `NAME.partial`, which is locked meanwhile. Dropped
/// without [`AtomicFolder::commit`], it disappears, and what was there before stays.
#[derive(Debug)]
pub struct AtomicFolder {
    disk: Disk,
    rules: FileRules,
    target: PathBuf,
    partial: PathBuf,
    goal: Goal,
    names: Vec<String>,
    /// Nothing is left to be removed if this is dropped.
    done: bool,
    lock: Option<FolderLock>,
}

/// What the files become.
#[derive(Debug)]
enum Goal {
    /// A folder that does not exist.
    New,
    /// A folder in place of another, or of none.
    Replacement,
    /// Files of a folder that exists and has others.
    Part(Install),
}

impl AtomicFolder {
    /// Begins a folder that does not exist; it appears whole.
    ///
    /// What an interrupted writer left is removed; in all three kinds.
    ///
    /// Errors: [`Error::Io`]; [`Error::Refused`] if something stands in the way; [`Error::InUse`] if another
    /// process is writing this folder.
    pub fn new(disk: &Disk, target: &Path, rules: FileRules) -> Result<Self, Error> {
        if target.symlink_metadata().is_ok() {
            let remedy = "choose another output folder";
            return Err(Error::refused(target, "already exists", remedy));
        }
        Self::begin(disk, target, target, Goal::New, rules)
    }

    /// Begins a folder that takes the place of `target`, if there is one. A reader finds the old or the new one
    /// whole; after a crash between two renames, [`restore_folder`] must come first.
    ///
    /// Of the old folder only files that are ours by `rules` are removed; others are kept beside it.
    ///
    /// Errors: as [`AtomicFolder::new`].
    pub fn replacing(disk: &Disk, target: &Path, rules: FileRules) -> Result<Self, Error> {
        restore_folder(disk, target)?;
        refuse_file(target)?;
        Self::begin(disk, target, target, Goal::Replacement, rules)
    }

    /// Begins files that join others in the folder `dir`. They are written to `dir/NAME.partial`, and valid with
    /// one rename of it; then older files of their kind ([`FileRules::together`]) are removed and the new ones
    /// moved to their place. A crash in between leaves files missing, never mixed, and [`finish_install`] goes on.
    ///
    /// Errors: as [`AtomicFolder::new`].
    ///
    /// [`finish_install`]: super::finish_install
    pub fn into_existing(
        disk: &Disk,
        dir: &Path,
        name: &str,
        rules: FileRules,
    ) -> Result<Self, Error> {
        refuse_file(dir)?;
        install::finish_install(disk, dir, name, rules)?;
        let goal = Goal::Part(Install::new(dir, name, rules));
        Self::begin(disk, dir, &dir.join(name), goal, rules)
    }

    fn begin(
        disk: &Disk,
        target: &Path,
        named: &Path,
        goal: Goal,
        rules: FileRules,
    ) -> Result<Self, Error> {
        let partial = with_suffix(named, PARTIAL)
            .ok_or_else(|| Error::refused(target, "has no name", "choose another output folder"))?;
        clear_partial(disk, &partial, rules)?;
        let made = disk.make_folder(&partial);
        let others = made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
        let mut folder = Self {
            disk: disk.clone(),
            rules,
            target: target.to_path_buf(),
            partial,
            goal,
            names: Vec::new(),
            done: others,
            lock: None,
        };
        made.map_err(Error::io("create the folder", &folder.partial, WRITE_REMEDY))?;
        folder.lock = Some(FolderLock::acquire(&folder.partial)?);
        Ok(folder)
    }

    /// A new file of the folder.
    ///
    /// Errors: [`Error::Io`]; [`Error::Refused`] for a name that is not ours by the rules.
    pub fn create(&mut self, name: &str) -> Result<DiskFile, Error> {
        let path = self.partial.join(name);
        if !(self.rules.ours)(name) {
            let remedy = "this is a bug in qft";
            return Err(Error::refused(
                &path,
                "is not the name of a file that is written here",
                remedy,
            ));
        }
        let file = self.disk.create(&path)?;
        self.names.push(name.to_owned());
        Ok(file)
    }

    /// A new file of the folder, with all of its contents.
    ///
    /// Errors: as [`AtomicFolder::create`].
    pub fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.create(name)?;
        let written = file.write_all(bytes);
        written.map_err(Error::io("write", file.path(), WRITE_REMEDY))
    }

    /// Waits until all files are on the disk, and puts them in their place.
    ///
    /// Errors: [`Error::Io`], where the message says whether the old or the new files are valid;
    /// [`Error::Refused`] if a folder stands where a file belongs.
    pub fn commit(mut self) -> Result<(), Error> {
        for name in &self.names {
            self.disk.sync_file(&self.partial.join(name))?;
        }
        if let Goal::Part(install) = &self.goal {
            install.refuse_folders(&self.names)?;
            let sync = self.disk.sync_folder(&self.partial);
            sync.map_err(Error::io("write the folder", &self.partial, WRITE_REMEDY))?;
            install.commit(&self.disk, &self.partial)?;
            self.done = true;
            return install.roll_forward(&self.disk);
        }
        // The lock stays, but its file must not be part of the result.
        self.disk
            .remove_file(&self.partial.join(LOCK_FILE))
            .and_then(|()| self.disk.sync_folder(&self.partial))
            .map_err(Error::io("write the folder", &self.partial, WRITE_REMEDY))?;
        match self.goal {
            Goal::Replacement if self.target.symlink_metadata().is_ok() => self.exchange()?,
            _ => self.place()?,
        }
        self.done = true;
        let folder = parent(&self.target);
        let synced = self.disk.sync_folder(folder);
        synced.map_err(Error::io("write the folder", folder, PLACED_REMEDY))?;
        let old = with_suffix(&self.target, REPLACED);
        if let Some(old) = old.filter(|old| old.symlink_metadata().is_ok())
            && let Err(error) = discard(&self.disk, &old, &self.target, self.rules)
        {
            tracing::warn!("cannot remove what was replaced: {error}");
        }
        Ok(())
    }

    /// Gives the new folder its name.
    fn place(&self) -> Result<(), Error> {
        let placed = self.disk.rename(&self.partial, &self.target);
        placed.map_err(Error::io("move into place", &self.target, WRITE_REMEDY))
    }

    /// Moves the old folder aside and the new one in its place, or the old one back.
    fn exchange(&self) -> Result<(), Error> {
        let Some(old) = with_suffix(&self.target, REPLACED) else { return self.place() };
        if old.symlink_metadata().is_ok() {
            discard(&self.disk, &old, &self.target, self.rules)?;
        }
        let moved = self.disk.rename(&self.target, &old);
        moved.map_err(Error::io("replace", &self.target, WRITE_REMEDY))?;
        self.place().inspect_err(|_| {
            if let Err(error) = self.disk.rename(&old, &self.target) {
                tracing::warn!("cannot move {} back: {error}", old.display());
            }
        })
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = remove_ours(&self.disk, &self.partial, self.rules)
        {
            tracing::warn!("cannot remove {}: {error}", self.partial.display());
        }
    }
}

/// A folder is not written where a file is.
fn refuse_file(target: &Path) -> Result<(), Error> {
    if !target.exists() || target.is_dir() {
        return Ok(());
    }
    let remedy = "choose another output folder, or remove this file";
    Err(Error::refused(target, "is a file, expected a folder", remedy))
}
