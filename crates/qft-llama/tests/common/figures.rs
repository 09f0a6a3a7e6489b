//! Golden figures, and the same figures of a model here.

use qft_autograd::{GradientSink, Matrix, Products, Vector};
use qft_llama::generate::Decoder;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::pass::{PassOptions, Recompute};
use qft_llama::stream::StreamFormat;
use qft_llama::{Batch, LlamaConfig, WeightSource};
use qft_tensor::rotation::rotate;
use qft_tensor::{Buffer, Cpu, CpuConfig};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

pub(crate) const FLOAT: PassOptions = PassOptions {
    compute: Products::FLOAT,
    recompute: Recompute::None,
    stream: StreamFormat::F32,
    seed: 0,
    step: 0,
};

pub(crate) const INT8: PassOptions =
    PassOptions { compute: Products::INT8, stream: StreamFormat::Bf16, ..FLOAT };

/// Both sides sum the same products in f32 in different orders; torch's own distance from f64 is 2.4e-5 on a
/// logit, so 1e-4 of the largest logit is a few such errors.
pub(crate) const LOGITS: f32 = 1e-4;

pub(crate) fn cpu() -> Cpu {
    Cpu::new(CpuConfig::detect().unwrap()).unwrap()
}

pub(crate) fn load(cpu: &Cpu, dir: &Path, format: WeightFormat) -> Model {
    load_for(cpu, dir, format, 0)
}

/// For sequences of `tokens`.
pub(crate) fn load_for(cpu: &Cpu, dir: &Path, format: WeightFormat, tokens: usize) -> Model {
    let config = LlamaConfig::from_dir(dir).unwrap().for_sequences(tokens);
    let weights = WeightSource::open(dir, &config).unwrap();
    Model::load(cpu, &config, &weights, format, &mut |_, _| ()).unwrap()
}

/// Tensors of a `golden.safetensors` as f32, by name.
pub(crate) struct Golden(pub(crate) HashMap<String, Vec<f32>>);

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = file.iter().map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                safetensors::Dtype::F32 => data
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                    .collect(),
                safetensors::Dtype::I64 => data
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32)
                    .collect(),
                other => panic!("{name}: unexpected {other:?}"),
            };
            (name.to_owned(), values)
        });
        Self(values.collect())
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.0[name].iter().map(|&id| id as u32).collect()
    }
}

/// A sequence whose every position predicts the next token.
pub(crate) fn batch(ids: &[u32]) -> Batch {
    let mut batch = Batch::default();
    batch.push(&ids[..ids.len() - 1], &ids[1..]);
    batch
}

/// `prompt` and the likeliest tokens after it, `len` in all.
pub(crate) fn greedy(cpu: &Cpu, model: &Model, prompt: &[u32], len: usize) -> Vec<u32> {
    let decoder = Decoder::new(cpu, model, FLOAT);
    let mut sequence = decoder.sequence(len).unwrap();
    let mut ids = prompt.to_vec();
    let mut logits = decoder.read(&mut [(&mut sequence, prompt)]).unwrap();
    while ids.len() < len {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        ids.push(best as u32);
        if ids.len() < len {
            logits = decoder.read(&mut [(&mut sequence, &ids[ids.len() - 1..])]).unwrap();
        }
    }
    ids
}

/// Keeps every gradient whole, by tensor, and not rotated.
#[derive(Default)]
pub(crate) struct Collect(pub(crate) HashMap<u32, Vec<f32>>);

impl GradientSink for Collect {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), qft_autograd::Error> {
        let kept = self.0.entry(matrix.id.0).or_default();
        assert_eq!(kept.len(), rows.start * matrix.cols(), "rows come in order, each once");
        let grad = &mut grad.host_mut()?[..rows.len() * matrix.cols()];
        if matrix.rotated() {
            grad.chunks_exact_mut(matrix.cols()).for_each(rotate);
        }
        kept.extend_from_slice(grad);
        Ok(())
    }

    fn vector(
        &mut self,
        vector: &mut Vector,
        grad: &Buffer<f32>,
    ) -> Result<(), qft_autograd::Error> {
        assert!(self.0.insert(vector.id.0, grad.host()?.to_vec()).is_none());
        Ok(())
    }
}

/// `|a - b| / |b|` over a tensor.
pub(crate) fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut diff, mut norm) = (0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        diff += f64::from(a - b).powi(2);
        norm += f64::from(b).powi(2);
    }
    (diff / norm).sqrt()
}
