//! Weights out of real folders, and out of damaged ones.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{shared, shared_models, tiny_config, tiny_tensors, write_safetensors};
use half::{bf16, f16};
use qft_files::Error as FileError;
use qft_llama::{Error, LlamaConfig, Synthetic, WeightSource, Weights};
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::Path;

/// Rows and columns of a tensor of a model.
fn shape(config: &LlamaConfig, name: &str) -> (usize, usize) {
    let spec = config.tensors().find(|spec| spec.name == name).unwrap();
    (spec.rows, spec.cols)
}

fn all_rows(weights: &dyn Weights, config: &LlamaConfig, name: &str) -> Vec<f32> {
    let (rows, cols) = shape(config, name);
    let mut values = vec![0.0; rows * cols];
    weights.read_rows(name, 0..rows, &mut values).unwrap();
    values
}

/// Every value of the real folders, against the reader of the safetensors crate; whole and row by row.
#[test]
fn reads_the_shared_models() {
    for dir in shared_models() {
        let config = LlamaConfig::from_dir(&dir).unwrap();
        let source = WeightSource::open(&dir, &config).unwrap();
        let mut compared = 0;
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !(name.starts_with("model") && name.ends_with(".safetensors")) {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                let expected: Vec<f32> = match view.dtype() {
                    Dtype::F32 => {
                        view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
                    }
                    _ => {
                        let values = view.data().as_chunks().0.iter();
                        values.map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
                    }
                };
                let name =
                    if name == "lm_head.weight" { "model.embed_tokens.weight" } else { name };
                assert_eq!(all_rows(&source, &config, name), expected, "{name}");
                let (rows, cols) = shape(&config, name);
                let mut row = vec![0.0; cols];
                for index in [0, rows / 2, rows - 1] {
                    source.read_rows(name, index..index + 1, &mut row).unwrap();
                    assert_eq!(row, expected[index * cols..][..cols], "{name} row {index}");
                }
                compared += expected.len() as u64;
            }
        }
        assert_eq!(compared, config.parameters());
    }
}

#[test]
fn shards_hold_what_the_single_file_holds() {
    let (Some(single), Some(sharded)) =
        (shared("models/tinystories-656k"), shared("models/tinystories-656k-bf16-sharded"))
    else {
        return;
    };
    let config = LlamaConfig::from_dir(&single).unwrap();
    assert_eq!(LlamaConfig::from_dir(&sharded).unwrap(), config);
    let single = WeightSource::open(&single, &config).unwrap();
    let sharded = WeightSource::open(&sharded, &config).unwrap();
    for spec in config.tensors() {
        assert_eq!(
            all_rows(&single, &config, &spec.name),
            all_rows(&sharded, &config, &spec.name),
            "{}",
            spec.name
        );
    }
}

#[test]
fn reads_half_precision() {
    let config = tiny_config();
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) / 7.0).collect();
    let halves: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let mut tensors = tiny_tensors(&config);
    let (name, shape) = (tensors[2].0.clone(), tensors[2].2.clone());
    tensors[2] = (name.clone(), "F16", shape, halves);
    write_safetensors(&dir.path().join("model.safetensors"), &tensors);
    let source = WeightSource::open(dir.path(), &config).unwrap();
    let expected: Vec<f32> = values.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
    assert_eq!(all_rows(&source, &config, &name), expected);
}

#[test]
fn finds_tied_embeddings_under_each_name() {
    let config = LlamaConfig { tie_word_embeddings: true, ..tiny_config() };
    for stored_as in
        [&["model.embed_tokens.weight"][..], &["lm_head.weight"], &["both", "lm_head.weight"]]
    {
        let mut tensors = tiny_tensors(&config);
        let embedding = tensors[0].clone();
        if stored_as.contains(&"lm_head.weight") {
            let mut head = embedding.clone();
            head.0 = "lm_head.weight".into();
            match stored_as.len() {
                1 => tensors[0] = head,
                _ => tensors.push(head),
            }
        }
        let dir = tempfile::tempdir().unwrap();
        write_safetensors(&dir.path().join("model.safetensors"), &tensors);
        let source = WeightSource::open(dir.path(), &config).unwrap();
        let bytes: Vec<u8> = all_rows(&source, &config, "model.embed_tokens.weight")
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(bytes, embedding.3);
    }
}

