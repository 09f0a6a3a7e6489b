//! The output folder of a run: what may be written there, and what must stay.
//!
//! A run that is not done is never written over without being asked to. One that is done makes way for another: it is
//! moved aside, within the folder.

use super::recipe::Recipe;
use super::summary::{EarlyEnd, Summary};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::options::{FileOptions, RunExport};
use crate::step::checkpoint;
use qft_files::{FolderLock, check_writable};
use qft_llama::export;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

/// Name of the file of steps, in the output folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Name that a file of steps is given when another takes its place.
pub const PREVIOUS_METRICS_FILE: &str = "metrics.previous.jsonl";

/// Name of the file of the whole run, in the output folder.
pub const SUMMARY_FILE: &str = "summary.json";

/// Name of the file of what a run is, in the output folder.
pub const RECORD_FILE: &str = "run.json";

/// Name of the page about the run, in the output folder.
pub const PAGE_FILE: &str = "report.html";

/// Name of the folder for TensorBoard, in the output folder.
pub const TENSORBOARD: &str = "tensorboard";

/// Name of the file of samples, in the output folder.
pub const SAMPLES_FILE: &str = "samples.txt";

/// Name of the folder of checkpoints, in the output folder.
const CHECKPOINTS: &str = "checkpoints";

/// Name of a folder for a run that another took the place of, before its number.
pub const EARLIER: &str = "earlier-";

/// An output folder that is this run's alone, as long as this value lives.
#[derive(Debug)]
pub(super) struct OutputFolder {
    _lock: FolderLock,
    /// Where the run that was here before has gone.
    pub(super) set_aside: Option<PathBuf>,
}

/// What a folder holds of runs.
#[derive(Debug, PartialEq)]
enum Held {
    /// Nothing that would be lost.
    Nothing,
    /// A run that has not come to its end; what shows it.
    Unfinished(String),
    /// A run that is done, and its last checkpoint.
    Finished(Option<PathBuf>),
}

/// Where the checkpoints of a run into `out` are.
pub fn checkpoints(out: &Path) -> PathBuf {
    out.join(CHECKPOINTS)
}

/// Looks whether a run may begin, or go on, in the output folder. Changes nothing.
///
/// Errors: another run is at work there; nothing can be written there; a run that begins would write over one that is not
/// done, or over a model that no run wrote.
pub(super) fn check(files: &FileOptions, resumed: Option<&Path>) -> Result<()> {
    let free = FolderLock::probe(&files.out).and_then(|()| check_writable(&files.out));
    free.map_err(|error| of_output(error.into()))?;
    check_contents(files, resumed)
}

/// Whether `checkpoint` is one of the run in `out`, and not one that was brought from elsewhere.
pub(super) fn is_own(out: &Path, checkpoint: &Path) -> bool {
    let root = checkpoints(out).canonicalize();
    let parent = checkpoint.canonicalize().ok().and_then(|dir| Some(dir.parent()?.to_path_buf()));
    matches!((root, parent), (Ok(root), Some(parent)) if root == parent)
}

fn of_output(error: Error) -> Error {
    error.of_kind(ErrorKind::Output)
}

fn refuse(what: String) -> Result<()> {
    Err(Error::new(ErrorKind::Output, what))
}

fn check_contents(files: &FileOptions, resumed: Option<&Path>) -> Result<()> {
    let out = &files.out;
    if out.is_symlink() && !out.exists() {
        return refuse(format!(
            "--out: {} is a link to what does not exist; make the folder, or choose another",
            out.display()
        ));
    }
    if let Some(file) = out.ancestors().find(|path| path.is_file()) {
        return refuse(format!(
            "--out: {} is a file, but a folder is needed; choose another",
            file.display()
        ));
    }
    // A checkpoint from elsewhere gives no right to what lies here.
    if resumed.is_some_and(|checkpoint| is_own(out, checkpoint)) {
        return Ok(());
    }
    match held(out)? {
        Held::Unfinished(what) if !files.overwrite => refuse(format!(
            "--out: {} already holds a run that is not done ({what}); give --resume to continue it, --overwrite to \
             remove it and start over, or another folder",
            out.display()
        )),
        Held::Nothing => match foreign_model(out)? {
            None => Ok(()),
            Some(name) => refuse(format!(
                "--out: {} holds a file of a model that was not written by a run ({name}); it would be mixed \
                 with those of the result; choose another folder",
                out.display()
            )),
        },
        _ => Ok(()),
    }
}

