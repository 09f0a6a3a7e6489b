//! What lives during training: no float copy of a weight matrix, and no byte beyond the plan.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{
    INT8_STATES, Windows, cpu, hybrid, lion, progress, setup, smallest_model, state_options,
    trainer,
};
use qft_autograd::layers::linear::{self, BLOCK_ELEMENTS, block_rows};
use qft_autograd::{Error, GradientSink, Matrix, Vector};
use qft_llama::export::SavedWeights;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::params::Param;
use qft_llama::pass::{self, Recompute};
use qft_llama::{Batch, LlamaConfig, Synthetic, TensorKind, export};
use qft_tensor::communicator::part_of;
use qft_tensor::ledger::block_bytes;
use qft_tensor::{Buffer, Cpu, CpuConfig, DType, Device, LiveBuffer, MAX_MICRO_BATCHES, Owner};
use qft_testing::material;
use qft_testing::rng::TestRng;
use qft_train::TrainOps;
use qft_train::machine::rss;
use qft_train::memory::{MemoryPlan, Process, RunShape, StepShape, plan};
use qft_train::options::{StateOptions, States};
use qft_train::step::Setup;
use qft_train::step::optimizer::StepNumbers;
use qft_train::step::sinks::{ReleasedSink, StoredSink};
use qft_train::step::{GradientMode, Trainer, checkpoint};
use std::ops::Range;

/// Looks at every live buffer whenever a gradient arrives, in the middle of the backward pass, and passes it on.
struct Watch<'a, S> {
    inner: S,
    cpu: &'a Cpu,
    /// Elements of the model's smallest matrix.
    smallest: usize,
    offenders: Vec<LiveBuffer>,
    /// The most bytes of f32 among buffers of gradients.
    float_gradient_bytes: u64,
    calls: usize,
}

impl<'a, S> Watch<'a, S> {
    fn new(inner: S, cpu: &'a Cpu, smallest: usize) -> Self {
        Self { inner, cpu, smallest, offenders: Vec::new(), float_gradient_bytes: 0, calls: 0 }
    }

    fn look(&mut self) {
        let live = self.cpu.ledger().live();
        self.offenders.extend(float_states(&live, self.smallest));
        let gradients = live
            .iter()
            .filter(|b| b.owner == Owner::Gradients && b.dtype.is_float())
            .map(|b| b.bytes);
        self.float_gradient_bytes = self.float_gradient_bytes.max(gradients.sum());
        self.calls += 1;
    }
}

/// Float buffers among the states with as many elements as the smallest matrix.
fn float_states(live: &[LiveBuffer], smallest: usize) -> Vec<LiveBuffer> {
    let large = |b: &&LiveBuffer| b.owner.is_state() && b.dtype.is_float() && b.len >= smallest;
    live.iter().filter(large).cloned().collect()
}

impl<S: GradientSink> GradientSink for Watch<'_, S> {
    fn matrix_rows(
        &mut self,
        matrix: &mut Matrix,
        rows: Range<usize>,
        grad: &mut Buffer<f32>,
    ) -> Result<(), Error> {
        self.look();
        self.inner.matrix_rows(matrix, rows, grad)?;
        self.look();
        Ok(())
    }

    fn vector(&mut self, vector: &mut Vector, grad: &Buffer<f32>) -> Result<(), Error> {
        self.inner.vector(vector, grad)
    }
}

fn smallest_matrix(config: &LlamaConfig) -> usize {
    let matrices = config.tensors().filter(|t| t.kind == TensorKind::Matrix);
    matrices.map(|t| t.elements()).min().unwrap()
}

