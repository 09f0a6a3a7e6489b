//! Devices that can train.

use qft_autograd::LayerOps;
use qft_optim::OptimOps;

/// Everything that a training step asks of a device.
pub trait TrainOps: LayerOps + OptimOps {}

impl<T: LayerOps + OptimOps> TrainOps for T {}
