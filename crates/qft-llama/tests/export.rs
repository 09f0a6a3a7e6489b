//! Folders written and read again, and failures that leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{shared_models, tiny_config};
use half::bf16;
use qft_files::{Disk, Step};
use qft_llama::export::{Existing, SavedWeights};
use qft_llama::{
    DEFAULT_SHARD_BYTES, Error, FolderExport, LlamaConfig, Synthetic, TensorSpec, Tokenizer,
    WeightSource, Weights, export_folder, export_folder_on,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A `fill` that copies from other weights.
fn copy(
    weights: &dyn Weights,
) -> impl FnMut(&TensorSpec, Range<usize>, &mut [f32]) -> Result<(), Error> {
    |spec, rows, out| weights.read_rows(&spec.name, rows, out)
}

/// A folder of `config` in one file, joined to what is there.
fn folder<'a>(out: &'a Path, config: &'a LlamaConfig) -> FolderExport<'a> {
    FolderExport {
        out,
        source: None,
        template: None,
        config,
        saved: SavedWeights::default(),
        int8: None,
        max_shard_bytes: DEFAULT_SHARD_BYTES,
        ends: &[],
        card: None,
        existing: Existing::Joined,
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

fn assert_rounded(written: &dyn Weights, original: &dyn Weights, config: &LlamaConfig) {
    for spec in config.tensors() {
        let (mut got, mut want) = (vec![0.0; spec.elements()], vec![0.0; spec.elements()]);
        written.read_rows(&spec.name, 0..spec.rows, &mut got).unwrap();
        original.read_rows(&spec.name, 0..spec.rows, &mut want).unwrap();
        want.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
        assert_eq!(got, want, "{}", spec.name);
    }
}

#[test]
fn writes_the_shared_models_so_that_they_load() {
    for dir in shared_models() {
        let config = LlamaConfig::from_dir(&dir).unwrap();
        let source = WeightSource::open(&dir, &config).unwrap();
        for shard_bytes in [DEFAULT_SHARD_BYTES, 200_000, 1] {
            let parent = tempfile::tempdir().unwrap();
            let out = parent.path().join("new/model");
            export_folder(
                &out,
                Some(&dir),
                &config,
                SavedWeights::default(),
                shard_bytes,
                &Arc::default(),
                &mut copy(&source),
            )
            .unwrap();
            assert_eq!(names(out.parent().unwrap()), set(&["model"]));

            assert_eq!(LlamaConfig::from_dir(&out).unwrap(), config);
            assert_rounded(&WeightSource::open(&out, &config).unwrap(), &source, &config);
            let text = "Once upon a time";
            let ids = |dir| Tokenizer::from_dir(dir, &config).unwrap().encode(text).unwrap();
            assert_eq!(ids(&out), ids(&dir));
            let shards = names(&out).iter().filter(|name| name.starts_with("model-")).count();
            let single = out.join("model.safetensors").exists();
            match shard_bytes {
                DEFAULT_SHARD_BYTES => assert!(single && shards == 0),
                1 => assert_eq!((single, shards), (false, config.tensors().count())),
                _ => assert!(!single && shards > 1),
            }
            let json = |path: &Path| -> Value {
                serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap()
            };
            let (mut expected, got) = (json(&dir), json(&out));
            for key in ["dtype", "torch_dtype"] {
                expected[key] = "bfloat16".into();
            }
            // Both spellings, whichever was there.
            let theta = Value::from(config.rope.theta);
            expected["rope_theta"] = theta.clone();
            expected["rope_scaling"] = Value::Null;
            expected["rope_parameters"] =
                serde_json::json!({"rope_type": "default", "rope_theta": theta});
            assert_eq!(got, expected);
            for name in
                ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json"]
            {
                assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(dir.join(name)).unwrap());
            }
        }
    }
}

/// A source that only transformers 5 understands becomes one that everybody does.
#[test]
fn writes_rope_in_both_styles() {
    let config = tiny_config();
    let rope = serde_json::json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0});
    let mut file: Value = serde_json::from_str(&config.to_json("float32")).unwrap();
    let keys = file.as_object_mut().unwrap();
    keys.retain(|key, _| !key.starts_with("rope_"));
    keys.insert("rope_parameters".into(), rope.clone());
    let parent = tempfile::tempdir().unwrap();
    let source = parent.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("config.json"), file.to_string()).unwrap();
    let config = LlamaConfig::from_dir(&source).unwrap();
    let out = parent.path().join("out");
    let (saved, ledger) = (SavedWeights::default(), Arc::default());
    let weights = Synthetic::new(&config, 3);
    let fill = &mut copy(&weights);
    export_folder(&out, Some(&source), &config, saved, DEFAULT_SHARD_BYTES, &ledger, fill).unwrap();
    let text = fs::read_to_string(out.join("config.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&written["rope_theta"], &written["rope_parameters"]), (&5000.0.into(), &rope));
    let older = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    assert_eq!(written["rope_scaling"], older);
    assert_eq!(LlamaConfig::from_dir(&out).unwrap(), config);
}

/// The files as another reader sees them.
#[test]
fn writes_what_the_format_demands() {
    let config = tiny_config();
    let weights = Synthetic::new(&config, 3);
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    export_folder(
        &out,
        None,
        &config,
        SavedWeights::default(),
        600,
        &Arc::default(),
        &mut copy(&weights),
    )
    .unwrap();
    let text = fs::read_to_string(out.join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["metadata"]["total_size"], 2 * config.parameters());
    let mut found = BTreeSet::new();
    for name in names(&out).iter().filter(|name| name.ends_with(".safetensors")) {
        let bytes = fs::read(out.join(name)).unwrap();
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert!(header.is_multiple_of(8));
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        assert!(metadata.data_len() <= 600);
        for (tensor, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            assert_eq!(view.dtype(), Dtype::BF16);
            assert_eq!(index["weight_map"][tensor], name.as_str());
            found.insert(tensor.to_string());
        }
    }
    assert_eq!(found, config.tensors().map(|spec| spec.name).collect());
    assert_eq!(LlamaConfig::from_dir(&out).unwrap(), config);
}

#[test]
fn rounds_to_nearest_even() {
    let config = LlamaConfig { tie_word_embeddings: true, ..tiny_config() };
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    let tie = |bits: u32| f32::from_bits(bits);
    // Halfway between two bf16 numbers, to the even one; just above, up.
    let cases =
        [(0x3F80_8000, 0x3F80_0000), (0x3F81_8000, 0x3F82_0000), (0x3F80_8001, 0x3F81_0000)];
    for (value, expected) in cases {
        let mut fill = |_: &TensorSpec, _: Range<usize>, out: &mut [f32]| {
            out.fill(tie(value));
            Ok(())
        };
        export_folder(
            &out,
            None,
            &config,
            SavedWeights::default(),
            DEFAULT_SHARD_BYTES,
            &Arc::default(),
            &mut fill,
        )
        .unwrap();
        let mut row = [0.0; 8];
        let written = WeightSource::open(&out, &config).unwrap();
        written.read_rows("model.embed_tokens.weight", 15..16, &mut row).unwrap();
        assert_eq!(row, [tie(expected); 8]);
    }
}

/// A folder that another model of two layouts, and files of the user's, are in.
#[test]
fn replaces_a_model_and_keeps_other_files() {
    let config = tiny_config();
    let weights = [Synthetic::new(&config, 1), Synthetic::new(&config, 2)];
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    fs::write(out.join("metrics.jsonl"), "kept").unwrap();
    for (round, shard_bytes) in
        [DEFAULT_SHARD_BYTES, 600, 1, 600, DEFAULT_SHARD_BYTES].iter().enumerate()
    {
        let weights = &weights[round % 2];
        export_folder(
            out,
            None,
            &config,
            SavedWeights::default(),
            *shard_bytes,
            &Arc::default(),
            &mut copy(weights),
        )
        .unwrap();
        assert_rounded(&WeightSource::open(out, &config).unwrap(), weights, &config);
        assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap(), "kept");
    }
    assert_eq!(names(out), set(&["config.json", "metrics.jsonl", "model.safetensors"]));
}

