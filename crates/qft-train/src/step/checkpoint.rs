//! Native checkpoints: every plane of every state, and where the run stands: enough to continue it bit for bit.
//!
//! A checkpoint is a folder `step-NNNNNN` with `state.safetensors` (all INT8 planes, scales, protected weights
//! and moments, under the parameter's name and a suffix) and `trainer.json`. A folder of that name
//! is always whole, on the disk, and read with suspicion: `qft-files` knows how.

use super::TrainOps;
use super::answers::Answers;
use super::evaluations::Evaluations;
use super::guard::LossGuard;
use super::trainer::Trainer;
use crate::error::{Context, Result, bail, ensure};
use qft_autograd::layers::processes;
use qft_autograd::{Matrix, Vector, Weight};
use qft_files::atomic::{clean_folders, remove_folder, restore_folder, restore_folders};
use qft_files::{
    Advice, AtomicFolder, Disk, DiskFile, Dtype, FileRules, StoredTensor, TensorFile, TensorInfo,
    TensorWriter,
};
use qft_llama::params::Param;
use qft_optim::StatePart;
use qft_tensor::buffer::RawBuffer;
use qft_tensor::communicator::bytes_of_first;
use qft_tensor::{Buffer, DType, Element, RowShard, Transfer};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where a run stands, beside its states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The layout of checkpoints: [`VERSION`].
    pub version: u32,
    /// Optimizer steps done.
    pub step: u32,
    /// Target tokens trained on: those that count in the loss.
    pub tokens: u64,
    /// Positions trained on: all tokens that the model read.
    pub positions: u64,
    /// Rows whose scale grew, since a weight left its range.
    pub rescaled_rows: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Held-out loss before the first step.
    pub initial_eval_loss: Option<f64>,
    /// What became of answers before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_answers: Option<Answers>,
    /// What evaluations have found.
    #[serde(default)]
    pub evaluations: Evaluations,
    /// Global norm of the last gradient: the clipping of the next step needs it.
    pub last_norm: Option<f64>,
    /// What is known of the loss.
    pub guard: LossGuard,
    /// What decides the result of the run, for a run that goes on to compare.
    pub recipe: serde_json::Value,
}

impl Progress {
    /// Of a run with `recipe` that has not begun.
    pub fn new(recipe: serde_json::Value) -> Self {
        Self {
            version: VERSION,
            step: 0,
            tokens: 0,
            positions: 0,
            rescaled_rows: 0,
            seconds: 0.0,
            initial_eval_loss: None,
            initial_answers: None,
            evaluations: Evaluations::default(),
            last_norm: None,
            guard: LossGuard::default(),
            recipe,
        }
    }

    /// Of a trainer that no run is about, where it stands now.
    pub fn of(trainer: &Trainer) -> Self {
        let (step, last_norm) = (trainer.pass.step, trainer.optimizer.last_norm);
        Self { step, last_norm, ..Self::new(serde_json::Value::Null) }
    }
}

/// The layout of checkpoints written here.
pub const VERSION: u32 = 4;

pub(super) const STATE_FILE: &str = "state.safetensors";
const PROGRESS_FILE: &str = "trainer.json";

/// Bytes that travel at a time between device and file.
pub(super) const CHUNK: usize = 4 << 20;

/// The files of a checkpoint.
const RULES: FileRules =
    FileRules { ours: |name| name == STATE_FILE || name == PROGRESS_FILE, together: |_| false };

/// What to do about states that are not there, or not as they should be; which file it is, and what else to do, is said
/// besides.
const ADVICE: Advice =
    Advice { missing: "is this a checkpoint folder?", damaged: "the file is damaged" };

/// One buffer of the training state.
pub(super) struct StateTensor<'a> {
    name: String,
    dtype: DType,
    len: usize,
    raw: &'a mut RawBuffer,
    /// Where a process of a job has some rows alone: which, and the bytes of a row.
    shard: Option<(RowShard, usize)>,
}

