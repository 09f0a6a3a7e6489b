//! Whole training steps on the CUDA backend beside the CPU: kernels on the emulator, everything above them as on a GPU.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{INT8_STATES, Windows, cpu, lion, setup, state_options, trainer};
use qft_cuda::Cuda;
use qft_emulator::Emulator;
use qft_llama::LlamaConfig;
use qft_llama::pass::Recompute;
use qft_tensor::{Device, Owner};
use qft_testing::material;
use qft_train::TrainOps;
use qft_train::memory::{MemoryPlan, StepShape, plan};
use qft_train::options::States;
use qft_train::step::Setup;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::trainer::Trainer;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Positions of a window: few, as each thread of each block is emulated.
const SEQ_LEN: usize = 24;
const LR: f32 = 5e-4;

/// Float sums in another order differ by a few units of the last place, 6e-8 each, and so do losses and gradients where
/// nothing is rounded to INT8.
const FLOAT_APART: f64 = 1e-5;

/// Where activations and their gradients are rounded to INT8, such a difference turns a value at the border of two codes
/// into its neighbour, 1/127 of a row's maximum away; the layers behind pass that on, and their roundings differ more.
/// From a gradient's first such value on, a backward pass is apart by about the step of the codes: 1e-2.
const GRADIENT_APART: f64 = 2e-2;

/// Lion moves a weight by the sign of its gradient: with noise of relative size e, a sign differs with probability e / pi.
const WEIGHTS_DIFFER: f64 = 1e-2;

/// The momentum's codes are about 30 steps large on average, so that noise of e moves them by 30 e steps, and as many differ.
/// Over all matrices together e is far below the bound for a single part: the momentum of gains, which is kept in f32, is
/// 3e-3 apart. 5e-3 makes 15 %; 5 to 10 % are seen.
const MOMENTUM_DIFFER: f64 = 30.0 * GRADIENT_APART / 4.0;

fn emulator(seed: u64) -> Cuda {
    Cuda::new(Arc::new(Emulator::new(1 << 30, seed)), common::host()).unwrap()
}

/// The loss of the first step, over two micro-batches, and all states after it as a checkpoint holds them.
fn first_step(ops: &dyn TrainOps, setup: &Setup) -> (f64, Vec<u8>) {
    let windows = Windows::shakespeare(SEQ_LEN);
    let mut trainer = trainer(ops, setup);
    // Text in whose forward pass no input lies so near the border of two codes that it gets the other one.
    let report = trainer.step(ops, &[windows.batch(11, 1), windows.batch(12, 1)], LR).unwrap();
    (report.loss.mean, saved(ops, &mut trainer))
}

fn saved(ops: &dyn TrainOps, trainer: &mut Trainer) -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    let progress = Progress::of(trainer);
    let dir = checkpoint::save(ops, trainer, &progress, root.path()).unwrap();
    std::fs::read(dir.join("state.safetensors")).unwrap()
}

/// How far the states of two runs are apart, over all tensors of one part (`q`, `residual`, `momentum`, `scale`, ...).
#[derive(Debug, Default, Clone, Copy)]
struct Distance {
    elements: usize,
    /// Integers that differ.
    differing: usize,
    /// Sum of squared differences of floats, and of their squares.
    error: f64,
    square: f64,
}

impl Distance {
    fn fraction(&self) -> f64 {
        self.differing as f64 / self.elements.max(1) as f64
    }

    fn relative(&self) -> f64 {
        (self.error / self.square.max(f64::MIN_POSITIVE)).sqrt()
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0.iter();
            Some(words.map(|w| f64::from(f32::from_le_bytes(*w))).collect())
        }
        Dtype::BF16 => {
            let words = bytes.as_chunks::<2>().0.iter();
            Some(words.map(|w| half::bf16::from_le_bytes(*w).to_f64()).collect())
        }
        _ => None,
    }
}

