//! Where tests find models, texts and golden figures.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/stories260k")
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
