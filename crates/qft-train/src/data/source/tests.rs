//! Files of every kind, whole, packed and broken.

use super::*;
use crate::data::Weight;
use crate::options::ReadingArgs;

/// The text of a file, or its records as values, each with its place.
#[derive(Debug, PartialEq)]
enum Contents {
    Text(String),
    Records(Vec<(Place, Value)>),
}

fn read_path(path: &Path, options: &ReadingOptions) -> Result<Contents> {
    let tally = Tally::new(1, &|_| Ok(()));
    let source = Source::open(path, options, &tally)?;
    let (is_text, mut text, mut records) = (source.is_text(), String::new(), Vec::new());
    source.pieces(&mut |piece| {
        match piece {
            Piece::Text(piece) => text.push_str(&piece),
            Piece::Record(row) => records.push((row.place, row.parse()?)),
        }
        Ok(())
    })?;
    Ok(if is_text { Contents::Text(text) } else { Contents::Records(records) })
}

fn read(name: &str, bytes: &[u8]) -> Result<Contents> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_path(&path, &ReadingArgs::default().resolve())
}

fn records(name: &str, bytes: &[u8]) -> Vec<(Place, Value)> {
    match read(name, bytes).unwrap() {
        Contents::Records(records) => records,
        Contents::Text(text) => panic!("{name} holds records, and is read as {text:?}"),
    }
}

#[test]
fn wrong_files_are_told_apart() {
    for (name, bytes, told) in [
        ("a.txt", b"".as_slice(), "is empty"),
        ("a.md", b" \n", "is empty"),
        ("a.txt", b"ok\nbad \xff", "a.txt:2: is not UTF-8 at byte 7"),
        ("a.txt", b"ok\nbad \xe6\xbc", "a.txt:2: is not UTF-8 at byte 7"),
        ("a.jsonl", b"\xef\xbb\xbf{\"text\": \"\xff\"}", "is not UTF-8 at byte 13"),
        ("a.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": }\n", "column 10: is not a JSON object"),
        ("a.jsonl", b"{\"text\": \"a\"\n", "column 12: is not"),
        ("a.json", b"[{\"text\": \"a\"}", "not a valid JSON array"),
        ("a.json", b"[{\"text\": \"a\"}] x", "not a valid JSON array"),
        ("a.json", b"3 4", "column 3"),
        ("a.parquet", b"PAR1", "Parquet"),
        ("a.jsonl.gz", b"\x1f\x8bx", "unpacked"),
        ("a.zst", b"\x28\xb5\x2f\xfdx", "unpacked"),
        ("a.zip", b"PK\x03\x04", "zip"),
        ("a.arrow", b"ARROW1", "to_parquet"),
        ("a.csv", b"text,x\na,b\nc\n", "the row has 1 fields, and the first line names 2"),
        ("a.csv", b"text,x\na,\xff\n", "is not UTF-8"),
        ("a.csv", b"text,x,text\na,b,c\n", "two columns are called `text`"),
    ] {
        let error = format!("{:#}", read(name, bytes).expect_err(told));
        assert!(error.contains(told), "{told:?} in {error:?}");
    }
    for missing in ["/no/such.txt", "/"] {
        let error = read_path(Path::new(missing), &ReadingArgs::default().resolve());
        assert!(format!("{:#}", error.unwrap_err()).contains("cannot be read; give the path"));
    }
}

#[test]
fn records_in_lines_arrays_and_alone() {
    let value = || serde_json::json!({ "text": "a" });
    for (name, bytes, places) in [
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\r\n\n{\"text\": \"a\"}".as_slice(),
            vec![Place::Line(1), Place::Line(3)],
        ),
        (
            "a.json",
            b"\n{\"text\": \"a\"}\n{\"text\": \"a\"}\n",
            vec![Place::Line(2), Place::Line(3)],
        ),
        ("a.jsonl", b"\xef\xbb\xbf[{\"text\": \"a\"}]", vec![Place::Record(1)]),
        (
            "a",
            b"[\n{\"text\": \"a\"},\n{\"text\": \"a\"}]\n",
            vec![Place::Record(1), Place::Record(2)],
        ),
        ("a.json", b"{\n\"text\": \"a\"\n}", vec![Place::Record(1)]),
    ] {
        let expected: Vec<_> = places.into_iter().map(|place| (place, value())).collect();
        assert_eq!(records(name, bytes), expected, "{name}");
    }
    assert_eq!(read("a", b"[x").unwrap(), Contents::Text("[x".into()));
}

