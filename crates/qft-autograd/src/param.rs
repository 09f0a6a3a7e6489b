//! Trainable parameters.

use crate::layers::processes::LateUpdates;
use crate::{Compute, Error, Products, TableRef, TensorId};
use qft_quant::HybridMatrix;
use qft_tensor::{Buffer, Communicator, Device, Owner, RowShard};

/// How a matrix is stored.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all weights are the large variant")]
pub enum Weight {
    /// f32 `[N, K]`: the reference.
    Float(Buffer<f32>),
    /// INT8 planes with protected weights.
    Hybrid(HybridMatrix),
}

/// The format in which a matrix reads its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputFormat {
    /// Floats, or INT8.
    pub compute: Compute,
    /// Whether rows are [rotated](qft_tensor::rotation), as those of the matrix are.
    pub rotated: bool,
}

/// A trainable matrix `[N, K]`: a linear layer, an embedding, or both at once.
#[derive(Debug)]
pub struct Matrix {
    /// Its place in the model.
    pub id: TensorId,
    /// Its name in the files of the model.
    pub name: String,
    /// Its storage.
    pub weight: Weight,
    /// What other processes have made of their rows, if it is on its way.
    pub updates: LateUpdates,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// A hybrid matrix.
    pub fn hybrid(id: TensorId, name: impl Into<String>, weight: HybridMatrix) -> Self {
        let (rows, cols) = (weight.rows(), weight.cols());
        let weight = Weight::Hybrid(weight);
        Self { id, name: name.into(), weight, updates: LateUpdates::default(), rows, cols }
    }

    /// A float matrix with unspecified contents.
    pub fn float(
        device: &dyn Device,
        id: TensorId,
        name: impl Into<String>,
        (rows, cols): (usize, usize),
    ) -> Result<Self, Error> {
        let weight = Buffer::alloc(device, Owner::Weights, "float weight", rows * cols)?;
        let weight = Weight::Float(weight);
        Ok(Self { id, name: name.into(), weight, updates: LateUpdates::default(), rows, cols })
    }

    /// Rows N: outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns K: inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The rows that this process updates, in a job of these; all of them where the weights are float.
    pub fn shard(&self, processes: &dyn Communicator) -> RowShard {
        match &self.weight {
            Weight::Float(_) => RowShard::whole(self.rows),
            Weight::Hybrid(_) => RowShard::of(processes, self.rows),
        }
    }

    /// The number format in which this matrix can multiply: float weights only in float.
    pub fn compute(&self, wanted: Compute) -> Compute {
        match self.weight {
            Weight::Float(_) => Compute::Float,
            Weight::Hybrid(_) => wanted,
        }
    }

    /// Whether its rows are stored [rotated](qft_tensor::rotation).
    pub fn rotated(&self) -> bool {
        match &self.weight {
            Weight::Float(_) => false,
            Weight::Hybrid(weight) => weight.format().rotated,
        }
    }

    /// The format of its input.
    pub fn input(&self, wanted: Products) -> InputFormat {
        InputFormat { compute: self.compute(wanted.forward), rotated: self.rotated() }
    }

    /// The matrix as an embedding table.
    pub fn table(&self) -> TableRef<'_> {
        match &self.weight {
            Weight::Float(data) => TableRef::Float(data),
            Weight::Hybrid(matrix) => TableRef::Hybrid(matrix),
        }
    }
}

/// A trainable vector, always f32: the gain of a norm, or a bias.
#[derive(Debug)]
pub struct Vector {
    /// Its place in the model.
    pub id: TensorId,
    /// Its name in the files of the model.
    pub name: String,
    /// f32 `[C]`.
    pub data: Buffer<f32>,
}
