//! `qft export` as a user runs it: what it writes, what it refuses, and that it never writes over what it did not write.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{finetune, qft, said, succeed};
use qft_testing::{gguf, material};
use std::path::Path;

fn arguments(model: &Path, out: &Path, options: &[&str]) -> Vec<String> {
    let folders = [format!("--model={}", model.display()), format!("--out={}", out.display())];
    let options = options.iter().map(|option| (*option).to_owned());
    ["export".to_owned()].into_iter().chain(folders).chain(options).collect()
}

fn exported(model: &Path, out: &Path, options: &[&str]) -> String {
    succeed(&arguments(model, out, options))
}

/// What is said where it fails.
fn refused(model: &Path, out: &Path, options: &[&str]) -> String {
    let output = qft(&arguments(model, out, options));
    assert!(!output.status.success(), "{}", said(&output));
    said(&output)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_kind_is_written_and_only_replaced_by_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let model = material::stories260k();
    let place = |name: &str| temp.path().join(name);
    let tokenizer = [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let gguf = ["Modelfile", "model-q8_0.gguf"];
    let kinds: [(&str, &[&str], &[&str]); 3] = [
        ("hf", &["--to=hf"], &tokenizer),
        ("int8", &["--to=compressed-tensors", "--dtype=f16"], &tokenizer),
        ("gguf", &["--to=gguf", "--dtype=q8_0"], &gguf),
    ];
    for (name, options, files) in kinds {
        let printed = exported(&model, &place(name), options);
        assert_eq!(names(&place(name)), files, "{name}");
        for file in files {
            assert!(printed.contains(file), "{file} in {printed}");
        }
        let again = refused(&model, &place(name), options);
        assert!(again.contains("--overwrite"), "{again}");
        let replace = [options, &["--overwrite"]].concat();
        exported(&model, &place(name), &replace);
        assert_eq!(names(&place(name)), files, "{name}");
    }
    gguf::read(&place("gguf").join("model-q8_0.gguf"));
    // Of another kind, or with a file of the user's.
    let other = refused(&model, &place("hf"), &["--to=gguf", "--overwrite"]);
    assert!(other.contains("such an export does not write"), "{other}");
    assert_eq!(names(&place("hf")), tokenizer);
    let card = std::fs::read_to_string(place("hf").join("README.md")).unwrap();
    assert!(card.contains("# stories260k") && !card.contains("fine-tuned"), "{card}");
    assert_eq!(names(temp.path()), ["gguf", "hf", "int8"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    for (options, part) in [
        (["--to=hf", "--dtype=q8_0"], "--to gguf"),
        (["--to=compressed-tensors", "--dtype=q8_0"], "--to gguf"),
        (["--to=onnx", "--dtype=f16"], "compressed-tensors"),
    ] {
        let told = refused(&material::stories260k(), &out, &options);
        assert!(told.contains(part), "{told}");
    }
    let told = refused(temp.path(), &out, &["--to=hf"]);
    assert!(told.contains("empty folder"), "{told}");
    assert_eq!(names(temp.path()), [""; 0]);
}

/// The card of a run goes where its model goes.
#[test]
fn a_run_leaves_a_card_that_exports_take_over() {
    let temp = tempfile::tempdir().unwrap();
    let (tuned, out) = (temp.path().join("tuned"), temp.path().join("out"));
    succeed(&finetune(&tuned, &["--steps=2", "--val-split=0.1", "--eval-batches=1"]));
    let card = std::fs::read_to_string(tuned.join("README.md")).unwrap();
    for part in ["fine-tuned", "| `--states` | full |", "SHA-256", "held-out loss after"] {
        assert!(card.contains(part), "{part}: {card}");
    }
    exported(&tuned, &out, &["--to=hf"]);
    assert_eq!(std::fs::read_to_string(out.join("README.md")).unwrap(), card);
    // Without it, from what the run left.
    std::fs::remove_file(tuned.join("README.md")).unwrap();
    exported(&tuned, &out, &["--to=hf", "--overwrite"]);
    let made = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(made.contains("held-out loss of these files, in float compute"), "{made}");
}