impl StateTensor<'_> {
    pub(super) fn bytes(&self) -> usize {
        self.len * self.dtype.size_bytes()
    }

    /// The same, of which this process has the rows of `shard`, of `rows` in all.
    fn of_rows(mut self, shard: RowShard, rows: usize) -> Self {
        if !shard.is_whole() {
            let width = self.bytes() / shard.len().max(1);
            (self.len, self.shard) = (rows * width / self.dtype.size_bytes(), Some((shard, width)));
        }
        self
    }

    /// Whether this process has all of it.
    pub(super) fn is_whole(&self) -> bool {
        self.shard.is_none()
    }

    /// Copies bytes from `start` on, of what this process has.
    pub(super) fn download(&self, ops: &dyn TrainOps, start: usize, part: &mut [u8]) -> Result<()> {
        Ok(ops.download_raw(self.raw, start, part)?)
    }

    /// Hands on all of its bytes, part by part, where the processes of a job come together; `take` fails in vain.
    pub(super) fn each_part(
        &self,
        ops: &dyn TrainOps,
        chunk: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let Some((shard, width)) = self.shard else {
            for start in (0..self.bytes()).step_by(CHUNK) {
                let part = &mut chunk[..CHUNK.min(self.bytes() - start)];
                self.download(ops, start, part)?;
                take(part);
            }
            return Ok(());
        };
        for rows in row_parts(self.bytes() / width.max(1), width) {
            let part = &mut chunk[..rows.len() * width];
            processes::gather_rows(ops, self.raw, shard, &rows, part)?;
            take(part);
        }
        Ok(())
    }

    /// Fills it from `read`, which gets the place of each part.
    fn fill(
        &mut self,
        ops: &dyn TrainOps,
        chunk: &mut [u8],
        read: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let Some((shard, width)) = self.shard else {
            for at in (0..self.bytes()).step_by(CHUNK) {
                let part = &mut chunk[..CHUNK.min(self.bytes() - at)];
                read(at, part)?;
                ops.upload_raw(self.raw, at, part)?;
            }
            return Ok(());
        };
        for rows in row_parts(self.bytes() / width.max(1), width) {
            let part = &mut chunk[..rows.len() * width];
            read(rows.start * width, part)?;
            for piece in shard.pieces(rows.clone()) {
                let own = (piece.start - rows.start) * width..(piece.end - rows.start) * width;
                ops.upload_raw(self.raw, shard.place(piece.start) * width, &part[own])?;
            }
        }
        Ok(())
    }
}

/// Rows of `width` bytes in parts that fit a chunk, or of one row.
fn row_parts(rows: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (CHUNK / width.max(1)).max(1);
    (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
}

fn tensor<'a, T: Element>(param: &str, part: &str, buffer: &'a mut Buffer<T>) -> StateTensor<'a> {
    let (name, len) = (format!("{param}/{part}"), buffer.len());
    StateTensor { name, dtype: T::DTYPE, len, raw: buffer.raw_mut(), shard: None }
}

/// Every buffer of the training state, in order of parameters.
pub(super) fn state_tensors(trainer: &mut Trainer) -> Vec<StateTensor<'_>> {
    let params = trainer.model.params.as_ref().list();
    let names: Vec<_> = params.iter().map(|param| param.name().to_owned()).collect();
    let mut all = Vec::new();
    for param in trainer.model.params.as_mut().list() {
        match param {
            Param::Vector(Vector { name, data, .. }) => all.push(tensor(name, "gain", data)),
            Param::Matrix(Matrix { weight: Weight::Float(data), name, .. }) => {
                all.push(tensor(name, "float", data));
            }
            Param::Matrix(Matrix { weight: Weight::Hybrid(matrix), name, .. }) => {
                let (shard, rows) = (matrix.residual_shard(), matrix.rows());
                all.push(tensor(name, "q", &mut matrix.q));
                all.push(tensor(name, "scale", &mut matrix.scale));
                if let Some(residual) = &mut matrix.residual {
                    all.push(tensor(name, "residual", residual).of_rows(shard, rows));
                }
                if let Some(protected) = &mut matrix.protected {
                    all.push(tensor(name, "protected_values", &mut protected.values));
                    all.push(tensor(name, "protected_cols", &mut protected.cols));
                    all.push(tensor(name, "protected_counts", &mut protected.counts));
                    all.push(tensor(name, "protected_row_start", &mut protected.row_start));
                }
            }
        }
    }
    for (state, name) in trainer.optimizer.states.iter_mut().zip(&names) {
        for StatePart { name: part, dtype, len, raw, rows } in state.parts_mut() {
            let name = format!("{name}/{part}");
            let tensor = StateTensor { name, dtype, len, raw, shard: None };
            all.push(match rows {
                Some((shard, rows)) => tensor.of_rows(shard, rows),
                None => tensor,
            });
        }
    }
    all
}

