//! The model: its parameters, by name and in order, and how they are built.

use crate::block::Block;
use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::pass::Geometry;
use crate::source::Weights;
use qft_autograd::{Heads, Matrix, TensorId, Vector, Weight};
use qft_quant::{EncodeReport, HybridFormat, HybridMatrix};
use qft_tensor::{Buffer, Device, Owner, RotateRows, Transfer};
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
    /// Embedding `[V, C]`; also the head if tied.
    pub embedding: Matrix,
    /// Blocks, first to last.
    pub blocks: Vec<Block>,
    /// Gain of the final norm `[C]`.
    pub norm: Vector,
    /// Output head `[V, C]`; absent if tied to the embedding.
    pub head: Option<Matrix>,
    pub(crate) inv_freq: Buffer<f32>,
}

/// One parameter of a model.
#[derive(Debug)]
pub enum Param<'a> {
    /// A matrix.
    Matrix(&'a Matrix),
    /// A vector.
    Vector(&'a Vector),
}

/// One parameter of a model, to write to.
#[derive(Debug)]
pub enum ParamMut<'a> {
    /// A matrix.
    Matrix(&'a mut Matrix),
    /// A vector.
    Vector(&'a mut Vector),
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

/// Makes the parameters one after the other, in the order of [`LlamaConfig::tensors`]: that of their ids.
struct Builder<'a, 'b> {
    device: &'a dyn Device,
    format: WeightFormat,
    values: Values<'a, 'b>,
    specs: Vec<TensorSpec>,
    next: usize,
}

impl Builder<'_, '_> {
    fn next(&mut self) -> (TensorId, TensorSpec) {
        let id = self.next;
        self.next += 1;
        (TensorId(id as u32), self.specs[id].clone())
    }

    fn matrix(&mut self) -> Result<Matrix, Error> {
        let (id, TensorSpec { name, rows, cols, .. }) = self.next();
        let (device, shape) = (self.device, (rows, cols));
        let WeightFormat::Hybrid(format) = self.format else {
            let mut matrix = Matrix::float(device, id, shape)?;
            if let Weight::Float(data) = &mut matrix.weight {
                self.floats(&name, shape, data)?;
            }
            return Ok(matrix);
        };
        let matrix = match &mut self.values {
            Values::Unset => HybridMatrix::alloc(device, shape, format)?,
            Values::Planned => HybridMatrix::plan_encode(device, shape, format)?,
            Values::Read(weights, report) => {
                let host = device.host()?;
                let read = &mut |rows: Range<usize>, out: &mut [f32]| {
                    host.install(|| weights.read_rows(&name, rows, out))
                };
                let (matrix, encoded) = HybridMatrix::encode(device, shape, format, read)?;
                report(&name, &encoded);
                matrix
            }
        };
        Ok(Matrix::hybrid(id, matrix))
    }

    fn vector(&mut self) -> Result<Vector, Error> {
        let (id, TensorSpec { name, cols, .. }) = self.next();
        let mut data = Buffer::alloc(self.device, Owner::Weights, "norm gain", cols)?;
        self.floats(&name, (1, cols), &mut data)?;
        Ok(Vector { id, data })
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
        let specs: Vec<_> = config.tensors().collect();
        let mut b = Builder { device, format, values, specs, next: 0 };
        let embedding = b.matrix()?;
        let mut blocks = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            blocks.push(Block {
                attention_norm: b.vector()?,
                q: b.matrix()?,
                k: b.matrix()?,
                v: b.matrix()?,
                o: b.matrix()?,
                mlp_norm: b.vector()?,
                gate: b.matrix()?,
                up: b.matrix()?,
                down: b.matrix()?,
            });
        }
        let norm = b.vector()?;
        let head = if config.tie_word_embeddings { None } else { Some(b.matrix()?) };
        let (owner, name) = (Owner::Workspace, "rotary frequencies");
        let inv_freq = Buffer::from_host(device, owner, name, &config.inv_freq())?;
        Ok(Self { config: config.clone(), embedding, blocks, norm, head, inv_freq })
    }

    /// All parameters in order of ids, to write to.
    pub fn params_mut(&mut self) -> Vec<ParamMut<'_>> {
        let mut all = vec![ParamMut::Matrix(&mut self.embedding)];
        for Block { attention_norm, q, k, v, o, mlp_norm, gate, up, down } in &mut self.blocks {
            all.push(ParamMut::Vector(attention_norm));
            all.extend([q, k, v, o].map(ParamMut::Matrix));
            all.push(ParamMut::Vector(mlp_norm));
            all.extend([gate, up, down].map(ParamMut::Matrix));
        }
        all.push(ParamMut::Vector(&mut self.norm));
        all.extend(self.head.iter_mut().map(ParamMut::Matrix));
        all
    }

    /// All parameters in order of ids.
    pub fn params(&self) -> Vec<Param<'_>> {
        let mut all = vec![Param::Matrix(&self.embedding)];
        for block in &self.blocks {
            all.push(Param::Vector(&block.attention_norm));
            all.extend([&block.q, &block.k, &block.v, &block.o].map(Param::Matrix));
            all.push(Param::Vector(&block.mlp_norm));
            all.extend([&block.gate, &block.up, &block.down].map(Param::Matrix));
        }
        all.push(Param::Vector(&self.norm));
        all.extend(self.head.iter().map(Param::Matrix));
        all
    }

    /// The output head: a matrix of its own, or the embedding.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn eps(&self) -> f32 {
        self.config.rms_norm_eps
    }

    /// What a block needs beside its parameters.
    pub(crate) fn geometry(&self) -> Geometry<'_> {
        Self::geometry_of(&self.config, &self.inv_freq)
    }

    pub(crate) fn geometry_of<'a>(config: &LlamaConfig, inv_freq: &'a Buffer<f32>) -> Geometry<'a> {
        let heads = Heads {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            size: config.head_dim,
        };
        Geometry { heads, eps: config.rms_norm_eps, inv_freq }
    }

    /// Rows `rows` of a parameter in full precision, as f32 on the host: for export.
    ///
    /// A vector is one row.
    pub fn read_rows(
        &self,
        ops: &dyn qft_quant::HybridOps,
        id: TensorId,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        match &self.params()[id.0 as usize] {
            Param::Vector(vector) => vector.data.download(ops, 0, out)?,
            Param::Matrix(matrix) => match &matrix.weight {
                Weight::Float(data) => data.download(ops, rows.start * matrix.cols(), out)?,
                Weight::Hybrid(weight) => {
                    let (n, k) = (rows.len(), weight.cols());
                    let mut decoded = Buffer::alloc(ops, Owner::Loading, "decoded rows", n * k)?;
                    ops.decode_rows(qft_quant::DecodeRows {
                        weight,
                        rows,
                        precision: qft_quant::Precision::Full,
                        out: decoded.mat_mut(n, k)?,
                    })?;
                    if matrix.rotated() {
                        ops.rotate_rows(RotateRows { x: decoded.mat_mut(n, k)? })?;
                    }
                    decoded.download(ops, 0, out)?;
                }
            },
        }
        Ok(())
    }
}