/// Two steps with every gradient watched: float states that were seen, and the most bytes of float gradients.
fn watched(setup: &Setup) -> (Vec<LiveBuffer>, u64) {
    let cpu = cpu();
    let windows = Windows::shakespeare(64);
    let mut trainer = trainer(&cpu, setup);
    let smallest = smallest_matrix(&trainer.model.config);
    let (mut seen, mut float_bytes) = (Vec::new(), 0);
    for step in 0..2 {
        let numbers = StepNumbers { seed: 0, step, lr: 5e-4 };
        let options = pass::PassOptions { step, ..trainer.pass };
        let batches = [windows.batch(2 * step as usize, 2)];
        let (model, optimizer) = (&mut trainer.model, &mut trainer.optimizer);
        match setup.gradients {
            GradientMode::Released => {
                let inner = ReleasedSink::new(&cpu, optimizer, numbers).unwrap();
                let mut sink = Watch::new(inner, &cpu, smallest);
                pass::train_step(&cpu, model, &options, &batches, &mut sink).unwrap();
                assert!(sink.calls >= 2 * 36);
                seen.append(&mut sink.offenders);
                float_bytes = float_bytes.max(sink.float_gradient_bytes);
                sink.inner.finish().unwrap();
            }
            GradientMode::Stored => {
                let mut sink = Watch::new(StoredSink::new(&cpu, numbers), &cpu, smallest);
                pass::train_step(&cpu, model, &options, &batches, &mut sink).unwrap();
                assert!(sink.calls >= 2 * 36);
                seen.append(&mut sink.offenders);
                sink.inner.apply(&cpu, optimizer, model, numbers).unwrap();
            }
        }
        seen.extend(float_states(&cpu.ledger().live(), smallest));
    }
    (seen, float_bytes)
}

#[test]
fn no_state_of_a_matrix_is_float() {
    for states in INT8_STATES {
        let (seen, float_bytes) = watched(&setup(states));
        assert!(seen.is_empty(), "{states:?}: {:?}", seen.first());
        assert!(float_bytes <= 4 * BLOCK_ELEMENTS as u64, "{states:?}: {float_bytes}");
    }
    let (seen, _) = watched(&setup(States::F32));
    assert!(!seen.is_empty(), "the reference's float weights are seen, so they would be elsewhere");
}

/// Random numbers would repeat, so a trainer refuses before it computes anything.
#[test]
fn more_micro_batches_than_have_random_numbers_are_refused() {
    let cpu = cpu();
    let windows = Windows::shakespeare(2);
    for states in [States::Full, States::Paper] {
        let mut trainer = trainer(&cpu, &setup(states));
        let batches = vec![windows.batch(0, 1); MAX_MICRO_BATCHES + 1];
        let error = trainer.step(&cpu, &batches, 1e-4).unwrap_err();
        assert!(error.to_string().contains("micro-batch 4096"), "{states:?}: {error}");
        assert_eq!(trainer.pass.step, 0);
    }
}

/// The same gradient of every matrix, in blocks of `size` rows, through the stack and into the weights.
fn stored_in_blocks(size: usize) -> Vec<(Vec<i8>, Vec<u32>)> {
    let cpu = cpu();
    let mut trainer = trainer(&cpu, &setup(States::Paper));
    let numbers = StepNumbers { seed: 3, step: 5, lr: 1e-3 };
    let mut sink = StoredSink::new(&cpu, numbers);
    let mut rng = TestRng::new(4);
    for param in trainer.model.params.as_mut().list() {
        let Param::Matrix(matrix) = param else { continue };
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let grad = rng.normals(rows * cols, 1e-3);
        for block in linear::blocks(0..rows, size.min(rows)) {
            let grad = &grad[block.start * cols..block.end * cols];
            let mut grad = Buffer::from_host(&cpu, Owner::Gradients, "block", grad).unwrap();
            sink.matrix_rows(matrix, block, &mut grad).unwrap();
        }
    }
    sink.apply(&cpu, &mut trainer.optimizer, &mut trainer.model, numbers).unwrap();
    let matrices = hybrid(&trainer.model).into_iter();
    let planes = matrices.map(|(_, matrix)| {
        let scale = matrix.scale.to_vec(&cpu).unwrap();
        (matrix.q.to_vec(&cpu).unwrap(), scale.into_iter().map(f32::to_bits).collect())
    });
    planes.collect()
}

