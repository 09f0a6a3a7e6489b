//! Native checkpoints: every plane of every state, and where the run stands, from which it goes on bit for bit.
//!
//! A checkpoint is a folder `step-NNNNNN` with `state.safetensors` (all INT8 planes, scales, protected features
//! and momenta, under the parameter's name and a suffix; and the wide channels) and `trainer.json`. It is written beside its final place
//! and renamed when complete, so a folder of that name is always whole.

use crate::TrainOps;
use crate::optimizer::ParamState;
use crate::trainer::Trainer;
use anyhow::{Context, Result, bail, ensure};
use qft_autograd::{Matrix, Weight};
use qft_llama::model::{Model, ParamMut};
use qft_tensor::buffer::RawBuffer;
use qft_tensor::{Buffer, DType, Element, Transfer};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where a run stands, beside its states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The layout of checkpoints: [`VERSION`].
    pub version: u32,
    /// Optimizer steps done.
    pub step: u32,
    /// Target tokens trained on.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Held-out loss before the first step.
    pub initial_eval_loss: Option<f64>,
    /// Global norm of the last gradient: the clipping of the next step needs it.
    pub last_norm: Option<f64>,
    /// The options that decide the result of the run; a resumed run must have the same.
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// The layout of checkpoints written here.
pub const VERSION: u32 = 2;

const STATE_FILE: &str = "state.safetensors";
const PROGRESS_FILE: &str = "trainer.json";

/// Bytes that travel at a time between device and file.
const CHUNK: usize = 4 << 20;

/// The largest header that is believed: a hundred thousand tensors need a tenth of it.
const MAX_HEADER: u64 = 100 << 20;

/// One buffer of the training state.
struct StateTensor<'a> {
    name: String,
    dtype: DType,
    len: usize,
    raw: &'a mut RawBuffer,
}

impl StateTensor<'_> {
    fn bytes(&self) -> usize {
        self.len * self.dtype.size_bytes()
    }
}

fn tensor<'a, T: Element>(param: &str, part: &str, buffer: &'a mut Buffer<T>) -> StateTensor<'a> {
    let (name, len) = (format!("{param}/{part}"), buffer.len());
    StateTensor { name, dtype: T::DTYPE, len, raw: buffer.raw_mut() }
}

/// Every buffer of the training state, in order of parameters.
fn state_tensors(trainer: &mut Trainer) -> Vec<StateTensor<'_>> {
    let names: Vec<_> = trainer.model.config.tensors().map(|spec| spec.name).collect();
    let (params, wide) = trainer.model.state_mut();
    let mut all = vec![tensor("wide", "channels", &mut wide.channels)];
    for (param, name) in params.into_iter().zip(&names) {
        match param {
            ParamMut::Vector(vector) => all.push(tensor(name, "gain", &mut vector.data)),
            ParamMut::Matrix(Matrix { weight: Weight::Float(data), .. }) => {
                all.push(tensor(name, "float", data));
            }
            ParamMut::Matrix(Matrix { weight: Weight::Hybrid(matrix), .. }) => {
                all.push(tensor(name, "q", &mut matrix.q));
                all.push(tensor(name, "scale", &mut matrix.scale));
                all.extend(matrix.residual.iter_mut().map(|r| tensor(name, "residual", r)));
                if let Some(outliers) = &mut matrix.outliers {
                    all.push(tensor(name, "outlier_values", &mut outliers.values));
                    all.push(tensor(name, "outlier_cols", &mut outliers.cols));
                    all.push(tensor(name, "outlier_counts", &mut outliers.counts));
                    all.push(tensor(name, "outlier_row_start", &mut outliers.row_start));
                }
            }
        }
    }
    for (state, name) in trainer.optimizer.states.iter_mut().zip(&names) {
        match state {
            ParamState::Int8(momentum) => {
                all.push(tensor(name, "momentum", &mut momentum.q));
                all.push(tensor(name, "momentum_scale", &mut momentum.scale));
            }
            ParamState::Float(state) => {
                all.push(tensor(name, "m", &mut state.m));
                all.extend(state.v.iter_mut().map(|v| tensor(name, "v", v)));
            }
        }
    }
    all
}

