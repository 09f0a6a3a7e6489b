//! What training in INT8 must do: learn as much as float Lion, and change everything that is trained.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{INT8_STATES, Windows, cpu, hybrid, lion, setup, state_options, trainer};
use qft_autograd::Weight;
use qft_llama::LlamaConfig;
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_llama::pass::Recompute;
use qft_llama::source::Synthetic;
use qft_optim::WeightRounding;
use qft_optim::{Schedule, ScheduleKind};
use qft_tensor::{Cpu, Owner};
use qft_testing::material;
use qft_train::options::States;
use qft_train::options::{OptimizerOptions, StateOptions};
use qft_train::step::Setup;
use qft_train::step::optimizer::ParamState;
use qft_train::step::trainer::Trainer;

/// The README's job, shortened: its model, text, states and learning rate, with fewer and shorter steps.
const JOB: (usize, usize, usize) = (60, 4, 96);

/// Windows of the text's last tenth.
const HELD_OUT: usize = 32;

/// The held-out loss of the job after training with `states`.
fn job(states: States) -> f64 {
    let (steps, rows, seq_len) = JOB;
    let cpu = cpu();
    let windows = Windows::shakespeare(seq_len);
    let schedule = Schedule {
        kind: ScheduleKind::Cosine,
        peak: 5e-4,
        floor: 0.0,
        warmup: 2,
        decay: 0,
        total: steps as u64,
    };
    let mut trainer = trainer(&cpu, &setup(states));
    for step in 0..steps {
        let lr = schedule.lr(step as u64) as f32;
        trainer.step(&cpu, &[windows.batch(step * rows, rows)], lr).unwrap();
    }
    let start = windows.count() * 9 / 10;
    assert!(start > steps * rows, "held-out windows are not trained on");
    let batches = (0..HELD_OUT / rows).map(|i| windows.batch(start + i * rows, rows));
    trainer.evaluate(&cpu, batches.map(Ok)).unwrap().mean
}

#[test]
fn int8_states_learn_as_float_lion_does() {
    let reference = job(States::F32);
    // Not below what the same text costs before training, 4.8: all of them learn.
    assert!(reference < 4.0, "float Lion did not learn: {reference}");
    for (states, bound) in
        [(States::Full, 0.005), (States::Balanced, 0.005), (States::Compact, 0.01)]
    {
        let loss = job(states);
        println!("{states:?}: {loss:.4}, {:+.2} %", (loss / reference - 1.0) * 100.0);
        assert!(loss / reference - 1.0 < bound, "{states:?}: {loss}, float Lion {reference}");
    }
}

/// All that a step may change of one parameter, part by part.
fn parts(cpu: &Cpu, trainer: &Trainer) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for param in trainer.model.params.as_ref().list() {
        let name = param.name();
        let mut add = |part: &str, bytes: Vec<u8>| all.push((format!("{name}/{part}"), bytes));
        match param {
            Param::Vector(gain) => add("gain", bytes(&gain.data.to_vec(cpu).unwrap())),
            Param::Matrix(matrix) => match &matrix.weight {
                Weight::Float(data) => add("float", bytes(&data.to_vec(cpu).unwrap())),
                Weight::Hybrid(weight) => {
                    add("q", bytes(&weight.q.to_vec(cpu).unwrap()));
                    if let Some(residual) = &weight.residual {
                        add("residual", bytes(&residual.to_vec(cpu).unwrap()));
                    }
                    if let Some(protected) = &weight.protected {
                        add("protected", bytes(&protected.values.to_vec(cpu).unwrap()));
                    }
                }
            },
        }
    }
    let names = trainer.model.config.tensors().map(|spec| spec.name);
    for (name, state) in names.zip(&trainer.optimizer.states) {
        let momentum = match state {
            ParamState::Matrix(state) => bytes(&state.first.q.to_vec(cpu).unwrap()),
            ParamState::Float(state) => bytes(&state.m.to_vec(cpu).unwrap()),
        };
        all.push((format!("{name}/momentum"), momentum));
    }
    all
}

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// A trainer of an untrained model of the same shape with a head of its own.
fn untied(cpu: &Cpu, setup: &Setup) -> Trainer {
    let config = LlamaConfig::from_dir(&material::stories260k()).unwrap();
    let config = LlamaConfig { tie_word_embeddings: false, ..config };
    let weights = Synthetic::new(&config, 1);
    let model = Model::load(cpu, &config, &weights, setup.format, &mut |_, _| ()).unwrap();
    assert!(model.params.head.is_some());
    Trainer::new(cpu, model, setup.optimizer, setup.pass, setup.gradients).unwrap()
}