#[test]
fn a_stored_gradient_is_the_same_in_blocks_of_any_size() {
    let whole = stored_in_blocks(usize::MAX);
    for size in [1, 48, 100] {
        assert!(stored_in_blocks(size) == whole, "blocks of {size} rows");
    }
}

fn gradient_peak(plan: &MemoryPlan) -> u64 {
    plan.owners.iter().find(|o| o.owner == Owner::Gradients.name()).unwrap().peak_bytes
}

fn planned(config: &LlamaConfig, states: States, shape: StepShape) -> MemoryPlan {
    plan(config, &setup(states), shape).unwrap()
}

const SHAPE: StepShape = StepShape { seq_len: 512, batch_size: 4, accumulate: 1 };

/// An INT8 matrix `[tokens, n]` with a scale per column: an output gradient that waits to be multiplied.
fn waiting_bytes(tokens: usize, n: usize) -> u64 {
    block_bytes(DType::I8, tokens * n) + block_bytes(DType::F32, n)
}

/// What exists of a released gradient: one block of rows in f32, at most 36 MiB, and the INT8 output gradients of
/// the layers that read the same input: gate and up. Neither depends on depth; the second is a byte per token
/// and feature, as the activations are.
#[test]
fn released_gradients_are_a_block_and_what_waits_for_it() {
    for (name, states) in [
        ("llama-2-7b", States::Full),
        ("llama-2-7b", States::Compact),
        ("llama-2-13b", States::Full),
        ("llama-3-8b", States::Balanced),
        ("tinyllama-1.1b", States::Full),
    ] {
        let config = LlamaConfig::preset(name).unwrap();
        let tokens = SHAPE.seq_len * SHAPE.batch_size;
        let peak = gradient_peak(&planned(&config, states, SHAPE));
        let block = block_bytes(DType::F32, block_rows(config.hidden_size) * config.hidden_size);
        assert!(block <= 4 * BLOCK_ELEMENTS as u64);
        let waiting = 2 * waiting_bytes(tokens, config.intermediate_size);
        assert_eq!(peak, block + waiting, "{name} {states:?}");
    }
}

#[test]
fn released_gradients_do_not_grow_with_depth() {
    let shallow = LlamaConfig::preset("llama-2-7b").unwrap().with_layers(2);
    let deep = shallow.clone().with_layers(48);
    for accumulate in [1, 4] {
        let shape = StepShape { accumulate, ..SHAPE };
        let [a, b] = [&shallow, &deep].map(|c| gradient_peak(&planned(c, States::Full, shape)));
        assert_eq!(a, b, "accumulate {accumulate}");
    }
    let [a, b] = [&shallow, &deep].map(|c| gradient_peak(&planned(c, States::Paper, SHAPE)));
    assert!(b > 10 * a, "stored gradients do grow: {a} {b}");
}

/// Of a job's processes each stacks the rows that it updates, beside what a released gradient takes.
#[test]
fn stored_gradients_are_shared_out() {
    let config = LlamaConfig::preset("llama-2-7b").unwrap().with_layers(8);
    let of = |gradients, rank, size| {
        let options = StateOptions { gradients, ..state_options(States::Paper) };
        let process = Process { rank, size, by_devices: false };
        let shape = StepShape { accumulate: size, ..SHAPE };
        let setup = options.setup(&lion(), 0, Recompute::Block);
        plan(&config, &setup, RunShape { process, ..shape.into() }).unwrap()
    };
    for (rank, size) in [(0, 1), (0, 3), (2, 3), (3, 4)] {
        let rows = config.tensors().filter(|t| t.kind == TensorKind::Matrix).map(|t| {
            let group = |start: usize| part_of(256.min(t.rows - start), rank, size).len();
            ((0..t.rows).step_by(256).map(group).sum::<usize>() * (t.cols + 4)) as u64
        });
        let own: u64 = rows.sum();
        let stored = of(GradientMode::Stored, rank, size);
        let released = of(GradientMode::Released, rank, size);
        let (peak, beside) = (gradient_peak(&stored), gradient_peak(&released));
        println!("{rank} of {size}: {peak} bytes, {own} stored, {beside} if released");
        // Gains of norms are stored by everyone, and blocks are rounded up to their alignment.
        let vectors = 4 * 17 * config.hidden_size as u64;
        let most = own + own / 1000 + vectors + beside;
        assert!(peak > own && peak <= most, "{rank} of {size}: {peak}, {most} at most");
        let per_parameter = stored.bytes_per_parameter - released.bytes_per_parameter;
        let counted = (own + vectors) as f64 / stored.parameters as f64;
        assert!((per_parameter - counted).abs() < 1e-9, "{rank} of {size}: {per_parameter}");
    }
}

