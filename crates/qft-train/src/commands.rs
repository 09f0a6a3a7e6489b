//! What a user types: the command line, and a module for each command.

pub mod data;
pub mod eval;
pub mod export;
pub mod finetune;
pub mod generate;
pub mod plan;
#[cfg(test)]
mod tests;

use crate::options::{EvalArgs, ExportArgs, FinetuneArgs, GenerateArgs, PlanArgs};
use clap::{Parser, Subcommand};

/// Fine-tunes all parameters of LLaMA models with every training state in INT8.
#[derive(Debug, Parser)]
#[command(name = "qft", version, about, max_term_width = 110)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model on text or conversations
    Finetune(Box<FinetuneArgs>),
    /// Measure the mean negative log-likelihood and perplexity of a model on data
    Eval(EvalArgs),
    /// Write a model as other programs serve it: Hugging Face folder, GGUF, compressed-tensors
    Export(ExportArgs),
    /// Continue a text, or answer as the assistant of a conversation
    Generate(GenerateArgs),
    /// Show how much memory a fine-tune takes, without loading anything
    Plan(PlanArgs),
    /// Show what training sees of data
    #[command(subcommand)]
    Data(data::DataCommand),
}
