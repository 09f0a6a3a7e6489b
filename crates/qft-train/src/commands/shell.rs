//! `qft completions` and `qft man`: what shells and `man` want to know of the command line, made from its definitions.

use super::Args;
use crate::error::{Context, ErrorKind, OfKind, Result};
use crate::report::write;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use qft_files::{AtomicFile, Disk};
use std::path::{Path, PathBuf};

/// Options of `qft completions`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Options of `qft man`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct ManArgs {
    /// Write a page for the program and one for each command into this folder [default: that of the program to standard output]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints the script.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "qft", &mut script);
    write(String::from_utf8_lossy(&script).trim_end())
}

/// Prints the page of the program, or writes all pages.
pub fn man(args: &ManArgs) -> Result<()> {
    let mut program = Args::command();
    // So that commands have the options of every command.
    program.build();
    let Some(folder) = &args.out else {
        return write(page(&Man::new(program))?.trim_end());
    };
    let mut all = Vec::new();
    collect(&program, &mut all);
    for man in &all {
        write_page(&folder.join(man.get_filename()), &page(man)?).of_kind(ErrorKind::Output)?;
    }
    write(format_args!("wrote {} pages into {}", all.len(), folder.display()))
}

/// The page of a command, and those of the commands below it.
fn collect(command: &Command, pages: &mut Vec<Man>) {
    pages.push(Man::new(command.clone()));
    let below = command.get_subcommands().filter(|command| command.get_name() != "help");
    below.for_each(|command| collect(command, pages));
}

/// A page in the language of `man`.
fn page(man: &Man) -> Result<String> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn write_page(path: &Path, page: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .with_context(|| format!("--out: cannot create {}", folder.display()))?;
    AtomicFile::write_whole(&Disk::default(), path, page.as_bytes())
        .with_context(|| format!("--out: cannot write {}", path.display()))
}
