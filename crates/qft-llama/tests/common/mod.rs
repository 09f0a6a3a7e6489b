//! Where the shared test material is, and folders made for one test.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};

/// `path` below the shared material: `QFT_SHARED`, or `shared` beside the workspace. Where it is absent, says so
/// and gives `None`.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("QFT_SHARED").map_or_else(beside, PathBuf::from);
    let path = root.join("data").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent; set QFT_SHARED to the folder with `data`", path.display());
    None
}

/// The three model folders of the shared material; empty where it is absent.
pub(crate) fn shared_models() -> Vec<PathBuf> {
    ["stories260k", "tinystories-656k", "tinystories-656k-bf16-sharded"]
        .iter()
        .filter_map(|name| shared(&format!("models/{name}")))
        .collect()
}