/// Where the bytes of a tensor lie on their way. Blocks that are kept by size are given back first, so that saving stays below
/// the peak of training; what was reserved for steps stays, and the plan counts both.
pub(super) fn chunk(ops: &dyn TrainOps, tensors: &[StateTensor<'_>]) -> Transfer<u8> {
    ops.trim();
    let most = tensors.iter().map(StateTensor::bytes).max().unwrap_or(0);
    let row = tensors.iter().filter_map(|tensor| Some(tensor.shard?.1)).max().unwrap_or(0);
    Transfer::zeroed(ops.ledger(), "checkpoint", CHUNK.min(most).max(row))
}

/// Allocates whatever saving and loading take, and nothing more: for memory plans.
pub fn plan(ops: &dyn TrainOps, trainer: &mut Trainer) {
    drop(chunk(ops, &state_tensors(trainer)));
}

fn file_type(dtype: DType) -> Result<Dtype> {
    Ok(match dtype {
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        DType::U32 => Dtype::U32,
        DType::Bf16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        other => bail!("checkpoint: no file type for {other}"),
    })
}

/// The folder of the checkpoint after `step` steps.
pub fn folder(root: &Path, step: u32) -> PathBuf {
    root.join(format!("step-{step:06}"))
}

/// The step of the checkpoint in a folder of this name.
fn step_of(name: &str) -> Option<u32> {
    name.strip_prefix("step-")?.parse().ok()
}

fn is_checkpoint(name: &str) -> bool {
    step_of(name).is_some()
}

/// Writes the checkpoint of `progress.step` below `root` and returns its folder. One of the same step is replaced, as a
/// whole.
///
/// Errors: anything the file system refuses; what was written is removed then, and older checkpoints stay.
pub fn save(
    ops: &dyn TrainOps,
    trainer: &mut Trainer,
    progress: &Progress,
    root: &Path,
) -> Result<PathBuf> {
    save_on(&Disk::default(), ops, trainer, progress, root)
}

/// [`save`] on a disk that may be watched, or made to fail.
///
/// Errors: as [`save`].
pub fn save_on(
    disk: &Disk,
    ops: &dyn TrainOps,
    trainer: &mut Trainer,
    progress: &Progress,
    root: &Path,
) -> Result<PathBuf> {
    let mut came_together = false;
    let written = write_folder(disk, progress, root, &mut |folder| {
        write_state(ops, trainer, folder.create(STATE_FILE)?, &mut came_together)
    });
    if !came_together {
        // The others are there, whatever is wrong here.
        serve(ops, trainer)?;
    }
    written
}

/// Writes the folder of a checkpoint, in which `states` makes the file of that name.
///
/// Errors: as [`save`].
pub(super) fn write_folder(
    disk: &Disk,
    progress: &Progress,
    root: &Path,
    states: &mut dyn FnMut(&mut AtomicFolder) -> Result<()>,
) -> Result<PathBuf> {
    clean_folders(disk, root, is_checkpoint, RULES);
    let target = folder(root, progress.step);
    let mut write = || -> Result<()> {
        let mut folder = AtomicFolder::replacing(disk, &target, RULES)?;
        states(&mut folder)?;
        folder.write_file(PROGRESS_FILE, serde_json::to_string_pretty(progress)?.as_bytes())?;
        Ok(folder.commit()?)
    };
    let hint = "is the disk full, or the folder read-only? Older checkpoints are untouched";
    write().with_context(|| format!("cannot write {}: {hint}", target.display()))?;
    Ok(target)
}

/// In a job of several processes, what the others do while the first one saves a checkpoint: they bring their rows.
///
/// Errors: the job is lost.
pub fn serve(ops: &dyn TrainOps, trainer: &mut Trainer) -> Result<()> {
    let mut tensors = state_tensors(trainer);
    tensors.retain(|tensor| tensor.shard.is_some());
    if tensors.is_empty() {
        return Ok(());
    }
    let mut chunk = chunk(ops, &tensors);
    tensors.iter().try_for_each(|tensor| tensor.each_part(ops, &mut chunk, &mut |_| ()))
}

/// What a file has of the tensors.
pub(super) fn infos(tensors: &[StateTensor<'_>]) -> Result<Vec<TensorInfo>> {
    let info = |t: &StateTensor<'_>| {
        let (name, dtype) = (t.name.clone(), file_type(t.dtype)?);
        Ok(TensorInfo { name, dtype, shape: vec![t.len] })
    };
    tensors.iter().map(info).collect()
}

/// Writes all states; `came_together` is set once processes of a job exchange rows, which they do to the end.
fn write_state(
    ops: &dyn TrainOps,
    trainer: &mut Trainer,
    file: DiskFile,
    came_together: &mut bool,
) -> Result<()> {
    let tensors = state_tensors(trainer);
    let mut writer = TensorWriter::begin(file, &[], &infos(&tensors)?)?;
    let mut chunk = chunk(ops, &tensors);
    *came_together = true;
    let mut failed = None;
    for t in tensors {
        t.each_part(ops, &mut chunk, &mut |part| {
            if failed.is_none() {
                failed = writer.write(part).err();
            }
        })?;
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(writer.finish()?),
    }
}

/// The checkpoints below `root`, oldest first.
fn list(root: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", root.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(step) = entry.file_name().to_str().and_then(step_of) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint below `root`, if there is one. One whose replacement was interrupted gets its name back.
pub fn latest(root: &Path) -> Result<Option<PathBuf>> {
    restore_folders(&Disk::default(), root, is_checkpoint)?;
    let all = list(root)?;
    for (_, dir) in all.iter().rev() {
        match read_progress(dir).and_then(|_| Ok(TensorFile::open(&dir.join(STATE_FILE), ADVICE)?))
        {
            Ok(_) => return Ok(Some(dir.clone())),
            Err(error) => tracing::warn!("{} is passed over: {error:#}", dir.display()),
        }
    }
    // Whoever asked for the newest is told what is wrong with it.
    Ok(all.into_iter().next_back().map(|(_, dir)| dir))
}

/// Which checkpoints a run may remove: whether the one of this progress is its own.
pub type IsOwn<'a> = dyn Fn(&Progress) -> bool + 'a;

/// Removes the checkpoints below `root` that are older than the newest `keep` up to that of `step`, as far as they are
/// the run's `own`.
///
/// Those of other runs stay, and so do those of later steps: the run has come to them before, and will again.
pub fn prune(root: &Path, step: u32, keep: usize, own: &IsOwn<'_>) -> Result<()> {
    prune_on(&Disk::default(), root, step, keep, own)
}

/// [`prune`] on a disk that may be watched, or made to fail.
///
/// Errors: as [`prune`].
pub fn prune_on(disk: &Disk, root: &Path, step: u32, keep: usize, own: &IsOwn<'_>) -> Result<()> {
    let mut older: Vec<_> = list(root)?.into_iter().filter(|&(other, _)| other < step).collect();
    older.retain(|(_, dir)| read_progress(dir).is_ok_and(|progress| own(&progress)));
    older.truncate((older.len() + 1).saturating_sub(keep));
    for (_, dir) in older {
        remove_folder(disk, &dir, RULES)?;
    }
    Ok(())
}

/// Removes all checkpoints below `root`, and the folder if nothing else is in it.
pub fn remove_all(root: &Path) -> Result<()> {
    let disk = Disk::default();
    clean_folders(&disk, root, is_checkpoint, RULES);
    for (_, dir) in list(root)? {
        remove_folder(&disk, &dir, RULES)?;
    }
    match fs::remove_dir(root) {
        Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", root.display())),
    }
}

/// Reads where the run of a checkpoint stands.
pub fn read_progress(dir: &Path) -> Result<Progress> {
    progress_of(&progress_text(dir)?, dir)
}

/// The text of the file that says where the run of a checkpoint stands.
///
/// Errors: it cannot be read.
pub fn progress_text(dir: &Path) -> Result<String> {
    restore_folder(&Disk::default(), dir)?;
    let path = dir.join(PROGRESS_FILE);
    fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: --resume takes a checkpoint, such as OUT/checkpoints/step-000100, or `latest` for the newest one in \
             --out",
            path.display()
        )
    })
}

