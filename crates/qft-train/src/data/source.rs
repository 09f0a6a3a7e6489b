//! Data files: plain text, or records as JSON lines, a JSON array, CSV or Parquet; each also packed.

mod files;
mod rows;
mod unpack;

pub(super) use files::{expand, weighted};

use super::records::{Record, detect, rename};
use crate::error::{Context, Error, ErrorKind, Result, ensure};
use crate::options::{DataFormat, OnBadRecord, ReadingOptions};
use rows::Row;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What a data file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its contents.
    pub content: Content,
    /// What is wrong with the records that were left out, each with its place.
    pub bad: Vec<String>,
}

/// The contents of a data file.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// One long text.
    Text(String),
    /// Records of one format, each with its place in the file.
    Records {
        /// Their format.
        format: DataFormat,
        /// Where they stand and what they hold.
        records: Vec<(Place, Record)>,
    },
}

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this line, from 1.
    Line(usize),
    /// In an array, the one of this number, from 1.
    Record(usize),
}

impl Place {
    /// For messages: `file:3`, or `file: record 3`.
    pub fn name(self, path: &Path) -> String {
        match self {
            Self::Line(line) => format!("{}:{line}", path.display()),
            Self::Record(record) => format!("{}: record {record}", path.display()),
        }
    }
}

impl Source {
    /// Reads a data file.
    ///
    /// With [`DataFormat::Auto`], what it holds is told by its contents, and the format of records by the first one.
    /// Only CSV and broken JSON are told by the ending of the file's name as well.
    ///
    /// Errors: a file that cannot be read, is empty, is not UTF-8, is not valid, or has a record that is not of the
    /// format; each with its place, unless such records are left out.
    pub fn read(path: &Path, options: &ReadingOptions) -> Result<Self> {
        let bytes = unpack::read(path)?;
        let mut bad = Vec::new();
        let content = if bytes.starts_with(b"PAR1") {
            records_of(path, rows::of_parquet(path, bytes)?, options, &mut bad)?
        } else {
            let text = utf8(path, bytes)?;
            ensure!(
                !text.trim().is_empty(),
                "{}: is empty; give a file that holds text",
                path.display()
            );
            let rows = match kind(path, &text, options) {
                Kind::Text => None,
                Kind::Array => Some(rows::of_array(path, &text)?),
                Kind::Lines => Some(rows::of_lines(&text)),
                Kind::Csv => Some(rows::of_csv(path, &text)?),
            };
            match rows {
                None => Content::Text(text),
                Some(rows) => records_of(path, rows, options, &mut bad)?,
            }
        };
        Ok(Self { path: path.to_path_buf(), content, bad })
    }

    /// Parts the last `fraction` of the characters or records off.
    ///
    /// Errors: nothing would be left on one side.
    pub fn split(self, fraction: f64) -> Result<(Self, Self)> {
        let Self { path, content, bad } = self;
        let (len, parts) = match &content {
            Content::Text(text) => (text.chars().count(), "characters"),
            Content::Records { records, .. } => (records.len(), "records"),
        };
        let kept = len - ((len as f64 * fraction).round() as usize).min(len);
        ensure!(
            kept > 0 && kept < len,
            "--val-split: {fraction} of the {len} {parts} of {} leaves nothing on one side; \
             give another fraction, or --eval-data",
            path.display()
        );
        let (head, tail) = match content {
            Content::Text(mut text) => {
                let at = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
                let tail = text.split_off(at);
                (Content::Text(text), Content::Text(tail))
            }
            Content::Records { format, mut records } => {
                let tail = records.split_off(kept);
                (Content::Records { format, records }, Content::Records { format, records: tail })
            }
        };
        let head = Self { path: path.clone(), content: head, bad };
        Ok((head, Self { path, content: tail, bad: Vec::new() }))
    }
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let file = path.display();
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count();
        let problem = format!(
            "{file}: is not UTF-8 at byte {offset} (line {line}); convert it, as with `iconv -t utf-8`"
        );
        Error::new(ErrorKind::Data, problem)
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// What a text file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Array,
    Lines,
    Csv,
}

fn kind(path: &Path, text: &str, options: &ReadingOptions) -> Kind {
    let ending = files::ending(path);
    let start = text.trim_start();
    let json = matches!(ending.as_str(), "json" | "jsonl" | "ndjson");
    let first = start.lines().next().unwrap_or_default();
    let is_object = || serde_json::from_str::<Map<String, Value>>(first).is_ok();
    match options.format {
        DataFormat::Text => Kind::Text,
        DataFormat::Auto if matches!(ending.as_str(), "csv" | "tsv") => Kind::Csv,
        DataFormat::Auto if !json => {
            let array = start.strip_prefix('[').map(|rest| rest.trim_start().starts_with('{'));
            match array {
                Some(true) => Kind::Array,
                _ if is_object() => Kind::Lines,
                _ if names_columns(first, options) => Kind::Csv,
                _ => Kind::Text,
            }
        }
        _ if start.starts_with('[') => Kind::Array,
        _ if json || start.starts_with('{') => Kind::Lines,
        // Records of a known format that are not JSON.
        _ => Kind::Csv,
    }
}

