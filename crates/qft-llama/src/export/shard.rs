//! One safetensors file of weights.

use super::{FillRows, SavedWeights, WeightType};
use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use qft_files::{DiskFile, TensorInfo, TensorWriter};
use qft_tensor::{Ledger, Transfer};
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
    pub(super) fn whole(config: &LlamaConfig, dtype: WeightType) -> Self {
        Self { tensors: (0..).zip(config.tensors()).collect(), dtype }
    }

    /// Divides a model into files of at most `max_bytes` of data, or one tensor.
    pub(super) fn split(config: &LlamaConfig, dtype: WeightType, max_bytes: u64) -> Vec<Self> {
        let mut shards = vec![Self { tensors: Vec::new(), dtype }];
        let mut bytes = 0;
        for (number, spec) in (0..).zip(config.tensors()) {
            let size = file_bytes(&spec, dtype);
            if begins_tensor(&spec) && bytes > 0 && bytes + size > max_bytes {
                shards.push(Self { tensors: Vec::new(), dtype });
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
        self.tensors.iter().map(|(_, spec)| tensor_bytes(spec, self.dtype)).sum()
    }

    /// Writes header and data, and waits until they are on the disk.
    pub(super) fn write(
        &self,
        ledger: &Arc<Ledger>,
        file: DiskFile,
        saved: SavedWeights,
        fill: &mut FillRows<'_>,
    ) -> Result<(), Error> {
        let path = file.path().to_path_buf();
        let begun = self.tensors.iter().filter(|(_, spec)| begins_tensor(spec));
        let infos = begun.map(|(_, spec)| TensorInfo {
            name: spec.file_name().to_owned(),
            dtype: self.dtype.file_type(),
            shape: spec.file_shape(),
        });
        let infos: Vec<_> = infos.collect();
        let mut writer = TensorWriter::begin(file, &[("format", "pt")], &infos)?;
        let (mut values, mut bytes) = self.blocks(ledger);
        for (number, spec) in &self.tensors {
            for start in (0..spec.rows).step_by(block_rows(spec)) {
                let rows = start..spec.rows.min(start + block_rows(spec));
                let values = &mut values[..rows.len() * spec.cols];
                fill(spec, rows, values)?;
                let row_bytes = spec.cols * self.dtype.size_bytes();
                let bytes = &mut bytes[..values.len() / spec.cols * row_bytes];
                let lines = values.chunks_exact(spec.cols).zip(bytes.chunks_exact_mut(row_bytes));
                for (row, (values, bytes)) in (start..).zip(lines) {
                    saved.write_row((*number, row), values, bytes).map_err(|col| {
                        Error::NotFinite {
                            file: path.clone(),
                            tensor: spec.name.clone(),
                            row,
                            col,
                            value: values[col],
                            remedy: "training diverged; lower the learning rate and resume from an \
                                     earlier checkpoint",
                        }
                    })?;
                }
                writer.write(bytes)?;
            }
        }
        Ok(writer.finish()?)
    }

    /// A block of rows as it comes, and as it is written.
    fn blocks(&self, ledger: &Arc<Ledger>) -> (Transfer<f32>, Transfer<u8>) {
        let most = self.tensors.iter().map(|(_, spec)| block_elements(spec)).max().unwrap_or(0);
        let bytes = Transfer::zeroed(ledger, "saved rows", most * self.dtype.size_bytes());
        (Transfer::zeroed(ledger, "rows to save", most), bytes)
    }

    /// Allocates what writing takes and fetches the largest block.
    pub(super) fn plan(&self, ledger: &Arc<Ledger>, fill: &mut FillRows<'_>) -> Result<(), Error> {
        let (mut values, _bytes) = self.blocks(ledger);
        let specs = self.tensors.iter().map(|(_, spec)| spec);
        let Some(spec) = specs.max_by_key(|spec| block_elements(spec)) else {
            return Ok(());
        };
        fill(spec, 0..block_rows(spec), &mut values[..block_elements(spec)])
    }
}

/// Rows converted at a time.
fn block_rows(spec: &TensorSpec) -> usize {
    (BLOCK_ELEMENTS / spec.cols).clamp(1, spec.rows.max(1))
}

fn block_elements(spec: &TensorSpec) -> usize {
    block_rows(spec) * spec.cols
}

/// Whether it is the first part of a tensor of the file; other parts follow at once.
fn begins_tensor(spec: &TensorSpec) -> bool {
    spec.fused.as_ref().is_none_or(|fused| fused.first == 0)
}

/// Bytes of the tensor that begins with it.
fn file_bytes(spec: &TensorSpec, dtype: WeightType) -> u64 {
    if !begins_tensor(spec) {
        return 0;
    }
    let elements: usize = spec.file_shape().iter().product();
    elements as u64 * dtype.size_bytes() as u64
}

fn tensor_bytes(spec: &TensorSpec, dtype: WeightType) -> u64 {
    spec.elements() as u64 * dtype.size_bytes() as u64
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