/// Where the bytes of a tensor lie on their way. What is kept for the next step is given back first, so that saving
/// stays below the peak of training.
fn chunk(ops: &dyn TrainOps, tensors: &[StateTensor<'_>]) -> Transfer<u8> {
    ops.trim();
    let most = tensors.iter().map(StateTensor::bytes).max().unwrap_or(0);
    Transfer::zeroed(ops.ledger(), "checkpoint", CHUNK.min(most))
}

/// Allocates whatever saving and loading take, and nothing more: for memory plans.
pub fn plan(ops: &dyn TrainOps, trainer: &mut Trainer) {
    drop(chunk(ops, &state_tensors(trainer)));
}

fn type_name(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::U32 => "U32",
        DType::Bf16 => "BF16",
        DType::F32 => "F32",
        other => bail!("checkpoint: no file type for {other}"),
    })
}

/// The folder of the checkpoint after `step` steps.
pub fn folder(root: &Path, step: u32) -> PathBuf {
    root.join(format!("step-{step:06}"))
}

/// Writes the checkpoint of `progress.step` below `root` and returns its folder.
///
/// Errors: anything the file system refuses; what was written is removed then, and older checkpoints stay.
pub fn save(
    ops: &dyn TrainOps,
    trainer: &mut Trainer,
    progress: &Progress,
    root: &Path,
) -> Result<PathBuf> {
    let target = folder(root, progress.step);
    let partial = target.with_extension("partial");
    let hint = "is the disk full, or the folder read-only? Older checkpoints are untouched";
    fs::create_dir_all(&partial)
        .with_context(|| format!("cannot create {}: {hint}", partial.display()))?;
    let written = write_state(ops, trainer, &partial.join(STATE_FILE))
        .and_then(|()| write_progress(progress, &partial.join(PROGRESS_FILE)))
        .and_then(|()| {
            if target.exists() {
                fs::remove_dir_all(&target)?;
            }
            Ok(fs::rename(&partial, &target)?)
        });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial); // The first error is the one to report.
        return Err(error.context(format!("cannot write {}: {hint}", target.display())));
    }
    Ok(target)
}

fn write_progress(progress: &Progress, path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(serde_json::to_string_pretty(progress)?.as_bytes())?;
    Ok(file.sync_all()?)
}

