//! The same seed gives the same bits: with any number of threads and any instruction set, with recomputation, and
//! when stopped in the middle and resumed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{
    INT8_STATES, RUNS, Windows, copy_dir, finetune, json_lines, lion, optimizer, progress, setup,
    setup_of, state_options, succeed, trainer,
};
use qft_llama::model::Model;
use qft_llama::pass::{PassOptions, Recompute};
use qft_tensor::{Cpu, CpuConfig, Isa};
use qft_testing::material;
use qft_train::options::OptimizerOptions;
use qft_train::options::States;
use qft_train::step::Setup;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::trainer::Trainer;
use std::path::Path;

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::new(CpuConfig { threads, isa }).unwrap()
}

/// Steps `steps` of a run: two micro-batches of a window each.
fn train(cpu: &Cpu, trainer: &mut Trainer, windows: &Windows, steps: std::ops::Range<usize>) {
    for step in steps {
        let batches = [windows.batch(2 * step, 1), windows.batch(2 * step + 1, 1)];
        trainer.step(cpu, &batches, 5e-4).unwrap();
    }
}

/// All states, as a checkpoint holds them, and where the run stands.
fn saved(cpu: &Cpu, trainer: &mut Trainer) -> (Vec<u8>, Progress) {
    let root = tempfile::tempdir().unwrap();
    let progress = progress(trainer);
    let dir = checkpoint::save(cpu, trainer, &progress, root.path()).unwrap();
    (std::fs::read(dir.join("state.safetensors")).unwrap(), progress)
}

/// The states after `steps` steps.
fn states_after(cpu: &Cpu, setup: &Setup, seq_len: usize, steps: usize) -> (Vec<u8>, Progress) {
    let mut trainer = trainer(cpu, setup);
    train(cpu, &mut trainer, &Windows::shakespeare(seq_len), 0..steps);
    saved(cpu, &mut trainer)
}

#[test]
fn threads_do_not_matter() {
    let isa = Isa::detect().unwrap();
    for run_of in RUNS {
        let run = |threads| states_after(&cpu(threads, isa), &setup_of(run_of), 64, 2);
        let one = run(1);
        assert!(one == run(2), "{run_of:?}: 1 and 2 threads differ");
        assert!(one == run(3), "{run_of:?}: 1 and 3 threads differ");
    }
}

#[test]
fn instruction_sets_do_not_matter() {
    for run_of in RUNS {
        let run = |isa| states_after(&cpu(2, isa), &setup_of(run_of), 40, 2);
        let scalar = run(Isa::SCALAR);
        for isa in Isa::available() {
            assert!(scalar == run(isa), "{run_of:?}: scalar and {isa} differ");
        }
    }
    println!("instruction sets that ran: {:?}", Isa::available());
}

