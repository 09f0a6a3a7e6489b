//! What of a multiprocessor a block takes.

use std::ops::{Add, AddAssign, Mul};

/// A part of a multiprocessor that works beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// Instructions of warps that are started.
    Issue,
    /// Of them those for powers, reciprocals and counts of bits.
    Special,
    /// Of them those in double precision.
    Double,
    /// Turns of shared memory and of the first cache, of 128 bytes.
    Shared,
    /// Multiplications of INT8 by the tensor cores.
    Int8,
    /// The same by instructions of whole warpgroups.
    Warpgroup,
    /// Multiplications of bf16 by the tensor cores.
    Bf16,
}

impl Resource {
    /// All, in order.
    pub(super) const ALL: [Self; 7] = [
        Self::Issue,
        Self::Special,
        Self::Double,
        Self::Shared,
        Self::Int8,
        Self::Warpgroup,
        Self::Bf16,
    ];

    /// Whether tensor cores do it.
    pub(super) fn is_product(self) -> bool {
        matches!(self, Self::Int8 | Self::Warpgroup | Self::Bf16)
    }
}

/// How much of each resource is taken.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Counts([f64; Resource::ALL.len()]);

impl Counts {
    pub(super) fn of(&self, resource: Resource) -> f64 {
        self.0[resource as usize]
    }

    pub(super) fn add(&mut self, resource: Resource, count: f64) {
        self.0[resource as usize] += count;
    }

    /// Multiplications of tensor cores.
    pub(super) fn products(&self) -> f64 {
        Resource::ALL.iter().filter(|r| r.is_product()).map(|&r| self.of(r)).sum()
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own += other;
        }
    }
}

impl Mul<f64> for Counts {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0.map(|count| count * factor))
    }
}
