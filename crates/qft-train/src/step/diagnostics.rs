//! What INT8 states do to updates: some rows of each matrix beside a float shadow of their moments.
//!
//! The shadow is what the rule keeps, in f32, from the same gradients, beginning with the stored moments at the first update
//! that it sees. It knows the direction that each weight would take; what the weight did is read from its planes.
//!
//! Each process of a job looks at the sampled rows that it owns. What they did comes together row by row at the end of a step,
//! and is added in the order of rows: the numbers are those of one process alone, to the last bit.

mod counts;

use self::counts::{Counts, RowUpdate};
use super::TrainOps;
use super::optimizer::{StepNumbers, sink_error};
use crate::error::Result;
use qft_autograd::{Error as AutogradError, TensorId, Weight};
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_optim::{MatrixState, Moment, Rule};
use qft_quant::{DecodeRows, HybridMatrix, Precision};
use qft_tensor::{Buffer, Communicator, Owner, RotateRows};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows of a matrix that are sampled.
const ROWS: usize = 4;

/// What is kept of each weight of a sampled row.
const PLANES: usize = 4;

/// How much of a moving mean over gradients one step keeps.
const MEMORY: f32 = 0.98;

/// Numbers of the sampled rows, of a step or of many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Fraction of the updates whose direction is that of the float shadow.
    pub sign_agreement: f64,
    /// Fraction of the updates that changed the INT8 digit of their weight, in rows whose scale stayed.
    pub flip_rate: f64,
    /// How far weights moved in the shadow's direction, as a fraction of what it asked for: 1 on average if nothing is
    /// lost.
    pub landed: f64,
    /// Fraction of the weights whose INT8 digit is -127 or 127, after the last update.
    pub saturated: f64,
    /// Fraction of the updated rows whose scale grew.
    pub grown_rows: f64,
    /// Signal-to-noise ratio of the gradient: the square of its mean over steps, by its variance between steps. Of more
    /// than one matrix, that of the one in the middle. Absent before the second step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_snr: Option<f64>,
}

/// The numbers of a whole run, and by matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiagnosticsReport {
    /// All matrices.
    pub all: Diagnosis,
    /// Each by its name.
    pub matrices: BTreeMap<String, Diagnosis>,
}

/// The sampled rows of a model.
#[derive(Debug)]
pub struct Diagnostics {
    rule: Rule,
    /// By tensor id; absent for what is not a hybrid matrix.
    matrices: Vec<Option<Sampled>>,
    /// What the step has done to each sampled row, matrix by matrix; of other processes' rows nothing until its end.
    step: Vec<RowUpdate>,
}

/// The sampled rows of a matrix.
#[derive(Debug)]
struct Sampled {
    name: String,
    /// Where its rows are among those of all matrices.
    places: Range<usize>,
    /// Those that this process updates.
    own: Vec<OwnRow>,
    /// f32 `[own rows, 4, K]`: both moments, and the moving means of the gradient and of its square.
    shadow: Buffer<f32>,
    /// Sums of the weights of the moving means, and of their squares.
    weights: (f64, f64),
    /// Sums over elements of the last step: squares of the mean gradient, and mean squares.
    moments: (f64, f64),
    run: Counts,
}

/// A sampled row that this process updates.
#[derive(Debug)]
struct OwnRow {
    row: usize,
    /// Where it is among those of all matrices.
    place: usize,
    /// Whether the shadow has seen an update of it.
    started: bool,
}

/// A sampled row before its update.
#[derive(Debug)]
pub(super) struct RowBefore {
    /// Its number among the rows that this process updates.
    index: usize,
    state: RowState,
    moments: [Vec<f32>; 2],
    /// Gradient of the plain weights.
    grad: Vec<f32>,
}

#[derive(Debug)]
struct RowState {
    q: Vec<i8>,
    scale: f32,
    /// Of the plain weights.
    values: Vec<f32>,
}