/// The distance of each part, by the name behind the slash.
fn distances(expected: &[u8], got: &[u8]) -> BTreeMap<String, Distance> {
    let (expected, got) = (SafeTensors::deserialize(expected), SafeTensors::deserialize(got));
    let (expected, got) = (expected.unwrap(), got.unwrap());
    let mut parts = BTreeMap::<String, Distance>::new();
    for (name, a) in expected.iter() {
        let b = got.tensor(name).unwrap();
        assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{name}");
        let part = parts.entry(name.split('/').next_back().unwrap().to_owned()).or_default();
        match (floats(a.dtype(), a.data()), floats(b.dtype(), b.data())) {
            (Some(a), Some(b)) => {
                part.elements += a.len();
                for (a, b) in a.iter().zip(&b) {
                    part.error += (a - b) * (a - b);
                    part.square += a * a;
                }
            }
            _ => {
                part.elements += a.data().len();
                part.differing += a.data().iter().zip(b.data()).filter(|(a, b)| a != b).count();
            }
        }
    }
    parts
}

#[test]
fn a_step_on_the_emulator_is_that_on_the_cpu() {
    for states in INT8_STATES.into_iter().chain([States::F32]) {
        let setup = setup(states);
        let (loss, expected) = first_step(&cpu(), &setup);
        let (emulated, got) = first_step(&emulator(1), &setup);
        let apart = (loss - emulated).abs() / loss;
        println!("{states:?}: loss {loss} and {emulated}");
        assert!(apart < FLOAT_APART, "{states:?}: the losses are {apart} apart");
        for (part, distance) in distances(&expected, &got) {
            let (differ, apart) = (distance.fraction(), distance.relative());
            println!("  {part}: {differ:.1e} differ, {apart:.1e} apart");
            let most_differ = match &*part {
                "q" | "residual" => WEIGHTS_DIFFER,
                "momentum" => MOMENTUM_DIFFER,
                _ => 0.0,
            };
            let most_apart = if states == States::F32 { FLOAT_APART } else { GRADIENT_APART };
            assert!(differ <= most_differ, "{states:?} {part}: {differ}");
            assert!(apart <= most_apart, "{states:?} {part}: {apart}");
        }
    }
}

#[test]
fn the_order_of_warps_changes_no_bit() {
    let setup = setup(States::Full);
    assert!(first_step(&emulator(1), &setup) == first_step(&emulator(2), &setup));
}

#[test]
fn measured_bytes_on_the_device_are_the_planned_ones() {
    let config = LlamaConfig::from_dir(&material::stories260k()).unwrap();
    let windows = Windows::shakespeare(SEQ_LEN);
    for (states, recompute) in [
        (States::Full, Recompute::Block),
        (States::Compact, Recompute::None),
        (States::Paper, Recompute::Block),
    ] {
        let setup = state_options(states).setup(&lion(), 0, recompute);
        let shape = StepShape { seq_len: SEQ_LEN, batch_size: 1, accumulate: 1 };
        let planned = plan(&config, &setup, shape).unwrap();
        let device = emulator(1);
        let used = || {
            let info = device.driver().memory_info().unwrap();
            info.total_bytes - info.free_bytes
        };
        let scratch = used();
        let mut trainer = trainer(&device, &setup);
        device.reserve(planned.arena_bytes).unwrap();
        for step in 0..2 {
            trainer.step(&device, &[windows.batch(step, 1)], LR).unwrap();
        }
        let report = device.ledger().report();
        let measured = MemoryPlan::of_device(&device, &config, setup.gradients);
        // The plan's peak of loading is that of an export, which is not done here.
        let owners = |plan: &MemoryPlan| -> Vec<_> {
            let owners = plan.owners.iter().filter(|o| o.owner != Owner::Loading.name());
            owners.map(|o| (o.owner, o.peak_bytes)).collect()
        };
        assert_eq!(owners(&measured), owners(&planned), "{states:?} {recompute:?}");
        assert_eq!(measured.arena_bytes, planned.arena_bytes, "{states:?} {recompute:?}");
        // What the driver gave out beside its scratch block is what the ledger says.
        assert_eq!(used() - scratch, report.reserved_bytes, "{states:?} {recompute:?}");
    }
}
