//! Chat templates against renderings by `transformers`: our miniatures, and real ones where they are given.
//!
//! `scripts/golden/templates.py` makes both files; `QFT_TEMPLATES` names the second, which is too large for the
//! repository.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_testing::material;
use qft_train::chat::{ChatTemplate, Conversation, SpecialTexts, TRAINING_DATE};
use qft_train::options::TrainOn;
use serde_json::Value;
use std::path::Path;

/// Miniatures that are refused here alone: an error says so before anything is trained.
const REFUSED: [&str; 4] = ["macro_arguments", "named_characters", "percent", "percent_alone"];

/// Miniatures that are written otherwise: numbers with exponents where texts are joined with `~`, whether an attribute is
/// defined that is a method in Python, and whether an escaped text is marked as such. docs/DECISIONS.md names them.
const DIFFERENT: [&str; 4] =
    ["attributes_of_names", "filters_on_texts", "floats_in_texts", "values_as_text"];

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
    let special = SpecialTexts { bos: text("bos_token"), ends: vec![text("eos_token")] };
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
    assert_eq!(found.different, DIFFERENT);
    assert!(
        found.same >= 80 && found.refused_by_both == 9 && found.refused_there == 0,
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
    let special = SpecialTexts { bos: "<s>".into(), ends: vec!["</s>".into()] };
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

#[test]
fn expressions_are_what_transformers_makes_of_them() {
    let file = material::repository().join("crates/qft-train/tests/golden/expressions.json");
    let found = compare_expressions(&file);
    for (expression, got, expected) in &found.different {
        println!("DIFFERENT {expression:?}: {got:?} for {expected:?}");
    }
    for (expression, error) in &found.refused_here {
        println!("HERE {expression:?}: {error}");
    }
    for (expression, got) in &found.refused_there {
        println!("THERE {expression:?}: {got:?}");
    }
    println!("{} same, {} refused by both", found.same, found.refused_by_both);
    assert!(found.different.is_empty());
}
