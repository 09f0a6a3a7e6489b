//! Records that are malformed: each is an error with its place and a remedy, or left out and counted; none is a panic.
//!
//! `QFT_RECORDS=1000000 cargo test -p qft-train --test records` damages as many files by chance.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/bytes.rs"]
mod bytes;
#[path = "common/damage.rs"]
mod damage;

use bytes::{options, reader, texts};
use damage::{Chance, Damaged};
use qft_train::ErrorKind;
use qft_train::options::OnBadRecord;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// The error of a file.
fn told(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    match reader(&options()).read(&[file]) {
        Err(error) => format!("{error:#}"),
        Ok(documents) => panic!("{name} {:?} is read as {:?}", bytes.get(..80), texts(&documents)),
    }
}

/// A file of a kind that people have, and what is said of it beside its name.
type Kind = (&'static str, &'static str, &'static [&'static str]);

const TEXTS: [Kind; 24] = [
    ("a.jsonl", "", &["is empty", "give a file that holds text"]),
    ("a.jsonl", " \n\n", &["is empty"]),
    ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b", &[":2: column", "mend it", "near `"]),
    ("a.jsonl", "{\"text\": \"a\"}\n\n{'text': 'b'}", &[":3: column 2", "mend it"]),
    ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\",}", &[":2: column", "trailing comma"]),
    ("a.jsonl", "{\"text\": \"a\"}\n{\"text\" \"b\"}", &[":2: column", "mend it"]),
    ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": NaN}", &[":2: column 10", "mend it"]),
    (
        "a.jsonl",
        "{\"text\": \"a\"}\n{\"text\": \"b\"} {\"text\": \"c\"}",
        &[":2: column", "trailing"],
    ),
    ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\\ud800\"}", &[":2: column", "mend it"]),
    ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\u{0}\"}", &[":2: column", "control character"]),
    (
        "a.jsonl",
        "{\"text\": \"a\"}\n{\"text\": \"b\", \"id\": 1e999}",
        &[":2: column", "out of range"],
    ),
    ("a.jsonl", "{\"text\": \"a\"}\n\u{feff}{\"text\": \"b\"}", &[":2: column 1", "mend it"]),
    ("a.jsonl", "{\"text\": \"a\"}\n7", &[":2: ", "expected an object, found a number"]),
    ("a.jsonl", "{\"text\": \"a\"}\nnull", &[":2: ", "expected an object, found nothing"]),
    ("a.jsonl", "{\"text\": \"a\"}\n[\"b\"]", &[":2: ", "expected an object, found a list"]),
    ("a.jsonl", "{\"text\": null}", &[":1: `text`: expected a text, found nothing"]),
    ("a.jsonl", "{\"text\": 7}", &[":1: `text`: expected a text, found a number"]),
    ("a.jsonl", "{\"body\": \"a\"}", &[":1: cannot tell the format", "[body]", "known are"]),
    (
        "a.jsonl",
        "{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}",
        &[
            ":2: is not a record of the format",
            "keep records of different formats in different files",
        ],
    ),
    ("a.json", "[{\"text\": \"a\"}", &["not a valid JSON array", "line 1 column", "mend it"]),
    ("a.json", "[{\"text\": \"a\"}] x", &["not a valid JSON array", "trailing"]),
    ("a.json", "[{\"text\": \"a\"}, 3]", &[": record 2: ", "expected an object, found a number"]),
    ("a.json", "[]", &["has no records", "give a file"]),
    ("a.parquet", "PAR1", &["cannot be read as Parquet", "fetch it again"]),
];

const CONVERSATIONS: [Kind; 17] = [
    ("a.jsonl", r#"{"messages": []}"#, &[":1: `messages` is empty; remove the record"]),
    ("a.jsonl", r#"{"messages": null}"#, &[":1: `messages`: expected a list, found nothing"]),
    ("a.jsonl", r#"{"messages": {}}"#, &[":1: `messages`: expected a list, found an object"]),
    (
        "a.jsonl",
        r#"{"messages": "hi"}"#,
        &[":1: `messages`: expected a list", "not the JSON of one"],
    ),
    (
        "a.jsonl",
        r#"{"messages": ["hi"]}"#,
        &[":1: `messages[0]`: expected an object, found a text"],
    ),
    ("a.jsonl", r#"{"messages": [{"content": "x"}]}"#, &[":1: `messages[0]`: `role` is missing"]),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "dog", "content": "x"}]}"#,
        &["`messages[0]`: `role`", "dog"],
    ),
    (
        "a.jsonl",
        r#"{"messages": [{"role": 1, "content": "x"}]}"#,
        &["`role`: expected a text, found a number"],
    ),
    ("a.jsonl", r#"{"messages": [{"role": "user"}]}"#, &["`messages[0]`: `content` is missing"]),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "user", "content": 5}]}"#,
        &["`content`: expected a text, found a number"],
    ),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}"#,
        &["`content[0]`: is not text; only text can be learned"],
    ),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]}"#,
        &["`weight`: expected 0 or 1, found 0.5"],
    ),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "assistant", "content": "x", "train": "no"}]}"#,
        &["`train`: expected true or false, found a text"],
    ),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "user", "content": "x"}], "tools": "{"}"#,
        &["`tools` is not valid JSON"],
    ),
    (
        "a.jsonl",
        r#"{"messages": [{"role": "user", "content": "x"}], "tools": {"name": "f"}}"#,
        &["`tools`: expected a list, found an object"],
    ),
    (
        "a.json",
        r#"[{"conversations": [{"from": "cat", "value": "x"}]}]"#,
        &[": record 1: `conversations[0]`", "cat"],
    ),
    (
        "a.json",
        r#"[{"conversations": [{"from": "human"}]}]"#,
        &[": record 1: `conversations[0]`: `content` is missing"],
    ),
];

const TABLES: [Kind; 9] = [
    (
        "a.jsonl",
        r#"{"instruction": "a", "output": null}"#,
        &[":1: `output`: expected a text, found nothing"],
    ),
    (
        "a.jsonl",
        r#"{"instruction": "a", "output": ["b"]}"#,
        &[":1: `output`: expected a text, found a list"],
    ),
    (
        "a.jsonl",
        r#"{"instruction": "a", "input": 3, "output": "b"}"#,
        &[":1: `input`: expected a text, found a number"],
    ),
    (
        "a.jsonl",
        r#"{"instruction": "a", "output": "b", "history": [["x"]]}"#,
        &[":1: `history[0]`: expected two texts"],
    ),
    (
        "a.jsonl",
        r#"{"prompt": "a", "completion": {"x": 1}}"#,
        &[":1: `completion`: expected a text, found an object"],
    ),
    (
        "a.csv",
        "prompt,completion\na,b\nc\n",
        &[":3: the row has 1 fields, and the first line names 2", "quotes"],
    ),
    ("a.csv", "prompt,completion\na,b\nc,d,e\n", &[":3: the row has 3 fields"]),
    ("a.csv", "question,answer\na,b\n", &[":2: cannot tell the format", "[question, answer]"]),
    ("a.csv", "prompt,completion\na,\"b\nc,d\n", &[":2: "]),
];

#[test]
fn what_is_wrong_is_told_with_its_place_and_a_remedy() {
    let kinds = TEXTS.iter().chain(&CONVERSATIONS).chain(&TABLES);
    let mut missing = Vec::new();
    for (name, text, parts) in kinds {
        let error = told(name, text.as_bytes());
        for part in parts.iter().chain([name]) {
            if !error.contains(part) {
                missing.push(format!("`{part}` for {text:?}: {error}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn bytes_that_are_no_text_are_told() {
    let deep = format!("{{\"text\": \"a\"}}\n{{\"x\": {}", "[".repeat(100_000));
    let utf16: Vec<u8> =
        "\u{feff}{\"text\": \"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let zip = |bytes: &[u8]| bytes[..bytes.len() - 6].to_vec();
    for (name, bytes, told_of_it) in [
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": \"\xe4\"}".to_vec(),
            ":2: is not UTF-8 at byte",
        ),
        ("a.txt", b"ok\nbad \xff".to_vec(), ":2: is not UTF-8 at byte"),
        ("a.csv", b"prompt,completion\na,b\nc,\xe4\n".to_vec(), ":3: is not UTF-8 at byte"),
        ("a.json", b"[{\"text\": \"\xe4\"}]".to_vec(), "not a valid JSON array"),
        ("a.jsonl", utf16, "is not"),
        ("a.jsonl", deep.into_bytes(), ":2: column"),
        ("a.jsonl.gz", zip(&packed(b"{\"text\": \"a\"}\n")), "cannot be unpacked"),
        ("a.jsonl.gz", packed(b"{\"text\": \"a\"}\n{\"text\": }\n"), ":2: column"),
        ("a.zip", b"PK\x03\x04....".to_vec(), "unpack it first"),
        ("a.arrow", b"ARROW1..".to_vec(), "to_parquet"),
    ] {
        let error = told(name, &bytes);
        assert!(error.contains(told_of_it) && error.contains(name), "{told_of_it} in {error}");
    }
}

/// Records that are read: what is unusual in them is no fault.
#[test]
fn unusual_records_are_read() {
    for (text, read) in [
        ("\u{feff}{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n", vec!["a", "b"]),
        ("{\"text\": \"a\"}\n\n \n{\"text\": \"b\"}", vec!["a", "b"]),
        ("{\"text\": \"a\\u0000b\", \"id\": 12345678901234567890123}", vec!["a\0b"]),
        ("{\"id\": {\"deep\": [[[1]]]}, \"text\": \"\\ud83d\\ude00\"}", vec!["😀"]),
        ("{\"text\": \"a\", \"text\": \"b\"}", vec!["b"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        std::fs::write(&file, text).unwrap();
        assert_eq!(texts(&reader(&options()).read(&[file]).unwrap()), read, "{text:?}");
    }
}

/// What may be wrong with a whole file.
const OF_FILES: [&str; 8] = [
    "is empty",
    "has no records",
    "none of its",
    "cannot be unpacked",
    "not a valid JSON array",
    "the names of the columns cannot be read",
    "cannot be read as Parquet",
    "first",
];

/// Whether a message names the file, and a place in it unless all of it is meant.
fn has_place(error: &str, file: &Path) -> bool {
    let name = file.display().to_string();
    let Some((_, rest)) = error.split_once(&name) else { return false };
    let rest = rest.strip_prefix(": record ").or_else(|| rest.strip_prefix(':'));
    let numbered = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    numbered || OF_FILES.iter().any(|whole| error.contains(whole))
}

/// Reads a damaged file in both ways, and checks what is said and counted.
fn check(file: &Path, damaged: &Damaged) -> std::result::Result<(), String> {
    std::fs::write(file, &damaged.bytes).unwrap();
    let begun = Instant::now();
    let mut options = options();
    let strict = reader(&options).read(&[file.to_path_buf()]);
    options.on_bad_record = OnBadRecord::Skip;
    let lenient = reader(&options).read(&[file.to_path_buf()]);
    if begun.elapsed() > Duration::from_secs(10) {
        return Err("takes too long".into());
    }
    for error in [&strict, &lenient].into_iter().filter_map(|read| read.as_ref().err()) {
        let text = format!("{error:#}");
        if !has_place(&text, file) || error.kind() == ErrorKind::Memory {
            return Err(format!("no place in: {text}"));
        }
    }
    let Ok(lenient) = lenient else {
        return if strict.is_ok() { Err("is only read strictly".into()) } else { Ok(()) };
    };
    let counts = lenient.counts();
    if counts.read != lenient.len() + counts.bad + counts.dropped + counts.too_long {
        return Err(format!("{counts:?} with {} documents", lenient.len()));
    }
    match strict {
        Ok(strict) if counts.bad > 0 || strict.sha256() != lenient.sha256() => {
            Err(format!("read in two ways: {counts:?}"))
        }
        Err(error) if counts.bad == 0 => Err(format!("nothing left out, but {error:#}")),
        _ => Ok(()),
    }
}

#[test]
fn damaged_records_are_errors_with_a_place_or_left_out_and_counted() {
    let count = std::env::var("QFT_RECORDS").ok().and_then(|count| count.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    for seed in 0..count.unwrap_or(4_000) {
        let damaged = Chance::new(seed).damaged();
        let file = dir.path().join(damaged.name);
        if let Err(fault) = check(&file, &damaged) {
            let start: String = String::from_utf8_lossy(&damaged.bytes).chars().take(400).collect();
            faults.push(format!("{seed} {} {fault}\n    {start:?}", damaged.name));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults[..faults.len().min(20)].join("\n")
    );
}
