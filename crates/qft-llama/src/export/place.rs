//! Where a folder is written, and what may already be there.

use crate::error::Error;
use qft_files::atomic::{clean_removed, restore_folder};
use qft_files::{AtomicFolder, Disk, FileRules};
use std::path::Path;

/// The name that files on their way into a folder have there, before a suffix.
pub(super) const ON_ITS_WAY: &str = "model";

/// What becomes of a folder that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Its other files stay, and new ones take the place of those that belong to a model.
    #[default]
    Joined,
    /// It is replaced whole, if it holds nothing but what an export of this kind writes.
    Replaced,
    /// There must be none.
    Refused,
}

/// Begins a folder.
///
/// Errors: [`Error::Export`] for one that must not be touched; [`Error::Files`].
pub(super) fn begin_folder(
    disk: &Disk,
    out: &Path,
    existing: Existing,
    rules: FileRules,
) -> Result<AtomicFolder, Error> {
    Ok(match existing {
        Existing::Joined if out.exists() => {
            AtomicFolder::into_existing(disk, out, ON_ITS_WAY, rules)?
        }
        Existing::Replaced => {
            restore_folder(disk, out)?;
            refuse_others(out, rules)?;
            clean_removed(disk, out, rules)?;
            AtomicFolder::replacing(disk, out, rules)?
        }
        Existing::Joined | Existing::Refused => AtomicFolder::new(disk, out, rules)?,
    })
}

/// Looks whether a folder may be begun. Changes nothing.
///
/// Errors: as [`begin_folder`] for one that must not be touched.
pub(super) fn check_place(out: &Path, existing: Existing, rules: FileRules) -> Result<(), Error> {
    match existing {
        Existing::Replaced => refuse_others(out, rules),
        Existing::Refused if out.symlink_metadata().is_ok() => Err(Error::Export {
            path: out.to_path_buf(),
            problem: "the folder is there already".into(),
            remedy: "choose another output folder",
        }),
        Existing::Joined | Existing::Refused => Ok(()),
    }
}

/// The source must survive: it is the only copy of the weights before training.
pub(super) fn refuse_same(out: &Path, source: &Path) -> Result<(), Error> {
    let same = match (out.canonicalize(), source.canonicalize()) {
        (Ok(out), Ok(source)) => out == source,
        _ => false,
    };
    if !same {
        return Ok(());
    }
    Err(Error::Export {
        path: out.to_path_buf(),
        problem: "the model would overwrite the one it was made from".into(),
        remedy: "choose another output folder",
    })
}

/// A folder with anything else in it is not replaced.
fn refuse_others(out: &Path, rules: FileRules) -> Result<(), Error> {
    if out.exists() && !out.is_dir() {
        return Err(Error::Export {
            path: out.to_path_buf(),
            problem: "there is a file, where a folder is to be".into(),
            remedy: "move it away, or choose another output folder",
        });
    }
    let Ok(entries) = std::fs::read_dir(out) else { return Ok(()) };
    let foreign = |entry: &std::fs::DirEntry| {
        let ours = entry.file_name().to_str().is_some_and(rules.ours);
        !ours || entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    match entries.filter_map(Result::ok).find(foreign) {
        None => Ok(()),
        Some(entry) => Err(Error::Export {
            path: out.to_path_buf(),
            problem: format!(
                "the folder holds {}, which such an export does not write",
                entry.file_name().display()
            ),
            remedy: "move it away, or choose another output folder",
        }),
    }
}
