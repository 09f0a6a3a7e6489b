//! Data sets by name: which files are fetched, and what is there without a network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Bench;
use qft_hub::Kind;

const FILES: [(&str, &[u8]); 5] = [
    ("README.md", b"a card"),
    ("en/train-00000-of-00002.parquet", b"one"),
    ("en/train-00001-of-00002.parquet", b"two"),
    ("en/test-00000-of-00001.parquet", b"three"),
    ("de/train-00000-of-00001.parquet", b"four"),
];

#[test]
fn a_split_is_fetched_and_no_more() {
    let bench = Bench::new();
    let commit = bench.server.commit("datasets/org/data", 'a', &FILES);
    let hub = bench.hub();
    let error = bench.data(&hub, "org/data").unwrap_err().to_string();
    assert!(error.contains("org/data: the split `train` is in several parts: de, en"), "{error}");
    bench.server.take_log();
    let found = bench.data(&hub, "org/data/en:train").unwrap();
    assert_eq!((found.origin.kind, found.origin.commit.as_str()), (Kind::Data, commit.as_str()));
    let texts: Vec<_> =
        found.files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(texts, ["one", "two"]);
    let root = bench.cache().join("datasets--org--data");
    assert_eq!(bench.files(&root.join("snapshots")).len(), 2, "nothing else is fetched");
    assert_eq!(bench.server.take_log().iter().filter(|r| r.to_files).count(), 2);
    bench.data(&hub, "org/data/en:train").unwrap();
    assert_eq!(bench.server.take_log().len(), 1);
}

#[test]
fn offline_the_cache_knows_what_it_lacks() {
    let bench = Bench::new();
    bench.server.commit("datasets/org/data", 'a', &FILES);
    bench.data(&bench.hub(), "org/data/en").unwrap();
    let offline = bench.offline();
    assert_eq!(bench.data(&offline, "org/data/en").unwrap().files.len(), 2);
    // Not what happens to be there, but what the repository has.
    let error = bench.data(&offline, "org/data").unwrap_err().to_string();
    assert!(error.contains("several parts: de, en"), "{error}");
    let error = bench.data(&offline, "org/data/en:test").unwrap_err().to_string();
    assert!(error.contains("without en/test-00000-of-00001.parquet"), "{error}");
    let error = bench.data(&offline, "org/none").unwrap_err().to_string();
    assert!(error.contains("nothing of it is there"), "{error}");
}

#[test]
fn revisions_and_files_of_data() {
    let bench = Bench::new();
    let first = bench.server.commit("datasets/org/data", 'a', &[("train.csv", b"old")]);
    bench.server.commit("datasets/org/data", 'b', &[("train.csv", b"new"), ("more.csv", b"more")]);
    let hub = bench.hub();
    let text =
        |name: &str| std::fs::read_to_string(&bench.data(&hub, name).unwrap().files[0]).unwrap();
    assert_eq!(text("org/data"), "new");
    assert_eq!(text(&format!("org/data@{first}")), "old");
    assert_eq!(text("org/data/more.csv"), "more");
    let error = bench.data(&hub, "org/data:test").unwrap_err().to_string();
    assert!(error.contains("no split `test`; there are train"), "{error}");
    let error = bench.data(&hub, "org/absent").unwrap_err().to_string();
    assert!(error.contains("no data set org/absent"), "{error}");
}
