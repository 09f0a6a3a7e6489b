//! The model against PyTorch: logits, losses, gradients and greedy text of real pretrained models.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_autograd::{Compute, GradientSink, Matrix, Products, Vector};
use qft_llama::generate::Session;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::pass::{self, PassOptions, Recompute};
use qft_llama::stream::StreamFormat;
use qft_llama::{Batch, LlamaConfig, WeightSource};
use qft_quant::{HybridFormat, Residual};
use qft_tensor::rotation::rotate;
use qft_tensor::{Buffer, Cpu, CpuConfig};
use qft_testing::material;
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const FLOAT: PassOptions = PassOptions {
    compute: Products::FLOAT,
    recompute: Recompute::None,
    stream: StreamFormat::F32,
    seed: 0,
    step: 0,
};

const INT8: PassOptions =
    PassOptions { compute: Products::INT8, stream: StreamFormat::Bf16, ..FLOAT };

/// A model folder and the folder of its golden figures.
struct Case {
    model: PathBuf,
    golden: PathBuf,
}

fn cases() -> Vec<Case> {
    let mut cases =
        vec![Case { model: material::stories260k(), golden: material::stories260k_golden() }];
    if let Some(dir) = material::shared("data/models/tinystories-656k") {
        cases.push(Case { model: dir.clone(), golden: dir });
    }
    cases
}

fn cpu() -> Cpu {
    Cpu::new(CpuConfig::detect().unwrap()).unwrap()
}

fn load(cpu: &Cpu, dir: &Path, format: WeightFormat) -> Model {
    let config = LlamaConfig::from_dir(dir).unwrap();
    let weights = WeightSource::open(dir, &config).unwrap();
    Model::load(cpu, &config, &weights, format, &mut |_, _| ()).unwrap()
}

struct Golden(HashMap<String, Vec<f32>>);

impl Golden {
    fn read(path: &Path) -> Self {
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

    fn ids(&self, name: &str) -> Vec<u32> {
        self.0[name].iter().map(|&id| id as u32).collect()
    }
}

/// A sequence whose every position predicts the next token.
fn batch(ids: &[u32]) -> Batch {
    let mut batch = Batch::default();
    batch.push(&ids[..ids.len() - 1], &ids[1..]);
    batch
}

/// Both sides sum the same products in f32 in different orders; torch's own distance from f64 is 2.4e-5 on a
/// logit, so 1e-4 of the largest logit is a few such errors.
const LOGITS: f32 = 1e-4;

#[test]
fn logits_and_losses_equal_torch() {
    let cpu = cpu();
    for Case { model: dir, golden } in cases() {
        let golden = Golden::read(&golden.join("golden.safetensors"));
        let model = load(&cpu, &dir, WeightFormat::Float);
        let prompt = golden.ids("prompt_ids");
        let mut whole = batch(&prompt);
        whole.push(&prompt, &prompt); // A second document: attention must not cross.
        let logits = pass::logits(&cpu, &model, &FLOAT, &whole).unwrap();
        let logits = &logits[(prompt.len() - 1) * model.config.vocab_size..];
        let want = &golden.0["prompt_logits"];
        let largest = want.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (got, want) in logits.iter().zip(want) {
            assert!((got - want).abs() <= LOGITS * largest, "{got} {want}");
        }
        for text in ["story256", "shakespeare256"] {
            let batch = batch(&golden.ids(&format!("{text}_ids")));
            let nll = pass::evaluate(&cpu, &model, &FLOAT, &batch).unwrap();
            let mean = nll.iter().sum::<f64>() / nll.len() as f64;
            let want = f64::from(golden.0[&format!("{text}_mean_nll")][0]);
            assert!((mean / want - 1.0).abs() < 1e-4, "{text}: {mean} {want}");
            for (got, &want) in nll.iter().zip(&golden.0[&format!("{text}_nll")]) {
                assert!((got - f64::from(want)).abs() < 1e-3, "{text}: {got} {want}");
            }
        }
    }
}

#[test]
fn int8_loss_is_within_one_percent() {
    let cpu = cpu();
    for Case { model: dir, golden } in cases() {
        let golden = Golden::read(&golden.join("golden.safetensors"));
        for (residual, p) in
            [(Residual::Bits8, 0.0), (Residual::Bits4, 0.001), (Residual::None, 0.01)]
        {
            let format = HybridFormat { residual, protected_fraction: p, rotated: true };
            let model = load(&cpu, &dir, WeightFormat::Hybrid(format));
            for text in ["story256", "shakespeare256"] {
                let batch = batch(&golden.ids(&format!("{text}_ids")));
                let want = f64::from(golden.0[&format!("{text}_mean_nll")][0]);
                for compute in [Products::INT8, Products::FLOAT] {
                    let options = PassOptions { compute, ..INT8 };
                    let nll = pass::evaluate(&cpu, &model, &options, &batch).unwrap();
                    let mean = nll.iter().sum::<f64>() / nll.len() as f64;
                    println!(
                        "{} {text} {residual:?} p={p} {compute:?}: {mean:.6} {want:.6}",
                        dir.display()
                    );
                    assert!((mean / want - 1.0).abs() < 0.01, "{text} {format:?}: {mean} {want}");
                }
            }
        }
    }
}

/// Keeps every gradient whole, by tensor, and not rotated.
#[derive(Default)]
struct Collect(HashMap<u32, Vec<f32>>);

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
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut diff, mut norm) = (0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        diff += f64::from(a - b).powi(2);
        norm += f64::from(b).powi(2);
    }
    (diff / norm).sqrt()
}

