//! Files written aside first, and moved to their place together.

use super::shard::is_weight_file;
use super::{COMPANIONS, WRITE_REMEDY, sync_dir};
use crate::error::Error;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// What to do when only the last step failed.
const MOVED_REMEDY: &str =
    "the new model is in place; check the disk, as a power cut may still lose it";

/// A folder for files that are not complete. Dropped without [`Staging::commit`], it disappears.
#[derive(Debug)]
pub(super) struct Staging {
    out: PathBuf,
    partial: PathBuf,
    /// Whether `out` was there before; then `partial` lies inside, which may be another file system than beside.
    inside: bool,
    names: Vec<String>,
}

impl Staging {
    /// Makes `OUT.partial`, or `OUT/model.partial` if `out` exists. What an interrupted export left there is
    /// removed.
    pub(super) fn new(out: &Path) -> Result<Self, Error> {
        let inside = out.exists();
        if inside && !out.is_dir() {
            let remedy = "choose another output folder, or remove this file";
            return Err(refuse(out, "is a file, expected a folder".into(), remedy));
        }
        let partial = match out.file_name() {
            _ if inside => out.join("model.partial"),
            Some(name) => {
                let mut name = name.to_os_string();
                name.push(".partial");
                out.with_file_name(name)
            }
            None => return Err(refuse(out, "has no name".into(), "choose another output folder")),
        };
        remove_leftover(&partial)?;
        fs::create_dir_all(&partial)
            .map_err(|source| Error::io("make the folder", &partial, WRITE_REMEDY, source))?;
        Ok(Self { out: out.to_path_buf(), partial, inside, names: Vec::new() })
    }

    /// A new file, to be named `name` in the end, and where it is for now.
    pub(super) fn create(&mut self, name: &str) -> Result<(File, PathBuf), Error> {
        let path = self.partial.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|source| Error::io("create", &path, WRITE_REMEDY, source))?;
        self.names.push(name.to_string());
        Ok((file, path))
    }

    /// Moves all files to their place.
    pub(super) fn commit(self) -> Result<(), Error> {
        sync_dir(&self.partial, WRITE_REMEDY)?;
        if !self.inside {
            rename(&self.partial, &self.out)?;
            let parent = self.out.parent().filter(|parent| !parent.as_os_str().is_empty());
            return sync_dir(parent.unwrap_or(Path::new(".")), MOVED_REMEDY);
        }
        let blocked = self.names.iter().map(|name| self.out.join(name)).find(|path| path.is_dir());
        if let Some(path) = blocked {
            let remedy = "remove it, or choose another output folder";
            return Err(refuse(&path, "is a folder, expected a file or nothing".into(), remedy));
        }
        for name in &self.names {
            rename(&self.partial.join(name), &self.out.join(name))?;
        }
        self.remove_stale_weights()?;
        sync_dir(&self.out, MOVED_REMEDY)
    }

    /// Weight files of an earlier model with another number of shards: a loader may prefer them.
    fn remove_stale_weights(&self) -> Result<(), Error> {
        let io = |source| {
            let remedy = "the new model is complete; remove older weight files by hand";
            Error::io("remove older weights in", &self.out, remedy, source)
        };
        for entry in fs::read_dir(&self.out).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if is_weight_file(name) && !self.names.iter().any(|new| new == name) {
                fs::remove_file(self.out.join(name)).map_err(io)?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Absent after a rename of the whole folder. Anything else has been reported, or is only left over.
        if self.partial.exists()
            && let Err(error) = fs::remove_dir_all(&self.partial)
        {
            tracing::warn!("export: cannot remove {}: {error}", self.partial.display());
        }
    }
}

/// Removes `partial` if all in it is of a kind that an export writes.
fn remove_leftover(partial: &Path) -> Result<(), Error> {
    if !partial.exists() {
        return Ok(());
    }
    let io = |source| Error::io("replace the folder", partial, "remove it by hand", source);
    for entry in fs::read_dir(partial).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let ours = |name: &str| {
            is_weight_file(name) || name == "config.json" || COMPANIONS.contains(&name)
        };
        if !name.to_str().is_some_and(ours) {
            let problem = format!("holds {}, which no export wrote", name.display());
            let remedy = "move it away, or choose another output folder";
            return Err(refuse(partial, problem, remedy));
        }
    }
    fs::remove_dir_all(partial).map_err(io)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| {
        Error::io("move the finished file to", to, "check its permissions and export again", source)
    })
}

fn refuse(path: &Path, problem: String, remedy: &'static str) -> Error {
    Error::Export { path: path.to_path_buf(), problem, remedy }
}
