//! `qft export`, and `--export` of a run, as a user gives them: what is written, what is refused, and that nothing is written over
//! that was not written here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{copy_dir, finetune, qft, said, succeed};
use qft_testing::{gguf, material};
use std::fs;
use std::path::Path;

/// GGUF's number of BF16.
const BF16: u32 = 30;

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
    let entries = fs::read_dir(dir).unwrap();
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
    let card = fs::read_to_string(place("hf").join("README.md")).unwrap();
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
    let card = fs::read_to_string(tuned.join("README.md")).unwrap();
    for part in ["fine-tuned", "| `--states` | full |", "SHA-256", "held-out loss after"] {
        assert!(card.contains(part), "{part}: {card}");
    }
    exported(&tuned, &out, &["--to=hf"]);
    assert_eq!(fs::read_to_string(out.join("README.md")).unwrap(), card);
    // Without it, from what the run left.
    fs::remove_file(tuned.join("README.md")).unwrap();
    exported(&tuned, &out, &["--to=hf", "--overwrite"]);
    let made = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(made.contains("held-out loss of these files, in float compute"), "{made}");
}

/// A tensor of a file of safetensors, as it lies there.
fn raw(file: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors.tensor(name).unwrap().data().to_vec()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// From the states themselves: what has the saved model's type has its bits, and what has more keeps more.
#[test]
fn formats_are_written_beside_the_model() {
    let temp = tempfile::tempdir().unwrap();
    let (out, later) = (temp.path().join("out"), temp.path().join("later"));
    let exports = ["--export=gguf", "--export=gguf:q8_0", "--export=hf:f32"];
    let printed = succeed(&finetune(&out, &[&["--steps=2"][..], &exports].concat()));
    for folder in ["gguf-bf16", "gguf-q8_0", "hf-f32"] {
        assert!(printed.contains(&format!("exported {}", out.join(folder).display())), "{printed}");
    }
    exported(&out, &later, &["--to=gguf"]);
    let now = gguf::read(&out.join("gguf-bf16/model-bf16.gguf"));
    let saved = gguf::read(&later.join("model-bf16.gguf"));
    assert_eq!(now.tensors.keys().collect::<Vec<_>>(), saved.tensors.keys().collect::<Vec<_>>());
    for (name, tensor) in now.tensors.iter().filter(|(_, tensor)| tensor.kind == BF16) {
        assert_eq!(tensor, &saved.tensors[name], "{name}");
    }
    let named = |contents: &gguf::Contents| contents.metadata["general.name"].clone();
    assert_eq!(named(&now), gguf::Value::Text("out".into()));
    assert_eq!(named(&now), named(&saved));
    assert_eq!(read(&out.join("hf-f32/README.md")), read(&out.join("README.md")));
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let bytes = |key: &str| summary[key].as_u64().unwrap();
    assert!(bytes("peak_bytes") <= bytes("planned_peak_bytes"), "{summary}");
    // Of the weights in f32, not of those in bf16.
    let f32s = raw(&out.join("hf-f32/model.safetensors"), "model.layers.0.mlp.gate_proj.weight");
    let exact = f32s.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let blocks = gguf::read(&out.join("gguf-q8_0/model-q8_0.gguf"));
    let off = |tensor: &gguf::Tensor| -> f64 {
        let differences = tensor.values.iter().zip(exact.clone());
        differences.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    exported(&out, &later, &["--to=gguf", "--dtype=q8_0", "--overwrite"]);
    let twice = gguf::read(&later.join("model-q8_0.gguf"));
    let name = "blk.0.ffn_gate.weight";
    let (once, twice) = (off(&blocks.tensors[name]), off(&twice.tensors[name]));
    println!(
        "squared error of Q8_0 from the states: {:.3} of that from the saved files",
        once / twice
    );
    assert!(once < 0.95 * twice, "{once} {twice}");
}

/// Without rotation and protected weights, a row's codes and scale are those of training; else they are made from the weights.
#[test]
fn codes_of_training_are_written_as_they_are() {
    let temp = tempfile::tempdir().unwrap();
    let name = "model.layers.1.self_attn.k_proj.weight";
    for (number, (states, same)) in [
        (&["--rotation=false"][..], true),
        (&["--rotation=false", "--states=balanced"], true),
        (&["--rotation=false", "--states=compact"], false),
        (&[], false),
        (&["--states=f32"], false),
    ]
    .into_iter()
    .enumerate()
    {
        let out = temp.path().join(number.to_string());
        let options = [&["--steps=2", "--export=compressed-tensors"], states].concat();
        succeed(&finetune(&out, &options));
        let written = out.join("compressed-tensors-bf16/model.safetensors");
        let (codes, scales) = (raw(&written, name), raw(&written, &format!("{name}_scale")));
        assert_eq!(codes.len(), 32 * 64, "{states:?}");
        assert_eq!(scales.len(), 32 * 4, "{states:?}");
        let checkpoint = out.join("checkpoints/step-000002/state.safetensors");
        if !states.contains(&"--states=f32") {
            let trained = raw(&checkpoint, &format!("{name}/q"));
            assert_eq!(codes == trained, same, "{states:?}");
            assert_eq!(scales == raw(&checkpoint, &format!("{name}/scale")), same, "{states:?}");
        }
        // What is not INT8 is as in the saved model.
        let embedding = "model.embed_tokens.weight";
        assert_eq!(raw(&written, embedding), raw(&out.join("model.safetensors"), embedding));
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_the_data_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let fails = |options: &[&str], parts: &[&str]| {
        let output = qft(&finetune(&out, options));
        let told = said(&output);
        assert!(!output.status.success(), "{told}");
        for part in parts {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("training data"), "{told}");
    };
    fails(&["--steps=2", "--export=hf:q8_0"], &["--export", "GGUF", "hf:bf16"]);
    fails(&["--steps=2", "--export=onnx"], &["--export", "compressed-tensors"]);
    fails(&["--steps=2", "--export=gguf", "--export=gguf:bf16"], &["gguf:bf16 was given twice"]);
    // A model that llama.cpp computes otherwise.
    let model = copy_dir(&material::stories260k(), &temp.path().join("model"));
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["rope_scaling"] = serde_json::json!({
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256, "beta_fast": 16.0,
    });
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let yarn = format!("--model={}", model.display());
    let mut options = finetune(&out, &["--steps=2", "--export=hf:f16", "--export=gguf:f16"]);
    options[1] = yarn;
    let output = qft(&options);
    let told = said(&output);
    assert!(told.contains("--export gguf:f16") && told.contains("beta_fast"), "{told}");
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(!out.exists() && !told.contains("training data"), "{told}");
    // Files of the user's stand where it would be.
    let place = out.join("gguf-f16");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("notes.txt"), "mine").unwrap();
    fails(&["--steps=2", "--export=gguf:f16"], &["--export gguf:f16", "notes.txt"]);
    assert_eq!(fs::read_to_string(place.join("notes.txt")).unwrap(), "mine");
}

/// A run that is done can be exported later, and its exports go where its model goes.
#[test]
fn exports_belong_to_their_run() {
    let temp = tempfile::tempdir().unwrap();
    let (out, settings) = (temp.path().join("out"), temp.path().join("run.toml"));
    let file = |folder: &str| out.join(folder).join("model-q8_0.gguf");
    let (text, config) =
        ("schedule = \"constant\"\nwarmup = 0\n", format!("--config={}", settings.display()));
    fs::write(&settings, format!("{text}export = \"gguf:q8_0\"\n")).unwrap();
    let run = |options: &[&str]| qft(&finetune(&out, &[&[config.as_str()], options].concat()));
    assert!(run(&["--steps=2"]).status.success());
    let first = read(&file("gguf-q8_0"));
    // Again, and another one.
    fs::write(&settings, format!("{text}export = [\"gguf:q8_0\", \"gguf:f16\"]\n")).unwrap();
    assert!(run(&["--steps=2", "--resume=latest"]).status.success());
    assert_eq!(read(&file("gguf-q8_0")), first);
    assert!(out.join("gguf-f16/model-f16.gguf").exists());
    // Longer, and one of the two: an option on the command line takes the place of what the file has.
    let output = run(&["--steps=4", "--resume=latest", "--export=gguf:q8_0"]);
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert_ne!(read(&file("gguf-q8_0")), first);
    assert!(told.contains("gguf-f16 stays as an earlier run wrote it"), "{told}");
    // Another run lets it make way, all of it.
    succeed(&finetune(&out, &["--steps=3"]));
    assert!(!file("gguf-q8_0").exists() && file("earlier-1/gguf-q8_0").exists());
    succeed(&finetune(&out, &["--steps=3", "--overwrite", "--export=gguf:q8_0"]));
    assert!(file("gguf-q8_0").exists());
    succeed(&finetune(&out, &["--steps=1", "--overwrite"]));
    assert!(!out.join("gguf-q8_0").exists());
}

/// The template that a model was trained with is the one that it is talked to with: here, and by every program that reads its
/// files.
#[test]
fn the_template_of_training_goes_with_the_model() {
    let temp = tempfile::tempdir().unwrap();
    let place = |name: &str| temp.path().join(name);
    let option = |key: &str, path: &Path| format!("--{key}={}", path.display());
    fs::write(
        place("alpaca.jsonl"),
        r#"{"instruction": "Name a colour.", "input": "", "output": "Blue."}"#,
    )
    .unwrap();
    let talk = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Blue."}]}"#;
    fs::write(place("talk.jsonl"), talk).unwrap();
    fs::write(place("file.jinja"), "{% for m in messages %}{{ m.role + m.content }}{% endfor %}")
        .unwrap();
    // One without a template, and one with its own.
    let (plain, own) = (material::stories260k(), copy_dir(&material::stories260k(), &place("own")));
    fs::write(
        own.join("chat_template.jinja"),
        "{% for m in messages %}[{{ m.content }}]{% endfor %}",
    )
    .unwrap();
    let file = place("file.jinja").display().to_string();
    for (number, (model, data, template, taken)) in [
        (&plain, "alpaca.jsonl", None, "alpaca"),
        (&plain, "talk.jsonl", Some("chatml"), "chatml"),
        (&plain, "talk.jsonl", Some("llama2"), "llama2"),
        (&plain, "talk.jsonl", Some(file.as_str()), file.as_str()),
        (&own, "talk.jsonl", Some("llama3"), "llama3"),
        (&own, "talk.jsonl", None, "model"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = place(&number.to_string());
        let template = template.map(|template| format!("--template={template}"));
        let options = ["--steps=1", "--seq-len=200", "--threads=1", "--lr=1e-4", "--export=gguf"];
        let files = [
            "finetune".into(),
            option("model", model),
            option("data", &place(data)),
            option("out", &out),
        ];
        let args = files.into_iter().chain(options.map(String::from)).chain(template);
        succeed(&args.collect::<Vec<_>>());
        // The model's files alone, and no option, give the tokens that were trained on.
        let tokens = |model: &Path, more: &[String]| {
            let args = ["data", "show", "--ids", "--no-cache", "--seq-len=200"].map(String::from);
            let files = [option("model", model), option("data", &place("talk.jsonl"))];
            succeed(&args.into_iter().chain(files).chain(more.to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(tokens(&out, &[]), tokens(model, &[format!("--template={taken}")]), "{taken}");
        // What other programs read.
        let contents = gguf::read(&out.join("gguf-bf16/model-bf16.gguf"));
        let written = match fs::read_to_string(out.join("tokenizer_config.json")) {
            Ok(text) if taken != "model" => {
                let settings: serde_json::Value = serde_json::from_str(&text).unwrap();
                settings["chat_template"].as_str().unwrap().to_owned()
            }
            _ => fs::read_to_string(out.join("chat_template.jinja")).unwrap(),
        };
        assert_eq!(contents.metadata["tokenizer.chat_template"], gguf::Value::Text(written));
        assert_eq!(out.join("chat_template.jinja").exists(), taken == "model", "{taken}");
    }
}