#[test]
fn what_a_file_holds_is_told_by_its_contents() {
    let csv = "prompt,completion\n\"a, \"\"b\"\"\nc\",d\n";
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, bytes).unwrap();
        out.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let line = r#"{"prompt": "a, \"b\"\nc", "completion": "d"}"#;
    let expected: Value = serde_json::from_str(line).unwrap();
    let array = format!("[{line}]");
    for (name, text) in [
        ("a.csv", csv),
        ("a.txt", csv),
        ("a.tsv", "prompt\tcompletion\n\"a, \"\"b\"\"\nc\"\td"),
        ("a", line),
        ("a.txt", &array),
    ] {
        let packed = [text.as_bytes().to_vec(), gzip(text.as_bytes()), zstd(text.as_bytes())];
        for bytes in packed {
            assert_eq!(records(name, &bytes)[0].1, expected);
        }
    }
    // Packed files in a row are one.
    let half = |half: &str| [gzip(half.as_bytes()), zstd(half.as_bytes())];
    for (first, second) in half(&format!("{line}\n{}", &line[..9])).iter().zip(half(&line[9..])) {
        assert_eq!(records("a.jsonl", &[first.as_slice(), &second].concat()).len(), 2);
    }
    for text in ["a, b\n", "[1] is a footnote", "{not json}", "text\nof a letter", "prompt, please"]
    {
        assert_eq!(read("a.txt", text.as_bytes()).unwrap(), Contents::Text(text.into()));
    }
}

/// A Zstandard frame with the text `a`, which says that it looks back `2^log` bytes.
fn frame(log: u8) -> Vec<u8> {
    let window = (log - 10) << 3;
    // One block, the last, as it is.
    let block = [1 | 1 << 3, 0, 0, b'a'];
    [b"\x28\xb5\x2f\xfd\0".as_slice(), &[window], &block].concat()
}

#[test]
fn frames_are_read_that_look_back_far_and_stand_behind_others() {
    let skipped = b"\x50\x2a\x4d\x18\x02\0\0\0xx".as_slice();
    for (bytes, text) in [
        (frame(23), "a"),
        (frame(27), "a"),
        ([skipped, &frame(10), skipped, &frame(27)].concat(), "aa"),
    ] {
        assert_eq!(read("a.txt.zst", &bytes).unwrap(), Contents::Text(text.into()));
    }
    let error = format!("{:#}", read("a.zst", &frame(28)).unwrap_err());
    for told in ["a.zst: cannot be unpacked: it looks back more than 128 MiB", "--long=31"] {
        assert!(error.contains(told), "{told} in {error}");
    }
    let cut = [frame(10), frame(10)].concat();
    let error = format!("{:#}", read("a.zst", &cut[..cut.len() - 1]).unwrap_err());
    assert!(error.contains("is it cut off?"), "{error}");
}

#[test]
fn a_text_comes_in_pieces() {
    let text = "漢字é🙂x".repeat(200_000);
    assert_eq!(read("a.txt", text.as_bytes()).unwrap(), Contents::Text(text));
}

