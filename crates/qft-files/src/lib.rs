//! Files: read with suspicion, written whole or not at all.
//!
//! [`safetensors`] reads and writes the files that weights and states are stored in, [`gguf`] writes those of
//! llama.cpp. [`atomic`] puts files and folders in their place so that a crash at any moment leaves the old or the
//! new. [`FolderLock`] keeps two runs out of one folder, and [`hash`] tells whether two files are the same.
//! Everything that writes goes through a [`Disk`], which a test can stop at any step. [`panics`] of libraries that
//! read other files become errors.

pub mod atomic;
pub mod disk;
pub mod error;
pub mod gguf;
pub mod hash;
pub mod lock;
pub mod panics;
pub mod safetensors;

pub use atomic::{AtomicFile, AtomicFolder, FileRules};
pub use disk::{Disk, DiskFile, Step, check_writable};
pub use error::Error;
pub use gguf::{GgufTensor, GgufType, GgufValue, GgufWriter};
pub use hash::{Sha256, sha256_of_file};
pub use lock::FolderLock;
pub use safetensors::{Advice, Dtype, StoredTensor, TensorFile, TensorInfo, TensorWriter};
