//! The output folder of a run: what may be written there, and what must stay.

use crate::error::{Context, Error, ErrorKind, Result};
use crate::options::FileOptions;
use crate::step::checkpoint;
use qft_files::FolderLock;
use std::path::{Path, PathBuf};

/// Name of the file of steps, in the output folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Name of the file of the whole run, in the output folder.
pub const SUMMARY_FILE: &str = "summary.json";

/// Name of the folder of checkpoints, in the output folder.
const CHECKPOINTS: &str = "checkpoints";

/// An output folder that is this run's alone, as long as this value lives.
#[derive(Debug)]
pub(super) struct OutputFolder {
    _lock: FolderLock,
}

/// Where the checkpoints of a run into `out` are.
pub fn checkpoints(out: &Path) -> PathBuf {
    out.join(CHECKPOINTS)
}

/// Looks whether a run may begin, or go on, in the output folder. Changes nothing.
///
/// Errors: another run is at work there; a run that begins would write over another run, or over a model that no run
/// wrote.
pub(super) fn check(files: &FileOptions, resumes: bool) -> Result<()> {
    FolderLock::probe(&files.out).map_err(|error| of_output(error.into()))?;
    check_contents(files, resumes)
}

fn of_output(error: Error) -> Error {
    error.of_kind(ErrorKind::Output)
}

fn check_contents(files: &FileOptions, resumes: bool) -> Result<()> {
    let out = &files.out;
    let refuse = |what: String| Err(Error::new(ErrorKind::Output, what));
    if let Some(file) = out.ancestors().find(|path| path.is_file()) {
        return refuse(format!(
            "--out: {} is a file, but a folder is needed; choose another",
            file.display()
        ));
    }
    if resumes {
        return Ok(());
    }
    let run = holds_run(out)?;
    if let (Some(what), false) = (&run, files.overwrite) {
        return refuse(format!(
            "--out: {} already holds a run ({what}); give --resume to continue it, --overwrite to remove it and start \
             over, or another folder",
            out.display()
        ));
    }
    if run.is_none()
        && let Some(name) = holds_model(out)?
    {
        return refuse(format!(
            "--out: {} holds a model that was not written by a run ({name}); its files would be mixed with those of the \
             result; choose another folder",
            out.display()
        ));
    }
    Ok(())
}

/// What of a run would be lost if another began in `out`.
fn holds_run(out: &Path) -> Result<Option<String>> {
    if let Some(latest) = checkpoint::latest(&checkpoints(out))? {
        let name = latest.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Some(format!("{CHECKPOINTS}/{name}")));
    }
    let summary = out.join(SUMMARY_FILE).exists();
    Ok(summary.then(|| SUMMARY_FILE.to_owned()))
}

/// A file in `out` that belongs to a model.
fn holds_model(out: &Path) -> Result<Option<String>> {
    for name in names(out)? {
        let weights = [".safetensors", ".bin", ".gguf", ".pt", ".pth"];
        let model = weights.iter().any(|ending| name.ends_with(ending))
            || name == "config.json"
            || name.starts_with("tokenizer")
            || name.starts_with("adapter");
        if model {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("--out: cannot read {}", dir.display()));
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("--out: cannot read {}", dir.display()))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

impl OutputFolder {
    /// Makes the folder if it is not there, takes it for this run, and with `--overwrite` removes the run that it
    /// holds.
    ///
    /// Errors: those of [`check`]; the folder cannot be written.
    pub(super) fn begin(files: &FileOptions, resumes: bool) -> Result<Self> {
        let out = &files.out;
        std::fs::create_dir_all(out)
            .with_context(|| format!("--out: cannot create {}", out.display()))?;
        let lock = FolderLock::acquire(out).map_err(|error| of_output(error.into()))?;
        // Another run may have come and gone since the options were checked.
        check_contents(files, resumes)?;
        if !resumes {
            Self::clear(out)?;
        }
        Ok(Self { _lock: lock })
    }

    /// Removes an earlier run. The names of its checkpoints vanish before their contents.
    fn clear(out: &Path) -> Result<()> {
        if holds_run(out)?.is_none() {
            return Ok(());
        }
        tracing::info!("removing the run in {}", out.display());
        checkpoint::remove_all(&checkpoints(out))?;
        qft_llama::export::remove(out)?;
        for name in [METRICS_FILE, SUMMARY_FILE] {
            let path = out.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("--overwrite: cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
