//! From float rows to a hybrid matrix.
//!
//! Rows are read in blocks of a few megabytes, so a matrix of any size is encoded with constant host memory, on
//! any device. With protected weights they are read twice: the first pass finds the magnitude from which on a
//! weight is protected. The second one encodes row by row: `s = absmax / 127` over the unprotected weights,
//! `k = round(F w / s)` to nearest, ties to even, and `k = q F + r`.
//!
//! The backward pass reads a gradient times the scale of its row, in INT8 with one scale for all rows. In a row whose
//! dense part is much smaller than those of others, or zero, the gradient of protected weights would be lost. So in a row
//! with protected weights `absmax` is at least 1/16 of the smallest protected magnitude of the matrix.
//!
//! Another row of zeros has no scale of its own, but a weight moves in steps of its scale, so a scale of zero could
//! never be trained. Such a row gets the mean scale of the other rows; if all are zero, [`EMPTY_SCALE`].

mod row;
mod select;

use crate::protected::BLOCK_COLS;
use crate::{Error, HybridFormat, HybridMatrix, Kept};
use half::bf16;
use qft_tensor::ledger::Registration;
use qft_tensor::rotation::rotate;
use qft_tensor::{DType, Device, Host, Kernel, Owner, Transfer};
use rayon::prelude::*;
use row::{AllFinite, EncodeRow, EncodedRow};
use select::{Candidates, Collect, Histogram};
use std::ops::Range;

/// Row scale of a matrix of zeros: its weights reach +-0.001 before their row is rescaled.
pub const EMPTY_SCALE: f32 = 1e-3 / 127.0;

/// The smallest protected magnitude over the least range of a row with protected weights.
const RANGE_BELOW_PROTECTED: f32 = 16.0;

/// Floats held at a time: 4 MiB, unless a single row is longer.
const BLOCK_FLOATS: usize = 1 << 20;

/// Delivers rows of a float matrix: `(rows, out)` fills `out` f32 `[rows.len(), K]`.
pub type ReadRows<'a, E> = dyn FnMut(Range<usize>, &mut [f32]) -> Result<(), E> + 'a;

/// What the quantizer did to one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EncodeReport {
    /// Smallest row scale.
    pub scale_min: f32,
    /// Mean row scale.
    pub scale_mean: f32,
    /// Largest row scale.
    pub scale_max: f32,
    /// Number of protected weights.
    pub protected: usize,
    /// `protected / (rows * cols)`.
    pub protected_fraction: f64,
    /// L2 norm of `w - decode(w)` at [`crate::Precision::Compute`], as stored.
    pub l2_error: f64,
    /// The same if no weight were protected.
    pub l2_error_unprotected: f64,
}

impl HybridMatrix {
    /// Quantizes a matrix whose rows `read` delivers.
    ///
    /// Shapes: `shape` is `(N, K)`. `read` is called for ranges of rows in rising order that cover the matrix,
    /// and once more for the same ranges if weights are to be protected.
    /// Numerics: see the module. Protected are the `floor(protected_fraction N K)` largest magnitudes, where
    /// magnitudes that agree in exponent and 8 bits of mantissa count as equal and the first in row-major order
    /// win; fewer only if there are fewer nonzero weights, or if one block of 256 columns would hold more
    /// than 255. The result does not depend on threads, instruction set or device.
    /// Errors: [`Error::NotFinite`], [`Error::ProtectedFraction`], those of `read` and of the device.
    /// Source: docs/ALGORITHM.md#hybrid-feature-quantizer.
    pub fn encode<E: From<Error>>(
        device: &dyn Device,
        shape: (usize, usize),
        format: HybridFormat,
        read: &mut ReadRows<'_, E>,
    ) -> Result<(Self, EncodeReport), E> {
        Self::encode_kept(device, shape, format, Kept::All, read)
    }

    /// The same, of which a process of a job keeps what it needs.
    ///
    /// Errors: as there.
    pub fn encode_kept<E: From<Error>>(
        device: &dyn Device,
        shape: (usize, usize),
        format: HybridFormat,
        kept: Kept,
        read: &mut ReadRows<'_, E>,
    ) -> Result<(Self, EncodeReport), E> {
        let host = device.host().map_err(Error::from)?;
        let mut encoder = Encoder::new(device, shape, format, kept)?;
        let Blocks { mut floats, mut q, mut residual, _reports } = encoder.blocks();
        if let Some(mut histogram) = encoder.histogram() {
            for rows in encoder.row_blocks() {
                let block = &mut floats[..rows.len() * shape.1];
                read(rows.clone(), block)?;
                encoder.check_finite(host, rows.start, block)?;
                encoder.rotate(host, block);
                histogram.add(host, block);
            }
            encoder.threshold = histogram.threshold();
        }
        for rows in encoder.row_blocks() {
            let block = &mut floats[..rows.len() * shape.1];
            read(rows.clone(), block)?;
            encoder.check_finite(host, rows.start, block)?;
            encoder.rotate(host, block);
            encoder.push(host, rows, block, (&mut q, &mut residual))?;
        }
        Ok(encoder.finish()?)
    }

