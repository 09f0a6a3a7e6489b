//! The options of a run, a module for each group: what can be given, its rules and defaults, and what it becomes.
//! Whatever is wrong with them is reported here, before anything is loaded.

pub mod cache;
pub mod chat;
pub mod data;
pub mod eval;
pub mod export;
pub mod files;
pub mod finetune;
pub mod generate;
mod given;
pub mod group;
pub mod home;
pub mod job;
pub mod machine;
pub mod plan;
pub mod progress;
pub mod sampling;
mod settings;
mod setup;
pub mod show;
pub mod states;
pub mod step;
pub mod terminal;
pub mod training;
mod value;

pub use cache::{CacheArgs, CacheOptions};
pub use chat::{ChatArgs, ChatOptions};
pub use data::{
    BuiltIn, DataFormat, FieldName, LayoutOptions, OnBadRecord, ReadingArgs, ReadingOptions,
    TemplateChoice, TooLong, TrainOn,
};
pub use eval::{EvalArgs, EvalOptions, QuestionOptions};
pub use export::{ExportArgs, ExportDtype, ExportFormat, ExportKind, ExportOptions, RunExport};
pub use files::{EvalFiles, FileOptions, HeldOut};
pub use finetune::{FinetuneArgs, FinetuneOptions};
pub use generate::{GenerateArgs, GenerateOptions, Prompts};
pub use group::{GroupRate, GroupRates};
pub use machine::{DeviceChoice, MachineOptions, Size};
pub use plan::{PlanArgs, PlanOptions};
pub use progress::{CheckpointCopy, ProgressOptions, Resume};
pub use sampling::{SamplingArgs, SamplingOptions};
pub use show::{ShowArgs, ShowOptions};
pub use states::{RecomputeChoice, StateOptions, States};
pub use step::StepOptions;
pub use terminal::TerminalArgs;
pub use training::{Length, OptimizerKind, OptimizerOptions, Span, TrainingOptions};
pub(crate) use value::decimal;
