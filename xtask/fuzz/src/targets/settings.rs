//! Settings files.

use super::{SMALL, Target, scratch};
use qft_train::options::FinetuneArgs;

/// A settings file of `qft finetune`.
pub const SETTINGS: Target = Target { name: "settings", run: read, base_bytes: SMALL };

fn read(bytes: &[u8]) {
    let path = scratch::write(&scratch::folder("settings"), "settings.toml", bytes);
    let flags = FinetuneArgs { config: Some(path), ..FinetuneArgs::default() };
    let _ = flags.resolve();
}
