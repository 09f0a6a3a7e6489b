//! The records of a file as JSON values, one after the other, each with its place.

mod parquet;
mod quotes;

pub(super) use parquet::each_parquet_row;

use super::Place;
use super::input::Input;
use crate::error::{Context, Error, ErrorKind, Result, bail};
use quotes::Quotes;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, Read};
use std::ops::Range;

/// A record as it stands in a file.
pub(in crate::data) struct Row {
    /// Where.
    pub(in crate::data) place: Place,
    cells: Cells,
}

enum Cells {
    /// A line that should be a JSON object, and the byte at which it begins.
    Line(Vec<u8>, u64),
    Value(Value),
    /// It cannot be read.
    Bad(Error),
}

/// Takes the rows of a file.
pub(super) type Take<'a> = dyn FnMut(Row) -> Result<()> + 'a;

impl Row {
    /// A value that was read.
    pub(in crate::data) fn of(place: Place, value: Value) -> Self {
        Self { place, cells: Cells::Value(value) }
    }

    /// The row as a JSON value.
    ///
    /// Errors: it is none.
    pub(in crate::data) fn parse(self) -> Result<Value> {
        match self.cells {
            Cells::Value(value) => Ok(value),
            Cells::Bad(error) => Err(error),
            Cells::Line(bytes, start) => parse_line(&bytes, start),
        }
    }

    /// Bytes that it takes, about.
    pub(in crate::data) fn bytes(&self) -> usize {
        match &self.cells {
            Cells::Line(bytes, _) => bytes.len(),
            Cells::Value(value) => bytes_of(value),
            Cells::Bad(_) => 0,
        }
    }
}

fn bytes_of(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(bytes_of).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + bytes_of(value)).sum(),
            _ => 0,
        }
}

fn parse_line(bytes: &[u8], start: u64) -> Result<Value> {
    let line = std::str::from_utf8(bytes).map_err(|error| {
        let offset = start + error.valid_up_to() as u64;
        Error::new(ErrorKind::Data, super::not_utf8(offset))
    })?;
    let line = line.trim_end_matches(['\r', '\n']);
    serde_json::from_str(line).map_err(|error| {
        let column = error.column();
        let message = format!(
            "column {column}: is not a JSON object on one line, which each line of a .jsonl file is; mend it, or \
             give --format text for plain text (near `{}`)",
            excerpt(line, column.saturating_sub(20)..column + 20)
        );
        Error::from(error).context(message)
    })
}

/// The characters of `line` in `range`.
fn excerpt(line: &str, range: Range<usize>) -> String {
    line.chars().skip(range.start).take(range.len()).collect()
}

/// The elements of a JSON array.
///
/// Errors: it is not valid; those of `take`.
pub(super) fn each_element(input: Input<'_>, take: &mut Take<'_>) -> Result<()> {
    let path = input.path;
    let mut json = serde_json::Deserializer::from_reader(input.bytes);
    let mut refused = None;
    let elements = Elements { take, refused: &mut refused };
    let read = (&mut json).deserialize_seq(elements).and_then(|()| json.end());
    match (read, refused) {
        (_, Some(error)) => Err(error),
        (read, None) => read.with_context(|| {
            format!(
                "{}: is not a valid JSON array; mend it at the place that is named",
                path.display()
            )
        }),
    }
}