impl Diagnostics {
    /// Samples rows of all hybrid matrices of `model`, by `seed`, and looks at those that this process updates.
    ///
    /// Errors: those of the device.
    pub fn new(ops: &dyn TrainOps, model: &Model, rule: Rule, seed: u64) -> Result<Self> {
        let (mut matrices, mut count) = (Vec::new(), 0);
        for param in model.params.as_ref().list() {
            matrices.push(match param {
                Param::Matrix(matrix) if matches!(matrix.weight, Weight::Hybrid(_)) => {
                    let rows = sample(seed, u64::from(matrix.id.0), matrix.rows());
                    let places = count..count + rows.len();
                    count = places.end;
                    let shard = matrix.shard(ops.communicator());
                    let own: Vec<_> = (rows.into_iter().zip(places.clone()))
                        .filter(|(row, _)| shard.owns(&(*row..row + 1)))
                        .map(|(row, place)| OwnRow { row, place, started: false })
                        .collect();
                    let len = own.len() * PLANES * matrix.cols();
                    Some(Sampled {
                        name: matrix.name.clone(),
                        places,
                        own,
                        shadow: Buffer::zeros(ops, Owner::Workspace, "diagnostics", len)?,
                        weights: (0.0, 0.0),
                        moments: (0.0, 0.0),
                        run: Counts::default(),
                    })
                }
                _ => None,
            });
        }
        Ok(Self { rule, matrices, step: vec![RowUpdate::default(); count] })
    }

    /// The sampled rows of a matrix that are among `rows`, all of which this process owns, as they are before their update from
    /// `grad`, f32 `[_, K]` from row `first_row` on, as it is stored.
    pub(super) fn before(
        &self,
        ops: &dyn TrainOps,
        id: TensorId,
        (weight, moments): (&HybridMatrix, &MatrixState),
        rows: &Range<usize>,
        (first_row, grad): (usize, &Buffer<f32>),
    ) -> Result<Vec<RowBefore>, AutogradError> {
        let Some(sampled) = &self.matrices[id.0 as usize] else { return Ok(Vec::new()) };
        let within = sampled.own.iter().enumerate().filter(|(_, own)| rows.contains(&own.row));
        let before = |(index, &OwnRow { row, .. }): (usize, &OwnRow)| {
            let (state, moments) = (row_of(ops, weight, row)?, moments_of(ops, moments, row)?);
            let grad = gradient_of(ops, weight, grad, row - first_row)?;
            Ok(RowBefore { index, state, moments, grad })
        };
        within.map(before).collect()
    }

    /// Compares the rows with what they have become by the update of a step, which multiplied their gradients by `grad_scale`.
    pub(super) fn after(
        &mut self,
        ops: &dyn TrainOps,
        (id, weight): (TensorId, &HybridMatrix),
        before: Vec<RowBefore>,
        (grad_scale, numbers): (f32, StepNumbers),
    ) -> Result<(), AutogradError> {
        let Some(sampled) = &mut self.matrices[id.0 as usize] else { return Ok(()) };
        let cols = weight.cols();
        for before in before {
            let index = before.index;
            let OwnRow { row, place, started } = &mut sampled.own[index];
            let g: Vec<f32> = before.grad.iter().map(|g| g * grad_scale).collect();
            let mut shadow = vec![0.0; PLANES * cols];
            sampled.shadow.download(ops, index * PLANES * cols, &mut shadow)?;
            if !*started {
                shadow[..cols].copy_from_slice(&before.moments[0]);
                shadow[cols..2 * cols].copy_from_slice(&before.moments[1]);
                *started = true;
            }
            let after = row_of(ops, weight, *row)?;
            let (moments, means) = shadow.split_at_mut(2 * cols);
            let rule = self.rule.at(numbers.step);
            let step = (numbers.lr, self.rule.weight_decay());
            let update = &mut self.step[*place];
            update.counts.compare(rule, step, (&before, &after), &g, moments);
            (update.square, update.mean_square) = advance(means, &g, MEMORY);
            sampled.shadow.upload(ops, index * PLANES * cols, &shadow)?;
        }
        Ok(())
    }