#[test]
fn bytes_per_parameter_of_llama_2_7b() {
    let config = LlamaConfig::preset("llama-2-7b").unwrap();
    for (states, most) in [
        (States::Full, 3.15),
        (States::Balanced, 2.65),
        (States::Compact, 2.15),
        (States::Tiny, 1.56),
        (States::Paper, 3.4),
    ] {
        let plan = planned(&config, states, SHAPE);
        println!("{states:?}: {:.4} bytes per parameter", plan.bytes_per_parameter);
        assert_eq!(plan.parameters, 6_738_415_616);
        assert!(plan.bytes_per_parameter <= most, "{states:?}: {}", plan.bytes_per_parameter);
        // Counted again from the owners: all that lives as long as the model.
        let state = |o: &&qft_train::memory::OwnerBytes| {
            Owner::ALL.iter().any(|owner| owner.is_state() && owner.name() == o.owner)
        };
        let bytes: u64 = plan.owners.iter().filter(state).map(|o| o.bytes).sum();
        let gradients = if states == States::Paper { 1.0 } else { 0.0 };
        let counted = bytes as f64 / plan.parameters as f64 + gradients;
        assert!((counted - plan.bytes_per_parameter).abs() < 0.01, "{states:?}: {counted}");
    }
}

#[test]
fn measured_bytes_are_the_planned_ones() {
    let windows = Windows::shakespeare(64);
    let config = LlamaConfig::from_dir(&material::stories260k()).unwrap();
    for states in INT8_STATES.into_iter().chain([States::F32]) {
        for recompute in [Recompute::None, Recompute::Block] {
            for accumulate in [1, 2] {
                let setup = state_options(states).setup(&lion(), 0, recompute);
                let shape = StepShape { seq_len: 64, batch_size: 2, accumulate };
                let planned = plan(&config, &setup, shape).unwrap();
                let cpu = cpu();
                let mut trainer = trainer(&cpu, &setup);
                for step in 0..2 {
                    cpu.reserve(planned.arena_bytes).unwrap();
                    let start = 2 * accumulate * step;
                    let batches: Vec<_> =
                        (0..accumulate).map(|i| windows.batch(start + 2 * i, 2)).collect();
                    trainer.step(&cpu, &batches, 5e-4).unwrap();
                    save(&cpu, &mut trainer);
                    let measured = MemoryPlan::of_device(&cpu, &config, setup.gradients);
                    assert_eq!(measured, planned, "{states:?} {recompute:?} x {accumulate}");
                }
            }
        }
    }
}

/// Writes a checkpoint, reads it, and exports the model: what a run does besides loading and steps.
fn save(cpu: &Cpu, trainer: &mut Trainer) {
    let dir = tempfile::tempdir().unwrap();
    let progress = progress(trainer);
    let saved = checkpoint::save(cpu, trainer, &progress, dir.path()).unwrap();
    checkpoint::load(cpu, trainer, &progress, &saved).unwrap();
    cpu.reserve(0).unwrap();
    let (model, out) = (&trainer.model, dir.path().join("model"));
    let mut rows = export::rows_of(model, cpu);
    export::export_folder(
        &out,
        None,
        &model.config,
        SavedWeights::default(),
        u64::MAX,
        cpu.ledger(),
        &mut rows,
    )
    .unwrap();
}