/// Where a run stands, by the text in its checkpoint `dir`.
///
/// Errors: it is damaged, or of another version.
pub fn progress_of(text: &str, dir: &Path) -> Result<Progress> {
    let path = dir.join(PROGRESS_FILE);
    let progress: Progress = serde_json::from_str(text).with_context(|| {
        format!("{} is damaged; resume from another checkpoint", path.display())
    })?;
    ensure!(
        progress.version == VERSION,
        "{}: checkpoint version {}, this program reads version {VERSION}; start the run over, or resume it with \
         the version of qft that wrote it",
        path.display(),
        progress.version
    );
    Ok(progress)
}

/// Fills a trainer of the same model and options with the states of the checkpoint in `dir`. In a job of several processes the
/// first one alone reads it.
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
    trainer.pass.step = progress.step;
    trainer.optimizer.last_norm = progress.last_norm;
    Ok(())
}

fn read_state(ops: &dyn TrainOps, trainer: &mut Trainer, path: &Path) -> Result<()> {
    let processes = ops.communicator();
    let tensors = state_tensors(trainer);
    let mut chunk = chunk(ops, &tensors);
    // The first process of a job reads, and the others hear what it has read.
    let file = (processes.rank() == 0).then(|| TensorFile::open(path, ADVICE)).transpose()?;
    let stored = file.as_ref().map(|file| stored_tensors(file, &tensors)).transpose()?;
    for (number, mut t) in tensors.into_iter().enumerate() {
        t.fill(ops, &mut chunk, &mut |at, part| {
            if let (Some(file), Some(stored)) = (&file, &stored) {
                file.read_at(stored[number], at as u64, part)?;
            }
            if processes.size() > 1 {
                bytes_of_first(processes, part)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What a file has of the tensors, in their order.
///
/// Errors: another number of them, one that is missing, or of another type or size.
fn stored_tensors<'a>(
    file: &'a TensorFile,
    tensors: &[StateTensor<'_>],
) -> Result<Vec<&'a StoredTensor>> {
    let stored: HashMap<&str, &StoredTensor> =
        file.tensors().iter().map(|stored| (stored.name.as_str(), stored)).collect();
    ensure!(
        stored.len() == tensors.len(),
        "{} tensors in the file, {} in this model; the options differ from those of the run",
        stored.len(),
        tensors.len()
    );
    let find = |t: &StateTensor<'_>| -> Result<&'a StoredTensor> {
        let Some(stored) = stored.get(t.name.as_str()) else {
            bail!("`{}` is not in the file", t.name)
        };
        ensure!(
            stored.dtype == file_type(t.dtype)? && stored.shape == [t.len],
            "`{}` is {:?} {:?} in the file, expected {} [{}]",
            t.name,
            stored.dtype,
            stored.shape,
            t.dtype,
            t.len
        );
        Ok(stored)
    };
    tensors.iter().map(find).collect()
}
