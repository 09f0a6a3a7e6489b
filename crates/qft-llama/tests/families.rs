//! Tiny models of each family against transformers: logits, losses, every gradient and greedy tokens.
//!
//! A folder whose configuration is refused is left out; one test names those.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::figures::{
    Collect, FLOAT, Golden, INT8, LOGITS, batch, cpu, greedy, load, load_for, relative,
};
use qft_llama::export::{SavedWeights, WeightType, rows_of};
use qft_llama::model::WeightFormat;
use qft_llama::pass::{self, PassOptions, Recompute};
use qft_llama::{LlamaConfig, TensorSpec, export_folder};
use qft_quant::{HybridFormat, Residual};
use qft_tensor::Device;
use qft_testing::material;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::Path;

/// A mean loss, relative: two sums of the same terms in other orders.
const LOSS: f64 = 1e-4;

/// A tensor's gradient, relative, as for the LLaMA models. transformers' own distance from f64 is below 3e-6.
const GRADIENT: f64 = 1e-3;

/// A mean loss in INT8, relative.
const INT8_LOSS: f64 = 0.01;

/// A tensor's gradient in INT8, relative. Rounding alone makes 0.1 at this width, and 0.2 where a norm after a branch
/// enlarges its error (OLMo 3, simulated in PyTorch); a wrong formula makes more.
const INT8_GRADIENT: f64 = 0.3;

/// Inputs of the golden sequence.
const TOKENS: usize = 48;

/// Inputs of the short sequence: where the rotary frequencies depend on the length, it is below the switch.
const SHORT: usize = 24;

/// A folder, its configuration and its figures.
struct Case {
    name: String,
    dir: std::path::PathBuf,
    config: LlamaConfig,
    golden: Golden,
}

/// The folders whose configuration is accepted, and a line for each of the others.
fn cases() -> (Vec<Case>, Vec<String>) {
    let (mut cases, mut refused) = (Vec::new(), Vec::new());
    for dir in material::families() {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        match LlamaConfig::from_dir(&dir) {
            Ok(config) if config.shortest_window().is_some_and(|window| window < TOKENS) => {
                refused.push(format!("not computed: {name}: a window below {TOKENS} tokens"));
            }
            Ok(config) => {
                let golden = Golden::read(&dir.join("golden.safetensors"));
                cases.push(Case { name, dir, config, golden });
            }
            Err(error) => refused.push(format!("not supported yet: {name}: {error}")),
        }
    }
    (cases, refused)
}

/// The golden gradient of a tensor; of a part of a fused one, its rows.
fn gradient<'a>(config: &LlamaConfig, golden: &'a Golden, spec: &TensorSpec) -> &'a [f32] {
    if let Some(whole) = golden.0.get(&format!("grad.{}", spec.name)) {
        return whole;
    }
    let (q, kv) = (config.query_size(), config.key_value_size());
    let parts = [
        ("q_proj", "qkv_proj", 0),
        ("k_proj", "qkv_proj", q),
        ("v_proj", "qkv_proj", q + kv),
        ("gate_proj", "gate_up_proj", 0),
        ("up_proj", "gate_up_proj", config.intermediate_size),
    ];
    let part = |part: &&(&str, &str, usize)| spec.name.contains(&format!(".{}.", part.0));
    let Some((part, fused, row)) = parts.iter().find(part) else {
        panic!("no golden gradient of {}", spec.name);
    };
    let whole = &golden.0[&format!("grad.{}", spec.name.replace(part, fused))];
    &whole[row * spec.cols..][..spec.elements()]
}

/// The mean loss of one sequence.
fn mean(cpu: &qft_tensor::Cpu, case: &Case, format: WeightFormat, ids: &[u32]) -> f64 {
    let model = load_for(cpu, &case.dir, format, ids.len() - 1);
    let options = if matches!(format, WeightFormat::Float) { FLOAT } else { INT8 };
    let nll = pass::evaluate(cpu, &model, &options, &batch(ids)).unwrap().nll;
    nll.iter().sum::<f64>() / nll.len() as f64
}

#[test]
fn names_what_is_not_supported() {
    let (cases, refused) = cases();
    assert_eq!(cases.len(), 13);
    // One is another family, the other has a window that its sequence exceeds.
    let [gemma, window] = &refused[..] else { panic!("{refused:?}") };
    assert!(gemma.contains("gemma3: ") && gemma.contains("model_type"), "{gemma}");
    assert!(window.contains("mistral-window: a window below"), "{window}");
}

#[test]
fn logits_and_losses_equal_transformers() {
    let cpu = cpu();
    for case in cases().0 {
        let Case { name, dir, config, golden } = &case;
        let ids = golden.ids("ids");
        let model = load_for(&cpu, dir, WeightFormat::Float, ids.len() - 1);
        // A short document before it: neither attention nor positions may go on from there.
        let mut both = batch(&ids[..10]);
        both.push(&ids[..ids.len() - 1], &ids[1..]);
        let logits = pass::logits(&cpu, &model, &FLOAT, &both).unwrap();
        let (logits, want) = (&logits[9 * config.vocab_size..], &golden.0["logits"]);
        assert_eq!(logits.len(), want.len());
        let largest = want.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let error =
            logits.iter().zip(want).fold(0.0f32, |a, (got, want)| a.max((got - want).abs()));
        println!("{name}: logits within {:.1e} of the largest", error / largest);
        assert!(error <= LOGITS * largest, "{name}: {error} of {largest}");
        for (ids, key) in [(&ids[..], "mean_nll"), (&ids[..=SHORT], "short_mean_nll")] {
            let got = mean(&cpu, &case, WeightFormat::Float, ids);
            let want = f64::from(golden.0[key][0]);
            assert!((got / want - 1.0).abs() < LOSS, "{name}: {key}: {got} {want}");
        }
    }
}