    /// The numbers of the step that was done, which is added to the run. All processes call it after the same steps, and come
    /// to the same numbers.
    ///
    /// Errors: the job is lost.
    pub fn take_step(&mut self, processes: &dyn Communicator) -> Result<Diagnosis> {
        // All of another process's rows is zero here, bit by bit.
        processes.max(bytemuck::cast_slice_mut(&mut self.step))?;
        let mut all = Counts::default();
        for sampled in self.matrices.iter_mut().flatten() {
            all.add(&sampled.take(&self.step[sampled.places.clone()]));
        }
        self.step.fill(RowUpdate::default());
        Ok(all.diagnosis(self.middle_snr()))
    }

    /// The numbers of all steps that were taken.
    pub fn report(&self) -> DiagnosticsReport {
        let (mut all, mut matrices) = (Counts::default(), BTreeMap::new());
        for sampled in self.matrices.iter().flatten() {
            all.add(&sampled.run);
            matrices.insert(sampled.name.clone(), sampled.run.diagnosis(sampled.snr()));
        }
        DiagnosticsReport { all: all.diagnosis(self.middle_snr()), matrices }
    }

    fn middle_snr(&self) -> Option<f64> {
        let mut all: Vec<f64> = self.matrices.iter().flatten().filter_map(Sampled::snr).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

impl Sampled {
    /// Adds a step that has done this to the rows, and what it comes to.
    fn take(&mut self, rows: &[RowUpdate]) -> Counts {
        let (mut step, mut sums) = (Counts::default(), (0.0, 0.0));
        for row in rows {
            step.add(&row.counts);
            sums = (sums.0 + row.square, sums.1 + row.mean_square);
        }
        if step.rows > 0 {
            self.see(sums, MEMORY);
        }
        self.run.add(&step);
        (self.run.weights, self.run.saturated) = (step.weights, step.saturated);
        step
    }

    /// Takes over the moving means after one more gradient: sums of their squares, and of the mean squares.
    fn see(&mut self, (square, mean_square): (f64, f64), decay: f32) {
        let (decay, new) = (f64::from(decay), 1.0 - f64::from(decay));
        let total = decay * self.weights.0 + new;
        self.weights = (total, decay * decay * self.weights.1 + new * new);
        self.moments = (square / (total * total), mean_square / total);
    }

    /// With means over steps that are weighted by `w`, of sum 1 and of squares `a`: the square of the mean gradient is
    /// `mu^2 + a sigma^2` on average, and the mean square `mu^2 + sigma^2`. Solved for `mu^2 / sigma^2`, not below 0.
    fn snr(&self) -> Option<f64> {
        let (sum, squares) = self.weights;
        let a = squares / (sum * sum);
        let (square, mean_square) = self.moments;
        let (signal, noise) = (square - a * mean_square, mean_square - square);
        (a < 1.0 - 1e-9 && noise > 0.0).then(|| (signal / noise).max(0.0))
    }
}

/// Adds a gradient to the moving means; sums of the squared mean and of the mean square.
fn advance(means: &mut [f32], g: &[f32], decay: f32) -> (f64, f64) {
    let (means, squares) = means.split_at_mut(g.len());
    let mut sums = (0.0, 0.0);
    for (i, &g) in g.iter().enumerate() {
        let next = |old: f32, new: f32| decay * old + (1.0 - decay) * new;
        means[i] = next(means[i], g);
        squares[i] = next(squares[i], g * g);
        sums.0 += f64::from(means[i]).powi(2);
        sums.1 += f64::from(squares[i]);
    }
    sums
}

/// One row from each of [`ROWS`] equal parts of a matrix.
fn sample(seed: u64, tensor: u64, rows: usize) -> Vec<usize> {
    let mut state = seed ^ tensor.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let part = |i: usize| {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let (start, end) = (i * rows / ROWS, (i + 1) * rows / ROWS);
        (end > start).then(|| start + ((x ^ (x >> 31)) % (end - start) as u64) as usize)
    };
    (0..ROWS).filter_map(part).collect()
}

fn row_of(
    ops: &dyn TrainOps,
    weight: &HybridMatrix,
    row: usize,
) -> Result<RowState, AutogradError> {
    let cols = weight.cols();
    let (mut q, mut scale) = (vec![0; cols], [0.0]);
    weight.q.download(ops, row * cols, &mut q)?;
    weight.scale.download(ops, row, &mut scale)?;
    let mut decoded = Buffer::alloc(ops, Owner::Workspace, "sampled row", cols)?;
    let out = decoded.mat_mut(1, cols)?;
    ops.decode_rows(DecodeRows { weight, rows: row..row + 1, precision: Precision::Full, out })?;
    if weight.format().rotated {
        ops.rotate_rows(RotateRows { x: decoded.mat_mut(1, cols)? })?;
    }
    Ok(RowState { q, scale: scale[0], values: decoded.to_vec(ops)? })
}

/// Row `at` of a gradient as it is stored, f32 `[_, K]`, as that of the plain weights.
fn gradient_of(
    ops: &dyn TrainOps,
    weight: &HybridMatrix,
    grad: &Buffer<f32>,
    at: usize,
) -> Result<Vec<f32>, AutogradError> {
    let cols = weight.cols();
    let mut row = Buffer::alloc(ops, Owner::Workspace, "sampled gradient", cols)?;
    row.copy_from(ops, 0, grad, at * cols..(at + 1) * cols)?;
    if weight.format().rotated {
        ops.rotate_rows(RotateRows { x: row.mat_mut(1, cols)? })?;
    }
    Ok(row.to_vec(ops)?)
}

/// Both moments of a row; the second one is zero where there is none.
fn moments_of(
    ops: &dyn TrainOps,
    state: &MatrixState,
    row: usize,
) -> Result<[Vec<f32>; 2], AutogradError> {
    let value = |moment: &Moment| moment.row(ops, row).map_err(sink_error);
    let second = state.second.as_ref().map(value).transpose()?;
    Ok([value(&state.first)?, second.unwrap_or_else(|| vec![0.0; state.first.cols()])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_signal_to_noise_is_found() {
        // Gradients of mean 0.5 and variance 1 or none, and of mean 0: 0.25, endless, 0.
        let ops = qft_tensor::Planner::default();
        let ratio = |mean: f32, noise: f32| {
            let len = 4000;
            let mut sampled = Sampled {
                name: "w".into(),
                places: 0..1,
                own: Vec::new(),
                shadow: Buffer::zeros(&ops, Owner::Workspace, "diagnostics", 0).unwrap(),
                weights: (0.0, 0.0),
                moments: (0.0, 0.0),
                run: Counts::default(),
            };
            let mut shadow = vec![0.0; 2 * len];
            let mut state = 1u64;
            for _ in 0..30 {
                let mut coin = || {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    if state >> 63 == 0 { 1.0 } else { -1.0 }
                };
                let g: Vec<f32> = (0..len).map(|_| mean + noise * coin()).collect();
                sampled.see(advance(&mut shadow, &g, 0.9), 0.9);
            }
            sampled.snr()
        };
        assert!((ratio(0.5, 1.0).unwrap() - 0.25).abs() < 0.02, "{:?}", ratio(0.5, 1.0));
        assert!(ratio(0.0, 1.0).unwrap() < 0.01, "{:?}", ratio(0.0, 1.0));
        assert!(ratio(0.5, 0.01).unwrap() > 1000.0, "{:?}", ratio(0.5, 0.01));
    }

    #[test]
    fn rows_come_from_all_parts_and_are_the_same_for_a_seed() {
        for rows in [0, 1, 3, 4, 5, 1000] {
            let sampled = sample(7, 3, rows);
            assert_eq!(sampled, sample(7, 3, rows));
            assert_eq!(sampled.len(), rows.min(ROWS));
            assert!(sampled.is_sorted_by(|a, b| a < b) && sampled.iter().all(|&row| row < rows));
        }
        assert_ne!(sample(7, 3, 1000), sample(8, 3, 1000));
    }
}
