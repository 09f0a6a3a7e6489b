//! Several processes and one cache: at once, one after the other that was killed, and those of other programs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Bench, WEIGHTS};
use qft_hub::{Hub, Need, Settings};
use qft_testing::hub_server::Fault;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set in a process that is to fetch the model: the server, and the cache.
const CHILD: &str = "QFT_HUB_TEST_CHILD";

/// What Python is called with; `QFT_PYTHON` names another that has `huggingface_hub`.
const PYTHON: &str = "python3";

#[test]
fn fetches_as_a_child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (endpoint, cache) = task.split_once(' ').unwrap();
    let bench = Bench::new();
    let settings = Settings { endpoint: endpoint.into(), cache: cache.into(), ..bench.settings() };
    let snapshot = bench.model_with(settings, "org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
}

fn child(bench: &Bench) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fetches_as_a_child"])
        .env(CHILD, format!("{} {}", bench.server.endpoint(), bench.cache().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_kill_leaves_nothing_that_looks_whole() {
    let bench = Bench::new();
    bench.serve_model();
    // 300 kB in pieces of 10 kB take three seconds.
    bench.server.fault("/blob/", Fault::Slow(10_000, Duration::from_millis(100)), 1);
    let mut process = child(&bench);
    let began = Instant::now();
    let length = || {
        bench
            .incomplete_files()
            .first()
            .and_then(|path| path.metadata().ok())
            .map_or(0, |data| data.len())
    };
    while length() < 50_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!bench.has("model.safetensors"));
    assert_eq!(bench.incomplete(), 1);
    assert!(
        !bench.cache().join("models--org--name/refs/main").exists(),
        "the branch is not there yet"
    );
    let left = length();
    assert!((50_000..300_000).contains(&left), "{left}");
    bench.server.take_log();
    let snapshot = bench.model("org/name").unwrap();
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let log = bench.server.take_log();
    let gone_on =
        log.iter().find_map(|request| request.range.clone().filter(|_| request.to_files)).unwrap();
    assert_eq!(gone_on, format!("bytes={left}-"), "what was there is used");
}

#[test]
fn several_at_once_fetch_each_file_once() {
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Slow(30_000, Duration::from_millis(30)), 100);
    let mut processes: Vec<_> = (0..4).map(|_| child(&bench)).collect();
    assert!(processes.iter_mut().all(|process| process.wait().unwrap().success()));
    let log = bench.server.take_log();
    assert_eq!(log.iter().filter(|request| request.to_files).count(), 1, "{log:?}");
    assert_eq!(bench.incomplete(), 0);
    bench.offline().model(&common::model_name("org/name"), Need::All, &mut |_| ()).unwrap();
}

/// A Python that has `huggingface_hub`; says on one line that there is none.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("QFT_PYTHON").map_or_else(|| PYTHON.into(), PathBuf::from);
    let found = Command::new(&python).args(["-c", "import huggingface_hub"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("skipped: no Python with huggingface_hub (QFT_PYTHON names one)");
    None
}

fn run(python: &PathBuf, bench: &Bench, offline: bool, script: &str) -> String {
    let output = Command::new(python)
        .args(["-c", script])
        .env("HF_ENDPOINT", bench.server.endpoint())
        .env("HF_HUB_CACHE", bench.cache())
        .env("HF_HOME", bench.cache().parent().unwrap())
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn python_reads_our_cache_offline() {
    let Some(python) = python() else { return };
    let bench = Bench::new();
    let commit = bench.serve_model();
    bench.server.branch("models/org/name", "v1", &commit);
    bench.model("org/name").unwrap();
    let snapshot = bench.model("org/name@v1").unwrap();
    bench.server.commit("datasets/org/data", 'd', &[("train.jsonl", b"{}"), ("test.jsonl", b"{}")]);
    bench.data(&bench.hub(), "org/data:test").unwrap();
    bench.server.take_log();
    let told = run(
        &python,
        &bench,
        true,
        "from huggingface_hub import hf_hub_download, snapshot_download, scan_cache_dir\n\
         print(snapshot_download('org/name'))\n\
         print(snapshot_download('org/name', revision='v1'))\n\
         print(len(open(hf_hub_download('org/name', 'model.safetensors'), 'rb').read()))\n\
         print(open(hf_hub_download('org/data', 'test.jsonl', repo_type='dataset')).read())\n\
         cache = scan_cache_dir()\n\
         print(len(cache.repos), len(cache.warnings))",
    );
    let lines: Vec<_> = told.lines().collect();
    let dir = snapshot.dir.to_str().unwrap();
    assert_eq!(lines, [dir, dir, "300000", "{}", "2 0"]);
    assert!(bench.server.take_log().is_empty());
}

#[test]
fn we_read_the_cache_of_python() {
    let Some(python) = python() else { return };
    let bench = Bench::new();
    let commit = bench.serve_model();
    let all = [("data/train-00000-of-00001.parquet", b"PAR1".as_slice()), ("README.md", b"data")];
    let data = bench.server.commit("datasets/org/data", 'd', &all);
    run(
        &python,
        &bench,
        false,
        "from huggingface_hub import snapshot_download\n\
         snapshot_download('org/name', ignore_patterns=['*.bin', 'onnx/*'])\n\
         snapshot_download('org/data', repo_type='dataset')",
    );
    bench.server.take_log();
    let offline = bench.offline();
    let snapshot = offline.model(&common::model_name("org/name"), Need::All, &mut |_| ()).unwrap();
    assert_eq!(snapshot.origin.commit, commit);
    assert_eq!(std::fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let found = bench.data(&offline, "org/data").unwrap();
    assert_eq!(found.origin.commit, data);
    assert!(found.files[0].ends_with("data/train-00000-of-00001.parquet"));
    assert!(bench.server.take_log().is_empty());
    // With the network, nothing is fetched a second time.
    bench.model("org/name").unwrap();
    assert_eq!(bench.server.take_log().len(), 1);
}

#[test]
fn python_and_we_wait_for_each_other() {
    let Some(python) = python() else { return };
    let bench = Bench::new();
    bench.serve_model();
    bench.server.fault("/blob/", Fault::Slow(10_000, Duration::from_millis(100)), 100);
    let hub = Hub::new(bench.settings()).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            run(
                &python,
                &bench,
                false,
                "from huggingface_hub import hf_hub_download\n\
                 print(hf_hub_download('org/name', 'model.safetensors'))",
            )
        });
        let began = Instant::now();
        while !bench.server.peek(|request| request.to_files) {
            assert!(began.elapsed() < Duration::from_secs(60), "Python asks for nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        let snapshot = hub.model(&common::model_name("org/name"), Need::All, &mut |_| ()).unwrap();
        let path = snapshot.dir.join("model.safetensors");
        assert_eq!(std::fs::read(&path).unwrap(), WEIGHTS);
        assert_eq!(other.join().unwrap(), path.to_str().unwrap());
    });
    let fetched = bench.server.take_log().into_iter().filter(|request| request.to_files);
    assert_eq!(fetched.filter(|request| request.method == "GET").count(), 1);
}
