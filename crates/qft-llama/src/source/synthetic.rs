//! Weights of an untrained model, made from a seed.

use super::{Weights, check_rows, unknown};
use crate::config::{LlamaConfig, TensorKind, TensorSpec};
use crate::error::Error;
use qft_tensor::rng::BLOCK_WORDS;
use qft_tensor::{Philox, Purpose, RngKey};
use rayon::prelude::*;
use std::collections::HashMap;
use std::f32::consts::TAU;
use std::ops::Range;

/// The deviation that LLaMA models are initialised with.
const SIGMA: f32 = 0.02;

/// An untrained model: matrices are normal with deviation 0.02, norms are 1.
///
/// A row depends only on the seed, the tensor's place in the model and the row's number. Rows are made on the threads of the
/// rayon pool that asks for them: when a model is loaded, that of its device.
#[derive(Debug, Clone)]
pub struct Synthetic {
    seed: u64,
    tensors: HashMap<String, (u32, TensorSpec)>,
}

impl Synthetic {
    /// A model of the shape `config`.
    pub fn new(config: &LlamaConfig, seed: u64) -> Self {
        let numbered = config.tensors().zip(0..).map(|(t, n)| (t.name.clone(), (n, t)));
        Self { seed, tensors: numbered.collect() }
    }
}

impl Weights for Synthetic {
    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let (number, spec) = self.tensors.get(name).ok_or_else(|| unknown(name))?;
        check_rows(spec, &rows, out)?;
        if spec.kind == TensorKind::Vector {
            out.fill(1.0);
            return Ok(());
        }
        let key = RngKey::new(self.seed, 0, *number, Purpose::InitialWeights);
        let philox = Philox::new(key);
        let blocks_per_row = spec.cols.div_ceil(BLOCK_WORDS);
        out.par_chunks_exact_mut(spec.cols).zip(rows).for_each(|(values, row)| {
            for (block, values) in values.chunks_mut(BLOCK_WORDS).enumerate() {
                let words = philox.block((row * blocks_per_row + block) as u32);
                // Box and Muller: two uniform words give two normal values.
                for (pair, words) in values.chunks_mut(2).zip(words.as_chunks::<2>().0) {
                    let [u, angle] = words.map(|word| ((word >> 8) as f32 + 0.5) / 16_777_216.0);
                    let radius = SIGMA * (-2.0 * u.ln()).sqrt();
                    let (sin, cos) = (TAU * angle).sin_cos();
                    for (value, part) in pair.iter_mut().zip([cos, sin]) {
                        *value = radius * part;
                    }
                }
            }
        });
        Ok(())
    }
}