/// Looks whether the run that `out` holds is this one, and done.
///
/// Errors: it is, so that nothing would come of doing it again.
pub(super) fn check_recipe(files: &FileOptions, recipe: &Recipe) -> Result<()> {
    let Held::Finished(Some(last)) = held(&files.out)? else { return Ok(()) };
    let same = checkpoint::read_progress(&last)
        .and_then(|progress| Recipe::from_json(&progress.recipe, &last))
        .is_ok_and(|then| recipe.is_same(&then));
    if !same || files.overwrite {
        return Ok(());
    }
    refuse(format!(
        "--out: {} already holds this run, and it is done: another would come to the same bits; give --resume to \
         evaluate and save it again, --overwrite to remove it and start over, or another folder",
        files.out.display()
    ))
}

fn held(out: &Path) -> Result<Held> {
    let latest = checkpoint::latest(&checkpoints(out))?;
    let text = std::fs::read_to_string(out.join(SUMMARY_FILE)).ok();
    let done = text.and_then(|text| serde_json::from_str::<Summary>(&text).ok());
    let Some(latest) = latest else {
        // Its checkpoints and more may have been removed to save space.
        let was_here = done.is_some() || out.join(METRICS_FILE).exists();
        let finished = was_here && foreign_model(out)?.is_some();
        return Ok(if finished || done.is_some() { Held::Finished(None) } else { Held::Nothing });
    };
    let name = latest.file_name().unwrap_or_default().display();
    Ok(match (checkpoint::read_progress(&latest), done) {
        (Err(_), _) => Held::Unfinished(format!("{CHECKPOINTS}/{name}, which is damaged")),
        // A run that was extended has a summary of its first part; one whose time was over can go on.
        (Ok(progress), Some(done))
            if u64::from(progress.step) <= done.steps
                && done.ended_early != Some(EarlyEnd::MaxMinutes) =>
        {
            Held::Finished(Some(latest))
        }
        _ => Held::Unfinished(format!("{CHECKPOINTS}/{name}")),
    })
}

/// A file in `out` that belongs to a model.
fn foreign_model(out: &Path) -> Result<Option<String>> {
    const WEIGHTS: [&str; 5] = [".safetensors", ".bin", ".gguf", ".pt", ".pth"];
    let of_model = |name: &String| {
        WEIGHTS.iter().any(|ending| name.ends_with(ending))
            || export::is_model_file(name)
            || name.starts_with("tokenizer")
            || name.starts_with("adapter")
    };
    Ok(names(out)?.into_iter().find(of_model))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("--out: cannot read {}", dir.display()))?,
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
    /// Makes the folder if it is not there, takes it for this run, and lets the run make way that it holds: moved aside
    /// if it is done, removed with `--overwrite`.
    ///
    /// Errors: those of [`check`]; the folder cannot be written.
    pub(super) fn begin(files: &FileOptions, resumed: Option<&Path>) -> Result<Self> {
        let out = &files.out;
        std::fs::create_dir_all(out)
            .with_context(|| format!("--out: cannot create {}", out.display()))?;
        let lock = FolderLock::acquire(out).map_err(|error| of_output(error.into()))?;
        // Another run may have come and gone since the options were checked.
        check_contents(files, resumed)?;
        let set_aside = match held(out)? {
            Held::Nothing => None,
            _ if resumed.is_some_and(|checkpoint| is_own(out, checkpoint)) => None,
            _ if files.overwrite => clear(out).map(|()| None)?,
            _ => Some(set_aside(out)?),
        };
        Ok(Self { _lock: lock, set_aside })
    }
}

