//! Folders with linear layers in 8 bits, read back: codes, scales, and every key without which a reader takes the codes
//! for weights.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::tiny_config;
use half::bf16;
use qft_files::Disk;
use qft_llama::export::{Existing, Int8, SavedWeights};
use qft_llama::{FolderExport, LlamaConfig, TensorSpec, WeightSource, Weights, export_folder_on};
use qft_testing::material;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

fn export(
    out: &Path,
    config: &LlamaConfig,
    max_shard_bytes: u64,
    fill: &mut qft_llama::FillRows<'_>,
) -> Result<(), qft_llama::Error> {
    export_from(Int8::Rounded, out, config, max_shard_bytes, fill)
}

fn export_from(
    int8: Int8<'_>,
    out: &Path,
    config: &LlamaConfig,
    max_shard_bytes: u64,
    fill: &mut qft_llama::FillRows<'_>,
) -> Result<(), qft_llama::Error> {
    let export = FolderExport {
        out,
        source: None,
        template: None,
        config,
        saved: SavedWeights::default(),
        int8: Some(int8),
        max_shard_bytes,
        ends: &[],
        card: None,
        existing: Existing::Refused,
    };
    export_folder_on(&Disk::default(), &export, &Arc::default(), fill)
}

/// Every tensor of a folder: type, shape, values. An i8 is its code.
fn tensors(dir: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<f32>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "safetensors") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::I8 => data.iter().map(|&code| f32::from(code as i8)).collect(),
                Dtype::F32 => data
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect(),
                _ => data
                    .chunks_exact(2)
                    .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                    .collect(),
            };
            let tensor = (view.dtype(), view.shape().to_vec(), values);
            assert!(found.insert(name.to_owned(), tensor).is_none(), "{name}");
        }
    }
    found
}

/// The rows of a tensor as it lies in files, of parameters that may be parts of it.
fn original(config: &LlamaConfig, weights: &dyn Weights, name: &str) -> Vec<f32> {
    let mut all = Vec::new();
    for spec in config.tensors().filter(|spec| spec.file_name() == name) {
        let mut values = vec![0.0; spec.elements()];
        weights.read_rows(&spec.name, 0..spec.rows, &mut values).unwrap();
        all.extend(values);
    }
    all
}

/// Of every family, in one file and in many.
#[test]
fn codes_and_scales_are_the_weights() {
    for dir in material::families() {
        let Ok(config) = LlamaConfig::from_dir(&dir) else { continue };
        let weights = WeightSource::open(&dir, &config).unwrap();
        for shard_bytes in [u64::MAX, 1] {
            let root = tempfile::tempdir().unwrap();
            let out = root.path().join("out");
            let mut fill = |spec: &TensorSpec, rows: Range<usize>, out: &mut [f32]| {
                weights.read_rows(&spec.name, rows, out)
            };
            export(&out, &config, shard_bytes, &mut fill).unwrap();
            let found = tensors(&out);
            let mut expected = 0;
            for spec in config.tensors() {
                let name = spec.file_name();
                let linear = name.contains("_proj.weight");
                if spec.fused.as_ref().is_some_and(|fused| fused.first > 0) {
                    continue;
                }
                expected += 1 + usize::from(linear);
                let (dtype, shape, values) = &found[name];
                let want = original(&config, &weights, name);
                assert_eq!((shape, values.len()), (&spec.file_shape(), want.len()), "{name}");
                if !linear {
                    let rounded: Vec<_> =
                        want.iter().map(|&value| bf16::from_f32(value).to_f32()).collect();
                    assert_eq!((*dtype, values), (Dtype::BF16, &rounded), "{name}");
                    continue;
                }
                let (scale_type, scale_shape, scales) = &found[&format!("{name}_scale")];
                assert_eq!((*dtype, *scale_type), (Dtype::I8, Dtype::F32), "{name}");
                assert_eq!(scale_shape, &[shape[0], 1], "{name}");
                let rows = values.chunks(shape[1]).zip(want.chunks(shape[1]));
                for ((codes, want), scale) in rows.zip(scales) {
                    let most = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                    assert_eq!(*scale, most / 127.0, "{name}");
                    for (code, want) in codes.iter().zip(want) {
                        assert!((code * scale - want).abs() <= 0.5001 * scale, "{name}");
                    }
                }
            }
            assert_eq!(found.len(), expected, "{}", dir.display());
            let index = out.join("model.safetensors.index.json");
            assert_eq!(index.exists(), shard_bytes == 1);
            if index.exists() {
                let index: Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
                let map = index["weight_map"].as_object().unwrap();
                assert!(
                    map.len() == found.len() && map.keys().all(|name| found.contains_key(name))
                );
            }
        }
    }
}

