//! `qft`: fine-tunes all parameters of a LLaMA model with every training state in INT8.

use clap::Parser;
use qft_train::args::{Args, Command};
use qft_train::commands;
use qft_train::options::{EvalOptions, FinetuneOptions, GenerateOptions, PlanOptions};
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("QFT_LOG")
                .unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Finetune(args) => {
            return commands::finetune::run(&FinetuneOptions::resolve(*args)?);
        }
        Command::Eval(args) => commands::eval::run(&EvalOptions::resolve(args)?)?,
        Command::Generate(args) => commands::generate::run(&GenerateOptions::resolve(args)?)?,
        Command::Plan(args) => commands::plan::run(&PlanOptions::resolve(args)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
