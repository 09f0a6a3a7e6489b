//! GPUs that exchange between their memories come to the bits of one that is alone: kernels and exchanges are emulated.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::team::team;
use common::{Windows, host, lion, progress, setup, state_options, trainer, trainer_of};
use qft_cuda::Cuda;
use qft_emulator::{EmulatedPeers, Emulator};
use qft_llama::pass::Recompute;
use qft_llama::{Batch, LlamaConfig};
use qft_tensor::{Alone, Communicator, Device, Owner};
use qft_testing::material;
use qft_train::memory::{MemoryPlan, Process, RunShape, StepShape, plan};
use qft_train::options::{OptimizerOptions, States};
use qft_train::step::diagnostics::Diagnosis;
use qft_train::step::{Setup, checkpoint};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEQ_LEN: usize = 8;
const LR: f32 = 5e-4;

/// A model with biases and a head of its own.
fn tiny() -> PathBuf {
    let mut families = material::families().into_iter();
    families.find(|dir| dir.ends_with("qwen2")).unwrap()
}

/// A GPU of a job, which exchanges by way of its host.
fn by_host(processes: Arc<dyn Communicator>) -> Cuda {
    Cuda::new(Arc::new(Emulator::new(1 << 30, 1)), host()).unwrap().with_communicator(processes)
}

/// One that exchanges between devices.
fn by_devices(processes: Arc<dyn Communicator>) -> Cuda {
    let emulator = Arc::new(Emulator::new(1 << 30, 1));
    let peers = Arc::new(EmulatedPeers::new(Arc::clone(&emulator), Arc::clone(&processes)));
    Cuda::new(emulator, host()).unwrap().with_communicator(processes).with_peers(peers)
}

/// All states after a step of `count` micro-batches, its loss and the norm of its gradient, and what sampled rows say.
fn run(device: &Cuda, dir: &Path, setup: &Setup, count: usize) -> (Vec<u8>, ([u64; 2], Diagnosis)) {
    let mut trainer = trainer_of(device, dir, setup);
    trainer.diagnose(device).unwrap();
    let batches: Vec<_> = (0..count as u32)
        .map(|i| {
            let ids: Vec<u32> =
                (0..SEQ_LEN as u32 + i).map(|at| (7 * at + 13 * i) % 60 + 3).collect();
            let mut batch = Batch::default();
            batch.push(&ids[1..], &ids[..ids.len() - 1]);
            batch
        })
        .collect();
    let report = trainer.step(device, &batches, LR).unwrap();
    let figures = [report.loss.mean, report.update.grad_norm].map(f64::to_bits);
    let root = tempfile::tempdir().unwrap();
    let progress = progress(&trainer);
    let dir = checkpoint::save(device, &mut trainer, &progress, root.path()).unwrap();
    let sampled = trainer.optimizer.diagnostics.as_mut().unwrap();
    let seen = sampled.take_step(device.communicator()).unwrap();
    (std::fs::read(dir.join("state.safetensors")).unwrap(), (figures, seen))
}

type Open = fn(Arc<dyn Communicator>) -> Cuda;

/// What one GPU and several come to is the same; what it is of the sampled rows.
fn same(
    what: &str,
    open: Open,
    (dir, setup): (&Path, &Setup),
    size: usize,
    count: usize,
) -> Diagnosis {
    let alone = run(&by_host(Arc::new(Alone)), dir, setup, count);
    for outcome in team(size, |processes| run(&open(processes), dir, setup, count)) {
        assert!(alone.1 == outcome.1, "{what}: figures of {size} GPUs");
        assert!(alone.0 == outcome.0, "{what}: states of {size} GPUs");
    }
    alone.1.1
}

#[test]
fn gpus_come_to_the_bits_of_one() {
    let seen = same("full", by_devices, (&material::stories260k(), &setup(States::Full)), 2, 3);
    // Weights went where the gradients point that the rows were compared with.
    println!("{seen:?}");
    assert!(seen.sign_agreement == 1.0 && (seen.landed - 1.0).abs() < 0.1, "{seen:?}");
}

#[test]
fn a_gpu_without_work_of_its_own_does_too() {
    // Nor can rows be shared out evenly.
    same("compact", by_devices, (&tiny(), &setup(States::Compact)), 3, 2);
}

#[test]
fn each_gpu_stacks_the_gradient_of_its_own_rows() {
    same("paper", by_devices, (&tiny(), &setup(States::Paper)), 3, 4);
}

#[test]
fn float_states_are_added_in_order() {
    same("float", by_devices, (&tiny(), &setup(States::F32)), 2, 2);
}

#[test]
fn the_way_of_the_host_leads_there_too() {
    let clipped = OptimizerOptions { max_grad_norm: Some(0.1), ..lion() };
    let options = state_options(States::Full);
    same("by hosts", by_host, (&tiny(), &options.setup(&clipped, 0, Recompute::Block)), 2, 2);
}

#[test]
fn memory_of_exchanges_is_the_planned_one() {
    let config = LlamaConfig::from_dir(&material::stories260k()).unwrap();
    let setup = setup(States::Full);
    let step = StepShape { seq_len: SEQ_LEN, batch_size: 1, accumulate: 2 };
    let windows = Windows::shakespeare(SEQ_LEN);
    let peaks = team(2, |processes| {
        let device = by_devices(processes);
        let process = Process::of(&device);
        assert!(process.by_devices);
        let planned = plan(&config, &setup, RunShape { process, ..step.into() }).unwrap();
        let mut trainer = trainer(&device, &setup);
        device.reserve(planned.arena_bytes).unwrap();
        for start in [0, 2] {
            let batches = [windows.batch(start, 1), windows.batch(start + 1, 1)];
            trainer.step(&device, &batches, LR).unwrap();
        }
        let measured = MemoryPlan::of_device(&device, &config, setup.gradients);
        // The plan's peak of loading is that of an export, which is not done here.
        let owners = |plan: MemoryPlan| -> (Vec<_>, u64) {
            let owners = plan.owners.into_iter().filter(|o| o.owner != Owner::Loading.name());
            (owners.map(|o| (o.owner, o.peak_bytes)).collect(), plan.arena_bytes)
        };
        (owners(planned), owners(measured))
    });
    for (planned, measured) in peaks {
        assert_eq!(planned, measured);
    }
}
