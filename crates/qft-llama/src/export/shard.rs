//! One safetensors file in bf16.

use super::FillRows;
use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use half::bf16;
use qft_files::{DiskFile, Dtype, TensorInfo, TensorWriter};
use qft_tensor::{Ledger, Transfer};
use std::sync::Arc;

/// Elements converted at a time, or one row if that is longer.
const BLOCK_ELEMENTS: usize = 1 << 18;

/// The tensors of one file.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) tensors: Vec<TensorSpec>,
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
    /// Divides a model into files of at most `max_bytes` of data, or one tensor.
    pub(super) fn split(config: &LlamaConfig, max_bytes: u64) -> Vec<Self> {
        let mut shards = vec![Self::default()];
        let mut bytes = 0;
        for spec in config.tensors() {
            let size = tensor_bytes(&spec);
            if bytes > 0 && bytes + size > max_bytes {
                shards.push(Self::default());
                bytes = 0;
            }
            bytes += size;
            if let Some(last) = shards.last_mut() {
                last.tensors.push(spec);
            }
        }
        shards
    }

    /// Bytes of all tensors.
    pub(super) fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(tensor_bytes).sum()
    }

    /// Writes header and data, and waits until they are on the disk.
    pub(super) fn write(
        &self,
        ledger: &Arc<Ledger>,
        file: DiskFile,
        fill: &mut FillRows<'_>,
    ) -> Result<(), Error> {
        let path = file.path().to_path_buf();
        let infos = self.tensors.iter().map(|spec| TensorInfo {
            name: spec.name.clone(),
            dtype: Dtype::BF16,
            shape: spec.file_shape(),
        });
        let infos: Vec<_> = infos.collect();
        let mut writer = TensorWriter::begin(file, &[("format", "pt")], &infos)?;
        let (mut values, mut bytes) = self.blocks(ledger);
        for spec in &self.tensors {
            for start in (0..spec.rows).step_by(block_rows(spec)) {
                let rows = start..spec.rows.min(start + block_rows(spec));
                let values = &mut values[..rows.len() * spec.cols];
                fill(spec, rows, values)?;
                let bytes = &mut bytes[..size_of_val(values) / 2];
                for (index, (&value, out)) in values.iter().zip(bytes.as_chunks_mut().0).enumerate()
                {
                    let rounded = bf16::from_f32(value);
                    if !rounded.is_finite() {
                        return Err(Error::NotFinite {
                            file: path,
                            tensor: spec.name.clone(),
                            row: start + index / spec.cols,
                            col: index % spec.cols,
                            value,
                            remedy: "training diverged; lower the learning rate and resume from an \
                                     earlier checkpoint",
                        });
                    }
                    *out = rounded.to_le_bytes();
                }
                writer.write(bytes)?;
            }
        }
        Ok(writer.finish()?)
    }

    /// A block of rows as it comes, and as it is written.
    fn blocks(&self, ledger: &Arc<Ledger>) -> (Transfer<f32>, Transfer<u8>) {
        let most = self.tensors.iter().map(block_elements).max().unwrap_or(0);
        let bytes = Transfer::zeroed(ledger, "saved rows", most * size_of::<bf16>());
        (Transfer::zeroed(ledger, "rows to save", most), bytes)
    }

    /// Allocates what writing takes and fetches the largest block.
    pub(super) fn plan(&self, ledger: &Arc<Ledger>, fill: &mut FillRows<'_>) -> Result<(), Error> {
        let (mut values, _bytes) = self.blocks(ledger);
        let Some(spec) = self.tensors.iter().max_by_key(|spec| block_elements(spec)) else {
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

fn tensor_bytes(spec: &TensorSpec) -> u64 {
    spec.elements() as u64 * size_of::<bf16>() as u64
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
