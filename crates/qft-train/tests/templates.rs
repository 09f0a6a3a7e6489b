//! Chat templates against renderings by `transformers`: our miniatures, single expressions, and real ones where they
//! are given.
//!
//! `scripts/golden/templates.py` makes the first and the last, `expressions.py` the others; `QFT_TEMPLATES` and
//! `QFT_EXPRESSIONS` name files that are too large for the repository.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_testing::material;
use qft_train::chat::{ChatTemplate, Conversation, SpecialTexts, TRAINING_DATE};
use qft_train::options::TrainOn;
use serde_json::Value;
use std::path::Path;

/// Miniatures that are refused here alone: an error says so before anything is trained.
const REFUSED: [&str; 2] = ["named_characters", "unicode_names"];

/// Expressions that are refused here alone with another message than that they are not supported.
const OTHERWISE_REFUSED: [&str; 5] = [
    // Not in the parser's grammar.
    "+1",
    "1, 2",
    // An integer of more than 128 bits.
    "340282366920938463463374607431768211456",
    // Python finds that undefined things have a class, and hides it.
    "(missing).__class__ is defined",
    // Only constants have parts that are undefined.
    "{'a': 1}[1:]",
];

/// Expressions that are refused there alone: two tests in a row need brackets in Jinja2.
const ACCEPTED: [&str; 1] = ["1 is number is boolean"];

#[derive(Debug, Default, PartialEq)]
struct Comparison {
    same: usize,
    refused_by_both: usize,
    refused_there: usize,
    marks: usize,
    refused_here: Vec<String>,
    different: Vec<String>,
}

fn compare(file: &Path) -> Comparison {
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let text = |key: &str| golden[key].as_str().unwrap().to_string();
    let special = SpecialTexts {
        bos: text("bos_token"),
        ends: vec![text("eos_token")],
        ..SpecialTexts::default()
    };
    let mut found = Comparison::default();
    for template in golden["templates"].as_array().unwrap() {
        let (name, source) =
            (template["name"].as_str().unwrap(), template["source"].as_str().unwrap());
        let chat = ChatTemplate::new(name, source, special.clone(), TRAINING_DATE);
        for case in template["cases"].as_array().unwrap() {
            let talk = &golden["conversations"][case["conversation"].as_str().unwrap()];
            let talk = Conversation {
                messages: talk["messages"].as_array().unwrap().clone(),
                tools: talk.get("tools").cloned(),
            };
            let chat = chat.as_ref().ok();
            let got = chat.and_then(|chat| chat.render(&talk, case["prompt"] == true).ok());
            match (case["text"].as_str(), got) {
                (Some(expected), Some(got)) if got == expected => found.same += 1,
                (Some(_), Some(_)) => found.different.push(name.into()),
                (Some(_), None) => found.refused_here.push(name.into()),
                (None, Some(_)) => found.refused_there += 1,
                (None, None) => found.refused_by_both += 1,
            }
            if let (Some(marked), Some(chat), false) =
                (case["marked"].as_array(), chat, case["prompt"] == true)
            {
                let sample = &chat.samples(&talk, TrainOn::Completion).unwrap()[0];
                let learned: Vec<_> =
                    sample.learned.iter().map(|span| &sample.text[span.clone()]).collect();
                let marked = marked.iter().map(|text| text.as_str().unwrap());
                let marked: Vec<_> = marked.filter(|text| !text.is_empty()).collect();
                assert_eq!(learned, marked, "{name} {}", case["conversation"]);
                found.marks += 1;
            }
        }
    }
    found.different.dedup();
    found.refused_here.dedup();
    found.different.sort();
    found.refused_here.sort();
    found
}

#[test]
fn miniature_templates_are_rendered_as_transformers_renders_them() {
    let file = material::repository().join("crates/qft-train/tests/golden/templates.json");
    let found = compare(&file);
    assert_eq!(found.refused_here, REFUSED);
    assert!(found.different.is_empty(), "{found:?}");
    assert!(
        found.same >= 134 && found.refused_by_both == 20 && found.refused_there == 0,
        "{found:?}"
    );
    assert_eq!(found.marks, 6);
}

