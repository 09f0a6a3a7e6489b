//! The data of a file, in blocks of rows.

use super::tensors::{Entry, Source};
use crate::config::{LlamaConfig, TensorSpec};
use crate::error::Error;
use crate::export::shard::{block_rows, not_finite};
use crate::export::{FillRows, SavedRounding, SavedWeights, WeightType};
use half::f16;
use qft_files::gguf::Q8_0_BLOCK;
use qft_files::{GgufType, GgufWriter};
use qft_tensor::{Ledger, Transfer};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A block of rows as it comes, and as it is written.
pub(super) struct Rows {
    values: Transfer<f32>,
    bytes: Transfer<u8>,
}

/// How weights become F16 and BF16.
pub(super) struct Rounded {
    rounding: SavedRounding,
    /// The place of each parameter in the model, by which chance is drawn.
    numbers: HashMap<String, u32>,
}

impl Rounded {
    /// For the parameters of `config`.
    pub(super) fn of(config: &LlamaConfig, rounding: SavedRounding) -> Self {
        let numbers = config.tensors().map(|spec| spec.name).zip(0..).collect();
        Self { rounding, numbers }
    }
}

/// The rows of a tensor that are handled together: whole heads where these are mixed.
fn step(spec: &TensorSpec, head: usize) -> usize {
    (block_rows(spec) / head).max(1) * head
}

impl Rows {
    /// Large enough for each of `entries`.
    pub(super) fn for_entries(ledger: &Arc<Ledger>, entries: &[Entry]) -> Self {
        let most = |entry: &Entry| match &entry.source {
            Source::Model(parts) => {
                parts.iter().map(|part| step(part, 1).min(part.rows) * part.cols).max().unwrap_or(0)
            }
            Source::Pairs(spec, head) => step(spec, *head).min(spec.rows) * spec.cols,
            Source::Values(values) => values.len(),
        };
        Self::of(ledger, entries.iter().map(most).max().unwrap_or(0))
    }

    /// Allocates for any architecture, whose heads may be mixed, and fetches the largest block.
    pub(super) fn plan(
        ledger: &Arc<Ledger>,
        config: &LlamaConfig,
        fill: &mut FillRows<'_>,
    ) -> Result<(), Error> {
        let rows = |spec: &TensorSpec| step(spec, config.head_dim).min(spec.rows);
        let Some(spec) = config.tensors().max_by_key(|spec| rows(spec) * spec.cols) else {
            return Ok(());
        };
        let elements = rows(&spec) * spec.cols;
        let mut blocks = Self::of(ledger, elements);
        fill(&spec, 0..rows(&spec), &mut blocks.values[..elements])
    }

    fn of(ledger: &Arc<Ledger>, values: usize) -> Self {
        Self {
            values: Transfer::zeroed(ledger, "rows to save", values),
            // No type takes more than 4 bytes.
            bytes: Transfer::zeroed(ledger, "saved rows", 4 * values),
        }
    }

