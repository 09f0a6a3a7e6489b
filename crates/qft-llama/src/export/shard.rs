//! One safetensors file of weights.

use super::{FillCodes, FillRows, SavedWeights, WeightType, compressed};
use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use qft_files::{DiskFile, Dtype, TensorInfo, TensorWriter};
use qft_tensor::{Ledger, Transfer};
use std::path::Path;
use std::sync::Arc;

/// Elements converted at a time, or one row if that is longer.
const BLOCK_ELEMENTS: usize = 1 << 18;

/// The tensors of one file.
#[derive(Debug)]
pub(super) struct Shard {
    /// Each with its number in the model.
    pub(super) tensors: Vec<(u32, TensorSpec)>,
    /// The type of their weights.
    pub(super) dtype: WeightType,
    /// Whether those of linear layers are in 8 bits, each followed by its scales.
    pub(super) int8: bool,
}

/// The name of shard `number`, counted from 0, of `count`.
pub(super) fn shard_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// Whether `name` is one that weights are written under.
pub(super) fn is_weight_file(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let sharded = numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(i, n)| {
        [i, n].iter().all(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit()))
    });
    sharded || matches!(name, "model.safetensors" | "model.safetensors.index.json")
}

impl Shard {
    /// A whole model in one file.
    pub(super) fn whole(config: &LlamaConfig, dtype: WeightType, int8: bool) -> Self {
        Self { tensors: (0..).zip(config.tensors()).collect(), dtype, int8 }
    }

    /// Divides a model into files of at most `max_bytes` of data, or one tensor.
    pub(super) fn split(
        config: &LlamaConfig,
        dtype: WeightType,
        int8: bool,
        max_bytes: u64,
    ) -> Vec<Self> {
        let empty = || Self { tensors: Vec::new(), dtype, int8 };
        let mut shards = vec![empty()];
        let mut bytes = 0;
        for (number, spec) in (0..).zip(config.tensors()) {
            let size = empty().file_bytes(&spec);
            if begins_tensor(&spec) && bytes > 0 && bytes + size > max_bytes {
                shards.push(empty());
                bytes = 0;
            }
            bytes += size;
            if let Some(last) = shards.last_mut() {
                last.tensors.push((number, spec));
            }
        }
        shards
    }