fn write_state(ops: &dyn TrainOps, trainer: &mut Trainer, path: &Path) -> Result<()> {
    let tensors = state_tensors(trainer);
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for t in &tensors {
        let end = offset + t.bytes();
        let entry = serde_json::json!({
            "dtype": type_name(t.dtype)?, "shape": [t.len], "data_offsets": [offset, end],
        });
        header.insert(t.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_string(&header)?;
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut chunk = chunk(ops, &tensors);
    for t in tensors {
        for start in (0..t.bytes()).step_by(CHUNK) {
            let part = &mut chunk[..CHUNK.min(t.bytes() - start)];
            ops.download_raw(t.raw, start, part)?;
            file.write_all(part)?;
        }
    }
    let file = file.into_inner().map_err(|e| e.into_error())?;
    Ok(file.sync_all()?)
}

/// The complete checkpoints below `root`, oldest first.
fn list(root: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", root.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let step = (path.extension().is_none())
            .then(|| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u32>().ok())
            .flatten();
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// The newest complete checkpoint below `root`, if there is one.
pub fn latest(root: &Path) -> Result<Option<PathBuf>> {
    Ok(list(root)?.pop().map(|(_, path)| path))
}

/// Removes all checkpoints below `root` but the one of `step`, the newest of this run, and `keep - 1` before it.
///
/// Those of later steps are of an earlier run into the same folder: they must not pass for the latest.
pub fn prune(root: &Path, step: u32, keep: usize) -> Result<()> {
    let (later, mut others) = list(root)?.into_iter().partition::<Vec<_>, _>(|c| c.0 > step);
    others.truncate(others.len().saturating_sub(keep));
    for (_, path) in later.into_iter().chain(others) {
        // Renamed out of sight first, so that an interrupted removal leaves no half checkpoint.
        let hidden = path.with_extension("removed");
        let leftover = if hidden.exists() { fs::remove_dir_all(&hidden) } else { Ok(()) };
        leftover
            .and_then(|()| fs::rename(&path, &hidden))
            .and_then(|()| fs::remove_dir_all(&hidden))
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Reads where the run of a checkpoint stands.
pub fn read_progress(dir: &Path) -> Result<Progress> {
    let path = dir.join(PROGRESS_FILE);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}: is this a checkpoint folder?", path.display()))?;
    let progress: Progress = serde_json::from_str(&text).with_context(|| {
        format!("{} is damaged; resume from another checkpoint", path.display())
    })?;
    ensure!(
        progress.version == VERSION,
        "{}: checkpoint version {}, this program reads version {VERSION}; start the run anew, or resume it with \
         the program that wrote it",
        path.display(),
        progress.version
    );
    Ok(progress)
}

/// Fills a trainer of the same model and options with the states of the checkpoint in `dir`.
///
/// Errors: a missing, truncated or foreign file. The trainer must not be used after an error.
pub fn load(
    ops: &dyn TrainOps,
    trainer: &mut Trainer,
    progress: &Progress,
    dir: &Path,
) -> Result<()> {
    let path = dir.join(STATE_FILE);
    read_state(ops, trainer, &path).with_context(|| {
        format!("cannot resume from {}; choose another checkpoint", path.display())
    })?;
    let Model { wide, config, .. } = &mut trainer.model;
    wide.restore(ops, config)
        .with_context(|| format!("{} is damaged; choose another checkpoint", path.display()))?;
    trainer.pass.step = progress.step;
    trainer.optimizer.last_norm = progress.last_norm;
    Ok(())
}

fn read_state(ops: &dyn TrainOps, trainer: &mut Trainer, path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).context("the file is shorter than a header")?;
    let size = u64::from_le_bytes(size);
    ensure!(
        size <= MAX_HEADER && size + 8 <= file_bytes,
        "the header claims {size} bytes in a file of {file_bytes}"
    );
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    let entries: HashMap<String, Entry> =
        serde_json::from_slice(&header).context("the header is damaged")?;
    let tensors = state_tensors(trainer);
    let mut chunk = chunk(ops, &tensors);
    ensure!(
        entries.len() == tensors.len(),
        "{} tensors in the file, {} in this model; the options differ from those of the run",
        entries.len(),
        tensors.len()
    );
    for t in tensors {
        let (start, end) = match entries.get(&t.name) {
            Some(e) if e.dtype == type_name(t.dtype)? && e.shape == [t.len] => e.data_offsets,
            Some(e) => bail!(
                "`{}` is {} {:?} in the file, expected {} [{}]",
                t.name,
                e.dtype,
                e.shape,
                t.dtype,
                t.len
            ),
            None => bail!("`{}` is not in the file", t.name),
        };
        ensure!(
            end.checked_sub(start) == Some(t.bytes() as u64)
                && end.checked_add(8 + size).is_some_and(|end| end <= file_bytes),
            "the file is truncated: `{}` lies at bytes {start}..{end} of {file_bytes}",
            t.name
        );
        file.seek(SeekFrom::Start(8 + size + start))?;
        for at in (0..t.bytes()).step_by(CHUNK) {
            let part = &mut chunk[..CHUNK.min(t.bytes() - at)];
            file.read_exact(part)?;
            ops.upload_raw(t.raw, at, part)?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}
