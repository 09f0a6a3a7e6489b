//! Checkpoints.

use super::{SMALL, Target, scratch};
use qft_autograd::Products;
use qft_llama::LlamaConfig;
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_optim::WeightRounding;
use qft_tensor::{Cpu, CpuConfig};
use qft_train::options::{OptimizerKind, OptimizerOptions, RecomputeChoice, StateOptions, States};
use qft_train::run::Recipe;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::{GradientMode, Trainer};
use std::cell::RefCell;

/// A `trainer.json`, with the recipe in it.
pub const PROGRESS: Target = Target { name: "progress", run: read_progress, base_bytes: SMALL };

/// A `state.safetensors`, read into a small trainer.
pub const STATE: Target = Target { name: "state", run: read_state, base_bytes: SMALL };

fn read_progress(bytes: &[u8]) {
    let dir = scratch::folder("progress");
    scratch::write(&dir, "trainer.json", bytes);
    let Ok(progress) = checkpoint::read_progress(&dir) else { return };
    let Ok(recipe) = Recipe::from_json(&progress.recipe, &dir) else { return };
    let _ = recipe.continues(&recipe, u64::from(progress.step), &dir);
    let again = recipe.to_json().expect("what was read can be written");
    let again = Recipe::from_json(&again, &dir).expect("what is written can be read");
    assert_eq!(again, recipe);
}

/// A model so small that its states are a few thousand bytes.
const SMALL_MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4,
    "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8,
    "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;

fn trainer() -> (Cpu, Trainer) {
    let config = CpuConfig { threads: 1, ..CpuConfig::detect().expect("a processor") };
    let cpu = Cpu::new(config).expect("a processor");
    let states = StateOptions {
        states: States::Full,
        compute: Products::INT8,
        protected: None,
        rotation: true,
        recompute: RecomputeChoice::None,
        gradients: GradientMode::Released,
        momentum_code: None,
        rounding: WeightRounding::Stochastic,
    };
    let optimizer = OptimizerOptions::for_plan(OptimizerKind::Lion);
    let setup = states.setup(&optimizer, 0, Recompute::None);
    let config = LlamaConfig::from_json(SMALL_MODEL).expect("a model");
    let model = Model::alloc(&cpu, &config, setup.format).expect("memory");
    let trainer = setup.trainer(&cpu, model).expect("memory");
    (cpu, trainer)
}

/// The states that the seed is made of.
pub fn state_file() -> Vec<u8> {
    let (cpu, mut trainer) = trainer();
    let dir = scratch::folder("saved");
    let progress = Progress::of(&trainer);
    let saved = checkpoint::save(&cpu, &mut trainer, &progress, &dir).expect("it can be saved");
    std::fs::read(saved.join("state.safetensors")).expect("it was saved")
}

fn read_state(bytes: &[u8]) {
    thread_local!(static TRAINER: RefCell<(Cpu, Trainer)> = RefCell::new(trainer()));
    let dir = scratch::folder("state");
    scratch::write(&dir, "state.safetensors", bytes);
    TRAINER.with_borrow_mut(|(cpu, trainer)| {
        let progress = Progress::of(trainer);
        let _read_or_refused = checkpoint::load(cpu, trainer, &progress, &dir);
    });
}