#[test]
fn every_trainable_tensor_changes_in_one_step() {
    let cpu = cpu();
    let windows = Windows::shakespeare(64);
    for states in INT8_STATES.into_iter().chain([States::F32]) {
        let setup = setup(states);
        for mut trainer in [trainer(&cpu, &setup), untied(&cpu, &setup)] {
            let before = parts(&cpu, &trainer);
            trainer.step(&cpu, &[windows.batch(0, 1)], 3e-3).unwrap();
            let after = parts(&cpu, &trainer);
            let tensors = trainer.model.config.tensors().count();
            assert!(before.len() >= 2 * tensors, "every tensor and its momentum are compared");
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                assert_ne!(before, after, "{states:?}: {name} did not change");
            }
        }
    }
}

/// The state of a compact model before and after three steps at `lr`, and its rows' scales and protected weights.
struct ThreeSteps {
    /// INT8 planes and protected weights.
    parts: [Vec<Vec<u8>>; 2],
    /// Of every row of every matrix: INT8 weights and scale.
    rows: [Vec<(Vec<i8>, f32)>; 2],
    /// Protected weights of these rows.
    protected: Vec<u32>,
}

impl ThreeSteps {
    fn of(rounding: WeightRounding, lr: f32) -> Self {
        let cpu = cpu();
        let windows = Windows::shakespeare(64);
        let options = StateOptions { rounding, ..state_options(States::Compact) };
        let mut trainer = trainer(&cpu, &options.setup(&lion(), 0, Recompute::None));
        let look = |trainer: &Trainer| {
            let kept =
                |(name, _): &(String, _)| name.ends_with("/q") || name.ends_with("/protected");
            let parts = parts(&cpu, trainer).into_iter().filter(kept).map(|(_, bytes)| bytes);
            let mut rows = Vec::new();
            for (_, weight) in hybrid(&trainer.model) {
                let planes = weight.q.host().unwrap().chunks_exact(weight.cols());
                let scales = weight.scale.host().unwrap();
                rows.extend(planes.zip(scales).map(|(row, scale)| (row.to_vec(), *scale)));
            }
            (parts.collect(), rows)
        };
        let mut protected = Vec::new();
        for (_, weight) in hybrid(&trainer.model) {
            let row_start = weight.protected.as_ref().unwrap().row_start.host().unwrap();
            protected.extend(row_start.windows(2).map(|ends| ends[1] - ends[0]));
        }
        let before = look(&trainer);
        for step in 0..3 {
            trainer.step(&cpu, &[windows.batch(step, 1)], lr).unwrap();
        }
        let after = look(&trainer);
        Self { parts: [before.0, after.0], rows: [before.1, after.1], protected }
    }
}

