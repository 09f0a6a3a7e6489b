//! Large models on the CUDA backend, without their numbers: every launch of whole steps stays within the limits of a GPU, the
//! memory is the planned one, and what the host has to start is known.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{lion, state_options};
use qft_cuda::{Arg, Cuda, Driver, Error, Launch, MemoryInfo, Properties, Signature, ptx};
use qft_llama::LlamaConfig;
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_tensor::{Device, Pieces};
use qft_train::memory::{MemoryPlan, StepShape, full_batch, plan};
use qft_train::options::States;
use qft_train::step::trainer::Trainer;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// An A100 whose memory has addresses and no bytes, and whose kernels do nothing. What is read from it is 0.747.
#[derive(Debug)]
struct Nothing {
    properties: Properties,
    next_address: AtomicU64,
    launches: Mutex<BTreeMap<&'static str, u64>>,
}

impl Nothing {
    fn new() -> Self {
        let properties = Properties {
            name: "nothing".to_owned(),
            ordinal: 0,
            compute_capability: (8, 0),
            multiprocessors: 108,
            max_shared_bytes: 163 << 10,
        };
        let next_address = AtomicU64::new(1 << 32);
        Self { properties, next_address, launches: Mutex::default() }
    }
}

impl Driver for Nothing {
    fn properties(&self) -> &Properties {
        &self.properties
    }
    fn memory_info(&self) -> Result<MemoryInfo, Error> {
        Ok(MemoryInfo { free_bytes: 80 << 30, total_bytes: 80 << 30 })
    }
    fn alloc(&self, bytes: usize) -> Result<u64, Error> {
        Ok(self.next_address.fetch_add(bytes.next_multiple_of(512) as u64, Ordering::Relaxed))
    }
    fn free(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }
    fn upload(&self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
    fn download(&self, dst: &mut [u8], _: u64) -> Result<(), Error> {
        dst.fill(0x3F);
        Ok(())
    }
    fn copy(&self, _: u64, _: u64, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn copy_pieces(&self, _: u64, _: Pieces, _: u64, _: Pieces) -> Result<(), Error> {
        Ok(())
    }
    fn zero(&self, _: u64, _: usize) -> Result<(), Error> {
        Ok(())
    }
    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }
    fn signature(&self, kernel: &str) -> Result<Signature, Error> {
        ptx::entry(kernel).map(|entry| entry.signature.clone())
    }
    fn launch(&self, kernel: &'static str, _: Launch, _: &[Arg]) -> Result<(), Error> {
        *self.launches.lock().unwrap().entry(kernel).or_default() += 1;
        Ok(())
    }
}

/// Does one step; how often each kernel was started in it.
fn step(model: &str, states: States, shape: StepShape) -> BTreeMap<&'static str, u64> {
    let config = LlamaConfig::preset(model).unwrap();
    let setup = state_options(states).setup(&lion(), 0, Recompute::Block);
    let driver = Arc::new(Nothing::new());
    let device = Cuda::new(Arc::clone(&driver) as Arc<dyn Driver>, common::host()).unwrap();
    let model = Model::plan(&device, &config, setup.format).unwrap();
    let mut trainer =
        Trainer::new(&device, model, setup.optimizer, setup.pass, setup.gradients).unwrap();
    let planned = plan(&config, &setup, shape).unwrap();
    device.reserve(planned.arena_bytes).unwrap();
    let allocations = || device.ledger().report().allocations;
    let before = allocations();
    driver.launches.lock().unwrap().clear();
    let batches = vec![full_batch(shape); shape.accumulate];
    trainer.step(&device, &batches, 1e-5).unwrap();
    let report = MemoryPlan::of_device(&device, &config, setup.gradients);
    assert_eq!(allocations(), before, "{states:?} {shape:?}: the step took memory");
    assert_eq!(report.peak_bytes, planned.peak_bytes, "{states:?} {shape:?}");
    let launches = driver.launches.lock().unwrap();
    launches.clone()
}

#[test]
fn steps_of_large_models_stay_within_the_limits_of_a_gpu() {
    for (model, states, batch_size, seq_len, accumulate) in [
        ("llama-2-7b", States::Full, 1, 2048, 1),
        ("llama-2-7b", States::Compact, 16, 2048, 1),
        ("llama-2-7b", States::Paper, 1, 2048, 4),
        ("llama-2-13b", States::Full, 1, 4096, 1),
        ("llama-3-8b", States::Balanced, 1, 131_072, 1),
        ("tinyllama-1.1b", States::F32, 1, 2048, 1),
    ] {
        step(model, states, StepShape { seq_len, batch_size, accumulate });
    }
}

/// What starting kernels costs the host is their number, whatever the number of tokens: 3 µs each on a common machine.
#[test]
fn a_step_starts_a_bounded_number_of_kernels() {
    for (model, most) in [("llama-2-7b", 10_000), ("llama-110m", 2_000)] {
        let shape = StepShape { seq_len: 256, batch_size: 4, accumulate: 1 };
        let mut launches: Vec<_> = step(model, States::Full, shape).into_iter().collect();
        launches.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let all: u64 = launches.iter().map(|(_, count)| count).sum();
        println!("{model}: {all} launches, {launches:?}");
        assert!(all <= most, "{model}: {all} launches");
    }
}
