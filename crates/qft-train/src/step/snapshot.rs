//! A copy of all training states, which a thread writes as a checkpoint while training goes on.

use super::TrainOps;
use super::checkpoint::{self, CHUNK, Progress, STATE_FILE, StateTensor};
use super::trainer::Trainer;
use crate::error::Result;
use qft_files::{Disk, TensorInfo, TensorWriter};
use qft_tensor::ledger::Registration;
use qft_tensor::{DType, DeviceKind, Ledger, Owner, Transfer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Its name in the ledger.
const NAME: &str = "copy of the states";

/// The states of a trainer on the host, as they follow each other in a checkpoint.
#[derive(Debug)]
pub struct Snapshot {
    infos: Vec<TensorInfo>,
    bytes: Transfer<u8>,
}

impl Snapshot {
    /// Room for the states of `trainer`, counted in `ledger`.
    ///
    /// Errors: none that states should cause.
    pub fn alloc(ledger: &Arc<Ledger>, trainer: &mut Trainer) -> Result<Self> {
        let tensors = checkpoint::state_tensors(trainer);
        let infos = checkpoint::infos(&tensors)?;
        let bytes = tensors.iter().map(StateTensor::bytes).sum();
        Ok(Self { infos, bytes: Transfer::zeroed(ledger, NAME, bytes) })
    }

    /// Has its memory found by the system, on all threads of the host: otherwise the first copy waits for each page.
    ///
    /// Errors: a device without a host.
    pub fn touch(&mut self, ops: &dyn TrainOps) -> Result<()> {
        let share = self.bytes.len().div_ceil(ops.host()?.threads()).max(1);
        thread::scope(|scope| {
            for part in self.bytes.chunks_mut(share) {
                scope.spawn(|| part.fill(0));
            }
        });
        Ok(())
    }

    /// Bytes of the states of `trainer`.
    pub fn bytes_of(trainer: &mut Trainer) -> u64 {
        let tensors = checkpoint::state_tensors(trainer);
        tensors.iter().map(|tensor| tensor.bytes() as u64).sum()
    }

    /// Counts what [`Snapshot::alloc`] takes as long as the result lives, and takes nothing: for memory plans.
    pub fn plan(ledger: &Arc<Ledger>, trainer: &mut Trainer) -> Registration {
        let bytes = Self::bytes_of(trainer) as usize;
        ledger.register(Owner::Loading, NAME, DType::U8, bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Takes up the states as they are now. In a job of several processes the others [bring their rows](checkpoint::serve)
    /// meanwhile.
    ///
    /// Errors: a device that fails; a job that is lost.
    pub fn take(&mut self, ops: &dyn TrainOps, trainer: &mut Trainer) -> Result<()> {
        let tensors = checkpoint::state_tensors(trainer);
        let mut chunk = match tensors.iter().all(StateTensor::is_whole) {
            true => None,
            false => Some(checkpoint::chunk(ops, &tensors)),
        };
        let (mut rest, mut parts) = (&mut *self.bytes, Vec::new());
        for tensor in &tensors {
            let (mut own, others) = rest.split_at_mut(tensor.bytes());
            rest = others;
            let Some(chunk) = chunk.as_mut().filter(|_| !tensor.is_whole()) else {
                let starts = (0..).step_by(CHUNK);
                let own = starts.zip(own.chunks_mut(CHUNK));
                parts.extend(own.map(|(at, part)| (tensor, at, part)));
                continue;
            };
            tensor.each_part(ops, chunk, &mut |part| {
                let (place, after) = std::mem::take(&mut own).split_at_mut(part.len());
                place.copy_from_slice(part);
                own = after;
            })?;
        }
        // A thread alone does not get all that the memory gives; a GPU has one line to it.
        let threads = match ops.kind() {
            DeviceKind::Cpu => ops.host()?.threads(),
            _ => 1,
        };
        let share = parts.len().div_ceil(threads).max(1);
        let copy = |parts: &mut [(&StateTensor<'_>, usize, &mut [u8])]| {
            parts.iter_mut().try_for_each(|(tensor, at, part)| tensor.download(ops, *at, part))
        };
        thread::scope(|scope| {
            let shares = parts.chunks_mut(share).map(|parts| scope.spawn(move || copy(parts)));
            let shares: Vec<_> = shares.collect();
            shares.into_iter().try_for_each(|share| match share.join() {
                Ok(copied) => copied,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Writes the checkpoint of `progress`, where the states were taken, as [`checkpoint::save_on`] would have: with the same
    /// bits.
    ///
    /// Errors: as there.
    pub fn save_on(&self, disk: &Disk, progress: &Progress, root: &Path) -> Result<PathBuf> {
        checkpoint::write_folder(disk, progress, root, &mut |folder| {
            let mut writer = TensorWriter::begin(folder.create(STATE_FILE)?, &[], &self.infos)?;
            self.bytes.chunks(CHUNK).try_for_each(|part| writer.write(part))?;
            Ok(writer.finish()?)
        })
    }
}
