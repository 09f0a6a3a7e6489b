//! Models and data from a server that does things wrong, and what is left on the disk then.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Bench, MODEL, WEIGHTS};
use qft_hub::{Error, Need};
use qft_testing::hub_server::Fault;
use std::time::Duration;

/// The weights of the model, as often as a fault is to be told apart from chance.
const ALWAYS: usize = 1000;

#[test]
fn a_model_comes_whole_and_is_asked_for_once_more() {
    let bench = Bench::new();
    let commit = bench.serve_model();
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(snapshot.dir, bench.cache().join(format!("models--org--name/snapshots/{commit}")));
    assert_eq!(
        bench.files(&snapshot.dir),
        MODEL
            .map(|(name, _)| name)
            .into_iter()
            .filter(|name| *name != "pytorch_model.bin" && *name != "onnx/model.safetensors")
            .collect::<Vec<_>>()
    );
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let origin = snapshot.origin;
    assert_eq!((origin.repository.as_str(), origin.revision.as_str()), ("org/name", "main"));
    assert_eq!(origin.commit, commit);

    // Links are relative and lead to blobs by hash; the branch is remembered; nothing else lies about.
    let link = std::fs::read_link(snapshot.dir.join("model.safetensors")).unwrap();
    let hash = link.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(link.to_str().unwrap(), format!("../../blobs/{hash}"));
    assert_eq!(hash.len(), 64);
    let root = bench.cache().join("models--org--name");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), commit);
    assert_eq!(bench.incomplete(), 0);

    bench.server.take_log();
    bench.model("org/name").unwrap();
    let log = bench.server.take_log();
    assert_eq!(log.len(), 1, "one cheap request: {log:?}");
    assert!(log[0].path.contains("/revision/main"), "{log:?}");
}

#[test]
fn a_configuration_alone() {
    let bench = Bench::new();
    bench.serve_model();
    let name = common::model_name("org/name");
    let hub = bench.hub();
    let snapshot = hub.model(&name, Need::Config, &mut |_| ()).unwrap();
    assert_eq!(bench.files(&snapshot.dir), ["config.json"]);
    // What was there for a plan is no model yet.
    let offline = bench.offline();
    assert!(offline.model(&name, Need::Config, &mut |_| ()).is_ok());
    let error = offline.model(&name, Need::All, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("without tokenizer.json, model.safetensors"), "{error}");
}

#[test]
fn a_connection_that_drops_is_gone_on_with() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Drop(70_000), 2);
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let ranges: Vec<_> =
        bench.server.take_log().into_iter().filter(|r| r.to_files).map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some("bytes=70000-".into()), Some("bytes=140000-".into())]);
    assert!(bench.said("ended early"), "{:?}", bench.notices());
}

#[test]
fn a_server_that_ignores_ranges_is_followed_from_the_start() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Drop(70_000), 1);
    bench.server.fault("/blob/", Fault::IgnoreRange, ALWAYS);
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn silence_ends_and_is_gone_on_with() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Silence(1000, Duration::from_secs(30)), 1);
    let began = std::time::Instant::now();
    let snapshot = bench.model("org/name").unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn a_wrong_hash_is_refused_and_nothing_stays() {
    for (part, file) in [("/blob/", "model.safetensors"), ("config.json", "config.json")] {
        let bench = Bench::new();
        bench.serve_model();
        bench.server.fault(part, Fault::WrongBytes, ALWAYS);
        let error = bench.model("org/name").unwrap_err();
        assert!(matches!(&error, Error::Hash { file: told, .. } if **told == *file), "{error}");
        assert!(error.to_string().contains("it was removed"), "{error}");
        assert_eq!(bench.incomplete(), 0);
        assert!(!bench.has(file), "{file} has no name");
        bench.server.mend();
        bench.model("org/name").unwrap();
    }
}