    /// Allocates a matrix and whatever encoding it takes, without encoding: for memory plans.
    ///
    /// Errors: those of the device, [`Error::ProtectedFraction`].
    pub fn plan_encode(
        device: &dyn Device,
        shape: (usize, usize),
        format: HybridFormat,
        kept: Kept,
    ) -> Result<Self, Error> {
        let encoder = Encoder::new(device, shape, format, kept)?;
        let blocks = encoder.blocks();
        let histogram = encoder.histogram();
        drop((blocks, histogram));
        Ok(encoder.matrix)
    }
}

struct Rotate<'a>(&'a mut [f32]);

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        rotate(self.0);
    }
}

/// What encoding holds besides the matrix, whose size is known before. Positions of protected weights come to
/// it: some 30 bytes for each of those in one block of rows.
struct Blocks {
    floats: Transfer<f32>,
    q: Transfer<i8>,
    residual: Transfer<i8>,
    /// Reports and starts of all rows, which the encoder fills.
    _reports: Registration,
}

/// The second pass: takes blocks of rows, fills the device's planes.
struct Encoder<'a> {
    device: &'a dyn Device,
    matrix: HybridMatrix,
    threshold: select::Threshold,
    row_reports: Vec<EncodedRow>,
    row_start: Vec<u32>,
    candidates: Vec<Candidates>,
}

impl<'a> Encoder<'a> {
    fn new(
        device: &'a dyn Device,
        shape: (usize, usize),
        format: HybridFormat,
        kept: Kept,
    ) -> Result<Self, Error> {
        Ok(Self {
            device,
            matrix: HybridMatrix::alloc(device, shape, format, kept)?,
            threshold: select::Threshold { bin: u32::MAX, quota: 0 },
            row_reports: Vec::with_capacity(shape.0),
            row_start: vec![0],
            candidates: Vec::new(),
        })
    }

    fn rows_at_once(&self) -> usize {
        (BLOCK_FLOATS / self.matrix.cols().max(1)).clamp(1, self.matrix.rows().max(1))
    }

