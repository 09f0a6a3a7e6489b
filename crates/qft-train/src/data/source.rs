//! Data files: plain text, JSON lines, or a JSON array.

use super::records::{Record, detect};
use crate::error::{Context, Error, ErrorKind, Result, bail, ensure};
use crate::options::DataFormat;
use serde_json::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Endings of formats that are known but not read, and what to do about each.
const UNREADABLE: [(&str, &str); 6] = [
    (
        "parquet",
        "convert it to .jsonl, as with `pandas.read_parquet(...).to_json(..., lines=True)`",
    ),
    ("arrow", "convert it to .jsonl, as with `datasets.Dataset.to_json`"),
    ("csv", "convert it to .jsonl, one object per line"),
    ("gz", "unpack it first"),
    ("zst", "unpack it first"),
    ("zip", "unpack it first"),
];

/// What a data file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its contents.
    pub content: Content,
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
    /// With [`DataFormat::Auto`], `.json` and `.jsonl` files hold records, of the format that the first one shows;
    /// all others are plain text.
    ///
    /// Errors: a file that cannot be read, is empty, is not UTF-8, is not valid JSON, or has a record that is not
    /// of the format; each with its place.
    pub fn read(path: &Path, format: DataFormat) -> Result<Self> {
        let file = path.display();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some((_, remedy)) = UNREADABLE.iter().find(|(known, _)| *known == extension) {
            bail!("{file}: .{extension} files are not read; {remedy}");
        }
        let bytes = std::fs::read(path).with_context(|| {
            format!("{file}: cannot be read; give the path of a text, .jsonl or .json file")
        })?;
        let text = utf8(path, bytes)?;
        ensure!(!text.trim().is_empty(), "{file}: is empty; give a file that holds text");
        let records = match format {
            DataFormat::Auto => matches!(extension.as_str(), "json" | "jsonl" | "ndjson"),
            format => format != DataFormat::Text,
        };
        let content = match records {
            false => Content::Text(text),
            true => records_of(path, &text, format)?,
        };
        Ok(Self { path: path.to_path_buf(), content })
    }

    /// Parts the last `fraction` of the characters or records off.
    ///
    /// Errors: nothing would be left on one side.
    pub fn split(self, fraction: f64) -> Result<(Self, Self)> {
        let Self { path, content } = self;
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
        Ok((Self { path: path.clone(), content: head }, Self { path, content: tail }))
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

fn records_of(path: &Path, text: &str, format: DataFormat) -> Result<Content> {
    let file = path.display();
    let values = if text.trim_start().starts_with('[') {
        let values: Vec<Value> = serde_json::from_str(text).with_context(|| {
            format!("{file}: is not a valid JSON array; mend it at the place that is named")
        })?;
        values.into_iter().enumerate().map(|(i, value)| (Place::Record(i + 1), value)).collect()
    } else {
        lines(path, text)?
    };
    let Some((first, value)) = values.first() else {
        bail!("{file}: has no records; give a file that holds some");
    };
    let format = match format {
        DataFormat::Auto => detect(value).with_context(|| first.name(path))?,
        format => format,
    };
    let read = |(place, value): (Place, Value)| {
        let record = Record::from_json(value, format).with_context(|| place.name(path))?;
        Ok((place, record))
    };
    let records = values.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(Content::Records { format, records })
}

/// The JSON value of each line. A `.json` file with one object over many lines is one record.
fn lines(path: &Path, text: &str) -> Result<Vec<(Place, Value)>> {
    let mut values = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(value) => values.push((Place::Line(i + 1), value)),
            Err(error) => {
                if let (true, Ok(value)) = (values.is_empty(), serde_json::from_str(text)) {
                    return Ok(vec![(Place::Record(1), value)]);
                }
                let column = error.column();
                return Err(error).with_context(|| {
                    format!(
                        "{}:{}:{column}: is not a JSON object on one line, which each line of a .jsonl file is; \
                         mend it, or give --format text for plain text (near `{}`)",
                        path.display(),
                        i + 1,
                        excerpt(line, column.saturating_sub(20)..column + 20)
                    )
                });
            }
        }
    }
    Ok(values)
}

/// The characters of `line` in `range`.
fn excerpt(line: &str, range: Range<usize>) -> String {
    line.chars().skip(range.start).take(range.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Source> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Source::read(&path, DataFormat::Auto)
    }

    #[test]
    fn wrong_files_are_told_apart() {
        for (name, bytes, told) in [
            ("a.txt", b"".as_slice(), "is empty"),
            ("a.md", b" \n", "is empty"),
            ("a.txt", b"ok\nbad \xff", "byte 7 (line 2)"),
            ("a.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": }\n", "a.jsonl:3:10"),
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
            ("a.parquet", b"PAR1", "jsonl"),
            ("a.jsonl.gz", b"x", "unpack"),
        ] {
            let error = format!("{:#}", read(name, bytes).expect_err(told));
            assert!(error.contains(told) && error.contains(name), "{told:?} in {error:?}");
        }
        let error = Source::read(Path::new("/no/such.txt"), DataFormat::Auto).unwrap_err();
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
    fn the_split_takes_the_last_part() {
        let source = Source { path: "a".into(), content: Content::Text("äöüabc".into()) };
        let (head, tail) = source.clone().split(0.5).unwrap();
        assert_eq!(head.content, Content::Text("äöü".into()));
        assert_eq!(tail.content, Content::Text("abc".into()));
        assert!(source.clone().split(0.99).is_err());
        assert!(source.split(0.01).is_err());
    }
}
