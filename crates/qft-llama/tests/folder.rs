//! Paths that are no model's folder: each is named for what it is, with a remedy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{tiny_config, tiny_tensors, write_safetensors};
use qft_llama::{Error, LlamaConfig, WeightSource};
use std::fs;
use std::path::Path;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n";

/// Names and texts of files.
type Files = &'static [(&'static str, &'static str)];

/// A folder with files of these names and texts.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Asserts that the error names the path, and says these parts.
fn assert_named(error: &Error, path: &Path, parts: &[&str]) {
    assert!(matches!(error, Error::Folder { .. }), "{error:?}");
    let text = error.to_string();
    for part in parts.iter().chain(&[path.to_str().unwrap()]) {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn without_a_configuration() {
    let cases: [(Files, &[&str]); 8] = [
        (&[], &["an empty folder", "hf download"]),
        (
            &[("adapter_config.json", "{}"), ("adapter_model.safetensors", "")],
            &["adapter", "merge"],
        ),
        (&[("model-Q4_K_M.gguf", "GGUF"), ("README.md", "")], &["GGUF", "safetensors"]),
        (&[("params.json", "{}"), ("consolidated.00.pth", "")], &["Meta", "convert_llama_weights"]),
        (&[("params.json", "{}"), ("consolidated.safetensors", "")], &["Mistral", "Hugging Face"]),
        (&[("pytorch_model.bin", "")], &["pytorch_model.bin", "save_pretrained"]),
        (&[("config.json", POINTER)], &["Git LFS pointer", "git lfs pull"]),
        (&[("refs/main", "abc"), ("snapshots/.keep", "")], &["snapshots/.keep"]),
    ];
    for (files, parts) in cases {
        let dir = folder(files);
        assert_named(&LlamaConfig::from_dir(dir.path()).unwrap_err(), dir.path(), parts);
    }
}

#[test]
fn in_the_cache_of_the_hub() {
    let root = |snapshots: &[&str]| {
        let dir = folder(&[("refs/main", "bbb\n"), ("blobs/1", "")]);
        fs::create_dir(dir.path().join("snapshots")).unwrap();
        for name in snapshots {
            fs::create_dir(dir.path().join("snapshots").join(name)).unwrap();
        }
        dir
    };
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &["no snapshot", "hf download"]),
        (&["aaa"], &["give its snapshot", "snapshots/aaa"]),
        (&["aaa", "bbb"], &["give its snapshot", "snapshots/bbb"]),
        (&["aaa", "ccc"], &["one of its snapshots", "aaa or ccc"]),
    ];
    for (snapshots, parts) in cases {
        let dir = root(snapshots);
        assert_named(&LlamaConfig::from_dir(dir.path()).unwrap_err(), dir.path(), parts);
    }
}

#[test]
fn a_file_instead_of_a_folder() {
    let dir = folder(&[("config.json", "{}"), ("a.gguf", ""), ("b", "GGUF..."), ("c", "")]);
    let parent = dir.path().to_str().unwrap();
    for (name, parts) in [
        ("config.json", &["is a file", "give the model's folder", parent][..]),
        ("c", &["is a file"]),
        ("a.gguf", &["a GGUF file"]),
        ("b", &["a GGUF file"]),
    ] {
        let path = dir.path().join(name);
        assert_named(&LlamaConfig::from_dir(&path).unwrap_err(), &path, parts);
    }
}

/// Beside a configuration that can be read; without weights, only opening them fails.
#[test]
fn without_weights() {
    let config = tiny_config();
    let text = config.to_json("float32");
    let cases: [(&str, &str, &[&str]); 6] = [
        ("pytorch_model-00001-of-00002.bin", "", &["pytorch_model.bin", "save_pretrained"]),
        ("model.Q8_0.gguf", "GGUF", &["GGUF"]),
        ("consolidated.00.pth", "", &["Meta"]),
        ("model.fp16.safetensors", "", &["variant", "rename"]),
        ("model.safetensors", POINTER, &["Git LFS pointer", "git lfs pull"]),
        ("model-00001-of-00001.safetensors", POINTER, &["Git LFS pointer"]),
    ];
    for (name, contents, parts) in cases {
        let dir = folder(&[("config.json", &text), (name, contents)]);
        if name.starts_with("consolidated") {
            fs::write(dir.path().join("params.json"), "{}").unwrap();
        }
        assert_eq!(LlamaConfig::from_dir(dir.path()).unwrap(), config);
        let error = WeightSource::open(dir.path(), &config).unwrap_err();
        assert_named(&error, dir.path(), parts);
    }
}

/// Other formats beside the model's own do no harm; an adapter would be ignored.
#[test]
fn beside_a_model() {
    let config = tiny_config();
    let text = config.to_json("float32");
    let dir = folder(&[
        ("config.json", &text),
        ("pytorch_model.bin", ""),
        ("model.gguf", ""),
        ("params.json", "{}"),
        ("consolidated.00.pth", ""),
    ]);
    write_safetensors(&dir.path().join("model.safetensors"), &tiny_tensors(&config));
    assert_eq!(LlamaConfig::from_dir(dir.path()).unwrap(), config);
    WeightSource::open(dir.path(), &config).unwrap();
    fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    assert_named(&LlamaConfig::from_dir(dir.path()).unwrap_err(), dir.path(), &["adapter"]);
}

#[test]
fn with_tensors_of_other_names() {
    let config = tiny_config();
    for prefix in ["language_model.", "model.language_model."] {
        let mut tensors = tiny_tensors(&config);
        tensors.iter_mut().for_each(|tensor| tensor.0 = format!("{prefix}{}", tensor.0));
        let dir = tempfile::tempdir().unwrap();
        write_safetensors(&dir.path().join("model.safetensors"), &tensors);
        let error = WeightSource::open(dir.path(), &config).unwrap_err();
        let name = format!("{prefix}model.embed_tokens.weight");
        assert_named(&error, dir.path(), &[&name, "save_pretrained"]);
    }
}