/// A head of its own under a configuration that ties it is an error, in any of its values and types.
#[test]
fn refuses_a_tied_head_that_differs() {
    let tied = LlamaConfig { vocab_size: 3000, tie_word_embeddings: true, ..tiny_config() };
    let open = |head: common::RawTensor| {
        let mut tensors = tiny_tensors(&tied);
        tensors.push(head);
        let dir = tempfile::tempdir().unwrap();
        write_safetensors(&dir.path().join("model.safetensors"), &tensors);
        WeightSource::open(dir.path(), &tied).map(|_| ())
    };
    let embedding = tiny_tensors(&tied).swap_remove(0);
    let head =
        || ("lm_head.weight".to_string(), embedding.1, embedding.2.clone(), embedding.3.clone());
    open(head()).unwrap();
    for row in [0, 1, 2047, 2048, 2999] {
        let mut head = head();
        head.3[4 * 8 * row + 3] ^= 1;
        let error = open(head).unwrap_err();
        assert!(matches!(error, Error::TiedHead { row: found, .. } if found == row), "{error}");
        let text = error.to_string();
        for part in ["lm_head.weight", "model.embed_tokens.weight", "tie_word_embeddings", "false"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
    // In another type the values count, not the bytes.
    let values: Vec<f32> =
        embedding.3.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let rounded = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let error = open(("lm_head.weight".into(), "BF16", embedding.2.clone(), rounded)).unwrap_err();
    assert!(matches!(error, Error::TiedHead { row: 0, .. }), "{error}");
    let longer = ("lm_head.weight".into(), "F32", vec![1, 8], embedding.3[..32].to_vec());
    assert!(matches!(open(longer), Err(Error::TiedHead { .. })));
}

#[test]
fn tensors_beyond_the_model_are_no_obstacle() {
    let config = tiny_config();
    let mut tensors = tiny_tensors(&config);
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "extra.b", "extra.a"] {
        tensors.push((name.into(), "F32", vec![1], vec![0; 4]));
    }
    let dir = tempfile::tempdir().unwrap();
    write_safetensors(&dir.path().join("model.safetensors"), &tensors);
    let source = WeightSource::open(dir.path(), &config).unwrap();
    assert_eq!(all_rows(&source, &config, "model.norm.weight").len(), 8);
}

/// A change to a good set of tensors, the kind of error it must give, and parts of the message.
type Damage = (fn(&mut Vec<common::RawTensor>), fn(&Error) -> bool, &'static [&'static str]);

