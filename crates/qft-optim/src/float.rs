//! Moments in f32: of float parameters.

use crate::{Error, Rule, StatePart};
use qft_tensor::{Buffer, Device, Owner};

/// Moments of a float parameter, f32.
#[derive(Debug)]
pub struct FloatState {
    /// First moment (the momentum of Lion), `[len]`.
    pub m: Buffer<f32>,
    /// Second moment `[len]`; absent for Lion.
    pub v: Option<Buffer<f32>>,
}

impl FloatState {
    /// Moments of zero.
    ///
    /// Errors: [`qft_tensor::Error::OutOfMemory`].
    pub fn zeros(device: &dyn Device, len: usize, rule: Rule) -> Result<Self, Error> {
        let v = match rule.moments() {
            1 => None,
            _ => Some(Buffer::zeros(device, Owner::Momentum, "second moment", len)?),
        };
        Ok(Self { m: Buffer::zeros(device, Owner::Momentum, "first moment", len)?, v })
    }

    /// Every buffer, with its name in checkpoints.
    pub fn parts_mut(&mut self) -> Vec<StatePart<'_>> {
        let Self { m, v } = self;
        let mut parts = vec![StatePart::of("m", m, None)];
        parts.extend(v.iter_mut().map(|v| StatePart::of("v", v, None)));
        parts
    }
}
