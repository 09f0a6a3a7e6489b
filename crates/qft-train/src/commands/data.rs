//! `qft data`: what training sees of data.

pub mod show;

use super::help;
use crate::options::ShowArgs;
use clap::Subcommand;

/// What to do with data.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Show documents as the model will see them, what of them is learned, how long they are, and what was left out
    #[command(after_help = help::DATA_SHOW)]
    Show(ShowArgs),
}
