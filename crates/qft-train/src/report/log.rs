//! What the program says of itself while it works: on standard error, and in the file of `--log-file`.

use super::note;
use crate::error::{Context, Error, ErrorKind, OfKind, Result, ensure};
use crate::machine::Job;
use crate::options::terminal::{TerminalArgs, Verbosity};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The variable that chooses what is said as `tracing` filters do, where no option does.
const VARIABLE: &str = "QFT_LOG";

/// Of how a command began and ended, which is for the file alone: standard error has it in other words.
const COMMAND: &str = "command";

impl Verbosity {
    /// As a filter has it.
    fn level(self) -> &'static str {
        match self {
            Self::Quiet => "error",
            Self::Normal => "warn",
            Self::Verbose => "info",
            Self::Debug => "debug",
        }
    }
}

/// Lets messages go where `options` say, and notes in the file what was called. To be called once, first of all.
///
/// Errors: the file cannot be opened.
pub fn start(options: &TerminalArgs) -> Result<()> {
    let asked = options.verbosity();
    // Of what several processes would warn, the first warns.
    let shown = if rank() > 0 && asked == Verbosity::Normal { Verbosity::Quiet } else { asked };
    let terminal = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours(&std::io::stderr()))
        .without_time()
        .with_target(false)
        // A closed standard error ends nothing.
        .log_internal_errors(false)
        .with_filter(filter(shown, asked == Verbosity::Normal, "off"));
    let file = options.log_file.as_deref().map(of_this_process).map(|path| {
        ensure!(
            is_log(&path),
            "--log-file: {} holds something else than a log; give another file",
            path.display()
        );
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let place = || {
            format!(
                "--log-file: cannot write {}; give a file in a folder that is there",
                path.display()
            )
        };
        file.with_context(place).of_kind(ErrorKind::Output)
    });
    // What nobody sees now is not worth less later.
    let least = asked.max(Verbosity::Verbose);
    let file = file.transpose()?.map(|file| {
        fmt::layer()
            .with_writer(Mutex::new(file))
            .with_ansi(false)
            .with_target(false)
            .log_internal_errors(false)
            .with_filter(filter(least, asked == Verbosity::Normal, "info"))
    });
    tracing_subscriber::registry().with(terminal).with(file).init();
    let words: Vec<_> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    tracing::info!(target: COMMAND, "qft {}: {}", env!("CARGO_PKG_VERSION"), words.join(" "));
    Ok(())
}

/// Whether a file begins as a log does, with a time such as `2026-12-01T`, or holds nothing yet. What is no file, such as a
/// terminal, is not read.
fn is_log(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = |file: File| file.take(TIME.len() as u64).read_to_end(&mut start);
    if !path.is_file() || File::open(path).and_then(read).is_err() {
        return true;
    }
    let fits = |(&found, expected): (&u8, &u8)| match expected {
        b'0' => found.is_ascii_digit(),
        sign => found == *sign,
    };
    start.is_empty() || start.len() == TIME.len() && start.iter().zip(TIME).all(fits)
}

/// How the time begins that a line of a log begins with; a zero stands for any digit.
const TIME: &[u8] = b"0000-00-00T";

/// The file of this process: in a job, those behind the first have their number behind its name.
fn of_this_process(path: &Path) -> PathBuf {
    match rank() {
        0 => path.to_path_buf(),
        rank => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{rank}"));
            name.into()
        }
    }
}

/// The number of this process among those that were started together.
fn rank() -> usize {
    #[cfg(unix)]
    if let Ok(Some(launch)) = qft_processes::Launch::detect() {
        return launch.rank;
    }
    0
}

/// What passes at `verbosity`, or as the variable says if no option was given.
fn filter(verbosity: Verbosity, variable: bool, command: &str) -> EnvFilter {
    let chosen = variable.then(|| EnvFilter::try_from_env(VARIABLE).ok()).flatten();
    let filter = chosen.unwrap_or_else(|| EnvFilter::new(verbosity.level()));
    match format!("{COMMAND}={command}").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// Whether colours may go to `stream`: it is a terminal, and NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM allow it.
pub fn colours(stream: &impl anstream::stream::RawStream) -> bool {
    anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never
}

/// Says the error that ends a process of `job`, as [`end`] would: nothing comes after it, since the others are ended at once.
pub fn end_of_job(job: &Job, error: &Error) {
    note(&format!("{job}: error: {error:#}"));
    tracing::error!(target: COMMAND, "{job}: {error:#}");
}

/// Says how the command ended: an error on standard error, either in the file.
pub fn end<T>(result: &Result<T>) {
    match result {
        Ok(_) => tracing::info!(target: COMMAND, "done"),
        Err(error) => {
            let style = clap::builder::Styles::default();
            let style = style.get_error();
            let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {error:#}");
            tracing::error!(target: COMMAND, "{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_are_added_to() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        assert!(is_log(&path), "there is none yet");
        for (text, log) in [
            ("", true),
            ("2026-12-01T13:23:00.123456Z  INFO done\n", true),
            ("2026-12-01", false),
            ("{\"text\": \"a\"}\n", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_log(&path), log, "{text}");
        }
        assert!(is_log(Path::new("/dev/null")));
    }
}