#[test]
fn what_an_earlier_try_left_may_be_wrong() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Drop(50_000), ALWAYS);
    bench.server.fault("/blob/", Fault::Status(500, "", ""), ALWAYS);
    // Left incomplete, then spoilt on the disk.
    let mut settings = bench.settings();
    settings.retries.attempts = 1;
    bench.model_with(settings, "org/name").unwrap_err();
    let incomplete = bench.incomplete_files();
    assert_eq!(incomplete.len(), 1);
    std::fs::write(&incomplete[0], vec![b'?'; 60_000]).unwrap();
    bench.server.mend();
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    assert!(bench.said("does not fit"), "{:?}", bench.notices());
    // One that is too long is no better.
    let bench = Bench::new();
    bench.serve_model();
    let blobs = bench.cache().join("models--org--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let hash = common::sha256(&WEIGHTS);
    std::fs::write(blobs.join(format!("{hash}.incomplete")), vec![b'?'; WEIGHTS.len() + 1])
        .unwrap();
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn a_wrong_length_is_refused() {
    for fault in [Fault::Longer(7), Fault::Shorter(7)] {
        let bench = Bench::new();
        bench.serve_model();
        bench.server.fault("/blob/", fault.clone(), ALWAYS);
        let error = bench.model("org/name").unwrap_err();
        assert!(matches!(error, Error::Length { .. }), "{fault:?}: {error}");
        assert_eq!((bench.incomplete(), bench.has("model.safetensors")), (0, false));
    }
    // Bytes that are announced and never come: what has come is right, and is all there is.
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Announce(7), ALWAYS);
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    assert!(bench.said("ended early"), "{:?}", bench.notices());
}

#[test]
fn a_server_that_says_little_is_asked_for_each_file() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.describe_less();
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let heads = bench.server.take_log().into_iter().filter(|r| r.method == "HEAD").count();
    assert!(heads > 3, "{heads}");
    let bench = Bench::new();
    bench.serve_model();
    bench.server.describe_less();
    bench.server.fault("/blob/", Fault::WrongBytes, ALWAYS);
    assert!(matches!(bench.model("org/name").unwrap_err(), Error::Hash { .. }));
}

#[test]
fn a_branch_that_moved_is_noticed() {
    let bench = Bench::new();
    let first = bench.serve_model();
    bench.model("org/name").unwrap();
    let other: Vec<(&str, &[u8])> = MODEL
        .into_iter()
        .map(|(name, bytes)| {
            (name, if name == "config.json" { b"{\"other\": 1}".as_slice() } else { bytes })
        })
        .collect();
    let second = bench.server.commit("models/org/name", 'b', &other);
    bench.server.take_log();
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(snapshot.origin.commit, second);
    assert!(bench.said(&format!("moved from {first} to {second}")), "{:?}", bench.notices());
    let weights = bench.server.take_log().into_iter().filter(|r| r.to_files).count();
    assert_eq!(weights, 0, "weights that are the same are not fetched again");
    // The commit before is still there.
    let old = bench.model(&format!("org/name@{first}")).unwrap();
    assert_ne!(old.dir, snapshot.dir);
    bench.server.branch("models/org/name", "refs/pr/1", &first);
    assert_eq!(bench.model("org/name@refs/pr/1").unwrap().origin.commit, first);
    let remembered = bench.cache().join("models--org--name/refs/refs/pr/1");
    assert_eq!(std::fs::read_to_string(remembered).unwrap(), first);
}

