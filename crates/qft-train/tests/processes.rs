//! Steps that processes share have the bits of a step that one process takes alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::team::team;
use common::{RUNS, Windows, lion, progress, setup, setup_of, state_options, trainer_of};
use qft_llama::Batch;
use qft_llama::pass::Recompute;
use qft_tensor::{Alone, Communicator, Cpu, CpuConfig};
use qft_testing::material;
use qft_train::options::{OptimizerOptions, States};
use qft_train::run::Job;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::trainer::Trainer;
use qft_train::step::{GradientMode, Setup};
use std::path::Path;
use std::sync::Arc;

fn cpu(processes: Arc<dyn Communicator>) -> Cpu {
    let config = CpuConfig { threads: 1, ..CpuConfig::detect().unwrap() };
    Cpu::new(config).unwrap().with_communicator(processes)
}

/// All states as a checkpoint holds them, where the run stands, and each step's loss and norm of its gradient.
type Outcome = (Vec<u8>, Progress, Vec<[u64; 2]>);

/// Two steps of `count` micro-batches of different lengths.
fn run(cpu: &Cpu, mut trainer: Trainer, count: usize) -> Outcome {
    let windows = Windows::shakespeare(24);
    let mut figures = Vec::new();
    for step in 0..2 {
        let batches: Vec<Batch> = (0..count)
            .map(|i| windows.batch(step * 2 * count + 2 * i, 1 + (i + step) % 2))
            .collect();
        let report = trainer.step(cpu, &batches, 5e-4).unwrap();
        figures.push([report.loss.mean, report.update.grad_norm].map(f64::to_bits));
    }
    let root = tempfile::tempdir().unwrap();
    let progress = progress(&trainer);
    let dir = checkpoint::save(cpu, &mut trainer, &progress, root.path()).unwrap();
    (std::fs::read(dir.join("state.safetensors")).unwrap(), progress, figures)
}

/// The outcome for every number of processes is that of one.
fn same(what: &str, dir: &Path, setup: &Setup, count: usize) {
    let outcomes = |size| {
        team(size, |processes| {
            let cpu = cpu(processes);
            run(&cpu, trainer_of(&cpu, dir, setup), count)
        })
    };
    let alone = outcomes(1).remove(0);
    for size in 2..=4 {
        for (rank, outcome) in outcomes(size).into_iter().enumerate() {
            assert!(alone.2 == outcome.2, "{what}: losses of process {rank} of {size}");
            assert!(alone == outcome, "{what}: states of process {rank} of {size}");
        }
    }
}

#[test]
fn processes_find_their_place_on_a_machine() {
    let places = team(3, |processes| Job::of(processes).on_this_machine().unwrap());
    assert_eq!(places, [(0, 3), (1, 3), (2, 3)]);
    let error = team(2, |processes| {
        let rank = processes.rank().to_string();
        Job::of(processes).agree(&[("version", "1".into()), ("lr", rank)]).unwrap_err().to_string()
    });
    assert_eq!(error[0], error[1]);
    assert!(error[0].contains("lr differs: `0` for process 0, `1` for process 1"), "{}", error[0]);
}

#[test]
fn one_process_alone_needs_the_checkpoint() {
    let cpu_alone = cpu(Arc::new(Alone));
    let stories = material::stories260k();
    let setup = setup(States::Full);
    let mut begun = trainer_of(&cpu_alone, &stories, &setup);
    let windows = Windows::shakespeare(24);
    begun.step(&cpu_alone, &[windows.batch(0, 1), windows.batch(1, 1)], 5e-4).unwrap();
    let root = tempfile::tempdir().unwrap();
    let progress = progress(&begun);
    let dir = checkpoint::save(&cpu_alone, &mut begun, &progress, root.path()).unwrap();
    let state = std::fs::read(dir.join("state.safetensors")).unwrap();
    let loaded = team(3, |processes| {
        let here = if processes.rank() == 0 { dir.as_path() } else { Path::new("/no/such/folder") };
        let cpu = cpu(processes);
        let mut trainer = trainer_of(&cpu, &stories, &setup);
        checkpoint::load(&cpu, &mut trainer, &progress, here).unwrap();
        let root = tempfile::tempdir().unwrap();
        let dir = checkpoint::save(&cpu, &mut trainer, &progress, root.path()).unwrap();
        std::fs::read(dir.join("state.safetensors")).unwrap()
    });
    assert!(loaded.iter().all(|loaded| *loaded == state));
}

#[test]
fn any_number_of_processes_comes_to_the_same_bits() {
    let stories = material::stories260k();
    for run_of in RUNS {
        same(&format!("{run_of:?}"), &stories, &setup_of(run_of), 4);
    }
    let clipped = OptimizerOptions { max_grad_norm: Some(0.1), ..lion() };
    let options = state_options(States::Full);
    for recompute in [Recompute::None, Recompute::Block] {
        same("clipped", &stories, &options.setup(&clipped, 0, recompute), 5);
    }
    let stored = qft_train::options::StateOptions { gradients: GradientMode::Stored, ..options };
    same("stored gradients", &stories, &stored.setup(&clipped, 0, Recompute::None), 3);
    // Some of them have nothing to do.
    for (states, count) in [(States::Full, 2), (States::F32, 2), (States::Compact, 1)] {
        same(&format!("{states:?}, {count} micro-batches"), &stories, &setup(states), count);
    }
}