#[test]
fn parquet_holds_records() {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message m { required binary prompt (UTF8); required binary completion (UTF8); }";
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    let mut bytes = Vec::new();
    let mut file =
        SerializedFileWriter::new(&mut bytes, schema.into(), Default::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    for texts in [["a", "c"], ["b", "d"]] {
        let mut column = group.next_column().unwrap().unwrap();
        let values = texts.map(ByteArray::from);
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    file.close().unwrap();
    let expected = serde_json::json!({ "prompt": "c", "completion": "d" });
    let found = records("a.txt", &bytes);
    assert_eq!((found.len(), &found[1]), (2, &(Place::Record(2), expected)));
    // Damaged at any place, it is an error or other records, and no panic.
    for i in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x55;
        let _ = read("a.parquet", &damaged);
        let _ = read("a.parquet", &bytes[..i]);
    }
}

#[test]
fn folders_and_patterns_name_files() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.jsonl", "a.csv.gz", "README.md", ".hidden.json"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let names = |given: &Path| -> Vec<String> {
        let files = expanded(&[given.to_path_buf()]).unwrap();
        let name = |file: &DataFile| file.path.file_name().unwrap().to_string_lossy().into_owned();
        files.iter().map(name).collect()
    };
    assert_eq!(names(dir.path()), ["a.csv.gz", "b.jsonl"]);
    assert_eq!(names(&dir.path().join("*.md")), ["README.md"]);
    assert_eq!(names(&dir.path().join("b.jsonl")), ["b.jsonl"]);
    std::fs::write(dir.path().join("b_test.jsonl"), "x").unwrap();
    let error = expanded(&[dir.path().to_path_buf()]).unwrap_err().to_string();
    assert!(error.contains("test (b_test.jsonl); train (a.csv.gz, b.jsonl)"), "{error}");
    std::fs::remove_file(dir.path().join("b_test.jsonl")).unwrap();
    std::fs::write(dir.path().join("LICENSE.txt"), "x").unwrap();
    assert_eq!(names(dir.path()), ["a.csv.gz", "b.jsonl"]);
    for (wrong, told) in [("*.parquet", "finds no file"), ("[", "not a valid pattern")] {
        let error = expanded(&[dir.path().join(wrong)]).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let file = |path: PathBuf, times| DataFile { path, weight: Weight::of(times).unwrap() };
    for (given, path, times) in
        [("b.jsonl=3", "b.jsonl", 3.0), ("b.jsonl=0.25", "b.jsonl", 0.25), ("a=b", "a=b", 1.0)]
    {
        let files = expanded(&[dir.path().join(given)]).unwrap();
        assert_eq!(files, [file(dir.path().join(path), times)]);
    }
    for wrong in ["b.jsonl=0", "b.jsonl=0.0005", "b.jsonl=-1", "b.jsonl=1001"] {
        let error = expanded(&[dir.path().join(wrong)]).unwrap_err().to_string();
        assert!(error.contains("from 0.001 to 1000"), "{error}");
    }
    let [twice, once] = [dir.path().join("b.jsonl=2"), dir.path().join("a.csv.gz")];
    let error = expanded(&[twice.clone(), dir.path().to_path_buf()]).unwrap_err().to_string();
    assert!(
        error.contains("b.jsonl is named twice, by ") && error.contains("b.jsonl=2"),
        "{error}"
    );
    let both = |some: &Path, others: &Path| {
        common(&[some.to_path_buf()], &[others.to_path_buf()]).unwrap().is_some()
    };
    assert!(both(&twice, dir.path()) && both(dir.path(), &once) && !both(&twice, &once));
    let empty = tempfile::tempdir().unwrap();
    assert!(
        expanded(&[empty.path().to_path_buf()]).unwrap_err().to_string().contains("no data files")
    );
}

#[test]
fn what_is_no_text_is_not_read_as_one() {
    let mut tar = b"c.jsonl".to_vec();
    tar.resize(257, 0);
    tar.extend(b"ustar\x0000{\"text\": \"a\"}\n");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n";
    let utf16: Vec<u8> = "Once upon\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, bytes, told) in [
        ("a.tar", &tar[..], "is a tar archive"),
        ("train.parquet", pointer, "git lfs pull"),
        ("train.jsonl", pointer, "git lfs pull"),
        ("a.txt", &utf16, "UTF-16"),
        ("a.bin", &[0; 300], "zero bytes"),
        ("a.parquet", b"{\"text\": \"a\"}\n", "is no Parquet file"),
    ] {
        let error = read(name, bytes).unwrap_err().to_string();
        assert!(error.contains(told), "{name}: {error}");
    }
}