/// Hands the elements of an array on, one by one.
struct Elements<'a, 'b> {
    take: &'a mut Take<'b>,
    /// Why no more are taken.
    refused: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = elements.next_element_seed(AnyValue)? {
            number += 1;
            let row = Row { place: Place::Record(number), cells: Cells::Value(value) };
            if let Err(error) = (self.take)(row) {
                *self.refused = Some(error);
                return Err(serde::de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

struct AnyValue;

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        serde::Deserialize::deserialize(json)
    }
}

/// The JSON value of each line. A file with one object over many lines is one record.
///
/// Errors: the file cannot be read; those of `take`.
pub(super) fn each_line(mut input: Input<'_>, take: &mut Take<'_>) -> Result<()> {
    let beginning = input.beginning()?;
    let is_part = serde_json::from_slice::<Value>(&beginning).is_err_and(|error| error.is_eof());
    input.put_back(beginning);
    if is_part {
        let mut all = Vec::new();
        input.bytes.read_to_end(&mut all).map_err(|error| input.broken(error))?;
        if let Ok(value) = serde_json::from_slice(&all) {
            return take(Row { place: Place::Record(1), cells: Cells::Value(value) });
        }
        input.put_back(all);
    }
    let (mut number, mut start) = (0, input.skipped);
    loop {
        let mut line = Vec::new();
        let count = input.bytes.read_until(b'\n', &mut line);
        let count = count.map_err(|error| input.broken(error))?;
        if count == 0 {
            return Ok(());
        }
        number += 1;
        if !line.trim_ascii().is_empty() {
            take(Row { place: Place::Line(number), cells: Cells::Line(line, start) })?;
        }
        start += count as u64;
    }
}

/// The rows of a CSV file, whose first line names the columns.
///
/// Errors: that line cannot be read; those of `take`.
pub(super) fn each_csv_row(mut input: Input<'_>, take: &mut Take<'_>) -> Result<()> {
    let beginning = input.beginning()?;
    let delimiter = delimiter(&String::from_utf8_lossy(&beginning));
    input.put_back(beginning);
    let Input { path, bytes, .. } = input;
    let open = Cell::new(None);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(Quotes::new(bytes, delimiter, &open));
    let place = || format!("{}: the names of the columns cannot be read", path.display());
    let columns = reader.headers().with_context(place)?.clone();
    let mut known = HashSet::new();
    if let Some(twice) = columns.iter().find(|name| !name.is_empty() && !known.insert(*name)) {
        bail!(
            "{}:1: two columns are called `{twice}`; give each a name of its own",
            path.display()
        );
    }
    for row in reader.records() {
        let (position, cells) = match row {
            Ok(row) => {
                let cells = columns.iter().zip(row.iter());
                let cells = cells.map(|(name, cell)| (name.to_string(), cell.into()));
                let cells = Value::Object(cells.collect::<Map<_, _>>());
                (row.position().cloned(), Cells::Value(cells))
            }
            Err(error) if error.is_io_error() => return Err(error).with_context(place),
            Err(error) => {
                (error.position().cloned(), Cells::Bad(unreadable(&error, columns.len())))
            }
        };
        let line = position.map_or(0, |position| position.line()) as usize;
        // The library takes the end of the file for that of the quote.
        let cells = match open.get().filter(|&quote| quote >= line) {
            Some(quote) => Cells::Bad(unclosed(quote)),
            None => cells,
        };
        take(Row { place: Place::Line(line), cells })?;
    }
    Ok(())
}

fn unclosed(line: usize) -> Error {
    let message = format!(
        "the quote that begins a field in line {line} is never closed, so the rest of the file would be one field; close it, or \
         double it where it is a sign of the text"
    );
    Error::new(ErrorKind::Data, message)
}

/// What is wrong with a row below `columns` names, and what to do.
fn unreadable(error: &csv::Error, columns: usize) -> Error {
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { len, .. } => format!(
            "the row has {len} fields, and the first line names {columns}; put texts that hold the separator or a line \
             break in quotes"
        ),
        csv::ErrorKind::Utf8 { pos, .. } => {
            super::not_utf8(pos.as_ref().map_or(0, csv::Position::byte))
        }
        _ => format!("the row cannot be read: {error}"),
    };
    Error::new(ErrorKind::Data, message)
}

/// What separates the columns in the first line.
pub(super) fn delimiter(text: &str) -> u8 {
    let names = text.trim_start().lines().next().unwrap_or_default();
    [b'\t', b';']
        .into_iter()
        .find(|&c| names.contains(char::from(c)) && !names.contains(','))
        .unwrap_or(b',')
}
