//! Parquet files as other programs write them: each codec, and types that records may have.
//!
//! `scripts/golden/parquet.py` makes the files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/bytes.rs"]
mod bytes;

use bytes::{options, reader, texts};
use qft_testing::material;
use qft_train::Result;
use serde_json::json;
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    material::repository().join(format!("crates/qft-train/tests/golden/parquet/{name}.parquet"))
}

fn read(name: &str) -> Result<Vec<String>> {
    Ok(texts(&reader(&options()).read(&[golden(name)])?))
}

#[test]
fn every_codec_holds_the_same_conversations() {
    let long = "Yes ".repeat(40);
    let chats = [
        vec![("user", "Hi ä"), ("assistant", "Hello!")],
        vec![("system", "Be kind."), ("user", "Who?"), ("assistant", "Me.\n")],
        vec![("user", "Again"), ("assistant", long.as_str())],
    ];
    let lines = chats.map(|chat| {
        let turn = |(role, content)| json!({"role": role, "content": content});
        json!({"messages": chat.into_iter().map(turn).collect::<Vec<_>>()}).to_string()
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chats.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let expected = texts(&reader(&options()).read(&[file]).unwrap());
    assert_eq!(expected.len(), 3);
    let codecs = ["none", "snappy", "gzip", "zstd", "lz4", "pages_of_version_2", "polars"];
    for name in codecs.into_iter().chain(["chats_without_mark"]) {
        assert_eq!(read(name).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_codec_that_is_not_read_is_named() {
    let error = format!("{:#}", read("brotli").unwrap_err());
    for told in ["brotli.parquet", "pack it otherwise", "rotli"] {
        assert!(error.contains(told), "{told} in {error}");
    }
}

#[test]
fn columns_of_any_type_may_stand_beside() {
    for beside in [
        "time",
        "date",
        "decimal",
        "binary",
        "map",
        "list",
        "struct",
        "float",
        "half",
        "large",
        "dictionary",
    ] {
        assert_eq!(read(&format!("beside_{beside}")).unwrap(), ["one", "two"], "{beside}");
    }
    for text in ["large_text", "dictionary_text"] {
        assert_eq!(read(text).unwrap(), ["one", "two"], "{text}");
    }
}

#[test]
fn a_text_that_is_none_is_told_with_its_place() {
    for (name, told) in [
        ("missing_text", "record 2: `text`: expected a text, found nothing"),
        ("text_as_nothing", "record 1: `text`: expected a text, found nothing"),
        ("text_as_large", "record 1: `text`: expected a text, found a number"),
        ("text_as_list", "record 1: `text`: expected a text, found a list"),
        ("text_as_map", "record 1: `text`: expected a text, found an object"),
    ] {
        let error = format!("{:#}", read(name).unwrap_err());
        assert!(error.contains(told) && error.contains(name), "{told} in {error}");
    }
}

/// Dates and decimals have one way to be written.
#[test]
fn times_and_decimals_are_their_texts() {
    for (name, text) in [
        ("text_as_time", "2024-07-26 01:02:03.004000 +00:00"),
        ("text_as_date", "2024-07-26"),
        ("text_as_decimal", "12.50"),
    ] {
        assert_eq!(read(name).unwrap(), [text], "{name}");
    }
}

/// Some writers leave out the mark that bytes are text.
#[test]
fn bytes_are_text_where_they_are_valid_and_refused_elsewhere() {
    assert_eq!(read("text_without_mark").unwrap(), ["one", "two"]);
    let error = format!("{:#}", read("text_as_binary").unwrap_err());
    assert!(error.contains("record 1: `text`: is not UTF-8"), "{error}");
}
