//! Training data: from files to sequences of tokens, in an order that a run can resume.
//!
//! [`Reader`] turns files into [`Documents`], [`Dataset`] lays these into sequences, and [`Order`] says which come
//! next. A document is a run of tokens that sees nothing else: a window of a long text, a record, or a conversation.
//! Each position predicts the next token; those that the loss leaves out have the target [`qft_llama::IGNORE`].

pub mod dataset;
pub mod documents;
pub mod encoder;
pub mod order;
mod pack;
mod parallel;
pub mod question_set;
pub mod questions;
pub mod reader;
pub mod records;
mod roles;
mod sample;
pub mod source;
pub mod template;

pub use dataset::Dataset;
pub use documents::{Counts, Documents};
pub use encoder::TextEncoder;
pub use order::Order;
pub use question_set::QuestionSet;
pub use reader::{Reader, windows};
pub use records::Record;
pub use source::Source;
pub use template::{ModelTemplates, Template};
