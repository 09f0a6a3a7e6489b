//! The model: its parameters, and how they are built.

use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::geometry::Geometry;
use crate::params::{Map, Params};
use crate::source::Weights;
use qft_autograd::layers::{embedding, rmsnorm, scale};
use qft_autograd::{
    Activations, Context, Error as AutogradError, Matrix, TensorId, Vector, Weight,
};
use qft_quant::{EncodeReport, HybridFormat, HybridMatrix, Kept};
use qft_tensor::{Buffer, Device, Owner, Transfer};
use std::ops::Range;

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WeightFormat {
    /// f32: the reference.
    Float,
    /// Hybrid INT8.
    Hybrid(HybridFormat),
}

/// A LLaMA model on one device.
#[derive(Debug)]
pub struct Model {
    /// Hyper-parameters.
    pub config: LlamaConfig,
    /// Parameters.
    pub params: Params<Matrix, Vector>,
    pub(crate) geometry: Geometry,
}

/// Called for every matrix that is quantized, with its name and what the quantizer did.
pub type Report<'a> = &'a mut dyn FnMut(&str, &EncodeReport);

/// Where the values of parameters come from.
enum Values<'a, 'b> {
    /// Nowhere: parameters are allocated only.
    Unset,
    /// Nowhere, but whatever reading them takes is allocated as well.
    Planned,
    /// From here.
    Read(&'a dyn Weights, Report<'b>),
}

/// Makes the parameters from their names and shapes, one after the other; ids count along.
struct Builder<'a, 'b> {
    device: &'a dyn Device,
    format: WeightFormat,
    values: Values<'a, 'b>,
    next: u32,
}

impl Map<TensorSpec, TensorSpec> for Builder<'_, '_> {
    type Matrix = Matrix;
    type Vector = Vector;
    type Error = Error;

    fn matrix(&mut self, spec: TensorSpec) -> Result<Matrix, Error> {
        let TensorSpec { name, rows, cols, .. } = spec;
        let (id, device, shape) = (self.id(), self.device, (rows, cols));
        let WeightFormat::Hybrid(format) = self.format else {
            let mut matrix = Matrix::float(device, id, name, shape)?;
            if let Weight::Float(data) = &mut matrix.weight {
                self.floats(&matrix.name, shape, data)?;
            }
            return Ok(matrix);
        };
        // The embedding is looked up in full precision; it comes first.
        let kept = if id == TensorId(0) { Kept::All } else { Kept::Own };
        let weight = match &mut self.values {
            Values::Unset => HybridMatrix::alloc(device, shape, format, kept)?,
            Values::Planned => HybridMatrix::plan_encode(device, shape, format, kept)?,
            Values::Read(weights, report) => {
                let host = device.host()?;
                let read = &mut |rows: Range<usize>, out: &mut [f32]| {
                    host.install(|| weights.read_rows(&name, rows, out))
                };
                let (weight, encoded) =
                    HybridMatrix::encode_kept(device, shape, format, kept, read)?;
                report(&name, &encoded);
                weight
            }
        };
        Ok(Matrix::hybrid(id, name, weight))
    }

    fn vector(&mut self, spec: TensorSpec) -> Result<Vector, Error> {
        let TensorSpec { name, cols, .. } = spec;
        let mut data = Buffer::alloc(self.device, Owner::Weights, "vector", cols)?;
        self.floats(&name, (1, cols), &mut data)?;
        Ok(Vector { id: self.id(), name, data })
    }
}

impl Builder<'_, '_> {
    fn id(&mut self) -> TensorId {
        self.next += 1;
        TensorId(self.next - 1)
    }

    /// Fills a parameter that is stored in f32.
    fn floats(
        &self,
        name: &str,
        (rows, cols): (usize, usize),
        data: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        if let Values::Unset = self.values {
            return Ok(());
        }
        let step = (LOAD_ELEMENTS / cols).clamp(1, rows);
        let mut values = Transfer::zeroed(self.device.ledger(), "rows to load", step * cols);
        let Values::Read(weights, _) = &self.values else { return Ok(()) };
        let host = self.device.host()?;
        for start in (0..rows).step_by(step) {
            let end = (start + step).min(rows);
            let values = &mut values[..(end - start) * cols];
            host.install(|| weights.read_rows(name, start..end, values))?;
            data.upload(self.device, start * cols, values)?;
        }
        Ok(())
    }
}

/// Floats that loading holds at a time.
const LOAD_ELEMENTS: usize = 1 << 20;

impl Model {
    /// Allocates a model with unspecified parameters: for checkpoints.
    ///
    /// Errors: [`qft_tensor::Error::OutOfMemory`], a protected fraction out of range.
    pub fn alloc(
        device: &dyn Device,
        config: &LlamaConfig,
        format: WeightFormat,
    ) -> Result<Self, Error> {
        Self::build(config, device, format, Values::Unset)
    }

    /// The same, and for each parameter in turn whatever loading it takes: for memory plans.
    ///
    /// Errors: as [`Model::alloc`].
    pub fn plan(
        device: &dyn Device,
        config: &LlamaConfig,
        format: WeightFormat,
    ) -> Result<Self, Error> {
        Self::build(config, device, format, Values::Planned)
    }

    /// Builds a model from its weights, quantizing them as they are read; `report` hears of every matrix.
    ///
    /// Unless the format is float, no more than one block of rows exists in float at a time.
    pub fn load(
        device: &dyn Device,
        config: &LlamaConfig,
        weights: &dyn Weights,
        format: WeightFormat,
        report: Report<'_>,
    ) -> Result<Self, Error> {
        Self::build(config, device, format, Values::Read(weights, report))
    }

    fn build(
        config: &LlamaConfig,
        device: &dyn Device,
        format: WeightFormat,
        values: Values<'_, '_>,
    ) -> Result<Self, Error> {
        let params = config.spec().map(&mut Builder { device, format, values, next: 0 })?;
        Ok(Self { config: config.clone(), params, geometry: Geometry::new(device, config)? })
    }

    /// The embeddings of `ids`: f32 `[T, C]`.
    pub(crate) fn embed(
        &self,
        ctx: &Context<'_>,
        ids: &Buffer<u32>,
    ) -> Result<Buffer<f32>, AutogradError> {
        let x = embedding::forward(ctx, &self.params.embedding, ids)?;
        scale::scaled(ctx, x, self.config.multipliers.embedding)
    }

    /// The final norm of `x` f32 `[M, C]`, as the head reads it; also `rstd` `[M]`.
    pub(crate) fn final_norm(
        &self,
        ctx: &Context<'_>,
        x: &Buffer<f32>,
    ) -> Result<(Activations, Buffer<f32>), AutogradError> {
        let (norm, divisor) = (&self.params.norm, self.config.multipliers.logits);
        let (format, eps) = (self.head().input(ctx.compute), self.geometry.eps);
        if divisor == 1.0 {
            return rmsnorm::forward(ctx, format, norm, eps, x);
        }
        // What divides the logits divides the input of the head as well.
        let data = scale::times(ctx, &norm.data, 1.0 / divisor)?;
        let norm = Vector { id: norm.id, name: norm.name.clone(), data };
        rmsnorm::forward(ctx, format, &norm, eps, x)
    }

    /// The output head: a matrix of its own, or the embedding.
    pub fn head(&self) -> &Matrix {
        self.params.head.as_ref().unwrap_or(&self.params.embedding)
    }
}