#[test]
fn a_failure_leaves_everything_as_it_was() {
    let config = tiny_config();
    let weights = Synthetic::new(&config, 1);
    let parent = tempfile::tempdir().unwrap();
    let old = parent.path().join("old");
    export_folder(
        &old,
        None,
        &config,
        SavedWeights::default(),
        600,
        &Arc::default(),
        &mut copy(&weights),
    )
    .unwrap();
    let contents = |dir: &Path| -> Vec<_> {
        names(dir).into_iter().map(|name| (fs::read(dir.join(&name)).unwrap(), name)).collect()
    };
    let before = contents(&old);

    let mut stops = |spec: &TensorSpec, _: Range<usize>, _: &mut [f32]| match spec.name.as_str() {
        "model.norm.weight" => Err(Error::EmptyPrompt),
        _ => Ok(()),
    };
    let mut diverges = |spec: &TensorSpec, rows: Range<usize>, out: &mut [f32]| {
        // Finite in f32, infinite in bf16.
        if spec.name == "lm_head.weight" && rows.contains(&15) {
            out[15 * 8 + 2] = f32::MAX;
        }
        Ok(())
    };
    for out in [old.clone(), parent.path().join("new")] {
        let error = export_folder(
            &out,
            None,
            &config,
            SavedWeights::default(),
            600,
            &Arc::default(),
            &mut stops,
        )
        .unwrap_err();
        assert!(matches!(error, Error::EmptyPrompt));
        let error = export_folder(
            &out,
            None,
            &config,
            SavedWeights::default(),
            600,
            &Arc::default(),
            &mut diverges,
        )
        .unwrap_err();
        assert!(matches!(error, Error::NotFinite { row: 15, col: 2, .. }), "{error}");
        let gone = parent.path().join("gone");
        let error = export_folder(
            &out,
            Some(&gone),
            &config,
            SavedWeights::default(),
            600,
            &Arc::default(),
            &mut copy(&weights),
        )
        .unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        assert_eq!(contents(&old), before);
        assert_eq!(names(parent.path()), set(&["old"]));
    }
}