/// Whether a line names the columns of records: several, and known ones.
fn names_columns(line: &str, options: &ReadingOptions) -> bool {
    let names =
        line.split(char::from(rows::delimiter(line))).map(|name| name.trim().trim_matches('"'));
    let mut columns = Value::Object(names.map(|name| (name.to_string(), Value::Null)).collect());
    rename(&mut columns, &options.fields);
    columns.as_object().is_some_and(|columns| columns.len() > 1) && detect(&columns).is_ok()
}

fn records_of(
    path: &Path,
    values: Vec<Row>,
    options: &ReadingOptions,
    bad: &mut Vec<String>,
) -> Result<Content> {
    let file = path.display();
    ensure!(!values.is_empty(), "{file}: has no records; give a file that holds some");
    let skip = options.on_bad_record == OnBadRecord::Skip;
    let mut format = Some(options.format).filter(|&format| format != DataFormat::Auto);
    let mut records = Vec::new();
    for (place, value) in values {
        match record(value, options, &mut format).with_context(|| place.name(path)) {
            Ok(record) => records.push((place, record)),
            Err(error) if skip => bad.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    ensure!(
        !records.is_empty(),
        "{file}: none of its {} records can be read, as {}",
        bad.len(),
        bad.first().map_or("", String::as_str)
    );
    let format = format.unwrap_or_default();
    Ok(Content::Records { format, records })
}

/// A value as a record of `format`, which the first one shows where it is not known.
fn record(
    value: Result<Value>,
    options: &ReadingOptions,
    format: &mut Option<DataFormat>,
) -> Result<Record> {
    let mut value = value?;
    rename(&mut value, &options.fields);
    let known = match *format {
        Some(format) => format,
        None => detect(&value)?,
    };
    let record = Record::from_json(value, known)?;
    *format = Some(known);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ReadingArgs;

    fn read(name: &str, bytes: &[u8]) -> Result<Source> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Source::read(&path, &ReadingArgs::default().resolve())
    }

    #[test]
    fn wrong_files_are_told_apart() {
        for (name, bytes, told) in [
            ("a.txt", b"".as_slice(), "is empty"),
            ("a.md", b" \n", "is empty"),
            ("a.txt", b"ok\nbad \xff", "byte 7 (line 2)"),
            ("a.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": }\n", "a.jsonl:3: column 10"),
            (
                "a.jsonl",
                b"{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n",
                "a.jsonl:2",
            ),
            ("a.jsonl", b"{\"words\": \"a\"}\n", "words"),
            ("a.json", b"[]", "no records"),
            ("a.json", b"[{\"text\": \"a\"}, 3]", "record 2"),
            ("a.json", b"[{\"text\": \"a\"}", "not a valid JSON array"),
            ("a.json", b"3", "object"),
            ("a.parquet", b"PAR1", "Parquet"),
            ("a.jsonl.gz", b"\x1f\x8bx", "unpack"),
            ("a.zst", b"\x28\xb5\x2f\xfdx", "unpack"),
            ("a.zip", b"PK\x03\x04", "zip"),
            ("a.arrow", b"ARROW1", "to_parquet"),
            (
                "a.csv",
                b"text,x\na,b\nc\n",
                "a.csv:3: the row has 1 fields, and the first line names 2",
            ),
            ("a.csv", b"a,b\nc,d\n", "[a, b]"),
        ] {
            let error = format!("{:#}", read(name, bytes).expect_err(told));
            assert!(error.contains(told) && error.contains(name), "{told:?} in {error:?}");
        }
        let error =
            Source::read(Path::new("/no/such.txt"), &ReadingArgs::default().resolve()).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such.txt"));
    }

    #[test]
    fn records_in_lines_arrays_and_alone() {
        for (name, bytes, count) in [
            ("a.jsonl", b"{\"text\": \"a\"}\r\n{\"text\": \"b\"}".as_slice(), 2),
            ("a.json", b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", 2),
            ("a.jsonl", b"\xef\xbb\xbf[{\"text\": \"a\"}]", 1),
            ("a.json", b"{\n\"text\": \"a\"\n}", 1),
        ] {
            let Content::Records { format, records } = read(name, bytes).unwrap().content else {
                panic!("{name} holds records")
            };
            assert_eq!((format, records.len()), (DataFormat::JsonlText, count), "{name}");
        }
        assert_eq!(read("a", b"[x").unwrap().content, Content::Text("[x".into()));
    }

    #[test]
    fn what_a_file_holds_is_told_by_its_contents() {
        let csv = "prompt,completion\n\"a, \"\"b\"\"\nc\",d\n";
        let gzip = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut out, bytes).unwrap();
            out.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| {
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
        };
        let expected = Record::Completion { prompt: "a, \"b\"\nc".into(), completion: "d".into() };
        let line = r#"{"prompt": "a, \"b\"\nc", "completion": "d"}"#;
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
                let Content::Records { format, records } = read(name, &bytes).unwrap().content
                else {
                    panic!("{name} holds records")
                };
                assert_eq!((format, &records[0].1), (DataFormat::PromptCompletion, &expected));
            }
        }
        for text in
            ["a, b\n", "[1] is a footnote", "{not json}", "text\nof a letter", "prompt, please"]
        {
            assert_eq!(read("a.txt", text.as_bytes()).unwrap().content, Content::Text(text.into()));
        }
    }

    #[test]
    fn parquet_holds_records() {
        use parquet::data_type::{ByteArray, ByteArrayType};
        use parquet::file::writer::SerializedFileWriter;
        let schema =
            "message m { required binary prompt (UTF8); required binary completion (UTF8); }";
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
        let Content::Records { records, .. } = read("a.txt", &bytes).unwrap().content else {
            panic!("records")
        };
        let expected = Record::Completion { prompt: "c".into(), completion: "d".into() };
        assert_eq!((records.len(), &records[1]), (2, &(Place::Record(2), expected)));
        // Damaged at any place, it is an error or other records, and no panic.
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x55;
            let _ = read("a.parquet", &damaged);
            let _ = read("a.parquet", &bytes[..i]);
        }
    }

    #[test]
    fn lists_in_cells_and_columns_of_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        std::fs::write(
            &path,
            "chat,id\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"x\"\"}]\",3\n",
        )
        .unwrap();
        let field = vec!["messages=chat".parse().unwrap()];
        let options = ReadingArgs { field, ..Default::default() }.resolve();
        let Content::Records { format, records } = Source::read(&path, &options).unwrap().content
        else {
            panic!("records")
        };
        assert_eq!((format, records[0].0), (DataFormat::Messages, Place::Line(2)));
    }

    #[test]
    fn folders_and_patterns_name_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.jsonl", "a.csv.gz", "README.md", ".hidden.json"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let names = |given: &Path| -> Vec<String> {
            let files = expand(given).unwrap();
            files
                .iter()
                .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(dir.path()), ["a.csv.gz", "b.jsonl"]);
        assert_eq!(names(&dir.path().join("*.md")), ["README.md"]);
        assert_eq!(names(&dir.path().join("b.jsonl")), ["b.jsonl"]);
        for (wrong, told) in [("*.parquet", "finds no file"), ("[", "not a valid pattern")] {
            let error = expand(&dir.path().join(wrong)).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert_eq!(
            weighted(&dir.path().join("b.jsonl=3")).unwrap(),
            (dir.path().join("b.jsonl"), 3)
        );
        for once in ["b.jsonl", "a=b"].map(|name| dir.path().join(name)) {
            assert_eq!(weighted(&once).unwrap(), (once, 1));
        }
        for wrong in ["b.jsonl=0", "b.jsonl=0.5", "b.jsonl=-1"] {
            assert!(
                weighted(&dir.path().join(wrong)).unwrap_err().to_string().contains("whole number")
            );
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(expand(empty.path()).unwrap_err().to_string().contains("no data files"));
    }

    #[test]
    fn bad_records_are_left_out_where_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"x\": 1}\n{\"text\": \"a\"}\n{bad\n{\"prompt\": \"b\"}\n")
            .unwrap();
        let mut options = ReadingArgs::default().resolve();
        assert!(Source::read(&path, &options).is_err());
        options.on_bad_record = OnBadRecord::Skip;
        let source = Source::read(&path, &options).unwrap();
        let Content::Records { records, .. } = source.content else { panic!("records") };
        assert_eq!(records.len(), 1);
        let places = [":1: cannot tell", ":3: column 2: is not", ":4: is not a record"];
        for (bad, place) in source.bad.iter().zip(places) {
            assert!(bad.contains(place), "{place} in {bad}");
        }
        std::fs::write(&path, "{\"x\": 1}\n").unwrap();
        let error = Source::read(&path, &options).unwrap_err().to_string();
        assert!(error.contains("none of its 1 records"), "{error}");
    }

    #[test]
    fn the_split_takes_the_last_part() {
        let source =
            Source { path: "a".into(), content: Content::Text("äöüabc".into()), bad: vec![] };
        let (head, tail) = source.clone().split(0.5).unwrap();
        assert_eq!(head.content, Content::Text("äöü".into()));
        assert_eq!(tail.content, Content::Text("abc".into()));
        assert!(source.clone().split(0.99).is_err());
        assert!(source.split(0.01).is_err());
    }
}