#[test]
fn real_templates_are_rendered_as_transformers_renders_them() {
    let Some(file) = std::env::var_os("QFT_TEMPLATES") else {
        println!(
            "skipped: QFT_TEMPLATES names no renderings of real templates (scripts/golden/templates.py)"
        );
        return;
    };
    let found = compare(Path::new(&file));
    println!("{found:?}");
    assert!(found.refused_here.is_empty() && found.different.is_empty(), "{found:?}");
}

/// What becomes of expressions that are rendered each alone.
#[derive(Debug, Default)]
struct Expressions {
    same: usize,
    refused_by_both: usize,
    /// Those that Python renders, each with the error here.
    refused_here: Vec<(String, String)>,
    /// Those that Python refuses, or writes with an address in memory.
    refused_there: Vec<(String, String)>,
    /// Each with what it is here and there.
    different: Vec<(String, String, String)>,
}

fn compare_expressions(file: &Path) -> Expressions {
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let talk =
        Conversation { messages: golden["messages"].as_array().unwrap().clone(), tools: None };
    let special =
        SpecialTexts { bos: "<s>".into(), ends: vec!["</s>".into()], ..SpecialTexts::default() };
    let mut found = Expressions::default();
    for case in golden["expressions"].as_array().unwrap() {
        let expression = case[0].as_str().unwrap().to_string();
        let source = format!("{{{{ {expression} }}}}");
        let got = ChatTemplate::new("t", &source, special.clone(), TRAINING_DATE)
            .and_then(|chat| chat.render(&talk, false));
        match (case[1].as_str(), got) {
            (Some(expected), Ok(got)) if got == expected => found.same += 1,
            (Some(expected), Ok(got)) => found.different.push((expression, got, expected.into())),
            (Some(_), Err(error)) => found.refused_here.push((expression, format!("{error:#}"))),
            (None, Ok(got)) => found.refused_there.push((expression, got)),
            (None, Err(_)) => found.refused_by_both += 1,
        }
    }
    found
}

impl Expressions {
    /// Nothing is written otherwise, and what is refused is refused by name.
    fn check(&self) {
        assert!(self.different.is_empty(), "{:#?}", self.different);
        let unnamed = |(expression, error): &&(String, String)| {
            !error.contains("is not supported") && !OTHERWISE_REFUSED.contains(&&**expression)
        };
        let unnamed: Vec<_> = self.refused_here.iter().filter(unnamed).collect();
        assert!(unnamed.is_empty(), "{unnamed:#?}");
    }
}

#[test]
fn expressions_are_what_transformers_makes_of_them() {
    let file = material::repository().join("crates/qft-train/tests/golden/expressions.json");
    let found = compare_expressions(&file);
    found.check();
    let accepted: Vec<_> = found.refused_there.iter().map(|(accepted, _)| &**accepted).collect();
    assert_eq!(accepted, ACCEPTED);
    assert!(found.same >= 2900 && found.refused_by_both >= 1500, "{}", found.same);
    assert!(found.refused_here.len() < 50, "{:#?}", found.refused_here);
}

#[test]
fn expressions_by_chance_are_what_transformers_makes_of_them() {
    let Some(file) = std::env::var_os("QFT_EXPRESSIONS") else {
        println!(
            "skipped: QFT_EXPRESSIONS names no renderings of expressions (scripts/golden/expressions.py)"
        );
        return;
    };
    let found = compare_expressions(Path::new(&file));
    println!(
        "{} same, {} refused by both, {} here, {} there",
        found.same,
        found.refused_by_both,
        found.refused_here.len(),
        found.refused_there.len()
    );
    assert!(found.different.is_empty(), "{:#?}", found.different);
}