#[test]
fn statuses_say_what_to_do() {
    for (fault, expected) in [
        (Fault::Status(401, "", ""), "no model org/name that anybody may see"),
        (Fault::Status(401, "RepoNotFound", ""), "HF_TOKEN or by `hf auth login`"),
        (Fault::Status(404, "RepoNotFound", ""), "check the name"),
        (Fault::Status(403, "GatedRepo", ""), "accept its conditions at http://127.0.0.1"),
        (Fault::Status(403, "", ""), "does not accept the token"),
        (Fault::Status(404, "RevisionNotFound", ""), "no branch, tag or commit `main`"),
        (Fault::Status(500, "", ""), "answers 500"),
        (Fault::Status(429, "", "Retry-After: 0"), "answers 429"),
        (Fault::Status(418, "", ""), "status 418"),
        (Fault::Redirect(302, "nowhere://".into()), "a redirect"),
    ] {
        let bench = Bench::new();
        bench.serve_model();
        bench.server.fault("/api/", fault.clone(), ALWAYS);
        let error = bench.model("org/name").unwrap_err().to_string();
        assert!(error.contains(expected), "{fault:?}: {error}");
        assert!(error.contains("org/name"), "{error}");
    }
    // What passes is waited for.
    for fault in
        [Fault::Status(503, "", ""), Fault::Status(429, "", "Retry-After: 0"), Fault::Drop(20)]
    {
        let bench = Bench::new();
        bench.serve_model();
        bench.server.fault("/api/", fault.clone(), 2);
        bench.model("org/name").unwrap();
        assert_eq!(
            bench.notices().iter().filter(|n| n.starts_with("again")).count(),
            2,
            "{fault:?}"
        );
    }
    // Gated repositories describe themselves, and refuse their files.
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/resolve/", Fault::Status(403, "GatedRepo", ""), ALWAYS);
    assert!(matches!(bench.model("org/name").unwrap_err(), Error::Gated { .. }));
    // Something else answers, such as a portal.
    let bench = Bench::new();
    bench.server.fault(
        "/api/",
        Fault::Redirect(302, format!("{}/portal", bench.server.files())),
        ALWAYS,
    );
    let error = bench.model("org/name").unwrap_err().to_string();
    assert!(error.contains("HF_ENDPOINT") || error.contains("answers 404"), "{error}");
}

#[test]
fn repositories_without_safetensors() {
    for (files, expected) in [
        (
            vec!["config.json", "pytorch_model.bin"],
            "no model.safetensors (it has weights in .bin files)",
        ),
        (vec!["m.Q4_K.gguf"], "no config.json (it has GGUF files)"),
        (
            vec!["adapter_config.json", "adapter_model.safetensors"],
            "no config.json (it has an adapter",
        ),
    ] {
        let bench = Bench::new();
        let files: Vec<(&str, &[u8])> =
            files.into_iter().map(|name| (name, b"{}".as_slice())).collect();
        bench.server.commit("models/org/name", 'a', &files);
        let error = bench.model("org/name").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(bench.server.take_log().len(), 1, "nothing was fetched");
    }
}

#[test]
fn shards_are_those_of_the_index() {
    let index = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let all: [(&str, &[u8]); 6] = [
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("model-00003-of-00002.safetensors", b"not named"),
    ];
    let bench = Bench::new();
    bench.server.commit("models/org/name", 'a', &all);
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(
        bench.files(&snapshot.dir).iter().filter(|name| name.ends_with(".safetensors")).count(),
        2
    );
    std::fs::remove_file(snapshot.dir.join("model-00002-of-00002.safetensors")).unwrap();
    let error =
        bench.offline().model(&common::model_name("org/name"), Need::All, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("without model-00002-of-00002.safetensors"), "{error}");
    bench.server.commit("models/org/less", 'a', &all[..4]);
    let error = bench.model("org/less").unwrap_err().to_string();
    assert!(error.contains("no model-00002-of-00002.safetensors"), "{error}");
    let evil = br#"{"weight_map": {"a": "../../../x.safetensors"}}"#;
    bench.server.commit("models/org/evil", 'a', &[all[0], all[1], (all[2].0, evil)]);
    assert!(bench.model("org/evil").unwrap_err().to_string().contains("weight_map"));
}

