//! How much the program says, and where: options of every command.

use std::path::PathBuf;

/// How much the program says, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct TerminalArgs {
    /// Say more on standard error: -v for what is done, -vv for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Say nothing on standard error but errors: no progress, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Add warnings, what is done and how it ended to this file, with the time
    #[arg(long, global = true, value_name = "FILE", help_heading = "Output")]
    pub log_file: Option<PathBuf>,
}

/// The least important that is said on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors alone.
    Quiet,
    /// Warnings and progress.
    Normal,
    /// What is done.
    Verbose,
    /// Details.
    Debug,
}

impl TerminalArgs {
    /// What was asked for.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::Debug,
        }
    }
}
