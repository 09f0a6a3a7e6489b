//! What models write: many prompts of a file at a time, and a talk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{command, json_lines, qft, said, succeed};
use qft_testing::material;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

fn model() -> String {
    format!("--model={}", material::stories260k().display())
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `qft chat` on what is typed.
fn chat(typed: &str, more: &[&str]) -> Output {
    let model = model();
    let args = [&["chat", &model, "--max-new-tokens=12", "--temperature=0"], more].concat();
    let mut program = command(&args);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    // One that refuses its options does not wait for what is typed.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn texts_are_the_same_in_any_company() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("prompts.txt");
    let prompts = ["Once upon a time", "The dog", "Lily and Ben went to the", "A"];
    std::fs::write(&file, prompts.join("\n\n") + "\n").unwrap();
    let (model, file) = (model(), format!("--prompts={}", file.display()));
    let run = |together: &str, more: &[&str]| {
        let batch = format!("--batch-size={together}");
        let args = ["generate", &model, &file, &batch, "--max-new-tokens=30"];
        lines(&succeed(&[&args[..], more].concat()))
    };
    for more in [&["--temperature=0.9", "--seed=3"][..], &[], &["--states=full"]] {
        let alone = run("1", more);
        assert_eq!(alone, run("3", more), "{more:?}");
        assert_eq!(alone, run("9", more), "{more:?}");
        assert_eq!(alone.len(), prompts.len());
        for (index, (line, prompt)) in alone.iter().zip(prompts).enumerate() {
            assert_eq!((&line["index"], &line["prompt"]), (&index.into(), &prompt.into()));
            assert!(line["tokens"] == 30 && line["finish_reason"] == "length", "{line}");
        }
        // The first is what it is as the only one.
        let prompt = format!("--prompt={}", prompts[0]);
        let args = [&["generate", &model, &prompt, "--max-new-tokens=30"], more].concat();
        let one = succeed(&args);
        let both = format!("{}{}\n", prompts[0], alone[0]["completion"].as_str().unwrap());
        assert_eq!(one, both);
    }
}

#[test]
fn prompts_come_in_every_format_of_data() {
    let temp = tempfile::tempdir().unwrap();
    let model = model();
    let run = |name: &str, text: &str, more: &[&str]| {
        let file = temp.path().join(name);
        std::fs::write(&file, text).unwrap();
        let file = format!("--prompts={}", file.display());
        let args = ["generate", &model, &file, "--max-new-tokens=8"];
        lines(&succeed(&[&args[..], more].concat()))
    };
    let raw = run(
        "raw.jsonl",
        "{\"prompt\": \"Once\"}\n{\"prompt\": \"Once\", \"completion\": \"x\"}\n",
        &[],
    );
    assert_eq!(raw[0]["completion"], raw[1]["completion"]);
    let named = run(
        "named.csv",
        "question,n\nOnce,1\nTwice,2\n",
        &["--format=prompt-completion", "--field=prompt=question"],
    );
    assert_eq!(named[0]["completion"], raw[0]["completion"]);
    let text = run("text.jsonl", "{\"text\": \"Once\"}\n", &[]);
    assert_eq!(text[0]["completion"], raw[0]["completion"]);
    // The same question in four formats is the same prompt; an answer that is there is left out.
    let asked = [
        run("chat.txt", "Who?\n", &["--chat"]),
        run("alpaca.json", "[{\"instruction\": \"Who?\", \"output\": \"Me\"}]", &[]),
        run(
            "messages.jsonl",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"Who?\"}]}\n",
            &[],
        ),
        run(
            "sharegpt.jsonl",
            "{\"conversations\": [{\"from\": \"human\", \"value\": \"Who?\"}, {\"from\": \"gpt\", \"value\": \"Me\"}]}\n",
            &[],
        ),
    ];
    for found in &asked {
        assert_eq!(found[0]["completion"], asked[0][0]["completion"]);
    }
    assert_ne!(asked[0][0]["completion"], raw[0]["completion"]);

    let out = temp.path().join("answers.jsonl");
    let file = format!("--prompts={}", temp.path().join("raw.jsonl").display());
    let out_file = format!("--out={}", out.display());
    let args = ["generate", &model, &file, "--max-new-tokens=8", &out_file];
    assert_eq!(succeed(&args), "");
    assert_eq!(json_lines(&out), raw);
}

#[test]
fn bad_prompts_are_told_by_their_place() {
    let temp = tempfile::tempdir().unwrap();
    let model = model();
    let refuse = |text: &str, told: &str, more: &[&str]| {
        let file = temp.path().join("prompts.jsonl");
        std::fs::write(&file, text).unwrap();
        let file = format!("--prompts={}", file.display());
        let output = qft(&[&["generate", &model, &file, "--max-new-tokens=3"], more].concat());
        let said = said(&output);
        assert!(!output.status.success() && said.contains(told), "{told} in {said}");
    };
    refuse("{\"prompt\": \"a\"}\n{\"prompt\": 3}\n", "prompts.jsonl:2", &[]);
    refuse("{\"question\": \"a\"}\n", "cannot tell the format", &[]);
    refuse(
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n",
        "no turn to answer",
        &[],
    );
    refuse("", "is empty", &[]);
    refuse("a\n", "--batch-size is 0", &["--batch-size=0"]);
    refuse("a\n", "cannot be used with", &["--prompt=a"]);
    let long = format!("{{\"prompt\": \"{}\"}}\n", "word ".repeat(600));
    refuse(&long, "512", &[]);
    let output = qft(&["generate", &model]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_talk_goes_on_from_its_file() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("talk.jsonl");
    let history = format!("--history={}", file.display());
    let whole = chat("Hello\nWho are you?\n", &[]);
    assert!(whole.status.success(), "{}", said(&whole));
    let whole = String::from_utf8(whole.stdout).unwrap();
    // In two parts it is the same talk.
    let parts = ["Hello\n", "Who are you?"].map(|typed| {
        let output = chat(typed, &[&history]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(parts.concat(), whole);
    let talks = json_lines(&file);
    let contents = |talk: &Value| -> Vec<String> {
        let messages = talk["messages"].as_array().unwrap();
        messages.iter().map(|m| m["content"].as_str().unwrap().to_owned()).collect()
    };
    let said = contents(&talks[0]);
    assert_eq!((said.len(), &*said[0], &*said[2]), (4, "Hello", "Who are you?"));
    assert_eq!(whole, format!("{}\n{}\n", said[1], said[3]));

    // A new talk is another line, and training reads them.
    let typed = "/undo\n/reset\n/system Be brief.\nIt goes \\\non\n/retry\n";
    let output = chat(typed, &[&history]);
    assert!(output.status.success(), "{}", self::said(&output));
    let talks = json_lines(&file);
    assert_eq!(talks.len(), 2);
    assert_eq!(contents(&talks[0]).len(), 2);
    assert_eq!(contents(&talks[1])[..2], ["Be brief.", "It goes \non"]);
    // What was cut off is not to be learned; without that mark it is.
    assert_eq!(talks[1]["messages"][2]["weight"], 0);
    let unmarked = fs::read_to_string(&file).unwrap().replace(r#","weight":0"#, "");
    fs::write(&file, unmarked).unwrap();
    let data = format!("--data={}", file.display());
    let shown = succeed(&["data", "show", &model(), &data]);
    assert!(shown.contains("Be brief."), "{shown}");
}

#[test]
fn what_cannot_be_answered_ends_no_talk() {
    let typed = format!("{}\n/nothing\n/undo\n/help\n\n//x\n/exit\nnever\n", "word ".repeat(300));
    let output = chat(&typed, &["--context=100"]);
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    for text in ["/reset begins anew", "there is no /nothing", "there is no answer yet", "/retry"] {
        assert!(told.contains(text), "{text} in {told}");
    }
    // One answer, to what the second slash is for, which has no room for more.
    assert!(told.contains("cut off after") && output.stdout.len() > 1, "{told}");
    for (options, told) in [
        (vec!["--context=0"], "--context is 0"),
        (vec!["--top-p=2"], "--top-p"),
        (vec!["--history=/no/such/folder/talk.jsonl"], "--history"),
    ] {
        let output = chat("Hello\n", &options);
        assert!(!output.status.success() && said(&output).contains(told), "{}", said(&output));
    }
    assert!(!Path::new("/no/such/folder").exists());
}