/// What each key is needed for: docs/EXPORT.md.
#[test]
fn every_key_is_there() {
    let config = tiny_config();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    export(&out, &config, u64::MAX, &mut |_, _, _| Ok(())).unwrap();
    let text = fs::read_to_string(out.join("config.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false
            },
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true
            },
            "output_activations": null,
        }},
        "kv_cache_scheme": null,
    });
    assert_eq!(written["quantization_config"], expected);
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    // This crate does not take the codes for weights either.
    let error = LlamaConfig::from_dir(&out).unwrap_err();
    assert!(error.to_string().contains("quantization_config"), "{error}");
}

#[test]
fn what_is_not_finite_is_named() {
    let config = tiny_config();
    let root = tempfile::tempdir().unwrap();
    let mut diverges = |spec: &TensorSpec, _: Range<usize>, out: &mut [f32]| {
        if spec.name.ends_with("down_proj.weight") {
            out[12 * 5 + 7] = f32::INFINITY;
        }
        Ok(())
    };
    let error = export(&root.path().join("out"), &config, u64::MAX, &mut diverges).unwrap_err();
    assert!(matches!(error, qft_llama::Error::NotFinite { row: 5, col: 7, .. }), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// Also where a tensor of the file is several of the model.
#[test]
fn stored_codes_are_written_as_they_are() {
    let number = |name: &str| name.bytes().fold(0, |sum, byte| sum + usize::from(byte));
    let code =
        |name: &str, row: usize, col: usize| ((number(name) + 7 * row + col) % 255) as i16 - 127;
    let scale = |name: &str, row: usize| (number(name) + row) as f32;
    for dir in material::families() {
        let Ok(config) = LlamaConfig::from_dir(&dir) else { continue };
        let root = tempfile::tempdir().unwrap();
        let stored =
            |spec: &TensorSpec, rows: Range<usize>, codes: &mut [i8], scales: &mut [f32]| {
                for (i, row) in rows.enumerate() {
                    scales[i] = scale(&spec.name, row);
                    for col in 0..spec.cols {
                        codes[i * spec.cols + col] = code(&spec.name, row, col) as i8;
                    }
                }
                Ok(())
            };
        let mut fill = |spec: &TensorSpec, _: Range<usize>, out: &mut [f32]| {
            assert!(!spec.name.contains("_proj.weight"), "{}", spec.name);
            out.fill(0.5);
            Ok(())
        };
        let out = root.path().join("out");
        export_from(Int8::Stored(&stored), &out, &config, u64::MAX, &mut fill).unwrap();
        let found = tensors(&out);
        for spec in config.tensors().filter(|spec| spec.name.contains("_proj.weight")) {
            let first = spec.fused.as_ref().map_or(0, |fused| fused.first);
            let (_, _, codes) = &found[spec.file_name()];
            let (_, _, scales) = &found[&format!("{}_scale", spec.file_name())];
            for row in 0..spec.rows {
                assert_eq!(scales[first + row], scale(&spec.name, row), "{}", spec.name);
                for col in 0..spec.cols {
                    let written = codes[(first + row) * spec.cols + col];
                    assert_eq!(written, f32::from(code(&spec.name, row, col)), "{}", spec.name);
                }
            }
        }
        let diverged = |_: &TensorSpec, _: Range<usize>, _: &mut [i8], scales: &mut [f32]| {
            scales[3] = f32::NAN;
            Ok(())
        };
        let other = root.path().join("other");
        let error = export_from(Int8::Stored(&diverged), &other, &config, u64::MAX, &mut fill);
        assert!(matches!(error, Err(qft_llama::Error::NotFinite { row: 3, .. })), "{error:?}");
        assert!(!other.exists());
    }
}