    /// Bytes of all tensors.
    pub(super) fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, spec)| self.file_bytes(spec)).sum()
    }

    /// The tensors of the file.
    pub(super) fn infos(&self) -> Vec<TensorInfo> {
        self.tensors.iter().flat_map(|(_, spec)| self.stored(spec)).collect()
    }

    fn is_int8(&self, spec: &TensorSpec) -> bool {
        self.int8 && compressed::is_quantized(spec)
    }

    /// The tensors of the file that begin with a parameter: none, its own, or that and its scales.
    fn stored(&self, spec: &TensorSpec) -> Vec<TensorInfo> {
        if !begins_tensor(spec) {
            return Vec::new();
        }
        let (name, shape) = (spec.file_name().to_owned(), spec.file_shape());
        if !self.is_int8(spec) {
            return vec![TensorInfo { name, dtype: self.dtype.file_type(), shape }];
        }
        let scales = TensorInfo {
            name: compressed::scale_name(&name),
            dtype: Dtype::F32,
            shape: vec![shape[0], 1],
        };
        vec![TensorInfo { name, dtype: Dtype::I8, shape }, scales]
    }

    /// Bytes of the tensors that begin with a parameter.
    fn file_bytes(&self, spec: &TensorSpec) -> u64 {
        let bytes = |info: TensorInfo| {
            let elements: usize = info.shape.iter().product();
            (elements * info.dtype.bitsize() / 8) as u64
        };
        self.stored(spec).into_iter().map(bytes).sum()
    }

    /// Writes header and data, and waits until they are on the disk. What is in 8 bits comes from `codes` if it is stored so.
    pub(super) fn write(
        &self,
        ledger: &Arc<Ledger>,
        file: DiskFile,
        saved: SavedWeights,
        (fill, codes): (&mut FillRows<'_>, Option<&FillCodes<'_>>),
    ) -> Result<(), Error> {
        let path = file.path().to_path_buf();
        let mut writer = TensorWriter::begin(file, &[("format", "pt")], &self.infos())?;
        let Blocks { mut values, mut bytes, mut scales, mut stored } = self.blocks(ledger);
        let mut scaled = 0;
        for (number, spec) in &self.tensors {
            let int8 = self.is_int8(spec);
            for start in (0..spec.rows).step_by(block_rows(spec)) {
                let rows = start..spec.rows.min(start + block_rows(spec));
                let row_bytes = spec.cols * if int8 { 1 } else { self.dtype.size_bytes() };
                let bytes = &mut bytes[..rows.len() * row_bytes];
                if let Some(codes) = codes.filter(|_| int8) {
                    let scales = &mut scales[scaled..][..rows.len()];
                    let stored = &mut stored[..bytes.len()];
                    scaled += rows.len();
                    codes(spec, rows, stored, scales)?;
                    if let Some(row) = scales.iter().position(|scale| !scale.is_finite()) {
                        return Err(not_finite(&path, spec, start + row, 0, scales[row]));
                    }
                    bytes.iter_mut().zip(stored).for_each(|(byte, code)| *byte = *code as u8);
                    writer.write(bytes)?;
                    continue;
                }
                let values = &mut values[..rows.len() * spec.cols];
                fill(spec, rows, values)?;
                let lines = values.chunks_exact(spec.cols).zip(bytes.chunks_exact_mut(row_bytes));
                for (row, (values, bytes)) in (start..).zip(lines) {
                    let written = if int8 {
                        compressed::quantize_row(values, bytes).map(|scale| {
                            scales[scaled] = scale;
                            scaled += 1;
                        })
                    } else {
                        saved.write_row((*number, row), values, bytes)
                    };
                    written.map_err(|col| not_finite(&path, spec, row, col, values[col]))?;
                }
                writer.write(bytes)?;
            }
            if int8 && ends_tensor(spec) {
                for scale in &scales[..scaled] {
                    writer.write(&scale.to_le_bytes())?;
                }
                scaled = 0;
            }
        }
        Ok(writer.finish()?)
    }

    fn blocks(&self, ledger: &Arc<Ledger>) -> Blocks {
        let most = self.tensors.iter().map(|(_, spec)| block_elements(spec)).max().unwrap_or(0);
        let scaled = self.tensors.iter().filter(|(_, spec)| self.is_int8(spec));
        let rows = scaled.map(|(_, spec)| spec.file_shape()[0]).max().unwrap_or(0);
        Blocks {
            values: Transfer::zeroed(ledger, "rows to save", most),
            bytes: Transfer::zeroed(ledger, "saved rows", most * self.dtype.size_bytes()),
            scales: Transfer::zeroed(ledger, "saved scales", rows),
            stored: Transfer::zeroed(ledger, "stored codes", if self.int8 { most } else { 0 }),
        }
    }

    /// Allocates what writing takes and fetches the largest block.
    pub(super) fn plan(&self, ledger: &Arc<Ledger>, fill: &mut FillRows<'_>) -> Result<(), Error> {
        let mut blocks = self.blocks(ledger);
        let specs = self.tensors.iter().map(|(_, spec)| spec);
        let Some(spec) = specs.max_by_key(|spec| block_elements(spec)) else {
            return Ok(());
        };
        fill(spec, 0..block_rows(spec), &mut blocks.values[..block_elements(spec)])
    }
}

/// A block of rows as it comes, and as it is written.
struct Blocks {
    values: Transfer<f32>,
    bytes: Transfer<u8>,
    /// A scale for each row of the tensor that is being written in 8 bits.
    scales: Transfer<f32>,
    /// Codes of a model that has them.
    stored: Transfer<i8>,
}

/// Rows converted at a time.
pub(super) fn block_rows(spec: &TensorSpec) -> usize {
    (BLOCK_ELEMENTS / spec.cols).clamp(1, spec.rows.max(1))
}

fn block_elements(spec: &TensorSpec) -> usize {
    block_rows(spec) * spec.cols
}

/// Whether it is the first part of a tensor of the file; other parts follow at once.
fn begins_tensor(spec: &TensorSpec) -> bool {
    spec.fused.as_ref().is_none_or(|fused| fused.first == 0)
}

/// Whether it is the last part of a tensor of the file.
fn ends_tensor(spec: &TensorSpec) -> bool {
    spec.fused.as_ref().is_none_or(|fused| fused.first + spec.rows == fused.rows)
}

/// The error for a weight that is not finite, or too large for the type it is to be written in.
pub(super) fn not_finite(
    file: &Path,
    spec: &TensorSpec,
    row: usize,
    col: usize,
    value: f32,
) -> Error {
    Error::NotFinite {
        file: file.to_path_buf(),
        tensor: spec.name.clone(),
        row,
        col,
        value,
        remedy: if value.is_finite() {
            "the type it is to be written in ends before it; give bf16 or f32 (--export-dtype of finetune, --dtype of export)"
        } else {
            "training diverged; lower the learning rate and resume from an earlier checkpoint"
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_weight_files() {
        for name in ["model.safetensors", "model-00001-of-00012.safetensors"] {
            assert!(is_weight_file(name), "{name}");
        }
        for name in
            ["model-1-of-2.safetensors", "model-x.safetensors", "config.json", "model-0000a"]
        {
            assert!(!is_weight_file(name), "{name}");
        }
        assert_eq!(shard_name(0, 1), "model.safetensors");
        assert_eq!(shard_name(1, 12), "model-00002-of-00012.safetensors");
    }
}
