//! What is said about a run: on the terminal, and in files. Each report is an observer of the run.

pub mod bar;
pub mod console;
pub mod fetching;
mod history;
pub mod log;
pub mod metrics;
mod numbers;
pub mod page;
mod reading;
pub mod record;
pub mod samples;
pub mod scores;
mod series;
pub mod tensorboard;
mod view;
mod writing;

pub use bar::{Bar, note};
pub use console::{Console, arithmetic, print, write};
pub use fetching::Fetching;
pub use metrics::MetricsLog;
pub use page::PageFile;
pub use reading::ReadingBar;
pub use record::RecordFile;
pub use samples::SamplesFile;
pub use scores::Scores;
pub use tensorboard::TensorBoard;
pub use writing::WritingBar;
