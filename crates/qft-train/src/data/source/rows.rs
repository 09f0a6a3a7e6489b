//! The records of a file as JSON values, each with its place.

use super::Place;
use crate::error::{Context, Error, ErrorKind, Result};
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use qft_files::panics::caught;
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;

/// A record as a JSON value, or why it is none, and its place.
pub(super) type Row = (Place, Result<Value>);

/// The elements of a JSON array.
pub(super) fn of_array(path: &Path, text: &str) -> Result<Vec<Row>> {
    let values: Vec<Value> = serde_json::from_str(text).with_context(|| {
        format!("{}: is not a valid JSON array; mend it at the place that is named", path.display())
    })?;
    Ok(values.into_iter().enumerate().map(|(i, value)| (Place::Record(i + 1), Ok(value))).collect())
}

/// The JSON value of each line. A file with one object over many lines is one record.
pub(super) fn of_lines(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(line);
        let alone = rows.is_empty() && value.is_err();
        if let Some(Ok(value)) = alone.then(|| serde_json::from_str(text)) {
            return vec![(Place::Record(1), Ok(value))];
        }
        let value = value.map_err(|error: serde_json::Error| {
            let column = error.column();
            let message = format!(
                "column {column}: is not a JSON object on one line, which each line of a .jsonl file is; mend it, or \
                 give --format text for plain text (near `{}`)",
                excerpt(line, column.saturating_sub(20)..column + 20)
            );
            Error::from(error).context(message)
        });
        rows.push((Place::Line(i + 1), value));
    }
    rows
}

/// The characters of `line` in `range`.
fn excerpt(line: &str, range: Range<usize>) -> String {
    line.chars().skip(range.start).take(range.len()).collect()
}

/// The rows of a CSV file, whose first line names the columns.
///
/// Errors: that line cannot be read.
pub(super) fn of_csv(path: &Path, text: &str) -> Result<Vec<Row>> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter(text)).from_reader(text.as_bytes());
    let place = || format!("{}: the names of the columns cannot be read", path.display());
    let columns = reader.headers().with_context(place)?.clone();
    let rows = reader.records().map(|row| match row {
        Ok(row) => {
            let line = row.position().map_or(0, csv::Position::line);
            let cells = columns.iter().zip(row.iter());
            let cells = cells.map(|(name, cell)| (name.to_string(), cell.into()));
            (Place::Line(line as usize), Ok(Value::Object(cells.collect::<Map<_, _>>())))
        }
        Err(error) => {
            let line = error.position().map_or(0, csv::Position::line);
            (Place::Line(line as usize), Err(unreadable(&error, columns.len())))
        }
    });
    Ok(rows.collect())
}

/// What is wrong with a row below `columns` names, and what to do.
fn unreadable(error: &csv::Error, columns: usize) -> Error {
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { len, .. } => format!(
            "the row has {len} fields, and the first line names {columns}; put texts that hold the separator or a line \
             break in quotes"
        ),
        _ => format!("the row cannot be read: {error}"),
    };
    Error::new(ErrorKind::Data, message)
}

/// What separates the columns in the first line.
pub(super) fn delimiter(text: &str) -> u8 {
    let names = text.lines().next().unwrap_or_default();
    [b'\t', b';']
        .into_iter()
        .find(|&c| names.contains(char::from(c)) && !names.contains(','))
        .unwrap_or(b',')
}

/// The rows of a Parquet file.
///
/// Errors: it is damaged, or has columns or a compression that are not read.
pub(super) fn of_parquet(path: &Path, bytes: Vec<u8>) -> Result<Vec<Row>> {
    let read = || -> Result<Vec<Row>, ParquetError> {
        let reader = SerializedFileReader::new(Bytes::from(bytes))?;
        let rows = reader.get_row_iter(None)?.enumerate();
        rows.map(|(i, row)| Ok((Place::Record(i + 1), Ok(row?.to_json_value())))).collect()
    };
    // The library panics at some files that are damaged.
    let read = caught(read).unwrap_or_else(|panic| Err(ParquetError::General(panic)));
    read.with_context(|| {
        format!(
            "{}: cannot be read as Parquet; fetch it again, or pack it otherwise, as with \
             `pandas.read_parquet(...).to_parquet(..., compression=\"snappy\")`",
            path.display()
        )
    })
}
