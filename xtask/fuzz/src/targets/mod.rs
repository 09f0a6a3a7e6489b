//! The targets: each takes the bytes of a user's file and must come back, with a result or an error, soon and without
//! taking much memory.

mod checkpoint;
mod config;
mod conversation;
mod encoder;
mod metrics;
mod records;
mod report;
mod safetensors;
mod scratch;
mod settings;
mod template;
mod tokenizer;

pub use checkpoint::{PROGRESS, STATE, state_file};
pub use config::CONFIG;
pub use conversation::CONVERSATION;
pub use metrics::METRICS;
pub use records::RECORDS;
pub use report::REPORT;
pub use safetensors::{INDEX, SAFETENSORS};
pub use settings::SETTINGS;
pub use template::TEMPLATE;
pub use tokenizer::{SPECIAL_TOKENS, TOKENIZER};

/// A kind of file, and what reads it.
pub struct Target {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// Reads a file with these contents.
    pub run: fn(&[u8]),
    /// Bytes that it may take for any input; for each byte of the input, [`PER_BYTE`] are added.
    pub base_bytes: usize,
}

/// Memory for each byte of an input: a number of two characters becomes a value of some 100 bytes.
const PER_BYTE: usize = 512;

/// For what is read alike whatever the file holds.
const SMALL: usize = 16 << 20;

/// For templates, which may write a text of 64 MiB about any conversation.
const RENDERING: usize = 192 << 20;

/// All of them.
pub const ALL: [&Target; 13] = [
    &SAFETENSORS,
    &INDEX,
    &CONFIG,
    &TOKENIZER,
    &SPECIAL_TOKENS,
    &TEMPLATE,
    &CONVERSATION,
    &RECORDS,
    &SETTINGS,
    &PROGRESS,
    &STATE,
    &METRICS,
    &REPORT,
];

impl Target {
    /// The most bytes that an input of this length may take.
    pub fn memory(&self, input_bytes: usize) -> usize {
        self.base_bytes + PER_BYTE * input_bytes
    }
}
