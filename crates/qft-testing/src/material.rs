//! Where tests find models, texts and golden figures.

use std::path::{Path, PathBuf};

/// The root of the repository: where the tests were built, or what `QFT_REPOSITORY` says on another machine.
pub fn repository() -> PathBuf {
    std::env::var_os("QFT_REPOSITORY")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), PathBuf::from)
}

/// The small model that lies in the repository: stories260k, tied, f32.
pub fn stories260k() -> PathBuf {
    repository().join("examples/stories260k")
}

/// The text that lies in the repository.
pub fn tinyshakespeare() -> PathBuf {
    repository().join("examples/tinyshakespeare.txt")
}

/// Golden figures of stories260k: `golden.json` and `golden.safetensors`.
pub fn stories260k_golden() -> PathBuf {
    repository().join("crates/qft-testing/data/stories260k")
}

/// Tiny models of other families, each a folder with `golden.safetensors` beside the model, sorted by name.
/// `scripts/golden/families.py` says what the figures are.
///
/// # Panics
///
/// Where the folder cannot be read.
pub fn families() -> Vec<PathBuf> {
    let root = repository().join("crates/qft-testing/data/families");
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut folders: Vec<_> = paths.filter(|path| path.join("config.json").exists()).collect();
    folders.sort();
    folders
}

/// Larger test material outside the repository: `path` below `QFT_SHARED`, or below `../shared` of the
/// repository. Where it is absent, says so on one line; the caller returns.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("QFT_SHARED")
        .map_or_else(|| repository().join("../shared"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    println!("skipped: no {path} in the shared test material (QFT_SHARED names its folder)");
    None
}
