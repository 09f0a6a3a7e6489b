//! `qft report`: the page about a run, or about several beside each other.

use crate::error::{Error, ErrorKind, OfKind, Result};
use crate::report::{page, write};
use crate::run::output::PAGE_FILE;
use clap::ValueHint;
use std::path::PathBuf;

/// Options of `qft report`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct ReportArgs {
    /// Output folder of a run that is done, under way or was killed; with several, the page is about the first, beside the others
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath, required = true)]
    pub runs: Vec<PathBuf>,
    /// The file to write [default: report.html in the folder of a single run]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
}

/// Writes the page.
///
/// Errors: there is no run in a folder; several runs and no file to write; the file cannot be written.
pub fn run(args: &ReportArgs) -> Result<()> {
    let out = match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [run]) => run.join(PAGE_FILE),
        (None, runs) => {
            let told = format!(
                "--out is missing; give the file for the page about {} runs, as --out comparison.html",
                runs.len()
            );
            return Err(Error::new(ErrorKind::Options, told));
        }
    };
    let page = match args.runs.as_slice() {
        [run] => page::of_run(run)?,
        runs => page::of_runs(runs)?,
    };
    page::write(&out, &page).of_kind(ErrorKind::Output)?;
    write(format_args!("wrote {}", out.display()))
}
