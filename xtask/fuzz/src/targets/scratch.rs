//! A folder in memory, for what is read by its path.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// A folder of this name that is the process's own, in memory where there is such a file system.
pub(super) fn folder(name: &str) -> PathBuf {
    static ROOT: OnceLock<TempDir> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a folder for the inputs")
    });
    let folder = root.path().join(name);
    std::fs::create_dir_all(&folder).expect("a folder for the inputs");
    folder
}

/// Writes an input, and returns its path.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("an input can be written");
    path
}