/// Rows of any length, as records have them, one after the other in what is reserved for the longest.
#[test]
fn rows_of_many_lengths_stay_within_the_plan() {
    let config = LlamaConfig::from_dir(&material::stories260k()).unwrap();
    let windows = Windows::shakespeare(64);
    for states in [States::Full, States::Paper] {
        let setup = setup(states);
        let shape = StepShape { seq_len: 64, batch_size: 1, accumulate: 1 };
        let planned = plan(&config, &setup, shape).unwrap();
        let cpu = cpu();
        let mut trainer = trainer(&cpu, &setup);
        cpu.reserve(planned.arena_bytes).unwrap();
        for step in 0..64 {
            let whole = windows.batch(step, 1);
            let len = 1 + step * 37 % 64;
            let mut batch = Batch::default();
            batch.push(&whole.ids[..len], &whole.targets[..len]);
            if step % 16 == 0 {
                trainer.evaluate(&cpu, [batch.clone(), whole].map(Ok).into_iter()).unwrap();
            }
            trainer.step(&cpu, &[batch], 1e-4).unwrap();
        }
        save(&cpu, &mut trainer);
        let measured = MemoryPlan::of_device(&cpu, &config, setup.gradients);
        assert_eq!(measured, planned, "{states:?}: every length came, the longest among them");
    }
}

/// Without anything reserved: what is kept for reuse must not pile up, length by length.
#[test]
fn blocks_of_many_lengths_do_not_pile_up() {
    let windows = Windows::shakespeare(64);
    let cpu = cpu();
    let mut trainer = trainer(&cpu, &setup(States::Full));
    let mut most = 0;
    for step in 0..64 {
        let whole = windows.batch(step, 1);
        let len = 64 - step;
        let mut batch = Batch::default();
        batch.push(&whole.ids[..len], &whole.targets[..len]);
        trainer.step(&cpu, &[batch], 1e-4).unwrap();
        let reserved = cpu.ledger().report().peak_reserved_bytes;
        // A length at which buffers of different use have one size takes less than those beside it.
        if step < 4 {
            most = reserved;
        }
        assert_eq!(reserved, most, "{len} tokens");
    }
}

/// Set for the process that measures its own memory.
const ALONE: &str = "QFT_TEST_ALONE";

/// What the allocator and the threads may still take after the first steps.
const SLACK_BYTES: u64 = 1 << 20;

#[test]
fn memory_does_not_grow_with_steps() {
    if std::env::var_os(ALONE).is_none() {
        // In a process of its own: other tests allocate at the same time.
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory_does_not_grow_with_steps", "--nocapture"])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let Some(_) = rss::current() else {
        println!("skipped: the system does not say how much memory a process has");
        return;
    };
    let cpu = Cpu::new(CpuConfig { threads: 1, ..CpuConfig::detect().unwrap() }).unwrap();
    let ops: &dyn TrainOps = &cpu;
    let windows = Windows::shakespeare(8);
    let config = smallest_model();
    let weights = Synthetic::new(&config, 0);
    for states in [States::Full, States::Paper] {
        let setup = setup(states);
        assert!(matches!(setup.format, WeightFormat::Hybrid(_)));
        let model = Model::load(ops, &config, &weights, setup.format, &mut |_, _| ()).unwrap();
        let mut trainer =
            Trainer::new(ops, model, setup.optimizer, setup.pass, setup.gradients).unwrap();
        let mut steps = |range: Range<usize>| {
            for step in range {
                trainer.step(ops, &[windows.batch(step, 1)], 1e-4).unwrap();
            }
            (rss::current().unwrap(), cpu.ledger().live().len(), cpu.ledger().report())
        };
        let (before, live_before, report_before) = steps(0..50);
        let (after, live_after, report_after) = steps(50..1050);
        println!("{states:?}: {before} bytes resident, 1000 steps later {after}");
        assert_eq!((live_before, report_before), (live_after, report_after), "{states:?}");
        assert!(after <= before + SLACK_BYTES, "{states:?}: {before} {after}");
    }
}
