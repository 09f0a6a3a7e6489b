//! What a written folder has besides weights: whatever belongs to the model, and nothing of another one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::tiny_config;
use qft_files::{Disk, Step};
use qft_llama::export::{CARD, CARD_MARK, Existing, SavedWeights};
use qft_llama::{
    DEFAULT_SHARD_BYTES, FolderExport, LlamaConfig, Synthetic, TensorSpec, Weights,
    export_folder_on,
};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

struct Case {
    config: LlamaConfig,
    root: tempfile::TempDir,
}

impl Case {
    /// A source with these files and a configuration.
    fn new(files: &[(&str, &str)]) -> Self {
        let case = Self { config: tiny_config(), root: tempfile::tempdir().unwrap() };
        write(&case.source(), &[("config.json", &case.config.to_json("float32"))]);
        write(&case.source(), files);
        case
    }

    fn source(&self) -> std::path::PathBuf {
        self.root.path().join("source")
    }

    fn out(&self) -> std::path::PathBuf {
        self.root.path().join("out")
    }

    fn export(&self, disk: &Disk, with: With<'_>) -> Result<(), qft_llama::Error> {
        let weights = Synthetic::new(&self.config, 1);
        let export = FolderExport {
            out: &self.out(),
            source: Some(&self.source()),
            template: with.template,
            config: &self.config,
            saved: SavedWeights::default(),
            int8: None,
            max_shard_bytes: DEFAULT_SHARD_BYTES,
            ends: with.ends,
            card: with.card,
            existing: with.existing,
        };
        let fill = &mut |spec: &TensorSpec, rows: Range<usize>, out: &mut [f32]| {
            weights.read_rows(&spec.name, rows, out)
        };
        export_folder_on(disk, &export, &Arc::default(), fill)
    }

    fn exported(&self, with: With<'_>) {
        self.export(&Disk::default(), with).unwrap();
    }
}

/// What is written besides the source's files.
#[derive(Clone, Copy, Default)]
struct With<'a> {
    template: Option<&'a str>,
    ends: &'a [u32],
    card: Option<&'a str>,
    existing: Existing,
}

#[test]
fn takes_over_what_belongs_to_the_model_alone() {
    let case = Case::new(&[
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "mine"),
        ("LICENSE.txt", "terms"),
        ("Notice", "names"),
        ("USE_POLICY.md", "do not"),
        // Names weights that are not there, or another model.
        ("model.safetensors.index.json", "{}"),
        ("adapter_config.json", "{}"),
        ("pytorch_model.bin.index.json", "{}"),
        ("training_args.bin", "x"),
        ("LICENSES/more.txt", "x"),
    ]);
    case.exported(With::default());
    let expected = [
        "LICENSE.txt",
        "Notice",
        "USE_POLICY.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names(&case.out()), expected);
    assert_eq!(fs::read_to_string(case.out().join("chat_template.jinja")).unwrap(), "mine");
}

/// What an older model's tokenizer left would be read with the new one.
#[test]
fn nothing_of_an_older_model_stays() {
    let case = Case::new(&[("tokenizer.json", "{}")]);
    write(
        &case.out(),
        &[
            ("chat_template.jinja", "old"),
            ("vocab.json", "old"),
            ("tokenizer.json", "old"),
            ("model-00001-of-00002.safetensors", "old"),
            ("metrics.jsonl", "kept"),
            ("LICENSE", "the user's"),
        ],
    );
    write(&case.source(), &[("LICENSE", "the model's")]);
    case.exported(With::default());
    let expected =
        ["LICENSE", "config.json", "metrics.jsonl", "model.safetensors", "tokenizer.json"];
    assert_eq!(names(&case.out()), expected);
    assert_eq!(fs::read_to_string(case.out().join("tokenizer.json")).unwrap(), "{}");
    assert_eq!(fs::read_to_string(case.out().join("LICENSE")).unwrap(), "the user's");
}