#[test]
fn names_the_damaged_tensor() {
    let cases: [Damage; 5] = [
        (
            |t| drop(t.remove(3)),
            |e| matches!(e, Error::MissingTensor { missing: 1, .. }),
            &["k_proj.weight"],
        ),
        (
            |t| t[2].2 = vec![4, 16],
            |e| matches!(e, Error::TensorShape { .. }),
            &["q_proj", "[8, 8]", "[4, 16]"],
        ),
        (
            |t| t[1].2 = vec![1, 8],
            |e| matches!(e, Error::TensorShape { .. }),
            &["input_layernorm", "[8]", "[1, 8]"],
        ),
        (|t| t[2].1 = "I32", |e| matches!(e, Error::TensorType { .. }), &["q_proj", "I32", "BF16"]),
        (
            |t| t[2].1 = "Q4",
            |e| matches!(e, Error::Files(FileError::Json { .. })),
            &["model.safetensors"],
        ),
    ];
    let config = tiny_config();
    for (damage, kind, parts) in cases {
        let mut tensors = tiny_tensors(&config);
        damage(&mut tensors);
        let dir = tempfile::tempdir().unwrap();
        write_safetensors(&dir.path().join("model.safetensors"), &tensors);
        let error = WeightSource::open(dir.path(), &config).unwrap_err();
        assert!(kind(&error), "{error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn names_the_value_that_is_not_finite() {
    let config = tiny_config();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut tensors = tiny_tensors(&config);
        tensors[2].3[4 * (8 * 5 + 3)..][..4].copy_from_slice(&bad.to_le_bytes());
        let (name, dir) = (tensors[2].0.clone(), tempfile::tempdir().unwrap());
        write_safetensors(&dir.path().join("model.safetensors"), &tensors);
        let source = WeightSource::open(dir.path(), &config).unwrap();
        let mut out = [0.0; 64];
        source.read_rows(&name, 0..5, &mut out[..40]).unwrap();
        for rows in [0..8, 5..6] {
            let out = &mut out[..rows.len() * 8];
            let error = source.read_rows(&name, rows, out).unwrap_err();
            assert!(matches!(error, Error::NotFinite { row: 5, col: 3, .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("model.safetensors") && text.contains(&name), "{text}");
        }
    }
}

/// The first value beyond the first block that is read at once, in a large row.
#[test]
fn places_errors_behind_the_first_block() {
    let config = LlamaConfig {
        hidden_size: 20_000,
        intermediate_size: 2,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 2,
        ..tiny_config()
    };
    let mut tensors = tiny_tensors(&config);
    tensors[0].3[4 * (20_000 + 17_001)..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    write_safetensors(&dir.path().join("model.safetensors"), &tensors);
    let source = WeightSource::open(dir.path(), &config).unwrap();
    let mut out = vec![0.0; 16 * 20_000];
    let error = source.read_rows("model.embed_tokens.weight", 0..16, &mut out).unwrap_err();
    assert!(matches!(error, Error::NotFinite { row: 1, col: 17_001, .. }), "{error}");
}

#[test]
fn refuses_rows_that_do_not_exist() {
    let config = tiny_config();
    let dir = tempfile::tempdir().unwrap();
    write_safetensors(&dir.path().join("model.safetensors"), &tiny_tensors(&config));
    let source = WeightSource::open(dir.path(), &config).unwrap();
    let synthetic = Synthetic::new(&config, 0);
    let mut out = [0.0; 64];
    for weights in [&source as &dyn Weights, &synthetic] {
        let name = "model.norm.weight";
        weights.read_rows(name, 0..1, &mut out[..8]).unwrap();
        weights.read_rows(name, 1..1, &mut []).unwrap();
        for (name, rows, len) in [("gone", 0..1, 8), (name, 1..2, 8), (name, 0..1, 7)] {
            let error = weights.read_rows(name, rows, &mut out[..len]).unwrap_err();
            assert!(matches!(error, Error::NoSuchRows { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

/// The bytes of a good file with a header of the test's making before the data.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn refuses_headers_that_lie() {
    let config = tiny_config();
    let one = |info: &str| with_header(&format!("{{\"t\":{info}}}"), &[0; 8]);
    let cases: [(&str, Vec<u8>, &[&str]); 14] = [
        ("empty file", vec![], &["length of the file", "0 bytes"]),
        ("too short", vec![1, 2, 3], &["length of the file", "3 bytes"]),
        ("huge header", [&[0xFF; 8][..], b"{}"].concat(), &["length of the header"]),
        ("header longer than file", [&9u64.to_le_bytes()[..], b"{}"].concat(), &["at most 2"]),
        ("no JSON", with_header("{", &[]), &["header"]),
        ("no object", with_header("[]", &[]), &["header"]),
        (
            "gap",
            one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#),
            &["data_offsets of `t`", "4..8"],
        ),
        (
            "backwards",
            one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,0]}"#),
            &["size of `t`", "4 bytes", "got 0 bytes"],
        ),
        (
            "size",
            one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#),
            &["size of `t`", "12 bytes", "got 8 bytes"],
        ),
        (
            "overflow",
            one(r#"{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}"#),
            &["size of `t`", "64 bits"],
        ),
        (
            "beyond the end",
            one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,12]}"#),
            &["truncated in tensor `t`", "expected at least 75 bytes", "got 71"],
        ),
        (
            "far beyond the end",
            one(
                r#"{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}"#,
            ),
            &["`t`"],
        ),
        (
            "rest",
            one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#),
            &["length of the file", "last tensor ends"],
        ),
        ("negative", one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#), &["header"]),
    ];
    for (what, bytes, parts) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let error = WeightSource::open(dir.path(), &config).unwrap_err();
        let text = error.to_string();
        for part in ["model.safetensors"].iter().chain(parts) {
            assert!(text.contains(part), "{what}: {text}");
        }
    }
}

#[test]
fn refuses_a_name_that_occurs_twice() {
    let info = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let header = format!(r#"{{"t":{info},"t":{info}}}"#);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), with_header(&header, &[0; 4])).unwrap();
    let error = WeightSource::open(dir.path(), &tiny_config()).unwrap_err();
    let Error::Files(FileError::Json { source, .. }) = error else { panic!("{error}") };
    assert!(source.to_string().contains("`t` occurs twice"), "{source}");
}

/// A copy of a real file, cut at many places: always an error with the file's name, never a panic.
#[test]
fn refuses_truncated_files() {
    let Some(model) = shared("models/stories260k") else { return };
    let config = LlamaConfig::from_dir(&model).unwrap();
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let mut cuts = vec![0, 1, 7, 8, 100, bytes.len() / 2, bytes.len() - 1];
    cuts.extend((0..20).map(|i| i * bytes.len() / 20));
    for len in cuts {
        fs::write(&file, &bytes[..len]).unwrap();
        let error = WeightSource::open(dir.path(), &config).unwrap_err();
        assert!(error.to_string().contains(file.to_str().unwrap()), "{len}: {error}");
    }
    // Cut after it was opened: the read fails, the process lives.
    fs::write(&file, &bytes).unwrap();
    let source = WeightSource::open(dir.path(), &config).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(10_000).unwrap();
    let mut out = [0.0; 64];
    let error = source.read_rows("model.norm.weight", 0..1, &mut out).unwrap_err();
    assert!(matches!(error, Error::Files(FileError::Io { .. })), "{error}");
}

fn write_index(dir: &Path, entries: &[(&str, &str)]) {
    let map: serde_json::Map<String, serde_json::Value> =
        entries.iter().map(|(name, file)| ((*name).into(), (*file).into())).collect();
    let text = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(dir.join("model.safetensors.index.json"), text).unwrap();
}

#[test]
fn refuses_an_index_that_lies() {
    let config = tiny_config();
    let dir = tempfile::tempdir().unwrap();
    let open = || WeightSource::open(dir.path(), &config).unwrap_err();
    let error = open();
    assert!(matches!(error, Error::Files(FileError::Io { .. })), "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");

    let name = "model.norm.weight";
    let tensor = |name: &str| (name.to_string(), "F32", vec![8], vec![0; 32]);
    write_safetensors(&dir.path().join("a.safetensors"), &[tensor(name)]);
    for (entries, part) in [
        (&[(name, "gone.safetensors")][..], "gone.safetensors"),
        (&[(name, "../a.safetensors")], "../a.safetensors"),
        (&[(name, "/etc/passwd")], "/etc/passwd"),
        (&[(name, "..")], "weight_map"),
        (&[(name, "a.safetensors"), ("other", "a.safetensors")], "tensor `other`"),
        (&[(name, "a.safetensors")], "is missing"),
        (&[], "weight_map"),
    ] {
        write_index(dir.path(), entries);
        let error = open();
        assert!(error.to_string().contains(part), "{error}");
    }
    fs::write(dir.path().join("model.safetensors.index.json"), "{}").unwrap();
    assert!(matches!(open(), Error::Files(FileError::Json { .. })));
}

/// The same rows in any order and any blocks; mean and deviation within five standard errors.
#[test]
fn synthetic_weights_are_normal_and_repeatable() {
    let config = LlamaConfig { hidden_size: 200, ..tiny_config() };
    let weights = Synthetic::new(&config, 5);
    let name = "model.layers.0.mlp.gate_proj.weight";
    let (rows, cols) = shape(&config, name);
    assert_eq!(cols, 200);
    let whole = all_rows(&weights, &config, name);
    for row in (0..rows).rev() {
        let mut out = vec![0.0; cols];
        weights.read_rows(name, row..row + 1, &mut out).unwrap();
        assert_eq!(out, whole[row * cols..][..cols]);
    }
    assert_ne!(whole, all_rows(&weights, &config, "model.layers.0.mlp.up_proj.weight"));
    assert_ne!(whole, all_rows(&Synthetic::new(&config, 6), &config, name));
    assert_eq!(all_rows(&weights, &config, "model.norm.weight"), vec![1.0; 200]);

    let all: Vec<f64> = ["gate_proj", "up_proj"]
        .iter()
        .flat_map(|part| all_rows(&weights, &config, &format!("model.layers.0.mlp.{part}.weight")))
        .map(f64::from)
        .collect();
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    let variance = all.iter().map(|v| v * v).sum::<f64>() / n;
    assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "{mean}");
    assert!((variance / 4e-4 - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{variance}");
    assert!(all.iter().all(|v| v.is_finite()));
}
