//! Runs that are killed at random moments, again and again, end with the bits of one that never was.
//!
//! `QFT_CAMPAIGN=1000 cargo test -p qft-train --test campaign -- --nocapture` kills a thousand times.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, finetune, said};
use qft_llama::{LlamaConfig, WeightSource};
use qft_testing::rng::TestRng;
use qft_train::step::checkpoint;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Kills where the environment does not say how many.
const KILLS: usize = 50;

/// Kills of one run before it is let to its end.
const KILLS_OF_A_RUN: usize = 5;

/// Checkpoints, pruning and evaluations in every step or two, so that a kill meets them often.
const OPTIONS: [&str; 7] = [
    "--steps=12",
    "--checkpoint-every=1",
    "--keep-checkpoints=2",
    "--val-split=0.1",
    "--eval-batches=4",
    "--eval-every=2",
    "--max-grad-norm=0.5",
];

fn run(out: &Path, more: &[&str]) -> Command {
    let mut run = command(&finetune(out, &[&OPTIONS[..], more].concat()));
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    run
}

/// Goes on with the run in `out`, or begins it.
fn go_on(out: &Path) -> Command {
    match checkpoint::latest(&out.join("checkpoints")).unwrap() {
        Some(_) => run(out, &["--resume"]),
        None => run(out, &[]),
    }
}

/// What a run leaves that must be the same: the model, and the last checkpoint's states.
fn result(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let state = checkpoint::folder(Path::new("checkpoints"), 12).join("state.safetensors");
    let names = ["model.safetensors", "config.json", "tokenizer.json"].map(PathBuf::from);
    names.into_iter().chain([state]).map(|name| (name.clone(), read(&out.join(name)))).collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whatever has the name of a checkpoint or a model is whole. Says in what state the kill left the folder.
fn check(out: &Path) -> &'static str {
    let root = out.join("checkpoints");
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        entries.into_iter().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    let left_over =
        names(&root).iter().any(|name| name.contains("qft-") || name.contains("partial"));
    let exporting = |name: &String| name.starts_with("model.") && name != "model.safetensors";
    let exporting = names(out).iter().any(exporting);
    let exported = out.join("model.safetensors").exists();
    // As a resumed run sees it.
    let latest = checkpoint::latest(&root).unwrap();
    for name in names(&root).iter().filter(|name| name.len() == "step-000000".len()) {
        let dir = root.join(name);
        checkpoint::read_progress(&dir).unwrap();
        SafeTensors::deserialize(&read(&dir.join("state.safetensors"))).unwrap();
    }
    if out.join("config.json").exists() || out.join("model.safetensors").exists() {
        let config = LlamaConfig::from_dir(out).unwrap();
        WeightSource::open(out, &config).unwrap();
    }
    match latest {
        _ if exporting => "while exporting",
        _ if exported => "after the export",
        _ if left_over => "while saving or pruning",
        None => "before the first checkpoint",
        Some(_) => "between checkpoints",
    }
}

#[test]
fn killed_at_any_moment_a_run_ends_with_the_same_bits() {
    let kills = std::env::var("QFT_CAMPAIGN").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    let start = Instant::now();
    let output = run(&whole, &[]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let (mut time, expected) = (start.elapsed().as_secs_f64(), result(&whole));

    let mut rng = TestRng::new(1);
    let mut moments = BTreeMap::<&str, usize>::new();
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let out = temp.path().join(format!("run{runs}"));
        runs += 1;
        for attempt in 0..KILLS_OF_A_RUN.min(kills - killed) {
            let mut child = go_on(&out).spawn().unwrap();
            let part = rng.uniform() * 1.1;
            std::thread::sleep(Duration::from_secs_f64(time * part));
            child.kill().unwrap();
            // One that had come to its end before is no kill.
            if child.wait().unwrap().success() {
                // A whole run takes no longer than that: the machine has less to do than it had.
                if attempt == 0 {
                    time *= part.min(1.0);
                }
                break;
            }
            killed += 1;
            *moments.entry(check(&out)).or_default() += 1;
        }
        let output = go_on(&out).output().unwrap();
        assert!(output.status.success(), "after {killed} kills: {}", said(&output));
        for (name, bytes) in &expected {
            let same = read(&out.join(name)) == *bytes;
            assert!(same, "after {killed} kills: {} differs in {}", name.display(), out.display());
        }
        std::fs::remove_dir_all(&out).unwrap();
    }
    println!("{killed} kills of {runs} runs: {moments:?}");
    assert!(moments.len() >= 3, "the kills met too little: {moments:?}");
}