#[test]
fn gradients_equal_torch() {
    let cpu = cpu();
    for name in ["stories260k", "tinystories-656k"] {
        let Some(dir) = material::shared(&format!("data/models/{name}")) else { return };
        let ids = Golden::read(&dir.join("golden.safetensors")).ids("story256_ids");
        let golden = Golden::read(&dir.join("golden_grads.safetensors"));
        let mut model = load(&cpu, &dir, WeightFormat::Float);
        let names: Vec<_> = model.config.tensors().map(|t| t.name).collect();
        for recompute in [Recompute::None, Recompute::Block] {
            let mut sink = Collect::default();
            let options = PassOptions { recompute, ..FLOAT };
            pass::train_step(&cpu, &mut model, &options, &[batch(&ids)], &mut sink).unwrap();
            assert_eq!(sink.0.len(), names.len(), "every parameter has a gradient");
            for (id, name) in names.iter().enumerate() {
                let error = relative(&sink.0[&(id as u32)], &golden.0[name]);
                assert!(error < 1e-3, "{name}: {error}");
            }
        }
    }
}

/// Integer compute rounds each operand to 8 bits: a relative error of about 1/127/sqrt(12) of the absmax, so of
/// the order of one percent per product, which adds up over the layers like a random walk.
#[test]
fn integer_gradients_are_close() {
    let cpu = cpu();
    for Case { model: dir, golden } in cases() {
        let ids = Golden::read(&golden.join("golden.safetensors")).ids("story256_ids");
        let mut exact = Collect::default();
        let mut model = load(&cpu, &dir, WeightFormat::Float);
        pass::train_step(&cpu, &mut model, &FLOAT, &[batch(&ids)], &mut exact).unwrap();
        let format =
            HybridFormat { residual: Residual::Bits8, protected_fraction: 0.01, rotated: true };
        let gradients = |products: &str| {
            let mut model = load(&cpu, &dir, WeightFormat::Hybrid(format));
            let mut integer = Collect::default();
            let options = PassOptions { compute: products.parse().unwrap(), ..INT8 };
            pass::train_step(&cpu, &mut model, &options, &[batch(&ids)], &mut integer).unwrap();
            integer.0
        };
        let float = gradients("float");
        for products in ["int8", "forward", "input-gradient", "weight-gradient"] {
            let integer = gradients(products);
            for (id, want) in &exact.0 {
                let error = relative(&integer[id], want);
                println!("{} {products} tensor {id}: {error:.4}", dir.display());
                assert!(error < 0.15, "{products} tensor {id}: {error}");
            }
            assert_ne!(integer, float, "{products}");
        }
    }
}

#[test]
fn micro_batches_give_the_gradient_of_one_batch() {
    let cpu = cpu();
    let dir = material::stories260k();
    let ids = Golden::read(&material::stories260k_golden().join("golden.safetensors"));
    let (a, b) = (ids.ids("story256_ids"), ids.ids("shakespeare256_ids"));
    let mut both = batch(&a);
    both.push(&b[..100], &b[1..101]);
    let parts = [batch(&a), batch(&b[..101])];
    // In INT8 the two ways draw other random bits, so their difference is that of two roundings of the output
    // gradient: each some percent of a gradient, as in `integer_gradients_are_close`. The losses are the same: a token
    // is quantized as among other tokens.
    for (options, bound) in [(FLOAT, 1e-5), (INT8, 0.1)] {
        let format = match options.compute.forward {
            Compute::Float => WeightFormat::Float,
            Compute::Int8 => WeightFormat::Hybrid(HybridFormat {
                residual: Residual::Bits8,
                protected_fraction: 0.0,
                rotated: true,
            }),
        };
        let step = |batches: &[Batch]| {
            let mut model = load(&cpu, &dir, format);
            let mut gradient = Collect::default();
            let loss =
                pass::train_step(&cpu, &mut model, &options, batches, &mut gradient).unwrap();
            (loss.mean, gradient.0)
        };
        let (one, whole) = step(std::slice::from_ref(&both));
        let (two, cut) = step(&parts);
        let difference = (one / two - 1.0).abs();
        assert!(difference < 1e-6, "{:?}: {difference}", options.compute);
        for (id, want) in &whole {
            let error = relative(&cut[id], want);
            assert!(error < bound, "{:?} tensor {id}: {error}", options.compute);
        }
    }
}

#[test]
fn greedy_text_equals_torch() {
    let cpu = cpu();
    for Case { model: dir, golden } in cases() {
        let golden = Golden::read(&golden.join("golden.safetensors"));
        let (prompt, want) = (golden.ids("prompt_ids"), golden.ids("greedy_ids"));
        let model = load(&cpu, &dir, WeightFormat::Float);
        let mut session = Session::new(&cpu, &model, FLOAT, want.len()).unwrap();
        let mut ids = prompt.clone();
        let mut logits = session.read(&prompt).unwrap();
        while ids.len() < want.len() {
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            ids.push(best as u32);
            if ids.len() < want.len() {
                logits = session.read(&ids[ids.len() - 1..]).unwrap();
            }
        }
        assert_eq!(ids, want);
    }
}
