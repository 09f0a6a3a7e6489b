//! Ten steps of Lion on tiny models of each family against PyTorch: the loss before each step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{cpu, trainer_of};
use qft_autograd::Products;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{PassOptions, Recompute};
use qft_llama::stream::StreamFormat;
use qft_llama::{Batch, LlamaConfig};
use qft_optim::{FloatRule, LionConfig, MomentumCode, WeightRounding};
use qft_testing::material;
use qft_train::step::Setup;
use qft_train::step::optimizer::OptimizerConfig;
use qft_train::step::trainer::GradientMode;
use safetensors::SafeTensors;
use std::path::Path;

/// Each loss. PyTorch's own runs in f32 and f64 are 2e-6 apart on these figures; a gradient near zero whose sign
/// another order of summation turns moves a loss by 1e-4.
const LOSS: f64 = 1e-3;

const LION: LionConfig = LionConfig { beta1: 0.9, beta2: 0.99, weight_decay: 0.0 };
const LR: f32 = 1e-3;

fn setup() -> Setup {
    let optimizer = OptimizerConfig {
        lion: LION,
        float: FloatRule::Lion(LION),
        momentum: MomentumCode::Sqrt,
        rounding: WeightRounding::Stochastic,
        max_grad_norm: f64::INFINITY,
    };
    let pass = PassOptions {
        compute: Products::FLOAT,
        recompute: Recompute::None,
        stream: StreamFormat::F32,
        seed: 0,
        step: 0,
    };
    Setup { format: WeightFormat::Float, optimizer, pass, gradients: GradientMode::Released }
}

/// The sequence of a folder, and the loss before each step.
fn golden(dir: &Path) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("ids").unwrap().data().as_chunks().0.iter();
    let losses = file.tensor("lion_losses").unwrap().data().as_chunks().0.iter();
    let ids = ids.map(|id| u32::try_from(i64::from_le_bytes(*id)).unwrap());
    (ids.collect(), losses.map(|loss| f32::from_le_bytes(*loss)).collect())
}

#[test]
fn lion_follows_torch() {
    let cpu = cpu();
    let supported = |dir: &std::path::PathBuf| LlamaConfig::from_dir(dir).is_ok();
    for dir in material::families().into_iter().filter(supported) {
        let (ids, losses) = golden(&dir);
        let mut batch = Batch::default();
        batch.push(&ids[..ids.len() - 1], &ids[1..]);
        let mut trainer = trainer_of(&cpu, &dir, &setup());
        let mut worst = 0.0f64;
        for (step, &want) in losses.iter().enumerate() {
            let got = trainer.step(&cpu, std::slice::from_ref(&batch), LR).unwrap().loss.mean;
            let error = (got - f64::from(want)).abs();
            assert!(error < LOSS, "{} step {step}: {got} {want}", dir.display());
            worst = worst.max(error);
        }
        println!("{}: losses within {worst:.1e}", dir.display());
    }
}
