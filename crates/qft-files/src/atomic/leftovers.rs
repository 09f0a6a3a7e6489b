//! What crashes leave, and how folders are removed so that they leave nothing that looks whole.

use super::{FileRules, PARTIAL, REMOVED, REPLACED, is_real_folder, with_suffix};
use crate::disk::{Disk, parent};
use crate::error::Error;
use crate::lock::{FolderLock, LOCK_FILE};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

const BY_HAND: &str = "check the folder's permissions, or remove it by hand";

/// Names in a folder that are text; none if there is no folder.
pub(super) fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The first thing in a folder that is not ours.
fn foreign(dir: &Path, rules: FileRules) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name == LOCK_FILE || (rules.ours)(name));
        if !ours || entry.file_type()?.is_dir() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Removes our files in a folder, and the folder if nothing else is in it. Whether it is gone.
pub(super) fn remove_ours(disk: &Disk, dir: &Path, rules: FileRules) -> io::Result<bool> {
    if dir.symlink_metadata().is_err() {
        return Ok(true);
    }
    if !is_real_folder(dir) {
        return Ok(false);
    }
    for name in names_in(dir)?.iter().filter(|name| (rules.ours)(name)) {
        let path = dir.join(name);
        if !is_real_folder(&path) {
            disk.remove_file(&path)?;
        }
    }
    // Last, as it keeps others away.
    let lock = dir.join(LOCK_FILE);
    if lock.exists() {
        disk.remove_file(&lock)?;
    }
    if foreign(dir, rules)?.is_some() {
        return Ok(false);
    }
    disk.remove_folder(dir)?;
    Ok(true)
}

/// Removes what an interrupted writer left at the place where another is about to write.
pub(super) fn clear_partial(disk: &Disk, partial: &Path, rules: FileRules) -> Result<(), Error> {
    if partial.symlink_metadata().is_err() {
        return Ok(());
    }
    let remedy = "move it away, or choose another output folder";
    if !is_real_folder(partial) {
        return Err(Error::refused(
            partial,
            "is not a folder, expected a folder or nothing",
            remedy,
        ));
    }
    let io = || Error::io("replace the folder", partial, BY_HAND);
    if let Some(path) = foreign(partial, rules).map_err(io())? {
        let name = path.file_name().unwrap_or_default().display().to_string();
        return Err(Error::refused(
            partial,
            format!("holds {name}, which qft did not write"),
            remedy,
        ));
    }
    let _lock = FolderLock::acquire(partial)?;
    remove_ours(disk, partial, rules).map_err(io())?;
    Ok(())
}

/// Removes a folder of ours: out of sight first, so that no half of it is ever found under its name. Files in it
/// that are not ours are kept, beside its place.
///
/// Errors: [`Error::Io`].
pub fn remove_folder(disk: &Disk, target: &Path, rules: FileRules) -> Result<(), Error> {
    if let Some(old) = with_suffix(target, REPLACED).filter(|old| old.symlink_metadata().is_ok()) {
        discard(disk, &old, target, rules)?;
    }
    discard(disk, target, target, rules)
}

/// Removes `path`, under a name that says so, made from that of `target`.
pub(super) fn discard(
    disk: &Disk,
    path: &Path,
    target: &Path,
    rules: FileRules,
) -> Result<(), Error> {
    let name = |number: u32| match number {
        0 => REMOVED.to_owned(),
        _ => format!("{REMOVED}-{number}"),
    };
    let free = (0..u32::MAX).filter_map(|number| with_suffix(target, &name(number)));
    let hidden = free.into_iter().find(|hidden| hidden.symlink_metadata().is_err());
    let hidden = hidden.ok_or_else(|| Error::refused(path, "has no name", BY_HAND))?;
    let remove = || -> io::Result<bool> {
        disk.rename(path, &hidden)?;
        // The old name must be gone from the disk before any of its files is.
        disk.sync_folder(parent(target))?;
        remove_ours(disk, &hidden, rules)
    };
    if !remove().map_err(Error::io("remove", path, BY_HAND))? {
        tracing::warn!("{}: kept, as it holds what qft did not write", hidden.display());
    }
    Ok(())
}

/// Gives a folder its name back if a crash came between the two renames that should have replaced it.
///
/// Errors: [`Error::Io`].
pub fn restore_folder(disk: &Disk, target: &Path) -> Result<(), Error> {
    let Some(old) = with_suffix(target, REPLACED) else { return Ok(()) };
    if !is_real_folder(&old) || target.symlink_metadata().is_ok() {
        return Ok(());
    }
    tracing::info!("{}: restored, as its replacement was interrupted", target.display());
    let renamed = disk.rename(&old, target);
    let remedy = "rename it by hand, without the suffix";
    renamed.map_err(Error::io("restore", &old, remedy))?;
    disk.sync_folder(parent(target)).map_err(Error::io("write the folder", parent(target), BY_HAND))
}

/// [`restore_folder`] for all folders below `root` whose names are `ours`. Readers of `root` call it first; it
/// takes nothing away from a process that writes there.
///
/// Errors: [`Error::Io`].
pub fn restore_folders(disk: &Disk, root: &Path, ours: fn(&str) -> bool) -> Result<(), Error> {
    let io = Error::io("read the folder", root, "check its permissions");
    for name in names_in(root).map_err(io)? {
        if let Some(base) = name.strip_suffix(REPLACED).filter(|base| ours(base)) {
            restore_folder(disk, &root.join(base))?;
        }
    }
    Ok(())
}

/// Removes what crashes left below `root`, of folders whose names are `ours`. What cannot be removed is logged: it
/// is in nobody's way.
pub fn clean_folders(disk: &Disk, root: &Path, ours: fn(&str) -> bool, rules: FileRules) {
    let clean = || -> Result<(), Error> {
        restore_folders(disk, root, ours)?;
        for name in names_in(root).map_err(Error::io("read the folder", root, BY_HAND))? {
            let path = root.join(&name);
            if let Some(base) = name.strip_suffix(REPLACED).filter(|base| ours(base)) {
                discard(disk, &path, &root.join(base), rules)?;
            } else if removed(&name).is_some_and(ours) {
                remove_ours(disk, &path, rules).map_err(Error::io("remove", &path, BY_HAND))?;
            } else if name.strip_suffix(PARTIAL).is_some_and(ours) {
                clear_partial(disk, &path, rules)?;
            }
        }
        Ok(())
    };
    if let Err(error) = clean() {
        tracing::warn!("what an interrupted run left stays: {error}");
    }
}

/// Removes what is left of earlier folders of the name `target` whose removal was interrupted.
///
/// Errors: [`Error::Io`].
pub fn clean_removed(disk: &Disk, target: &Path, rules: FileRules) -> Result<(), Error> {
    let (root, name) = (parent(target), target.file_name().and_then(|name| name.to_str()));
    let names = names_in(root).map_err(Error::io("read the folder", root, BY_HAND))?;
    for left in names.iter().filter(|left| name.is_some() && removed(left) == name) {
        let path = root.join(left);
        remove_ours(disk, &path, rules).map_err(Error::io("remove", &path, BY_HAND))?;
    }
    Ok(())
}

/// The name that a folder had before it was being removed.
fn removed(name: &str) -> Option<&str> {
    let (base, number) = name.rsplit_once(REMOVED)?;
    let number = number.strip_prefix('-').unwrap_or(number);
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(base)
}