#[test]
fn gradients_equal_transformers() {
    let cpu = cpu();
    for Case { name, dir, config, golden } in cases().0 {
        let ids = golden.ids("ids");
        let mut model = load_for(&cpu, &dir, WeightFormat::Float, ids.len() - 1);
        let specs: Vec<_> = config.tensors().collect();
        for recompute in [Recompute::None, Recompute::Block] {
            let mut sink = Collect::default();
            let options = PassOptions { recompute, ..FLOAT };
            pass::train_step(&cpu, &mut model, &options, &[batch(&ids)], &mut sink).unwrap();
            assert_eq!(sink.0.len(), specs.len(), "{name}: every parameter has a gradient");
            let mut worst = 0.0f64;
            for (id, spec) in specs.iter().enumerate() {
                let want = gradient(&config, &golden, spec);
                let error = relative(&sink.0[&(id as u32)], want);
                assert!(error < GRADIENT, "{name}: {}: {error}", spec.name);
                worst = worst.max(error);
            }
            println!("{name} {recompute:?}: gradients within {worst:.1e}");
        }
        let golden = golden.0.iter().filter(|(key, _)| key.starts_with("grad."));
        let values: usize = golden.map(|(_, values)| values.len()).sum();
        assert_eq!(values, specs.iter().map(TensorSpec::elements).sum::<usize>(), "{name}");
    }
}

#[test]
fn int8_loss_is_within_one_percent() {
    let cpu = cpu();
    for case in cases().0 {
        let ids = case.golden.ids("ids");
        let want = f64::from(case.golden.0["mean_nll"][0]);
        for (residual, protected_fraction) in [(Residual::Bits8, 0.0), (Residual::None, 0.01)] {
            let format = HybridFormat { residual, protected_fraction, rotated: true };
            let got = mean(&cpu, &case, WeightFormat::Hybrid(format), &ids);
            println!("{} {residual:?}: {got:.6} {want:.6}", case.name);
            assert!((got / want - 1.0).abs() < INT8_LOSS, "{} {format:?}: {got} {want}", case.name);
        }
    }
}

#[test]
fn integer_gradients_are_close() {
    let cpu = cpu();
    for Case { name, dir, config, golden } in cases().0 {
        let ids = golden.ids("ids");
        let format =
            HybridFormat { residual: Residual::Bits8, protected_fraction: 0.01, rotated: true };
        let format = WeightFormat::Hybrid(format);
        let mut model = load_for(&cpu, &dir, format, ids.len() - 1);
        let mut sink = Collect::default();
        pass::train_step(&cpu, &mut model, &INT8, &[batch(&ids)], &mut sink).unwrap();
        let mut worst = 0.0f64;
        for (id, spec) in config.tensors().enumerate() {
            let error = relative(&sink.0[&(id as u32)], gradient(&config, &golden, &spec));
            assert!(error < INT8_GRADIENT, "{name}: {}: {error}", spec.name);
            worst = worst.max(error);
        }
        println!("{name}: gradients in INT8 within {worst:.3}");
    }
}

#[test]
fn greedy_tokens_equal_transformers() {
    let cpu = cpu();
    for Case { name, dir, golden, .. } in cases().0 {
        let (prompt, want) = (golden.ids("prompt_ids"), golden.ids("greedy_ids"));
        let model = load_for(&cpu, &dir, WeightFormat::Float, want.len());
        assert_eq!(greedy(&cpu, &model, &prompt, want.len()), want, "{name}");
    }
}

/// What a fused tensor is split into is joined again.
#[test]
fn exported_tensors_are_those_that_were_loaded() {
    let cpu = cpu();
    for Case { name, dir, config, .. } in cases().0 {
        let (model, out) = (load(&cpu, &dir, WeightFormat::Float), tempfile::tempdir().unwrap());
        let saved = SavedWeights { dtype: WeightType::F32, ..SavedWeights::default() };
        let (to, ledger) = (out.path().join("model"), cpu.ledger());
        let mut rows = rows_of(&model, &cpu);
        // Shards of a tensor each, so that a fused one could be torn.
        export_folder(&to, Some(&dir), &config, saved, 1, ledger, &mut rows).unwrap();
        assert_eq!(LlamaConfig::from_dir(&to).unwrap(), config, "{name}");
        let mut left = tensors(&dir);
        for file in std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|ending| ending == "safetensors") {
                for (tensor, shape, bytes) in tensors_of(&file) {
                    assert_eq!(left.remove(&tensor), Some((shape, bytes)), "{name}: {tensor}");
                }
            }
        }
        assert!(left.is_empty(), "{name}: {:?}", left.keys());
        let written = load(&cpu, &to, WeightFormat::Float);
        assert_eq!(written.params.as_ref().list().len(), config.tensors().count());
    }
}

fn tensors(dir: &Path) -> HashMap<String, (Vec<usize>, Vec<u8>)> {
    let all = tensors_of(&dir.join("model.safetensors"));
    all.into_iter().map(|(name, shape, bytes)| (name, (shape, bytes))).collect()
}

fn tensors_of(file: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, TensorView<'_>)| {
        (name, view.shape().to_vec(), view.data().to_vec())
    };
    file.tensors().into_iter().map(tensor).collect()
}
