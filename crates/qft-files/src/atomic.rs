//! Files and folders that are whole or absent, whenever the program or the machine stops.
//!
//! Everything is written beside its place and brought to the disk; then one rename makes it valid. There are four
//! kinds: [`AtomicFile`] (one file), and [`AtomicFolder`] for a folder that did not exist, for a folder that takes
//! the place of another, and for files that join others in a folder. [`remove_folder`] is the reverse.
//!
//! What a crash leaves has a suffix of its own. It is put right by [`restore_folder`], [`finish_install`] and
//! [`clean_folders`], which touch only what carries such a suffix and holds nothing but files that [`FileRules::ours`] knows.
//! A [`FolderLock`](crate::FolderLock) makes sure that one process at a time writes in a folder.

mod file;
mod folder;
mod install;
mod leftovers;

pub use file::AtomicFile;
pub use folder::AtomicFolder;
pub use install::finish_install;
pub use leftovers::{clean_folders, clean_removed, remove_folder, restore_folder, restore_folders};

use std::path::{Path, PathBuf};

/// Being written; nothing in it counts.
const PARTIAL: &str = ".partial";
/// Complete: older files of its kind make room for it.
const COMMITTED: &str = ".qft-committed";
/// The older files are gone: its files are moved to their place.
const INSTALLING: &str = ".qft-installing";
/// A whole folder that another is about to replace.
const REPLACED: &str = ".qft-replaced";
/// A folder that is being removed.
const REMOVED: &str = ".qft-removed";

/// Which files a writer may call its own, by their names.
#[derive(Debug, Clone, Copy)]
pub struct FileRules {
    /// Files that the writer writes. Leftovers of these are removed, others never.
    pub ours: fn(&str) -> bool,
    /// Files that say together what they hold, so that old and new ones must not mix: when files are installed into
    /// a folder, all of these that are there go first, and the new ones come last.
    pub together: fn(&str) -> bool,
}

/// `path` with `suffix` after its name; `None` for a path that has no name.
fn with_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_os_string();
    name.push(suffix);
    Some(path.with_file_name(name))
}

/// Whether `path` is a folder itself, and no link to one.
fn is_real_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}
