//! A fine-tune, as a library: [`finetune()`] runs it, and tells [`Observer`]s what happens.

mod answers;
pub mod card;
mod evaluation;
pub mod events;
pub mod exports;
pub mod finetune;
pub mod folder;
pub mod generation;
pub mod measure;
pub mod named;
pub mod output;
mod prepare;
pub mod questions;
mod reading;
pub mod recipe;
mod samples;
mod saved;
mod saving;
pub mod scores;
mod steering;
pub mod summary;

pub use crate::machine::Job;
pub use events::{Event, Moment, Observer, Quantized};
pub use finetune::{finetune, finetune_in};
pub use folder::ModelFolder;
pub use named::{NamedFiles, Origins};
pub use recipe::Recipe;
pub use summary::{
    AnswerMetrics, EarlyEnd, EvalMetrics, LeftOut, Owners, SampleMetrics, SavedEval, SetMetrics,
    StepMetrics, Stopped, Summary,
};
