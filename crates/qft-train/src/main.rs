//! `qft`: fine-tunes all parameters of a LLaMA model with every training state in INT8.

use clap::Parser;
use qft_train::commands::data::DataCommand;
use qft_train::commands::{self, Args, Command};
use qft_train::options::home;
use qft_train::options::terminal::Verbosity;
use qft_train::report::{self, log};
use qft_train::{ErrorKind, Result};
use std::process::ExitCode;

/// The exit code of wrong options, as the option parser has it.
const WRONG_OPTIONS: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse_from(std::env::args_os().map(home::expanded));
    let result = log::start(&args.terminal).and_then(|()| run(args));
    log::end(&result);
    match result {
        Ok(code) => code,
        Err(error) if error.kind() == ErrorKind::Options => ExitCode::from(WRONG_OPTIONS),
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let quiet = args.terminal.verbosity() == Verbosity::Quiet;
    match args.command {
        Command::Finetune(args) => {
            if !args.print_config {
                return commands::finetune::run(&args.resolve()?, quiet);
            }
            report::write(args.to_toml()?.trim_end())?;
        }
        Command::Eval(args) => commands::eval::run(&args.resolve()?, quiet)?,
        Command::Export(args) => commands::export::run(&args.resolve()?, quiet)?,
        Command::Generate(args) => commands::generate::run(&args.resolve()?, quiet)?,
        Command::Chat(args) => commands::chat::run(&args.resolve()?, quiet)?,
        Command::Data(DataCommand::Show(args)) => {
            commands::data::show::run(&args.resolve()?, quiet)?
        }
        Command::Report(args) => commands::report::run(&args)?,
        Command::Plan(args) => commands::plan::run(&args.resolve()?, quiet)?,
        Command::Completions(args) => commands::shell::completions(&args)?,
        Command::Man(args) => commands::shell::man(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
