//! Data files: plain text, or records as JSON lines, a JSON array, CSV or Parquet; each also packed. They are read as
//! streams, so that none needs to fit into memory.

mod files;
mod input;
mod rows;

pub use files::common;
pub(super) use files::{DataFile, expanded};
pub(super) use rows::Row;

use super::progress::Tally;
use super::records::{detect, rename};
use crate::error::{Error, ErrorKind, Result, ensure};
use crate::options::{DataFormat, ReadingOptions};
use bytes::Bytes;
use input::{Input, Opened};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a text that are handed on at a time, about.
const PIECE_BYTES: u64 = 1 << 20;

/// A data file that is open.
pub(super) struct Source<'a> {
    path: PathBuf,
    body: Body<'a>,
    tally: &'a Tally<'a>,
}

enum Body<'a> {
    Text(Input<'a>),
    Array(Input<'a>),
    Lines(Input<'a>),
    Csv(Input<'a>),
    Parquet(File),
    PackedParquet(Vec<u8>),
}

/// A part of a data file.
pub(super) enum Piece {
    /// The text goes on.
    Text(String),
    /// A record.
    Record(Row),
}

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In this line, from 1.
    Line(usize),
    /// In an array, the one of this number, from 1.
    Record(usize),
}

impl Place {
    /// For messages: `file:3`, or `file: record 3`.
    pub(super) fn name(self, path: &Path) -> String {
        match self {
            Self::Line(line) => format!("{}:{line}", path.display()),
            Self::Record(record) => format!("{}: record {record}", path.display()),
        }
    }
}

impl<'a> Source<'a> {
    /// Opens a data file.
    ///
    /// With [`DataFormat::Auto`], what it holds is told by its contents, and the format of records by the first one.
    /// Only CSV and broken JSON are told by the ending of the file's name as well.
    ///
    /// Errors: a file that cannot be read, or is empty.
    pub(super) fn open(
        path: &Path,
        options: &ReadingOptions,
        tally: &'a Tally<'a>,
    ) -> Result<Self> {
        let body = match input::open(path, tally)? {
            Opened::Parquet(file) => Body::Parquet(file),
            Opened::PackedParquet(bytes) => Body::PackedParquet(bytes),
            Opened::Stream(mut input) => {
                let beginning = input.beginning()?;
                ensure!(
                    !beginning.trim_ascii().is_empty(),
                    "{}: is empty{}; give a file that holds text",
                    path.display(),
                    if path.is_file() {
                        ""
                    } else {
                        ", or was read before: a pipe can be read only once"
                    }
                );
                let place = path.display();
                ensure!(
                    !beginning.contains(&0),
                    "{place}: has zero bytes in its first line, so it is not text; if it is UTF-16, convert it, as with \
                     `iconv -f utf-16 -t utf-8`"
                );
                ensure!(
                    files::ending(path) != "parquet",
                    "{place}: is no Parquet file, as its name says; fetch it again, or give it the name of what it is"
                );
                let kind = kind(path, &String::from_utf8_lossy(&beginning), options);
                input.put_back(beginning);
                kind(input)
            }
        };
        Ok(Self { path: path.to_path_buf(), body, tally })
    }

    /// Whether it is one text.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.body, Body::Text(_))
    }

    /// Hands all of it on, piece by piece.
    ///
    /// Errors: a file that cannot be read to its end, or is not UTF-8, with the place; those of `take`.
    pub(super) fn pieces(self, take: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        let mut record = |row| take(Piece::Record(row));
        let (path, tally) = (&self.path, self.tally);
        match self.body {
            Body::Text(input) => each_text(input, take),
            Body::Array(input) => rows::each_element(input, &mut record),
            Body::Lines(input) => rows::each_line(input, &mut record),
            Body::Csv(input) => rows::each_csv_row(input, &mut record),
            Body::Parquet(file) => {
                let bytes = file.metadata().map_or(0, |metadata| metadata.len());
                rows::each_parquet_row(path, file, bytes, tally, &mut record)
            }
            Body::PackedParquet(bytes) => {
                rows::each_parquet_row(path, Bytes::from(bytes), 0, tally, &mut record)
            }
        }
    }
}

/// The text of a file, a piece at a time.
fn each_text(mut input: Input<'_>, take: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
    let (mut bytes, mut offset, mut line) = (Vec::new(), input.skipped, 1);
    loop {
        let left = bytes.len();
        let more = (&mut input.bytes).take(PIECE_BYTES - left as u64).read_to_end(&mut bytes);
        let ended = more.map_err(|error| input.broken(error))? == 0;
        let valid = match std::str::from_utf8(&bytes) {
            Ok(text) => text.len(),
            // A character that goes on in the next piece.
            Err(error) if error.error_len().is_none() && !ended => error.valid_up_to(),
            Err(error) => {
                let valid = error.valid_up_to();
                line += newlines(&bytes[..valid]);
                let problem = not_utf8(offset + valid as u64);
                let place = Place::Line(line).name(&input.path);
                return Err(Error::new(ErrorKind::Data, format!("{place}: {problem}")));
            }
        };
        let rest = bytes.split_off(valid);
        let text = std::mem::replace(&mut bytes, rest);
        if text.is_empty() && ended {
            return Ok(());
        }
        (offset, line) = (offset + text.len() as u64, line + newlines(&text));
        take(Piece::Text(String::from_utf8_lossy(&text).into_owned()))?;
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

fn not_utf8(offset: u64) -> String {
    format!("is not UTF-8 at byte {offset}; convert it, as with `iconv -t utf-8`")
}

/// What a file holds, by its name and its first line.
fn kind<'a>(path: &Path, beginning: &str, options: &ReadingOptions) -> fn(Input<'a>) -> Body<'a> {
    let ending = files::ending(path);
    let start = beginning.trim_start();
    let json = matches!(ending.as_str(), "json" | "jsonl" | "ndjson");
    let first = start.lines().next().unwrap_or_default();
    let is_object = || serde_json::from_str::<Map<String, Value>>(first).is_ok();
    match options.format {
        DataFormat::Text => Body::Text,
        DataFormat::Auto if matches!(ending.as_str(), "csv" | "tsv") => Body::Csv,
        DataFormat::Auto if !json => {
            let array = start.strip_prefix('[').map(|rest| rest.trim_start());
            match array {
                Some(rest) if rest.starts_with('{') || rest.is_empty() => Body::Array,
                _ if is_object() => Body::Lines,
                _ if names_columns(first, options) => Body::Csv,
                _ => Body::Text,
            }
        }
        _ if start.starts_with('[') => Body::Array,
        _ if json || start.starts_with('{') => Body::Lines,
        // Records of a known format that are not JSON.
        _ => Body::Csv,
    }
}

/// Whether a line names the columns of records: several, and known ones.
fn names_columns(line: &str, options: &ReadingOptions) -> bool {
    let names =
        line.split(char::from(rows::delimiter(line))).map(|name| name.trim().trim_matches('"'));
    let mut columns = Value::Object(names.map(|name| (name.to_string(), Value::Null)).collect());
    rename(&mut columns, &options.fields).is_ok()
        && columns.as_object().is_some_and(|columns| columns.len() > 1)
        && detect(&columns).is_ok()
}

#[cfg(test)]
mod tests;
