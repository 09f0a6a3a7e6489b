//! Fifty steps of fine-tuning against PyTorch: every loss of AdamW and of Lion on real pretrained models.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Windows, trainer_of};
use qft_autograd::Products;
use qft_llama::model::WeightFormat;
use qft_llama::pass::{PassOptions, Recompute};
use qft_llama::stream::StreamFormat;
use qft_optim::{AdamWConfig, LionConfig, MomentCode, Rule, WeightRounding};
use qft_tensor::{Cpu, CpuConfig};
use qft_testing::material;
use qft_train::step::Setup;
use qft_train::step::optimizer::OptimizerConfig;
use qft_train::step::trainer::{GradientMode, Trainer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Each loss. PyTorch's own f32 runs differ from its f64 runs by up to 8.1e-5 within 50 steps, because Lion turns
/// a rounding error of a gradient near zero into a whole step; another order of summation does as much again.
const LOSS: f64 = 1e-3;

/// The mean loss of a text before training: two sums of the same terms in other orders.
const BEFORE: f64 = 1e-4;

/// A sequence of 256 ids: BOS and 255 tokens.
const SEQ_LEN: usize = 255;
const WINDOWS: usize = 64;
const STEPS: usize = 50;

const PASS: PassOptions = PassOptions {
    compute: Products::FLOAT,
    recompute: Recompute::None,
    stream: StreamFormat::F32,
    seed: 0,
    step: 0,
};

fn setup(rule: Rule) -> Setup {
    let optimizer = OptimizerConfig {
        rule,
        momentum: MomentCode::Sqrt,
        rounding: WeightRounding::Stochastic,
        groups: Default::default(),
        max_grad_norm: f64::INFINITY,
    };
    Setup { format: WeightFormat::Float, optimizer, pass: PASS, gradients: GradientMode::Released }
}

/// The mean loss over the first 64 windows.
fn mean(ops: &Cpu, trainer: &Trainer, windows: &Windows) -> f64 {
    let batches = (0..WINDOWS / 8).map(|i| windows.batch(8 * i, 8));
    let loss = trainer.evaluate(ops, batches.map(Ok)).unwrap();
    let (mean, tokens) = (loss.mean, loss.target_tokens);
    assert_eq!(tokens, WINDOWS * SEQ_LEN);
    mean
}

/// The run that `golden.json` of the folder `golden` describes under `finetune`.
fn run(dir: &Path, golden: &Path, name: &str) {
    let text = std::fs::read_to_string(golden.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let want = &golden["finetune"][name];
    let beta = |i: usize| want["betas"][i].as_f64().unwrap() as f32;
    let (beta1, beta2, weight_decay) = (beta(0), beta(1), 0.0);
    let rule = match name {
        "lion" => Rule::Lion(LionConfig { beta1, beta2, weight_decay }),
        _ => Rule::AdamW(AdamWConfig { beta1, beta2, eps: 1e-8, weight_decay }),
    };
    let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
    let windows = Windows::of(dir, &text, SEQ_LEN);
    let second_half = Windows::of(dir, &text[text.len() / 2..], SEQ_LEN);
    // One thread each: the tests themselves run side by side.
    let cpu = Cpu::new(CpuConfig { threads: 1, ..CpuConfig::detect().unwrap() }).unwrap();
    let mut trainer = trainer_of(&cpu, dir, &setup(rule));
    let before = [
        (&windows, "shakespeare_64x256_mean_nll"),
        (&second_half, "shakespeare_second_half_64x256_mean_nll"),
    ];
    // Before training it makes no difference who will train.
    for (windows, key) in before.into_iter().filter(|_| name == "lion") {
        let (got, want) = (mean(&cpu, &trainer, windows), golden[key].as_f64().unwrap());
        assert!((got / want - 1.0).abs() < BEFORE, "{key}: {got} {want}");
    }
    let lr = want["lr"].as_f64().unwrap() as f32;
    let losses = want["losses"].as_array().unwrap();
    assert_eq!(losses.len(), STEPS);
    let mut worst: f64 = 0.0;
    for (step, want) in losses.iter().enumerate() {
        let got = trainer.step(&cpu, &[windows.batch(8 * step, 8)], lr).unwrap().loss.mean;
        let want = want.as_f64().unwrap();
        assert!((got - want).abs() < LOSS, "{} {name} step {step}: {got} {want}", dir.display());
        worst = worst.max((got - want).abs());
    }
    let key = "shakespeare_second_half_64x256_mean_nll_after";
    let (got, want) = (mean(&cpu, &trainer, &second_half), want[key].as_f64().unwrap());
    println!("{} {name}: losses within {worst:.1e}; after: {got:.6} {want:.6}", dir.display());
    assert!((got - want).abs() < LOSS, "{key}: {got} {want}");
}

fn tinystories656k() -> Option<PathBuf> {
    material::shared("data/models/tinystories-656k")
}

#[test]
fn adamw_on_stories260k() {
    run(&material::stories260k(), &material::stories260k_golden(), "adamw");
}

#[test]
fn lion_on_stories260k() {
    run(&material::stories260k(), &material::stories260k_golden(), "lion");
}

#[test]
fn adamw_on_tinystories656k() {
    let Some(dir) = tinystories656k() else { return };
    run(&dir, &dir, "adamw");
}

#[test]
fn lion_on_tinystories656k() {
    let Some(dir) = tinystories656k() else { return };
    run(&dir, &dir, "lion");
}