#[test]
fn refuses_places_where_it_must_not_write() {
    let config = tiny_config();
    let weights = Synthetic::new(&config, 1);
    let parent = tempfile::tempdir().unwrap();
    let export = |out: &Path, source: Option<&Path>| {
        export_folder(
            out,
            source,
            &config,
            SavedWeights::default(),
            DEFAULT_SHARD_BYTES,
            &Arc::default(),
            &mut copy(&weights),
        )
    };
    let refused = |out: &Path, source: Option<&Path>, part: &str| {
        let error = export(out, source).unwrap_err();
        assert!(matches!(error, Error::Export { .. } | Error::Files(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let model = parent.path().join("model");
    export(&model, None).unwrap();
    refused(&model, Some(&model), "made from");
    refused(&model.join("../model"), Some(&model), "made from");

    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    refused(&file, None, "is a file");
    refused(&file.join("below"), None, "below.partial");

    // A folder where a file belongs, and a staging folder with something of the user's in it.
    fs::remove_file(model.join("config.json")).unwrap();
    fs::create_dir(model.join("config.json")).unwrap();
    refused(&model, None, "config.json");
    let staging = parent.path().join("new.partial");
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("thesis.tex"), "").unwrap();
    refused(&parent.path().join("new"), None, "thesis.tex");
    assert!(staging.join("thesis.tex").exists());

    // What an interrupted export left is replaced.
    fs::remove_file(staging.join("thesis.tex")).unwrap();
    fs::write(staging.join("model.safetensors"), "half").unwrap();
    export(&parent.path().join("new"), None).unwrap();
    assert!(!staging.exists());
}

/// A full disk, while each of the files is written: the error says which, and what to do.
#[test]
fn a_full_disk_is_reported_with_the_path() {
    let config = tiny_config();
    let weights = Synthetic::new(&config, 1);
    let parent = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json"] {
        let full = Disk::watched(move |step| match step {
            Step::Write(path) if path.ends_with(name) => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        });
        let out = parent.path().join("out");
        let export = folder(&out, &config);
        let result = export_folder_on(&full, &export, &Arc::default(), &mut copy(&weights));
        let error = result.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.to_string().contains("free space on the disk"), "{error}");
        assert_eq!(names(parent.path()), set(&[]));
    }
}

/// An export over a model of other sharding and other shapes, stopped at every system call: what is loaded
/// afterwards is the old or the new model, by configuration and by every weight.
#[test]
fn stopped_anywhere_the_old_or_the_new_model_loads() {
    let models = [tiny_config(), LlamaConfig { rms_norm_eps: 0.5, ..tiny_config() }];
    let weights = [Synthetic::new(&models[0], 1), Synthetic::new(&models[1], 2)];
    let export = |disk: &Disk, out: &Path, number: usize, shard_bytes| {
        let fill = &mut copy(&weights[number]);
        let export = FolderExport { max_shard_bytes: shard_bytes, ..folder(out, &models[number]) };
        export_folder_on(disk, &export, &Arc::default(), fill)
    };
    let cases = [(600, 900, true), (600, 900, false), (DEFAULT_SHARD_BYTES, 600, true)];
    for (old_bytes, new_bytes, crash) in cases {
        let old = tempfile::tempdir().unwrap();
        export(&Disk::default(), old.path(), 0, old_bytes).unwrap();
        fs::write(old.path().join("metrics.jsonl"), "kept").unwrap();
        let mut found = [0, 0];
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path();
            for name in names(old.path()) {
                fs::copy(old.path().join(&name), out.join(&name)).unwrap();
            }
            let steps = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&steps);
            let disk = Disk::watched(move |_| {
                let step = count.fetch_add(1, Ordering::Relaxed);
                let stop = step == at || (crash && step > at);
                if stop { Err(ErrorKind::Other.into()) } else { Ok(()) }
            });
            let result = export(&disk, out, 1, new_bytes);
            if steps.load(Ordering::Relaxed) <= at {
                result.unwrap();
                break;
            }
            let config = LlamaConfig::from_dir(out).unwrap();
            let number = models.iter().position(|model| *model == config).unwrap();
            assert!(number == 1 || result.is_err(), "step {at}: the old model, and no error");
            assert_rounded(&WeightSource::open(out, &config).unwrap(), &weights[number], &config);
            assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap(), "kept");
            found[number] += 1;
            // The next export leaves nothing of it.
            export(&Disk::default(), out, 1, DEFAULT_SHARD_BYTES).unwrap();
            let expected = ["config.json", "metrics.jsonl", "model.safetensors"];
            assert_eq!(names(out), set(&expected));
        }
        assert!(found[0] > 5 && found[1] > 5, "{found:?}");
    }
}
