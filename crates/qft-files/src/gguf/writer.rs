//! A GGUF file written from its beginning to its end, data in blocks of any size.

use super::value::write_text;
use super::{ALIGNMENT, GgufType, GgufValue};
use crate::disk::{DiskFile, WRITE_REMEDY};
use crate::error::Error;
use std::collections::HashSet;
use std::io::{BufWriter, Write};

/// Bytes that small blocks are collected in.
const BUFFER_BYTES: usize = 64 << 10;
const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Element type.
    pub kind: GgufType,
    /// Shape, the rows before the elements of a row. The file has it the other way round.
    pub shape: Vec<usize>,
}

impl GgufTensor {
    /// Bytes of all elements; `None` if a row ends within a block, or if they are more than 64 bits count.
    pub fn bytes(&self) -> Option<u64> {
        let (&cols, above) = self.shape.split_last()?;
        let row = self.kind.row_bytes(cols)? as u64;
        above.iter().try_fold(row, |bytes, &size| bytes.checked_mul(size as u64))
    }
}

/// Writes one file: everything but the data at once, then exactly the data that it announces.
#[derive(Debug)]
pub struct GgufWriter {
    file: BufWriter<DiskFile>,
    /// Bytes of each tensor that is not complete, the last one first.
    left: Vec<u64>,
    /// Bytes of the first of these that came.
    written: u64,
}

impl GgufWriter {
    /// Writes `metadata` and the places of `tensors`, whose data must follow in this order.
    ///
    /// Errors: [`Error::Gguf`] for a name that occurs twice, and for a size that the type or 64 bits do not hold;
    /// [`Error::Io`].
    pub fn begin(
        file: DiskFile,
        metadata: &[(String, GgufValue)],
        tensors: &[GgufTensor],
    ) -> Result<Self, Error> {
        let wrong = |what: String| Error::Gguf { file: file.path().to_path_buf(), what };
        let mut seen = HashSet::new();
        let names = metadata.iter().map(|(key, _)| key).chain(tensors.iter().map(|t| &t.name));
        if let Some(name) = names.into_iter().find(|name| !seen.insert(name.as_str())) {
            return Err(wrong(format!("`{name}` occurs twice")));
        }
        let mut head = Vec::new();
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend((tensors.len() as u64).to_le_bytes());
        head.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            write_text(&mut head, key);
            value.write(&mut head);
        }
        let (mut offset, mut left) = (0u64, Vec::with_capacity(tensors.len()));
        for tensor in tensors {
            let bytes = tensor.bytes().filter(|bytes| offset.checked_add(*bytes).is_some());
            let bytes = bytes.ok_or_else(|| {
                wrong(format!(
                    "`{}` of {:?} does not fit {:?}",
                    tensor.name, tensor.shape, tensor.kind
                ))
            })?;
            write_text(&mut head, &tensor.name);
            head.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&size| head.extend((size as u64).to_le_bytes()));
            head.extend(tensor.kind.number().to_le_bytes());
            head.extend(offset.to_le_bytes());
            offset = (offset + bytes).next_multiple_of(ALIGNMENT);
            left.push(bytes);
        }
        left.reverse();
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        let mut writer =
            Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), left, written: 0 };
        writer.write_raw(&head)?;
        Ok(writer)
    }

    /// Appends data of the tensor that is not complete; a block belongs to one tensor.
    ///
    /// Errors: [`Error::Gguf`] if it is more than announced, and nothing is written; [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.written + bytes.len() as u64;
        let expected = self.left.last().copied().unwrap_or(0);
        if written > expected {
            return Err(self.wrong_length(written, expected));
        }
        self.write_raw(bytes)?;
        self.written = written;
        if written == expected && self.left.pop().is_some() {
            self.written = 0;
            let padding = [0; ALIGNMENT as usize];
            let short = expected.next_multiple_of(ALIGNMENT) - expected;
            self.write_raw(&padding[..short as usize])?;
        }
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// Errors: [`Error::Gguf`] if data is missing; [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        if let Some(&expected) = self.left.last() {
            return Err(self.wrong_length(self.written, expected));
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

    fn wrong_length(&self, got: u64, expected: u64) -> Error {
        let file = self.file.get_ref().path().to_path_buf();
        Error::Gguf { file, what: format!("{got} bytes of a tensor that has {expected}") }
    }
}
