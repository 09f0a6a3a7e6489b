//! What is said about a run: on the terminal, and in files. Each report is an observer of the run.

pub mod bar;
pub mod console;
pub mod fetching;
pub mod log;
pub mod metrics;
mod reading;
pub mod samples;
pub mod scores;
mod view;
mod writing;

pub use bar::{Bar, note};
pub use console::{Console, arithmetic, print, write};
pub use fetching::Fetching;
pub use metrics::MetricsLog;
pub use reading::ReadingBar;
pub use samples::SamplesFile;
pub use scores::Scores;
pub use writing::WritingBar;