    fn row_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.matrix.rows(), self.rows_at_once());
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }

    fn blocks(&self) -> Blocks {
        let (rows, cols) = (self.rows_at_once(), self.matrix.cols());
        let row_bytes = self.matrix.format().residual.row_bytes(cols);
        let ledger = self.device.ledger();
        let report_bytes = self.matrix.rows() * (size_of::<EncodedRow>() + size_of::<u32>());
        Blocks {
            floats: Transfer::zeroed(ledger, "rows to encode", rows * cols),
            q: Transfer::zeroed(ledger, "encoded rows", rows * cols),
            residual: Transfer::zeroed(ledger, "encoded residuals", rows * row_bytes),
            _reports: ledger.register(Owner::Loading, "row reports", DType::U8, report_bytes),
        }
    }

    fn histogram(&self) -> Option<Histogram> {
        let protected = self.matrix.protected.as_ref()?;
        Some(Histogram::new(self.device.ledger(), protected.capacity()))
    }

    fn check_finite(&self, host: &Host, first_row: usize, block: &[f32]) -> Result<(), Error> {
        let (cols, isa) = (self.matrix.cols(), host.isa());
        let parts = block.par_chunks(1 << 14);
        if host.install(|| parts.all(|part| isa.run(AllFinite(part)))) {
            return Ok(());
        }
        match block.iter().position(|w| !w.is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::NotFinite {
                row: first_row + at / cols,
                col: at % cols,
                value: block[at],
            }),
        }
    }

    /// Rotates a block of rows, if the matrix is stored so.
    fn rotate(&self, host: &Host, block: &mut [f32]) {
        if self.matrix.format().rotated {
            let isa = host.isa();
            let rows = block.par_chunks_mut(self.matrix.cols());
            host.for_each(rows, |row| isa.run(Rotate(row)));
        }
    }

    /// Encodes a block of rows into `planes`, and uploads them.
    fn push(
        &mut self,
        host: &Host,
        rows: Range<usize>,
        block: &mut [f32],
        planes: (&mut [i8], &mut [i8]),
    ) -> Result<(), Error> {
        let (cols, isa, residual) = (self.matrix.cols(), host.isa(), self.matrix.format().residual);
        if cols == 0 {
            self.row_reports.resize(rows.end, EncodedRow::default());
            return Ok(());
        }
        let mut protected = self.protect(host, rows.len(), block);
        let least_range = self.threshold.least() / RANGE_BELOW_PROTECTED;
        let row_bytes = residual.row_bytes(cols);
        let (q, r) = (&mut planes.0[..block.len()], &mut planes.1[..rows.len() * row_bytes]);
        let mut r_rows: Vec<&mut [i8]> = match row_bytes {
            0 => (0..rows.len()).map(|_| Default::default()).collect(),
            _ => r.chunks_exact_mut(row_bytes).collect(),
        };
        let tasks = block
            .par_chunks_exact_mut(cols)
            .zip(q.par_chunks_exact_mut(cols))
            .zip(r_rows.par_iter_mut())
            .zip(protected.par_iter_mut())
            .map(|(((w, q), r), protected)| {
                isa.run(EncodeRow { residual, w, least_range, protected, q, r })
            });
        let reports: Vec<EncodedRow> = host.install(|| tasks.collect());
        self.row_reports.extend(reports);
        self.matrix.q.upload(self.device, rows.start * cols, q)?;
        let shard = self.matrix.residual_shard();
        if let Some(plane) = &mut self.matrix.residual {
            for piece in shard.pieces(rows.clone()) {
                let own =
                    (piece.start - rows.start) * row_bytes..(piece.end - rows.start) * row_bytes;
                plane.upload(self.device, shard.place(piece.start) * row_bytes, &r[own])?;
            }
        }
        self.push_protected(rows, &protected)
    }

    /// The protected columns of each row of the block; their values are not set yet.
    fn protect(&mut self, host: &Host, rows: usize, block: &[f32]) -> Vec<Vec<(usize, bf16)>> {
        if self.matrix.protected.is_none() {
            return vec![Vec::new(); rows];
        }
        let (isa, threshold) = (host.isa(), self.threshold);
        self.candidates.resize_with(rows, Candidates::default);
        let tasks = block.par_chunks_exact(self.matrix.cols()).zip(&mut self.candidates);
        host.for_each(tasks, |(row, into)| isa.run(Collect { row, threshold, into }));
        let quota = &mut self.threshold.quota;
        self.candidates
            .iter_mut()
            .map(|row| {
                row.settle(quota);
                row.columns().map(|col| (col, bf16::ZERO)).collect()
            })
            .collect()
    }

    fn push_protected(
        &mut self,
        rows: Range<usize>,
        protected: &[Vec<(usize, bf16)>],
    ) -> Result<(), Error> {
        let blocks = self.matrix.cols().div_ceil(BLOCK_COLS);
        let Some(stored) = &mut self.matrix.protected else { return Ok(()) };
        let mut counts = vec![0u8; rows.len() * blocks];
        let (mut values, mut cols) = (Vec::new(), Vec::new());
        let first = self.row_start[rows.start];
        for (row, counts) in protected.iter().zip(counts.chunks_exact_mut(blocks)) {
            for &(col, value) in row {
                counts[col / BLOCK_COLS] += 1;
                cols.push((col % BLOCK_COLS) as u8);
                values.push(value);
            }
            self.row_start.push(first + values.len() as u32);
        }
        stored.values.upload(self.device, first as usize, &values)?;
        stored.cols.upload(self.device, first as usize, &cols)?;
        stored.counts.upload(self.device, rows.start * blocks, &counts).map_err(Error::from)
    }

    fn finish(mut self) -> Result<(HybridMatrix, EncodeReport), Error> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let used = *self.row_start.last().unwrap_or(&0) as usize;
        if let Some(protected) = &mut self.matrix.protected {
            protected.row_start.upload(self.device, 0, &self.row_start)?;
        }
        let own = self.row_reports.iter().map(|row| row.scale).filter(|&scale| scale > 0.0);
        let (count, sum) = own.fold((0, 0.0), |(n, sum), s| (n + 1, sum + f64::from(s)));
        let empty = if count == 0 { EMPTY_SCALE } else { (sum / f64::from(count)) as f32 };
        let scales: Vec<f32> = (self.row_reports.iter())
            .map(|row| if row.scale > 0.0 { row.scale } else { empty })
            .collect();
        self.matrix.scale.upload(self.device, 0, &scales)?;
        let total: f64 = scales.iter().copied().map(f64::from).sum();
        let l2 =
            |part: fn(&EncodedRow) -> f64| self.row_reports.iter().map(part).sum::<f64>().sqrt();
        let report = EncodeReport {
            scale_min: scales.iter().copied().reduce(f32::min).unwrap_or(0.0),
            scale_mean: (total / rows.max(1) as f64) as f32,
            scale_max: scales.iter().copied().reduce(f32::max).unwrap_or(0.0),
            protected: used,
            protected_fraction: used as f64 / (rows * cols).max(1) as f64,
            l2_error: l2(|row| row.squared_error),
            l2_error_unprotected: l2(|row| row.squared_error_unprotected),
        };
        Ok((self.matrix, report))
    }
}
