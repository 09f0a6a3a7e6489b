//! A file written from its beginning to its end, data in blocks of any size.

use super::{Dtype, PREFIX_BYTES, tensor_bytes};
use crate::disk::{DiskFile, WRITE_REMEDY};
use crate::error::Error;
use serde_json::{Map, Value, json};
use std::io::{BufWriter, Write};

/// Bytes that small blocks are collected in.
const BUFFER_BYTES: usize = 64 << 10;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
}

/// Writes one file: the header at once, then exactly the data that it announces.
#[derive(Debug)]
pub struct TensorWriter {
    file: BufWriter<DiskFile>,
    /// Bytes of data that the header announces.
    announced: u64,
    /// Bytes of data that came.
    written: u64,
}

impl TensorWriter {
    /// Writes the header of `tensors`, whose data must follow in this order. `metadata` is for other readers.
    ///
    /// Errors: [`Error::Header`] for a name that occurs twice or a size that 64 bits do not hold; [`Error::Io`].
    pub fn begin(
        file: DiskFile,
        metadata: &[(&str, &str)],
        tensors: &[TensorInfo],
    ) -> Result<Self, Error> {
        let wrong = |what: String, expected: &str, got: String| Error::Header {
            file: file.path().to_path_buf(),
            what,
            expected: expected.into(),
            got,
            remedy: "this is a bug in qft",
        };
        let mut map = Map::new();
        if !metadata.is_empty() {
            let entries = metadata.iter().map(|&(key, value)| (key.into(), value.into()));
            map.insert("__metadata__".into(), Value::Object(entries.collect()));
        }
        let mut end = 0u64;
        for TensorInfo { name, dtype, shape } in tensors {
            let start = end;
            let bytes = tensor_bytes(*dtype, shape);
            end = bytes.and_then(|bytes| start.checked_add(bytes)).ok_or_else(|| {
                wrong(format!("size of `{name}`"), "one of 64 bits", format!("{shape:?}"))
            })?;
            let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
            if map.insert(name.clone(), info).is_some() {
                return Err(wrong(format!("tensor `{name}`"), "one", "two".into()));
            }
        }
        // Padded, so that the data begins at a multiple of 8.
        let mut text = Value::Object(map).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(PREFIX_BYTES as usize), b' ');
        let mut writer =
            Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), announced: end, written: 0 };
        writer.write_raw(&(text.len() as u64).to_le_bytes())?;
        writer.write_raw(&text)?;
        Ok(writer)
    }

    /// Appends data.
    ///
    /// Errors: [`Error::WrongLength`] if it is more than announced, and nothing is written; [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.written + bytes.len() as u64;
        if written > self.announced {
            return Err(self.wrong_length(written));
        }
        self.write_raw(bytes)?;
        self.written = written;
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// Errors: [`Error::WrongLength`] if data is missing; [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        if self.written != self.announced {
            return Err(self.wrong_length(self.written));
        }
        let flushed = self.file.flush();
        let file = self.file.get_ref();
        flushed.map_err(Error::io("write", file.path(), WRITE_REMEDY))?;
        file.sync()
    }

    fn write_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(Error::io("write", self.file.get_ref().path(), WRITE_REMEDY))
    }

    fn wrong_length(&self, got: u64) -> Error {
        let file = self.file.get_ref().path().to_path_buf();
        Error::WrongLength { file, expected: self.announced, got }
    }
}
