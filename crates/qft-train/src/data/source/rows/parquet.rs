//! The rows of a Parquet file.

use super::{Cells, Row, Take};
use crate::data::binary;
use crate::data::progress::Tally;
use crate::data::source::Place;
use crate::error::{Context, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use qft_files::panics::caught;
use serde_json::Value;
use std::path::Path;

/// Rows after which it is told how far the reading has come.
const ROWS: u64 = 1000;

/// Hands the rows of a Parquet file of `bytes` bytes on, one by one.
///
/// Errors: it is damaged, or has columns or a compression that are not read; those of `take`.
pub(in super::super) fn each_parquet_row(
    path: &Path,
    file: impl ChunkReader + 'static,
    bytes: u64,
    tally: &Tally<'_>,
    take: &mut Take<'_>,
) -> Result<()> {
    let broken = || {
        format!(
            "{}: cannot be read as Parquet; fetch it again, or pack it otherwise, as with \
             `pandas.read_parquet(...).to_parquet(..., compression=\"snappy\")`",
            path.display()
        )
    };
    // The library panics at some files that are damaged.
    let open = caught(|| SerializedFileReader::new(file)).unwrap_or_else(panicked);
    let file = open.with_context(broken)?;
    let rows = file.metadata().file_metadata().num_rows().max(1).unsigned_abs();
    let rows_of = || Ok(RowIter::from_file_into(Box::new(file)));
    let mut rest = caught(rows_of).unwrap_or_else(panicked).with_context(broken)?;
    let mut told = 0;
    for number in 1.. {
        let row = caught(|| rest.next()).unwrap_or_else(|panic| Some(panicked(panic)));
        let Some(row) = row else { break };
        let value = object(row.with_context(broken)?.get_column_iter());
        if number % ROWS == 0 {
            let now = (u128::from(bytes) * u128::from(number) / u128::from(rows)) as u64;
            tally.add(now.min(bytes) - told);
            told = now.min(bytes);
        }
        take(Row { place: Place::Record(number as usize), cells: Cells::Value(value) })?;
    }
    tally.add(bytes - told);
    Ok(())
}

/// The columns of a row as JSON.
fn object<'a>(fields: impl Iterator<Item = (&'a String, &'a Field)>) -> Value {
    Value::Object(fields.map(|(name, field)| (name.clone(), json(field))).collect())
}

/// A group as JSON, without fields that are null: in a column all groups have the same, and those that a record lacks are
/// filled up so.
fn group<'a>(fields: impl Iterator<Item = (&'a String, &'a Field)>) -> Value {
    object(fields.filter(|(_, field)| !matches!(field, Field::Null)))
}

/// A field as JSON. Bytes that have no mark of what they are count as text if they can be: some writers leave it out.
fn json(field: &Field) -> Value {
    match field {
        Field::Bytes(bytes) => binary::value_of(bytes.data()),
        Field::Group(row) => group(row.get_column_iter()),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(json).collect()),
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| {
                let name = match json(key) {
                    Value::String(name) => name,
                    key if binary::is(&key) => return None,
                    key => key.to_string(),
                };
                Some((name, json(field)))
            };
            let entries: Option<_> = map.entries().iter().map(entry).collect();
            entries.map_or_else(binary::no_text, Value::Object)
        }
        field => field.to_json_value(),
    }
}

fn panicked<T>(panic: String) -> Result<T, ParquetError> {
    Err(ParquetError::General(panic))
}
