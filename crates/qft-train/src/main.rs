//! `qft`: fine-tunes all parameters of a LLaMA model with every training state in INT8.

use clap::Parser;
use qft_train::Result;
use qft_train::commands::data::DataCommand;
use qft_train::commands::{self, Args, Command};
use std::io::Write;
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
        // A closed standard error ends nothing.
        .log_internal_errors(false)
        .init();
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Finetune(args) => return commands::finetune::run(&args.resolve()?),
        Command::Eval(args) => commands::eval::run(&args.resolve()?)?,
        Command::Export(args) => commands::export::run(&args.resolve()?)?,
        Command::Generate(args) => commands::generate::run(&args.resolve()?)?,
        Command::Data(DataCommand::Show(args)) => commands::data::show::run(&args.resolve()?)?,
        Command::Plan(args) => commands::plan::run(&args.resolve()?)?,
    }
    Ok(ExitCode::SUCCESS)
}
