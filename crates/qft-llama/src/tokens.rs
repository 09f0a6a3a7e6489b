//! A micro-batch on the device.

use crate::batch::{Batch, IGNORE};
use qft_autograd::{Error, LayerOps, Segments};
use qft_tensor::{Buffer, Owner};

/// A micro-batch on the device.
pub(crate) struct Tokens {
    pub(crate) ids: Buffer<u32>,
    pub(crate) positions: Buffer<u32>,
    pub(crate) segments: Segments,
    /// Positions that have a target, and these targets.
    pub(crate) index: Buffer<u32>,
    pub(crate) targets: Buffer<u32>,
}

impl Tokens {
    pub(crate) fn new(ops: &dyn LayerOps, batch: &Batch) -> Result<Self, Error> {
        let index: Vec<u32> =
            (0..batch.tokens() as u32).filter(|&i| batch.targets[i as usize] != IGNORE).collect();
        let targets: Vec<u32> = index.iter().map(|&i| batch.targets[i as usize]).collect();
        let device = ops as &dyn qft_tensor::Device;
        Ok(Self {
            ids: Buffer::from_host(device, Owner::Data, "token ids", &batch.ids)?,
            positions: Buffer::from_host(device, Owner::Data, "positions", &batch.positions())?,
            segments: Segments::new(batch.segments.clone())?,
            index: Buffer::from_host(device, Owner::Data, "target positions", &index)?,
            targets: Buffer::from_host(device, Owner::Data, "targets", &targets)?,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }
}