/// This is why updates are rounded stochastically: at a learning rate of fine-tuning an update is far less than
/// half a grid step, and rounding to nearest takes every one of them back. Rounded stochastically, a step moves a weight by
/// one of its row's scale with the probability `lr / scale`.
#[test]
fn nearest_rounding_moves_nothing_at_a_fine_tuning_rate() {
    let lr = 1e-6;
    let [before, after] = ThreeSteps::of(WeightRounding::Nearest, lr).parts;
    assert!(before == after, "rounded to nearest, a weight moved");
    let ThreeSteps { rows: [before, after], protected, .. } =
        ThreeSteps::of(WeightRounding::Stochastic, lr);
    let (mut moved, mut expected) = (0, 0.0);
    for (((a, scale), (b, new_scale)), protected) in before.iter().zip(&after).zip(protected) {
        // A weight that leaves its range has its whole row rounded again.
        if scale == new_scale {
            moved += a.iter().zip(b).filter(|(a, b)| a != b).count();
            expected += 3.0 * (a.len() - protected as usize) as f64 * f64::from(lr / scale);
        }
    }
    println!("stochastically rounded, {moved} weights moved, {expected:.0} were expected to");
    // Moves are rare and independent, so their variance is their mean: five standard deviations.
    let bound = 5.0 * expected.sqrt();
    assert!((moved as f64 - expected).abs() < bound, "{moved} weights moved, not {expected:.0}");
}

/// The maxima of all momentum blocks, which are proportional to the gradient after one step from zero.
fn momentum_maxima(cpu: &Cpu, trainer: &Trainer) -> Vec<f32> {
    let mut all = Vec::new();
    for state in &trainer.optimizer.states {
        match state {
            ParamState::Matrix(state) => {
                all.extend(state.first.scale.to_vec(cpu).unwrap().iter().map(|s| s.to_f32()));
            }
            ParamState::Float(state) => all.extend(state.m.to_vec(cpu).unwrap()),
        }
    }
    all
}

#[test]
fn stored_gradients_are_clipped_by_their_exact_norm() {
    let cpu = cpu();
    let windows = Windows::shakespeare(64);
    let run = |states, max_grad_norm| {
        let options = OptimizerOptions { max_grad_norm, ..lion() };
        let setup = state_options(states).setup(&options, 0, Recompute::None);
        let mut trainer = trainer(&cpu, &setup);
        let report = trainer.step(&cpu, &[windows.batch(0, 1)], 5e-4).unwrap();
        (report.update.grad_norm, momentum_maxima(&cpu, &trainer))
    };
    for states in [States::Paper, States::Full] {
        let (norm, whole) = run(states, None);
        let (clipped_norm, clipped) = run(states, Some(norm / 8.0));
        // The norm that is reported is the one before clipping; a stored gradient is known whole before it is
        // applied, a released one only by the step before, so the first step of those is not clipped.
        assert!((clipped_norm / norm - 1.0).abs() < 1e-6, "{states:?}: {clipped_norm} {norm}");
        let factor = if states == States::Paper { 0.125 } else { 1.0 };
        for (whole, clipped) in whole.iter().zip(&clipped) {
            // A maximum is rounded up to bf16, 8 bits: here 1/8 shifts the exponent and no bit.
            let want = whole * factor;
            assert!((clipped - want).abs() <= 0.01 * want.abs(), "{states:?}: {clipped} {want}");
        }
    }
}

#[test]
fn the_gradient_stack_is_empty_after_a_step() {
    let cpu = cpu();
    let windows = Windows::shakespeare(64);
    let mut trainer = trainer(&cpu, &setup(States::Paper));
    for step in 0..2 {
        trainer.step(&cpu, &[windows.batch(step, 1)], 5e-4).unwrap();
        let left: Vec<_> = qft_tensor::Device::ledger(&cpu)
            .live()
            .into_iter()
            .filter(|buffer| buffer.owner == Owner::Gradients)
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let report = qft_tensor::Device::ledger(&cpu).report();
    let peak = report.owners.iter().find(|(owner, ..)| *owner == Owner::Gradients).unwrap().2;
    let weights: u64 = hybrid(&trainer.model).iter().map(|(_, w)| w.q.len() as u64).sum();
    assert!(peak > weights, "the whole gradient was on the stack: {peak} of {weights} bytes");
}
