//! Steps whose number of tokens changes each time take no memory from the system: what they need is reserved before the first.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{lion, progress, smallest_model, state_options};
use qft_cuda::{Arg, Cuda, Driver, Error, Launch, MemoryInfo, Properties, Signature};
use qft_emulator::Emulator;
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_llama::{Batch, Synthetic};
use qft_tensor::{Device, Pieces};
use qft_train::TrainOps;
use qft_train::memory::{StepShape, plan};
use qft_train::options::States;
use qft_train::step::{Setup, Trainer, checkpoint};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: u32 = 50;
/// The length of the longest sequence.
const LONGEST: u32 = 24;
/// Sequences of a micro-batch.
const BATCH_SIZE: usize = 2;

/// An emulator that counts how often memory is asked for, or given back.
#[derive(Debug)]
struct Counting {
    inner: Emulator,
    calls: AtomicU64,
}

impl Counting {
    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl Driver for Counting {
    fn properties(&self) -> &Properties {
        self.inner.properties()
    }
    fn memory_info(&self) -> Result<MemoryInfo, Error> {
        self.inner.memory_info()
    }
    fn alloc(&self, bytes: usize) -> Result<u64, Error> {
        self.count();
        self.inner.alloc(bytes)
    }
    fn free(&self, address: u64) -> Result<(), Error> {
        self.count();
        self.inner.free(address)
    }
    fn upload(&self, dst: u64, src: &[u8]) -> Result<(), Error> {
        self.inner.upload(dst, src)
    }
    fn download(&self, dst: &mut [u8], src: u64) -> Result<(), Error> {
        self.inner.download(dst, src)
    }
    fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<(), Error> {
        self.inner.copy(dst, src, bytes)
    }
    fn copy_pieces(&self, dst: u64, to: Pieces, src: u64, from: Pieces) -> Result<(), Error> {
        self.inner.copy_pieces(dst, to, src, from)
    }
    fn zero(&self, dst: u64, bytes: usize) -> Result<(), Error> {
        self.inner.zero(dst, bytes)
    }
    fn synchronize(&self) -> Result<(), Error> {
        self.inner.synchronize()
    }
    fn signature(&self, kernel: &str) -> Result<Signature, Error> {
        self.inner.signature(kernel)
    }
    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        self.inner.launch(kernel, launch, args)
    }
}

/// The micro-batches of a step: one or two, of sequences of any length.
fn batches(step: u32) -> Vec<Batch> {
    let batch = |number: u32| {
        let mut batch = Batch::default();
        for row in 0..BATCH_SIZE as u32 {
            let mix = 37 * step + 11 * number + 17 * row;
            let ids: Vec<u32> = (0..=1 + mix % LONGEST).map(|at| (7 * at + mix) % 60 + 3).collect();
            batch.push(&ids[..ids.len() - 1], &ids[1..]);
        }
        batch
    };
    (0..1 + step % 2).map(batch).collect()
}

/// Bytes to reserve for steps of [`batches`].
fn needed(setup: &Setup) -> u64 {
    let (seq_len, accumulate) = (LONGEST as usize, 2);
    let shape = StepShape { seq_len, batch_size: BATCH_SIZE, accumulate };
    plan(&smallest_model(), setup, shape).unwrap().arena_bytes
}

/// Does all steps after reserving so many bytes: what `count` says before and after them, and all states at their end.
fn steps(
    ops: &dyn TrainOps,
    setup: &Setup,
    reserved: u64,
    count: &dyn Fn() -> u64,
) -> (u64, u64, Vec<u8>) {
    let config = smallest_model();
    let weights = Synthetic::new(&config, 0);
    let model = Model::load(ops, &config, &weights, setup.format, &mut |_, _| ()).unwrap();
    let mut trainer =
        Trainer::new(ops, model, setup.optimizer, setup.pass, setup.gradients).unwrap();
    ops.reserve(reserved).unwrap();
    let before = count();
    for step in 0..STEPS {
        trainer.step(ops, &batches(step), 1e-3).unwrap();
    }
    let after = count();
    let root = tempfile::tempdir().unwrap();
    let progress = progress(&trainer);
    let dir = checkpoint::save(ops, &mut trainer, &progress, root.path()).unwrap();
    (before, after, std::fs::read(dir.join("state.safetensors")).unwrap())
}

#[test]
fn steps_on_the_processor_take_no_memory() {
    for states in [States::Full, States::Tiny, States::Paper, States::F32] {
        for recompute in [Recompute::None, Recompute::Block] {
            let setup = state_options(states).setup(&lion(), 0, recompute);
            let [(before, after, with), (started, ended, without)] =
                [needed(&setup), 0].map(|bytes| {
                    let cpu = common::cpu();
                    let count = || cpu.ledger().report().allocations;
                    steps(&cpu, &setup, bytes, &count)
                });
            assert_eq!(after - before, 0, "{states:?} {recompute:?}");
            assert!(ended - started > u64::from(STEPS), "they are counted: {}", ended - started);
            assert!(with == without, "{states:?} {recompute:?}: other bits");
        }
    }
}

#[test]
fn steps_on_a_device_take_no_memory() {
    let setup = state_options(States::Full).setup(&lion(), 0, Recompute::Block);
    let [(before, after, with), (started, ended, without)] = [needed(&setup), 0].map(|bytes| {
        let inner = Emulator::new(1 << 30, 1);
        let driver = Arc::new(Counting { inner, calls: AtomicU64::new(0) });
        let device = Cuda::new(Arc::clone(&driver) as Arc<dyn Driver>, common::host()).unwrap();
        steps(&device, &setup, bytes, &|| driver.calls.load(Ordering::Relaxed))
    });
    assert_eq!(after - before, 0);
    assert!(ended - started > 100 * u64::from(STEPS), "without: {} calls", ended - started);
    assert!(with == without, "other bits");
}
