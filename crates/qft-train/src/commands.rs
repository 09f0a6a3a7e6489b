//! What a user types: the command line, and a module for each command.

pub mod chat;
pub mod data;
pub mod eval;
pub mod export;
pub mod finetune;
pub mod generate;
mod help;
pub mod plan;
pub mod report;
pub mod shell;
#[cfg(test)]
mod tests;

use crate::options::{
    ChatArgs, EvalArgs, ExportArgs, FinetuneArgs, GenerateArgs, PlanArgs, TerminalArgs,
};
use clap::{Parser, Subcommand};
use report::ReportArgs;
use shell::{CompletionsArgs, ManArgs};

/// Fine-tunes all parameters of LLaMA models with every training state in INT8.
#[derive(Debug, Parser)]
#[command(name = "qft", version, max_term_width = 110, after_help = help::PROGRAM)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much it says, and where.
    #[command(flatten)]
    pub terminal: TerminalArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model on text or conversations
    #[command(after_help = help::FINETUNE)]
    Finetune(Box<FinetuneArgs>),
    /// Measure models: the mean negative log-likelihood and perplexity of data, and scores of questions
    #[command(after_help = help::EVAL)]
    Eval(Box<EvalArgs>),
    /// Write a model as other programs serve it: Hugging Face folder, GGUF, compressed-tensors
    #[command(after_help = help::EXPORT)]
    Export(ExportArgs),
    /// Continue texts, or answer as the assistant of conversations
    #[command(after_help = help::GENERATE)]
    Generate(GenerateArgs),
    /// Talk with a model
    #[command(after_help = help::CHAT)]
    Chat(ChatArgs),
    /// Write the page about a run, or about several beside each other
    #[command(after_help = help::REPORT)]
    Report(ReportArgs),
    /// Show how much memory a fine-tune takes, without loading anything
    #[command(after_help = help::PLAN)]
    Plan(PlanArgs),
    /// Show what training sees of data
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Print a script that lets a shell complete commands, options and values
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    #[command(after_help = help::MAN)]
    Man(ManArgs),
}
