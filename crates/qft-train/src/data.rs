//! Training data: from files to sequences of tokens, in an order that a run can resume.
//!
//! [`Reader`] turns files into [`Documents`], and [`Loader`] keeps those of large files in a [`Cache`]. [`Dataset`] lays
//! documents into sequences, and [`Order`] says which come next. A document is a run of tokens that sees nothing else: a window of a long text, a record, or a conversation.
//! Each position predicts the next token; those that the loss leaves out have the target [`qft_llama::IGNORE`].

mod binary;
mod cache;
pub mod dataset;
pub mod documents;
pub mod encoder;
mod eval_set;
mod loader;
mod long_text;
pub mod order;
mod pack;
mod parallel;
mod progress;
pub mod prompts;
pub mod question_set;
pub mod questions;
pub mod reader;
pub mod records;
mod roles;
mod sample;
mod source;
pub mod template;
mod weight;
mod windows;

pub use cache::Cache;
pub use dataset::Dataset;
pub use documents::{Counts, Document, DocumentWriter, Documents};
pub use encoder::TextEncoder;
pub use eval_set::EvalSet;
pub use loader::Loader;
pub use order::{Order, Share};
pub use progress::Progress;
pub use prompts::Prompt;
pub use question_set::QuestionSet;
pub use reader::Reader;
pub use records::Record;
pub use source::common;
pub use template::{ModelTemplates, Template};
pub use weight::Weight;
pub use windows::windows;