/// What a run leaves besides its model, the sign that it is done last.
const OF_A_RUN: [&str; 8] = [
    CHECKPOINTS,
    TENSORBOARD,
    PAGE_FILE,
    METRICS_FILE,
    PREVIOUS_METRICS_FILE,
    RECORD_FILE,
    SAMPLES_FILE,
    SUMMARY_FILE,
];

/// Moves a run that is done to a folder of its own, which has its name when all is in it. After a crash in between,
/// the next run goes on with the move.
fn set_aside(out: &Path) -> Result<PathBuf> {
    let numbers = (1..).map(|number: u32| out.join(format!("{EARLIER}{number}")));
    let aside =
        numbers.into_iter().find(|path| !path.exists()).unwrap_or_else(|| out.join(EARLIER));
    let partial = aside.with_extension("partial");
    let context = || format!("--out: cannot move the earlier run to {}", aside.display());
    let moved = || -> std::io::Result<()> {
        std::fs::create_dir_all(&partial)?;
        let of_model =
            std::fs::read_dir(out)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let of_model: Vec<_> = of_model.filter(|name| belongs_to_model(out, name)).collect();
        let exports = RunExport::all().map(RunExport::folder);
        for name in of_model.into_iter().chain(exports).chain(OF_A_RUN.map(str::to_owned)) {
            match std::fs::rename(out.join(&name), partial.join(&name)) {
                Err(error) if error.kind() != IoErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::File::open(&partial)?.sync_all()?;
        std::fs::rename(&partial, &aside)?;
        std::fs::File::open(out)?.sync_all()
    };
    moved().with_context(context)?;
    Ok(aside)
}

/// Whether a file goes where its model goes.
fn belongs_to_model(out: &Path, name: &str) -> bool {
    export::is_model_file(name) || export::is_licence(name) || is_own_card(out, name)
}

/// Whether a file is the card that a run wrote.
fn is_own_card(out: &Path, name: &str) -> bool {
    name == export::CARD && export::is_own_card(&out.join(name))
}

/// Removes a run: the names of its checkpoints vanish before their contents.
fn clear(out: &Path) -> Result<()> {
    checkpoint::remove_all(&checkpoints(out))?;
    remove_event_files(&out.join(TENSORBOARD))?;
    for exported in RunExport::all() {
        export::remove_export(&out.join(exported.folder())).context("--overwrite")?;
    }
    let of_model = names(out)?
        .into_iter()
        .filter(|name| export::is_model_file(name) || is_own_card(out, name));
    let files = OF_A_RUN.into_iter().filter(|name| ![CHECKPOINTS, TENSORBOARD].contains(name));
    for name in of_model.chain(files.map(str::to_owned)) {
        let path = out.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != IoErrorKind::NotFound => {
                let context = || format!("--overwrite: cannot remove {}", path.display());
                return Err(error).with_context(context);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the files that runs wrote for TensorBoard, and the folder if nothing else is in it.
fn remove_event_files(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    let mut others = false;
    for name in names(dir)? {
        let path = dir.join(&name);
        if is_event_file(&name) {
            let context = || format!("--overwrite: cannot remove {}", path.display());
            std::fs::remove_file(&path).with_context(context)?;
        } else {
            others = true;
        }
    }
    if others {
        return Ok(());
    }
    std::fs::remove_dir(dir)
        .with_context(|| format!("--overwrite: cannot remove {}", dir.display()))
}

/// Name of the file for TensorBoard of a session that began after `step` steps, `seconds` after 1970. It reads files in the
/// order of their names.
pub fn event_file(seconds: u64, step: u64) -> String {
    format!("events.out.tfevents.{seconds:010}.{step:010}.qft")
}

/// Whether a file was named by [`event_file`].
fn is_event_file(name: &str) -> bool {
    name.starts_with("events.out.tfevents.") && name.ends_with(".qft")
}
