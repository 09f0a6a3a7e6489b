//! The model against PyTorch: logits, losses, gradients and greedy text of real pretrained models.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::figures::{Collect, FLOAT, Golden, INT8, LOGITS, batch, cpu, greedy, load, relative};
use qft_autograd::{Compute, Products};
use qft_llama::Batch;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{self, PassOptions, Recompute};
use qft_quant::{HybridFormat, Residual};
use qft_testing::material;
use std::path::PathBuf;

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
            let nll = pass::evaluate(&cpu, &model, &FLOAT, &batch).unwrap().nll;
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
                    let nll = pass::evaluate(&cpu, &model, &options, &batch).unwrap().nll;
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
        assert_eq!(greedy(&cpu, &model, &prompt, want.len()), want);
    }
}
