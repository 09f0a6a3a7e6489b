//! `qft eval` as a user runs it: losses and scores of one model and of several, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{excerpt, json_lines, qft, said, succeed};
use qft_testing::material;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The small sets of questions that lie in the repository.
fn sets() -> PathBuf {
    material::repository().join("crates/qft-testing/data/questions")
}

fn eval(more: &[&str]) -> Vec<String> {
    let model = format!("--model={}", material::stories260k().display());
    ["eval", &model].iter().chain(more).map(|&word| word.to_owned()).collect()
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

/// A copy of the model with other weights: every seventh is a tenth smaller.
fn other_model(folder: &Path) -> PathBuf {
    let dir = common::copy_dir(&material::stories260k(), &folder.join("other"));
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for weight in bytes[header..].chunks_exact_mut(4).step_by(7) {
        let value = f32::from_le_bytes(weight.try_into().unwrap());
        weight.copy_from_slice(&(value * 0.9).to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
    dir
}

#[test]
fn questions_are_scored_without_data() {
    let temp = tempfile::tempdir().unwrap();
    let log = temp.path().join("samples.jsonl");
    let (questions, samples) = (option("questions", &sets()), option("log-samples", &log));
    let printed = succeed(&eval(&[&questions, &samples, "--json"]));
    let json: Value = serde_json::from_str(&printed).unwrap();
    let golden = std::fs::read_to_string(sets().join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let found = json["sets"].as_array().unwrap();
    let names: Vec<_> = found.iter().map(|set| set["set"].as_str().unwrap()).collect();
    assert_eq!(names, ["choices", "contexts", "continuations"]);
    for set in found {
        let expected = &golden[set["set"].as_str().unwrap()]["scores"];
        let acc = number(&set["figures"]["acc"]["value"]);
        assert!((acc - number(&expected["acc"])).abs() < 1e-4, "{set}");
    }
    assert!(json.get("nll").is_none() && json["states"] == "f32" && json["compute"] == "float");
    let lines = json_lines(&log);
    assert_eq!(lines.len(), 8 + 5 + 7);
    assert_eq!(lines[1]["log_likelihoods"].as_array().unwrap().len(), 4);
    assert_eq!((&lines[1]["line"], &lines[1]["gold"]), (&2.into(), &0.into()));
    assert!(lines[0].get("greedy").is_none() && lines[13]["greedy"].is_boolean());
    let table = succeed(&eval(&[&questions, "--limit-questions=3"]));
    for text in [
        "| choices       | 3 questions | acc_norm   |",
        "perplexity",
        "float compute, weights as f32",
    ] {
        assert!(table.contains(text), "{text} in {table}");
    }
}

#[test]
fn models_are_compared_by_loss_and_by_questions() {
    let temp = tempfile::tempdir().unwrap();
    let other = option("model", &other_model(temp.path()));
    let (questions, data) = (option("questions", &sets()), option("data", excerpt()));
    let all = [&*other, &questions, &data, "--seq-len=64", "--limit=4"];
    let printed = succeed(&eval(&[&all[..], &["--json"]].concat()));
    let json: Value = serde_json::from_str(&printed).unwrap();
    let models = json["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert!(models[0].get("difference").is_none(), "{}", models[0]);
    let nll = |model: usize| number(&models[model]["nll"]);
    let difference = &models[1]["difference"]["nll"];
    assert!((number(&difference["value"]) - (nll(1) - nll(0))).abs() < 1e-9, "{difference}");
    assert!(nll(1) != nll(0) && number(&difference["stderr"]) > 0.0);
    // The same sequences under both: their difference is surer than either.
    assert!(number(&difference["stderr"]) < number(&models[0]["nll_stderr"]));
    let sets = |model: usize| models[model]["sets"].as_array().unwrap();
    assert_eq!(sets(0).len(), 3);
    for (base, other) in sets(0).iter().zip(sets(1)) {
        let value = |set: &Value| number(&set["figures"]["acc"]["value"]);
        let difference = number(&other["difference"]["acc"]["value"]);
        assert!((difference - (value(other) - value(base))).abs() < 1e-9);
    }
    let table = succeed(&eval(&all));
    let rows = table.lines().filter(|line| line.starts_with("| "));
    // Titles; of two models: nll and perplexity, three accuracies, one, and accuracy and perplexity.
    assert_eq!(rows.count(), 1 + 2 * (2 + 3 + 1 + 2), "{table}");
    assert!(table.contains("difference") && table.contains("| data "), "{table}");
    // What one model comes to does not depend on the other.
    let alone = succeed(&eval(&[&questions, &data, "--seq-len=64", "--limit=4", "--json"]));
    let alone: Value = serde_json::from_str(&alone).unwrap();
    assert_eq!(alone["sets"], models[0]["sets"]);
    assert_eq!(alone["nll"], models[0]["nll"]);
}

#[test]
fn questions_that_cannot_be_asked_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("set.jsonl");
    let good = r#"{"query": "Once upon a", "choices": ["time", "tame"], "gold": 0}"#;
    let long = serde_json::json!({ "context": "A cat sat. ".repeat(300), "continuation": "end" });
    for (text, code, words) in [
        (format!("{good}\n{}", good.replace("0", "2")), 1, "set.jsonl, line 2: `gold` is 2"),
        (good.replace("query", "question"), 1, "line 1: no question: it has the keys `question`"),
        (long.to_string(), 1, "line 1: the question has"),
        (String::new(), 1, "set.jsonl has no questions"),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = qft(&eval(&[&option("questions", &path)]));
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(words) && output.stdout.is_empty(), "{words}: {told}");
    }
    let questions = option("questions", &path);
    for (more, words) in [
        (vec![], "there is nothing to measure"),
        (vec![&*questions, "--limit-questions=0"], "--limit-questions is 0"),
        (vec![&questions, "--too-long=split"], "--too-long split cannot be used"),
        (vec!["--limit-questions=3"], "--questions"),
    ] {
        let output = qft(&eval(&more));
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{}", said(&output));
    }
}