#[test]
fn several_templates_become_a_list_that_every_version_reads() {
    let files = [
        ("chat_template.jinja", "plain"),
        ("additional_chat_templates/tool_use.jinja", "tools"),
        ("additional_chat_templates/rag.jinja", "documents"),
        ("tokenizer_config.json", r#"{"model_max_length": 5}"#),
    ];
    let case = Case::new(&files);
    case.exported(With::default());
    assert_eq!(names(&case.out()), ["config.json", "model.safetensors", "tokenizer_config.json"]);
    let settings = json_of(&case.out().join("tokenizer_config.json"));
    let entry = |name: &str, template: &str| json!({"name": name, "template": template});
    let list = [entry("default", "plain"), entry("rag", "documents"), entry("tool_use", "tools")];
    assert_eq!(settings, json!({"model_max_length": 5, "chat_template": list}));
}

/// The model was trained with another template than the source's, whatever that is.
#[test]
fn another_template_leaves_none_of_the_source() {
    let list =
        r#"{"chat_template": [{"name": "default", "template": "old"}], "model_max_length": 5}"#;
    for files in [
        &[][..],
        &[("tokenizer_config.json", r#"{"model_max_length": 5}"#)],
        &[("chat_template.jinja", "old"), ("tokenizer_config.json", r#"{"model_max_length": 5}"#)],
        &[("tokenizer_config.json", r#"{"chat_template": "old", "model_max_length": 5}"#)],
        &[("tokenizer_config.json", list)],
        &[("chat_template.jinja", "old"), ("additional_chat_templates/tool_use.jinja", "old")],
    ] {
        let case = Case::new(files);
        case.exported(With { template: Some("new"), ..With::default() });
        let expected = ["config.json", "model.safetensors", "tokenizer_config.json"];
        assert_eq!(names(&case.out()), expected, "{files:?}");
        let mut settings = json_of(&case.out().join("tokenizer_config.json"));
        assert_eq!(settings["chat_template"], "new", "{files:?}");
        settings.as_object_mut().unwrap().remove("chat_template");
        let kept = files.iter().any(|(_, text)| text.contains("model_max_length"));
        let expected = if kept { json!({"model_max_length": 5}) } else { json!({}) };
        assert_eq!(settings, expected, "{files:?}");
    }
}

#[test]
fn all_tokens_that_end_a_text_are_named() {
    let file = "generation_config.json";
    let cases = [
        (None, vec![], None),
        (None, vec![7], Some(json!({"eos_token_id": 7}))),
        (
            Some(r#"{"eos_token_id": 2, "top_p": 0.9}"#),
            vec![2],
            Some(json!({"eos_token_id": 2, "top_p": 0.9})),
        ),
        (
            Some(r#"{"eos_token_id": 2, "top_p": 0.9}"#),
            vec![7, 2],
            Some(json!({"eos_token_id": [2, 7], "top_p": 0.9})),
        ),
        (Some(r#"{"eos_token_id": [1, 2]}"#), vec![3], Some(json!({"eos_token_id": [1, 2, 3]}))),
        (Some("{}"), vec![3], Some(json!({"eos_token_id": 3}))),
    ];
    for (found, ends, expected) in cases {
        let case = Case::new(&found.map(|text| (file, text)).into_iter().collect::<Vec<_>>());
        case.exported(With { ends: &ends, ..With::default() });
        let path = case.out().join(file);
        let mut written = path.exists().then(|| json_of(&path));
        if let (None, Some(written)) = (found, &mut written) {
            // What transformers took from the configuration, as long as there was no such file.
            let (map, config) =
                (written.as_object_mut().unwrap(), json_of(&case.source().join("config.json")));
            assert_eq!(map.remove("bos_token_id").as_ref(), config.get("bos_token_id"));
        }
        assert_eq!(written, expected, "{found:?} {ends:?}");
    }
}

/// Python files are not copied, so nothing may name them.
#[test]
fn code_of_the_model_is_not_named() {
    let settings = r#"{"auto_map": {"AutoTokenizer": ["x.T", null]}, "model_max_length": 5}"#;
    let case = Case::new(&[("tokenizer_config.json", settings)]);
    let path = case.source().join("config.json");
    let mut config = json_of(&path);
    config["auto_map"] = json!({"AutoModelForCausalLM": "modeling_x.X"});
    fs::write(&path, config.to_string()).unwrap();
    case.exported(With::default());
    let written = |name: &str| json_of(&case.out().join(name));
    assert_eq!(written("config.json").get("auto_map"), None);
    assert_eq!(written("tokenizer_config.json"), json!({"model_max_length": 5}));
}

/// The language model of a multimodal one is written as what it is, with both spellings of everything.
#[test]
fn a_wrapped_configuration_is_unwrapped() {
    let case = Case::new(&[]);
    let mut text = json_of(&case.source().join("config.json"));
    let map = text.as_object_mut().unwrap();
    map.retain(|key, _| !key.starts_with("rope_") && key != "architectures");
    map.insert("rope_theta".into(), 10000.0.into());
    map.insert("extra".into(), "kept".into());
    let wrapper = json!({"model_type": "pixtral", "architectures": ["LlavaForConditionalGeneration"],
                         "vision_config": {}, "text_config": text});
    fs::write(case.source().join("config.json"), wrapper.to_string()).unwrap();
    assert_eq!(LlamaConfig::from_dir(&case.source()).unwrap(), case.config);
    case.exported(With::default());
    let written = json_of(&case.out().join("config.json"));
    assert_eq!(written["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!((&written["model_type"], &written["extra"]), (&json!("llama"), &json!("kept")));
    assert_eq!(written["rope_parameters"], json!({"rope_type": "default", "rope_theta": 10000.0}));
    assert_eq!(
        (&written["dtype"], &written["torch_dtype"]),
        (&json!("bfloat16"), &json!("bfloat16"))
    );
    assert!(written.get("vision_config").is_none());
    assert_eq!(LlamaConfig::from_dir(&case.out()).unwrap(), case.config);
}

#[test]
fn a_card_takes_the_place_of_no_other() {
    let case = Case::new(&[]);
    let ours = |text: &str| format!("{text}\n{CARD_MARK}\n");
    let card = || fs::read_to_string(case.out().join(CARD)).unwrap();
    for text in ["first", "second"] {
        let text = ours(text);
        case.exported(With { card: Some(&text), ..With::default() });
        assert_eq!(card(), text);
    }
    fs::write(case.out().join(CARD), ours("second") + "and more of a person's").unwrap();
    case.exported(With { card: Some("third"), ..With::default() });
    assert!(card().contains("person"), "{}", card());
}

/// Replaced, a folder has nothing of before, whatever happens: at every system call, the old or the new is there whole.
#[test]
fn a_replaced_folder_is_the_old_or_the_new() {
    let case = Case::new(&[("tokenizer.json", "new")]);
    let replace =
        |disk: &Disk| case.export(disk, With { existing: Existing::Replaced, ..With::default() });
    let old = [("config.json", "old"), ("chat_template.jinja", "old"), ("README.md", "old")];
    let mut found = [0, 0];
    for at in 0.. {
        let _gone = fs::remove_dir_all(case.out());
        write(&case.out(), &old);
        let steps = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&steps);
        let disk = Disk::watched(move |_: Step<'_>| {
            let crashed = count.fetch_add(1, Ordering::Relaxed) >= at;
            if crashed { Err(ErrorKind::Other.into()) } else { Ok(()) }
        });
        let result = replace(&disk);
        if steps.load(Ordering::Relaxed) <= at {
            result.unwrap();
            break;
        }
        // What a crash between two renames leaves is put right by whoever comes next.
        qft_files::atomic::restore_folder(&Disk::default(), &case.out()).unwrap();
        let names = names(&case.out());
        let new = names == ["config.json", "model.safetensors", "tokenizer.json"];
        assert!(new || names == ["README.md", "chat_template.jinja", "config.json"], "{names:?}");
        found[usize::from(new)] += 1;
        // The next one leaves nothing of it.
        replace(&Disk::default()).unwrap();
        assert_eq!(fs::read_dir(case.root.path()).unwrap().count(), 2, "step {at}");
    }
    assert!(found[0] > 5 && found[1] > 0, "{found:?}");

    write(&case.out(), &[("thesis.tex", "")]);
    let error = replace(&Disk::default()).unwrap_err().to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    let refused = With { existing: Existing::Refused, ..With::default() };
    let error = case.export(&Disk::default(), refused);
    assert!(error.unwrap_err().to_string().contains("already exists"));
    assert!(case.out().join("thesis.tex").exists());
}
