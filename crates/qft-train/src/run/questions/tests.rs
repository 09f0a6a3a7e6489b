//! Likelihoods beside figures of transformers, and the texts that are asked for.

use super::*;
use crate::options::States;
use crate::options::states::WeightArgs;
use crate::run::scores::Scored;
use qft_llama::pass::Recompute;
use qft_testing::material::{repository, shared, stories260k};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The golden sums have four decimals, and are of up to some 500 tokens in f32 in another order.
const TOLERANCE: f64 = 5e-3;

/// The small sets that lie in the repository, with `golden.json` of lm-evaluation-harness.
fn miniatures() -> PathBuf {
    repository().join("crates/qft-testing/data/questions")
}

/// The story model, in float.
struct Reading {
    folder: ModelFolder,
    ops: qft_tensor::Cpu,
    model: Model,
    pass: PassOptions,
}

impl Reading {
    fn open(dir: &Path) -> Self {
        let ops = qft_tensor::Cpu::new(qft_tensor::CpuConfig::detect().unwrap()).unwrap();
        let folder = ModelFolder::open(dir).unwrap();
        let args = WeightArgs { states: Some(States::F32), ..WeightArgs::default() };
        let state = args.resolve_reading().unwrap();
        let never = AtomicBool::new(false);
        let model = folder.load(&ops, state.format(), &never, &mut |_, _| ()).unwrap();
        Self { folder, ops, model, pass: state.pass(0, Recompute::None) }
    }

    fn answer(&self, set: &QuestionSet, batch_size: usize) -> Vec<Likelihoods> {
        let encoded = EncodedSet::new(set, &self.folder, Some(TooLong::Drop)).unwrap();
        let candidate =
            Candidate { ops: &self.ops, model: &self.model, pass: self.pass, batch_size };
        candidate.answer(&encoded).unwrap()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn near(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < tolerance, "{name}: {found} {expected}");
    }
}

#[test]
fn likelihoods_and_scores_are_those_of_the_harness() {
    let dir = stories260k();
    let reading = Reading::open(&dir);
    let golden = json(&miniatures().join("golden.json"));
    let sets = QuestionSet::read_all(&[miniatures()], None).unwrap();
    assert_eq!(sets.len(), golden.as_object().unwrap().len());
    for set in &sets {
        let golden = &golden[&set.name];
        let found = reading.answer(set, 3);
        for (found, expected) in found.iter().zip(golden["log_likelihoods"].as_array().unwrap()) {
            near(&set.name, &found.sums, &numbers(expected), 2e-4);
        }
        if let Some(greedy) = golden.get("greedy") {
            let expected: Vec<_> = greedy.as_array().unwrap().iter().map(Value::as_bool).collect();
            assert_eq!(found.iter().map(|found| found.greedy).collect::<Vec<_>>(), expected);
        }
        let score = Scored::of(set, &found).score();
        let expected = golden["scores"].as_object().unwrap();
        assert_eq!(score.figures.len() * 2, expected.len(), "{}: every metric", set.name);
        for (metric, figure) in &score.figures {
            let name = format!("{}: {metric}", set.name);
            let of = |key: &str| expected[key].as_f64().unwrap();
            let value = of(metric.name());
            near(&name, &[figure.value], &[value], 1e-4 * value.abs().max(1.0));
            // The harness draws 100,000 times where the error of a perplexity has a closed form here.
            let stderr = of(&format!("{metric}_stderr"));
            near(&name, &[figure.stderr.unwrap()], &[stderr], 0.015 * stderr + 1e-9);
        }
    }
}

#[test]
fn likelihoods_and_accuracies_of_real_sets_are_those_of_transformers() {
    let Some(folder) = shared("data/eval") else { return };
    let golden = json(&folder.join("golden_loglik.json"));
    let golden = golden["models"]["stories260k"].as_object().unwrap();
    let sets = QuestionSet::read_all(&[folder], None).unwrap();
    let names: Vec<_> = sets.iter().map(|set| &*set.name).collect();
    let all = ["arc_challenge", "arc_easy", "hellaswag", "lambada_openai", "piqa", "winogrande"];
    assert_eq!(names, all);
    let dir = stories260k();
    let reading = Reading::open(&dir);
    // The golden figures of piqa have the blank at the end of a question in the context.
    for (name, expected) in golden.iter().filter(|(name, _)| *name != "piqa") {
        let set = sets.iter().find(|set| set.name == *name).unwrap();
        let records = expected["first_records"].as_array().unwrap();
        let first =
            QuestionSet { questions: set.questions[..records.len()].to_vec(), ..set.clone() };
        for found in reading.answer(&first, 4) {
            let expected = numbers(&records[found.index]["loglik"]);
            near(&format!("{name} {}", found.index), &found.sums, &expected, TOLERANCE);
        }
    }
    // One set in full is enough for the rest.
    let set = sets.iter().find(|set| set.name == "arc_easy").unwrap();
    let score = Scored::of(set, &reading.answer(set, 4)).score();
    let expected = &golden["arc_easy"];
    assert_eq!(Some(score.questions as u64), expected["records_used"].as_u64());
    let value = |metric| Some(score.figures[&metric].value);
    assert_eq!(value(crate::run::scores::Metric::Acc), expected["acc"].as_f64());
    assert_eq!(value(crate::run::scores::Metric::AccNorm), expected["acc_norm"].as_f64());
}

