//! Models and data by their names in the hub, as a user gives them to the program, from a server on this machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, said};
use qft_testing::hub_server::{Fault, HubServer};
use qft_testing::material;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

/// What must be found nowhere.
const TOKEN: &str = "hf_secretOfThisTest";

/// A server with a model and data, and a home for the cache.
struct Bench {
    server: HubServer,
    temp: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { server: HubServer::start(), temp: tempfile::tempdir().unwrap() };
        bench.server.require(TOKEN);
        bench.commit_model('a', None);
        let text = std::fs::read_to_string(material::tinyshakespeare()).unwrap();
        let record = |part: &str| serde_json::json!({ "text": part }).to_string() + "\n";
        let train: String = (0..8).map(|i| record(&text[i * 800..(i + 1) * 800])).collect();
        let test = record(&text[20_000..22_000]);
        let files = [("train.jsonl", train.as_bytes()), ("test.jsonl", test.as_bytes())];
        bench.server.commit("datasets/org/plays", 'd', &files);
        bench
    }

    /// The story model; with `change`, another one of the same shape.
    fn commit_model(&self, commit: char, change: Option<u8>) -> String {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(material::stories260k()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut bytes = std::fs::read(&path).unwrap();
            if let (true, Some(change)) = (name == "model.safetensors", change) {
                // The lowest bits of the last weight, which is a float.
                let place = bytes.len() - 4;
                bytes[place] ^= change;
            }
            files.push((name, bytes));
        }
        let files: Vec<_> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        self.server.commit("models/org/story", commit, &files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Runs the program with the token, telling all it can.
    fn run(&self, args: &[&str], more: &[(&str, &str)]) -> Output {
        let mut command = command(args);
        let removed = [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "ALL_PROXY",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ];
        for name in removed {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", self.server.endpoint())
            .env("HF_HOME", self.path("home"))
            .env("HF_TOKEN", TOKEN)
            .env("QFT_LOG", "trace")
            .envs(more.iter().copied());
        let output = command.output().unwrap();
        assert!(!said(&output).contains(TOKEN), "the token is told");
        output
    }

    fn succeed(&self, args: &[&str], more: &[(&str, &str)]) -> String {
        let output = self.run(args, more);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the program says as it refuses.
    fn refusal(&self, args: &[&str], more: &[(&str, &str)]) -> String {
        let output = self.run(args, more);
        assert!(!output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().filter(|line| line.starts_with("error:")).collect()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_run_by_names_remembers_commits_and_no_token() {
    let bench = Bench::new();
    let (out, offline) = (bench.path("out"), [("HF_HUB_OFFLINE", "1")]);
    let out_arg = format!("--out={}", out.display());
    let base = [
        "finetune",
        "--model=org/story",
        "--data=org/plays:train=2",
        "--eval-data=org/plays:test",
        &out_arg,
        "--seq-len=32",
        "--batch-size=2",
        "--lr=5e-4",
        "--threads=1",
        "--schedule=constant",
        "--warmup=0",
    ];
    let with = |more: &[&'static str]| [base.as_slice(), more].concat();
    let output = bench.run(&with(&["--steps=2"]), &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("fetching org/story at commit aaaa"), "{}", said(&output));
    let origins = &json(&out.join("summary.json"))["origins"];
    assert_eq!(origins["model"]["commit"], "a".repeat(40));
    assert_eq!(origins["model"]["repository"], "org/story");
    assert_eq!(origins["data"][0]["commit"], "d".repeat(40));
    assert_eq!(origins["eval-data"][0]["revision"], "main");
    for path in files(&out).into_iter().chain(files(&bench.path("home"))) {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "{} holds the token", path.display());
    }

    // It goes on without a network, and by the model's folder as well.
    bench.server.take_log();
    bench.succeed(&with(&["--steps=4", "--resume=latest"]), &offline);
    assert!(bench.server.take_log().is_empty());

    // A model that has changed is another.
    let moved = bench.commit_model('b', Some(1));
    let told = bench.refusal(&with(&["--steps=6", "--resume=latest"]), &[]);
    let first = "a".repeat(40);
    assert!(told.contains("model.safetensors"), "{told}");
    assert!(
        told.contains(&format!(
            "org/story@main was at commit {first} then: give org/story@{first}"
        )),
        "{told}"
    );
    let pinned = format!("--model=org/story@{first}");
    let mut args = with(&["--steps=6", "--resume=latest"]);
    args[1] = &pinned;
    bench.succeed(&args, &[]);
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["origins"]["model"]["revision"], first);
    assert_ne!(moved, first);
}

#[test]
fn every_command_takes_names() {
    let bench = Bench::new();
    let eval = [
        "eval",
        "--model=org/story",
        "--data=org/plays:test",
        "--seq-len=32",
        "--limit=1",
        "--json",
    ];
    let printed: Value = serde_json::from_str(&bench.succeed(&eval, &[])).unwrap();
    let commits: Vec<_> =
        printed["origins"].as_array().unwrap().iter().map(|o| &o["commit"]).collect();
    assert_eq!(commits, [&Value::from("d".repeat(40)), &Value::from("a".repeat(40))]);
    assert!(printed["nll"].as_f64().unwrap() > 0.0);
    let by_name = bench
        .succeed(&["generate", "--model=org/story", "--prompt=Once", "--max-new-tokens=4"], &[]);
    let folder = format!("--model={}", material::stories260k().display());
    let by_folder =
        bench.succeed(&["generate", &folder, "--prompt=Once", "--max-new-tokens=4"], &[]);
    assert_eq!(by_name, by_folder);
    let plan = bench.succeed(&["plan", "--model=org/story", "--seq-len=32", "--batch-size=1"], &[]);
    assert!(plan.contains("260032 parameters"), "{plan}");

    let out = bench.path("exported");
    let out_arg = format!("--out={}", out.display());
    bench.succeed(&["export", "--model=org/story", "--to=hf", &out_arg], &[]);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("base_model: org/story"), "{card}");

    // What shows data needs no weights, and a plan the configuration alone.
    let home = bench.path("third");
    let third = [("HF_HOME", home.to_str().unwrap())];
    let show =
        ["data", "show", "--model=org/story", "--data=org/plays:test", "--seq-len=32", "--count=0"];
    assert!(bench.succeed(&show, &third).contains("of the tokens are learned"));
    assert!(!files(&home).iter().any(|path| path.ends_with("model.safetensors")));
    let home = bench.path("other");
    let other = [("HF_HOME", home.to_str().unwrap())];
    bench.server.take_log();
    bench.succeed(&["plan", "--model=org/story", "--seq-len=32", "--batch-size=1"], &other);
    let log = bench.server.take_log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[1].path.ends_with("/config.json"), "{log:?}");
}

#[test]
fn what_is_wrong_is_said_with_both_meanings() {
    let bench = Bench::new();
    let eval = |model: &'static str, data: &'static str| {
        ["eval", model, data, "--seq-len=32", "--limit=1"]
    };
    for (args, expected) in [
        (
            eval("--model=org/absent", "--data=org/plays"),
            "there is no folder org/absent, and as a name in the hub: http://",
        ),
        (eval("--model=./org/story", "--data=org/plays"), "there is no ./org/story"),
        (eval("--model=org/story@v9", "--data=org/plays"), "no branch, tag or commit `v9`"),
        (
            eval("--model=org/story", "--data=org/absent"),
            "there is no org/absent, and as a name in the hub: http://",
        ),
        (
            eval("--model=org/story", "--data=org/plays:dev"),
            "no split `validation`; there are test, train",
        ),
        (eval("--model=org/story", "--data=org/plays.jsonl"), "org/plays.jsonl: cannot be read"),
    ] {
        let told = bench.refusal(&args, &[]);
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let offline = [("TRANSFORMERS_OFFLINE", "1")];
    let told = bench.refusal(&eval("--model=org/other", "--data=org/plays"), &offline);
    assert!(told.contains("is not in the cache") && told.contains("OFFLINE"), "{told}");
    // A token that the server does not know.
    let told =
        bench.refusal(&eval("--model=org/story", "--data=org/plays"), &[("HF_TOKEN", "hf_other")]);
    assert!(told.contains("that the account of the token may see"), "{told}");
    bench.server.fault("/api/models", Fault::Status(403, "GatedRepo", ""), 9);
    let told = bench.refusal(&eval("--model=org/story", "--data=org/plays"), &[]);
    assert!(
        told.contains("org/story is gated") && told.contains("accept its conditions"),
        "{told}"
    );
}
