//! Where the repository is.

use std::path::{Path, PathBuf};

/// The root of the repository: where this program was built, or what `QFT_REPOSITORY` says on another machine.
pub(crate) fn repository() -> PathBuf {
    std::env::var_os("QFT_REPOSITORY")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), PathBuf::from)
}