    /// Writes the data of `entry`; `path` is for errors.
    pub(super) fn write(
        &mut self,
        writer: &mut GgufWriter,
        path: &Path,
        entry: &Entry,
        (fill, rounded): (&mut FillRows<'_>, &Rounded),
    ) -> Result<(), Error> {
        let kind = entry.info.kind;
        match &entry.source {
            Source::Values(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Ok(writer.write(&bytes)?)
            }
            Source::Model(parts) => {
                for part in parts {
                    self.blocks(writer, path, (part, kind, 1), (&mut *fill, rounded))?;
                }
                Ok(())
            }
            // A vector of a bias is heads of elements, in one row.
            Source::Pairs(spec, head) if spec.rows == 1 => {
                let values = &mut self.values[..spec.cols];
                fill(spec, 0..1, values)?;
                let mixed: Vec<f32> =
                    (0..spec.cols).map(|to| values[from_halves(to, *head)]).collect();
                values.copy_from_slice(&mixed);
                self.encode(writer, path, (spec, kind, rounded), 0..1, |row| row)
            }
            Source::Pairs(spec, head) => {
                self.blocks(writer, path, (spec, kind, *head), (fill, rounded))
            }
        }
    }

    /// Writes a parameter, the rows of each `head` of them in pairs; 1 leaves them as they are.
    fn blocks(
        &mut self,
        writer: &mut GgufWriter,
        path: &Path,
        (spec, kind, head): (&TensorSpec, GgufType, usize),
        (fill, rounded): (&mut FillRows<'_>, &Rounded),
    ) -> Result<(), Error> {
        for start in (0..spec.rows).step_by(step(spec, head)) {
            let rows = start..spec.rows.min(start + step(spec, head));
            fill(spec, rows.clone(), &mut self.values[..rows.len() * spec.cols])?;
            let place = |row: usize| if head == 1 { row } else { from_halves(row, head) };
            self.encode(writer, path, (spec, kind, rounded), rows, place)?;
        }
        Ok(())
    }

    /// Writes rows that were fetched, each from `place`, counted from the first of them.
    fn encode(
        &mut self,
        writer: &mut GgufWriter,
        path: &Path,
        (spec, kind, rounded): (&TensorSpec, GgufType, &Rounded),
        rows: std::ops::Range<usize>,
        place: impl Fn(usize) -> usize,
    ) -> Result<(), Error> {
        let cols = spec.cols;
        let length = kind.row_bytes(cols).unwrap_or(0);
        let bytes = &mut self.bytes[..rows.len() * length];
        for (row, bytes) in bytes.chunks_exact_mut(length.max(1)).enumerate() {
            let from = place(row);
            let values = &self.values[from * cols..][..cols];
            let row = rows.start + from;
            let place = (rounded.numbers[&spec.name], row);
            encode_row(kind, rounded.rounding, place, values, bytes)
                .map_err(|col| not_finite(path, spec, row, col, values[col]))?;
        }
        Ok(writer.write(bytes)?)
    }
}

/// The row, in halves, that is row `to` in pairs.
fn from_halves(to: usize, head: usize) -> usize {
    let (first, within) = (to / head * head, to % head);
    first + within % 2 * (head / 2) + within / 2
}

/// Writes the row at `place`, of a tensor by its number, as `kind`.
///
/// Errors: the column of the first number that is not finite, or is not in the type.
fn encode_row(
    kind: GgufType,
    rounding: SavedRounding,
    place: (u32, usize),
    values: &[f32],
    out: &mut [u8],
) -> Result<(), usize> {
    let dtype = match kind {
        GgufType::F32 => WeightType::F32,
        GgufType::F16 => WeightType::F16,
        GgufType::Bf16 => WeightType::Bf16,
        GgufType::Q8_0 => return q8_0(values, out),
    };
    SavedWeights { dtype, rounding }.write_row(place, values, out)
}

/// Blocks of a scale and 32 codes: `value = scale · code`, the largest code is 127.
///
/// Codes are those of the scale as it is stored, in float16, so that its rounding adds nothing to theirs.
fn q8_0(values: &[f32], out: &mut [u8]) -> Result<(), usize> {
    let blocks = values.chunks_exact(Q8_0_BLOCK).zip(out.chunks_exact_mut(2 + Q8_0_BLOCK));
    for (number, (values, out)) in blocks.enumerate() {
        if let Some(col) = values.iter().position(|value| !value.is_finite()) {
            return Err(number * Q8_0_BLOCK + col);
        }
        let (col, most) = values.iter().map(|value| value.abs()).enumerate().fold(
            (0, 0.0),
            |best: (usize, f32), (col, value)| {
                if value > best.1 { (col, value) } else { best }
            },
        );
        let mut scale = f16::from_f32(most / 127.0);
        // Among the smallest float16 numbers, the nearest may be far too small.
        if most > 127.5 * scale.to_f32() {
            scale = f16::from_bits(scale.to_bits() + 1);
        }
        if !scale.is_finite() {
            return Err(number * Q8_0_BLOCK + col);
        }
        let step = scale.to_f32();
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        out[..2].copy_from_slice(&scale.to_le_bytes());
        for (out, value) in out[2..].iter_mut().zip(values) {
            // From float to integer, Rust saturates at the ends of i8.
            *out = (value * inverse).round().max(-127.0) as i8 as u8;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_halves_become_pairs() {
        let rows: Vec<usize> = (0..12).map(|to| from_halves(to, 6)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!((0..4).map(|to| from_halves(to, 2)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn blocks_have_a_scale_of_their_own() {
        let mut values = vec![0.0f32; 96];
        for (i, value) in values.iter_mut().enumerate().take(64) {
            *value = (i as f32 - 15.0) * if i < 32 { 0.01 } else { 1.0 };
        }
        values[33] = -130.0;
        let mut out = vec![0xff; 3 * 34];
        q8_0(&values, &mut out).unwrap();
        for (values, out) in values.chunks(32).zip(out.chunks(34)) {
            let scale = f16::from_le_bytes([out[0], out[1]]).to_f32();
            let most = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            assert!((scale - most / 127.0).abs() <= most / 127.0 / 2048.0);
            for (value, code) in values.iter().zip(&out[2..]) {
                let code = f32::from(*code as i8);
                assert!(code.abs() <= 127.0 && (code * scale - value).abs() <= 0.5001 * scale);
            }
        }
        // Between 0 and the smallest scale, and between this and the next.
        for most in [3e-8f32, 127.0 * 1.4 * 2f32.powi(-24)] {
            let values = vec![most; 32];
            q8_0(&values, &mut out[..34]).unwrap();
            let scale = f16::from_le_bytes([out[0], out[1]]).to_f32();
            let back = scale * f32::from(out[2] as i8);
            assert!((back - most).abs() <= 0.5001 * scale && scale > 0.0, "{most} {back}");
        }
        values[70] = f32::NAN;
        assert_eq!(q8_0(&values, &mut out), Err(70));
        values[70] = 1e10;
        assert_eq!(q8_0(&values, &mut out), Err(70));
    }
}