#[test]
fn the_cache_does_without_a_server() {
    let bench = Bench::new();
    let commit = bench.serve_model();
    bench.model("org/name").unwrap();
    let mut settings = bench.settings();
    settings.endpoint = "http://127.0.0.1:1".into();
    let snapshot = bench.model_with(settings.clone(), "org/name").unwrap();
    assert_eq!(snapshot.origin.commit, commit);
    assert!(bench.said("cache only"), "{:?}", bench.notices());
    let error = bench.model_with(settings.clone(), "org/other").unwrap_err().to_string();
    assert!(error.contains("cannot reach http://127.0.0.1:1"), "{error}");
    settings.endpoint = "http://host.that.is.not.invalid".into();
    bench.model_with(settings, "org/name").unwrap();
    // A server that fails is as one that is not there; one that refuses is obeyed.
    bench.server.fault("/api/", Fault::Status(502, "", ""), ALWAYS);
    bench.model("org/name").unwrap();
    bench.server.mend();
    bench.server.fault("/api/", Fault::Status(403, "GatedRepo", ""), ALWAYS);
    assert!(matches!(bench.model("org/name").unwrap_err(), Error::Gated { .. }));

    bench.server.take_log();
    let offline = bench.offline();
    let name = common::model_name("org/name");
    assert_eq!(offline.model(&name, Need::All, &mut |_| ()).unwrap().origin.commit, commit);
    let error =
        offline.model(&common::model_name("org/other"), Need::All, &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert!(bench.server.take_log().is_empty(), "nothing was asked");
}

#[test]
fn a_damaged_file_in_the_cache_is_fetched_anew() {
    let bench = Bench::new();
    bench.serve_model();
    let snapshot = bench.model("org/name").unwrap();
    let path = snapshot.dir.join("model.safetensors");
    std::fs::write(path.canonicalize().unwrap(), b"short").unwrap();
    bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), WEIGHTS);
    assert!(bench.said("5 bytes instead of"), "{:?}", bench.notices());
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.require("hf_secret");
    let error = bench.model("org/name").unwrap_err();
    assert!(matches!(error, Error::NoRepository { .. }), "{error}");
    bench.server.take_log();
    let settings = bench.settings_with_token("hf_secret");
    bench.model_with(settings, "org/name").unwrap();
    let log = bench.server.take_log();
    let (files, hub): (Vec<_>, Vec<_>) = log.into_iter().partition(|request| request.to_files);
    assert!(!files.is_empty() && files.iter().all(|r| r.authorization.is_none()), "{files:?}");
    assert!(hub.iter().all(|r| r.authorization.as_deref() == Some("Bearer hf_secret")), "{hub:?}");
    assert!(
        !bench
            .notices()
            .iter()
            .any(|notice| notice.contains("hf_secret") || notice.contains("signature"))
    );

    // A wrong one is refused, and not repeated.
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault(
        "/api/",
        Fault::Status(403, "", "X-Error-Message: hf_wrong is no token"),
        ALWAYS,
    );
    let error = bench.model_with(bench.settings_with_token("hf_wrong"), "org/name").unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("hf_wrong"), "{told}");
}

#[test]
fn redirects_within_the_hub_keep_the_token() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.require("hf_secret");
    // As for a repository that was renamed.
    bench.server.fault(
        "/api/models/org/old",
        Fault::Redirect(307, "/api/models/org/name/revision/main?blobs=true".into()),
        1,
    );
    let name = common::model_name("org/old");
    let hub = qft_hub::Hub::new(bench.settings_with_token("hf_secret")).unwrap();
    let error = hub.model(&name, Need::Config, &mut |_| ()).unwrap_err();
    let log = bench.server.take_log();
    assert!(log.iter().all(|request| request.authorization.is_some()), "{log:?}");
    assert!(log.iter().any(|request| request.path.contains("org/name/revision")), "{error}");
}

#[test]
fn a_full_disk_is_told() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full here");
        return;
    }
    let bench = Bench::new();
    bench.serve_model();
    let blobs = bench.cache().join("models--org--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let hash = common::sha256(&WEIGHTS);
    #[cfg(unix)]
    std::os::unix::fs::symlink("/dev/full", blobs.join(format!("{hash}.incomplete"))).unwrap();
    let error = bench.model("org/name").unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("HF_HUB_CACHE"), "{error}");
}
