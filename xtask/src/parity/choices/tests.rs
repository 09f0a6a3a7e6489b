//! The scorer against figures of transformers.

use super::*;
use crate::parity::run::Reading;
use qft_testing::material::{shared, stories260k};
use serde_json::Value;

/// The golden sums have four decimals, and are of up to some 500 tokens in f32 in another order.
const TOLERANCE: f64 = 5e-3;

#[test]
fn log_likelihoods_and_accuracies_are_those_of_transformers() {
    let Some(folder) = shared("data/eval") else { return };
    let text = std::fs::read_to_string(folder.join("golden_loglik.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let golden = golden["models"]["stories260k"].as_object().unwrap();
    let sets = read(&folder, None).unwrap();
    let names: Vec<_> = sets.iter().map(|set| &*set.name).collect();
    let all = ["arc_challenge", "arc_easy", "hellaswag", "lambada_openai", "piqa", "winogrande"];
    assert_eq!(names, all);
    let dir = stories260k();
    let reading = Reading::open(&dir, Default::default()).unwrap();
    let candidate = reading.candidate();
    for (name, expected) in golden {
        let set = sets.iter().find(|set| set.name == *name).unwrap();
        for record in expected["first_records"].as_array().unwrap() {
            let index = record["index"].as_u64().unwrap() as usize;
            let texts = candidate.texts(&set.questions[index]).unwrap();
            let got = candidate.log_likelihoods(&texts).unwrap();
            let sums = record["loglik"].as_array().unwrap().iter();
            let expected: Vec<_> = sums.map(|sum| sum.as_f64().unwrap()).collect();
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < TOLERANCE, "{name} {index}: {got} {expected}");
            }
        }
    }
    // One set in full is enough for the rest.
    let set = sets.iter().find(|set| set.name == "arc_easy").unwrap();
    let score = candidate.answer(set).unwrap();
    let expected = &golden["arc_easy"];
    assert_eq!(Some(score.questions as u64), expected["records_used"].as_u64());
    assert_eq!(Some(score.accuracy), expected["acc"].as_f64());
    assert_eq!(score.normalised, expected["acc_norm"].as_f64());
}

#[test]
fn questions_of_all_kinds_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let absurd = r#"{"query": "Once upon a", "choices": ["time, there was a little girl", "xq zvk ;;%"], "gold": 0}"#;
    write("choices.jsonl", absurd);
    let contexts =
        r#"{"context_options": ["Zq; %", "Once upon a"], "continuation": "time", "gold": 1}"#;
    write("contexts.jsonl", contexts);
    let greedy = r#"{"context": "Once upon a", "continuation": "time"}"#;
    write("greedy.jsonl", &format!("{greedy}\n{}", greedy.replace("time", "tame")));
    write("other.jsonl", r#"{"text": "no question"}"#);
    let sets = read(folder.path(), None).unwrap();
    let dir = stories260k();
    let reading = Reading::open(&dir, Default::default()).unwrap();
    let answer = |i: usize| reading.candidate().answer(&sets[i]).unwrap();
    assert_eq!(sets.len(), 3);
    assert_eq!((answer(0).accuracy, answer(0).normalised), (1.0, Some(1.0)));
    assert_eq!((answer(1).accuracy, answer(1).normalised), (1.0, None));
    assert_eq!((answer(2).accuracy, answer(2).questions), (0.5, 2));
    assert_eq!(read(folder.path(), Some(1)).unwrap()[2].questions.len(), 1);
}

#[test]
fn ties_go_to_the_first() {
    assert_eq!(largest(&[-2.0, -1.0, -1.0]), Some(1));
    assert_eq!(largest::<f64>(&[]), None);
}