/// What a text is encoded to, as its given part and the part that counts.
fn parts(tokenizer: &Tokenizer, context: &str, continuation: &str) -> (String, String) {
    let answer = PossibleAnswer { context: context.into(), continuation: continuation.into() };
    let Text { ids, given } = encode(tokenizer, &answer).unwrap();
    let decode = |ids: &[u32]| tokenizer.decode(ids).unwrap();
    (decode(&ids[..given]), decode(&ids[given..]))
}

#[test]
fn blanks_at_the_end_of_a_context_count_with_the_answer() {
    let dir = stories260k();
    let folder = ModelFolder::open(&dir).unwrap();
    let of = |context: &str| parts(&folder.tokenizer, context, "time");
    for context in ["Once upon a", "Once upon a ", "Once upon a\n\n", ""] {
        let (given, counted) = of(context);
        assert!(given.ends_with(context.trim_end()), "{context:?}: {given:?}");
        assert_eq!(counted.trim(), "time", "{context:?}");
    }
    assert_eq!(of("Once upon a\n\n").1.matches('\n').count(), 2);
    let answer =
        |context: &str| PossibleAnswer { context: context.into(), continuation: "time".into() };
    let bos = folder.tokenizer.bos().unwrap();
    for context in ["", "Once"] {
        let text = encode(&folder.tokenizer, &answer(context)).unwrap();
        assert_eq!((text.ids[0], text.ids.contains(&bos)), (bos, true), "{context:?}");
        assert!(!text.ids[1..].contains(&bos), "{context:?}");
    }
}

#[test]
fn a_question_that_is_too_long_is_an_error_or_left_out_or_cut() {
    let dir = stories260k();
    let reading = Reading::open(&dir);
    let longest = reading.folder.config.longest_sequence();
    let line = |context: &str, continuation: &str| {
        serde_json::json!({ "context": context, "continuation": continuation }).to_string() + "\n"
    };
    let words = "The cat sat on the mat. ".repeat(200);
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("long.jsonl");
    let set = |text: &str| {
        std::fs::write(&path, text).unwrap();
        QuestionSet::read_all(std::slice::from_ref(&path), None).unwrap().remove(0)
    };
    let long = set(&(line("Once upon a", "time") + &line(&words, "time")));
    let encoded = |set, too_long| EncodedSet::new(set, &reading.folder, too_long);
    let told = |set, too_long| format!("{:#}", encoded(set, too_long).unwrap_err());
    let error = told(&long, None);
    for word in ["long.jsonl, line 2: ", "--too-long drop", "--too-long cut", "512"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let dropped = encoded(&long, Some(TooLong::Drop)).unwrap();
    assert_eq!(dropped.questions.len(), 1);
    assert_eq!(Scored::of(&long, &reading.answer(&long, 4)).score().left_out, 1);
    let cut = encoded(&long, Some(TooLong::Cut)).unwrap();
    assert_eq!((cut.questions.len(), cut.longest()), (2, longest));
    let Text { ids, given } = &cut.questions[1].1[0];
    let whole = encode(&reading.folder.tokenizer, &long.questions[1].answers[0]).unwrap();
    assert!(whole.ids.ends_with(ids) && whole.ids.len() - whole.given == ids.len() - given);
    let all = set(&line(&words, "time"));
    assert!(told(&all, Some(TooLong::Drop)).contains("every question has more than the 512"));
    let answer = set(&line("Once", &words));
    assert!(told(&answer, Some(TooLong::Cut)).contains("line 1: an answer has"));
}

#[test]
fn ties_go_to_the_first() {
    assert_eq!(largest(&[-2.0, -1.0, -1.0]), Some(1));
    assert_eq!(largest::<f64>(&[]), None);
}

#[test]
fn a_log_probability_is_of_the_softmax() {
    let row = [1.0f32, 2.0, 900.0, 899.0];
    let expected = -(1.0 + (-1.0f64).exp()).ln();
    assert!((log_probability(&row, 2) - expected).abs() < 1e-12);
    assert!((log_probability(&row, 3) - (expected - 1.0)).abs() < 1e-12);
}