#[test]
fn recomputation_does_not_matter() {
    let cpu = cpu(2, Isa::detect().unwrap());
    for run_of in RUNS {
        let run = |recompute| {
            let setup = setup_of(run_of);
            let setup = Setup { pass: PassOptions { recompute, ..setup.pass }, ..setup };
            states_after(&cpu, &setup, 64, 2)
        };
        assert!(run(Recompute::None) == run(Recompute::Block), "{run_of:?}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let cpu = cpu(2, Isa::detect().unwrap());
    for states in INT8_STATES {
        let run = |seed| {
            let setup = state_options(states).setup(&lion(), seed, Recompute::None);
            states_after(&cpu, &setup, 64, 1).0
        };
        assert!(run(0) != run(1), "{states:?}");
        assert!(run(7) == run(7), "{states:?}");
    }
}

#[test]
fn a_resumed_trainer_goes_on_bit_for_bit() {
    let cpu = cpu(2, Isa::detect().unwrap());
    let windows = Windows::shakespeare(64);
    for run_of in RUNS {
        // Clipping of released gradients needs the norm of the step before the checkpoint.
        let (states, kind) = run_of;
        let options = OptimizerOptions { max_grad_norm: Some(0.5), ..optimizer(kind) };
        let setup = state_options(states).setup(&options, 0, Recompute::None);
        let mut whole = trainer(&cpu, &setup);
        train(&cpu, &mut whole, &windows, 0..4);

        let mut first = trainer(&cpu, &setup);
        train(&cpu, &mut first, &windows, 0..2);
        let root = tempfile::tempdir().unwrap();
        let progress = progress(&first);
        let dir = checkpoint::save(&cpu, &mut first, &progress, root.path()).unwrap();
        drop(first);
        assert_eq!(checkpoint::latest(root.path()).unwrap().as_ref(), Some(&dir));
        let config = whole.model.config.clone();
        let empty = Model::alloc(&cpu, &config, setup.format).unwrap();
        let mut second =
            Trainer::new(&cpu, empty, setup.optimizer, setup.pass, setup.gradients).unwrap();
        let progress = checkpoint::read_progress(&dir).unwrap();
        checkpoint::load(&cpu, &mut second, &progress, &dir).unwrap();
        assert_eq!(second.pass.step, 2);
        train(&cpu, &mut second, &windows, 2..4);
        assert!(saved(&cpu, &mut whole) == saved(&cpu, &mut second), "{run_of:?}");
    }
}

/// A file of a checkpoint.
fn state(out: &Path, step: u32) -> Vec<u8> {
    std::fs::read(checkpoint::folder(&out.join("checkpoints"), step).join("state.safetensors"))
        .unwrap()
}

#[test]
fn a_resumed_command_ends_as_the_uninterrupted_one() {
    let temp = tempfile::tempdir().unwrap();
    let (whole, resumed) = (temp.path().join("whole"), temp.path().join("resumed"));
    // Some forty rows, four a step: both parts go through the data more than once, and the border of two passes
    // lies within a step.
    let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
    let data = temp.path().join("short.txt");
    std::fs::write(&data, &text[..2500]).unwrap();
    let options = [
        "--steps=30",
        "--checkpoint-every=10",
        "--keep-checkpoints=3",
        "--val-split=0.1",
        "--eval-batches=2",
        "--eval-every=10",
        "--max-grad-norm=0.5",
        "--accumulate=2",
    ];
    let run = |out: &Path, more: &[&str]| {
        let mut args = finetune(out, &[&options[..], more].concat());
        args.retain(|arg| !arg.starts_with("--data="));
        args.push(format!("--data={}", data.display()));
        succeed(&args)
    };
    run(&whole, &[]);
    assert!(state(&whole, 10) != state(&whole, 30));
    // As after a crash between the second checkpoint and the third: metrics are ahead of the checkpoint.
    let from = checkpoint::folder(&whole.join("checkpoints"), 20);
    copy_dir(&from, &checkpoint::folder(&resumed.join("checkpoints"), 20));
    std::fs::copy(whole.join("metrics.jsonl"), resumed.join("metrics.jsonl")).unwrap();
    let printed = run(&resumed, &["--resume"]);
    assert!(printed.contains("after step 20"), "{printed}");

    assert!(state(&whole, 30) == state(&resumed, 30), "the last checkpoints differ");
    let file = |out: &Path, name: &str| std::fs::read(out.join(name)).unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        assert!(file(&whole, name) == file(&resumed, name), "{name} differs");
    }
    let metrics = |out: &Path| {
        let mut lines = json_lines(&out.join("metrics.jsonl"));
        for line in &mut lines {
            // What depends on the clock, and on what the process did before.
            let line = line.as_object_mut().unwrap();
            line.remove("tokens_per_second");
            line.remove("positions_per_second");
            line.remove("peak_bytes");
        }
        lines
    };
    assert!(metrics(&whole) == metrics(&resumed));
    let summary = |out: &Path| {
        let text = std::fs::read_to_string(out.join("summary.json")).unwrap();
        let mut summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        summary.as_object_mut().unwrap().remove("seconds");
        summary
    };
    assert_eq!(summary(&whole), summary(&resumed));
}

/// The gradient of two rows at once and of one after the other is the same sum in another order; Lion makes whole
/// steps of rounding errors near zero, so losses are compared and not weights.
#[test]
fn accumulation_is_a_larger_batch() {
    let cpu = cpu(2, Isa::detect().unwrap());
    let windows = Windows::shakespeare(64);
    let run = |accumulate: usize| {
        let mut trainer = trainer(&cpu, &setup(States::F32));
        let size = 4 / accumulate;
        let step = |step: usize| {
            let start = |i| 4 * step + i * size;
            let batches: Vec<_> = (0..accumulate).map(|i| windows.batch(start(i), size)).collect();
            trainer.step(&cpu, &batches, 2e-4).unwrap().loss
        };
        (0..8).map(step).collect::<Vec<_>>()
    };
    let whole = run(1);
    for accumulate in [2, 4] {
        for (step, (a, b)) in whole.iter().zip(run(accumulate)).enumerate() {
            assert_eq!(a.target_tokens, b.target_tokens);
            let bound = if step == 0 { 1e-6 } else { 1e-3 };
            assert!((a.mean - b.mean).abs() < bound, "step {step}: {} {}", a.mean, b.mean);
        }
    }
}
