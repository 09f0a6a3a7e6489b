//! What INT8 states do to updates: some rows of each matrix beside a float shadow of their moments.
//!
//! The shadow is what the rule keeps, in f32, from the same gradients, beginning with the stored moments at the first update
//! that it sees. It knows the direction that each weight would take; what the weight did is read from its planes.

use super::TrainOps;
use super::optimizer::{StepNumbers, sink_error};
use crate::error::Result;
use qft_autograd::{Error as AutogradError, TensorId, Weight};
use qft_llama::model::Model;
use qft_llama::params::Param;
use qft_optim::rule::RuleStep;
use qft_optim::{MatrixState, Moment, Rule};
use qft_quant::{DecodeRows, HybridMatrix, Precision};
use qft_tensor::{Buffer, Owner, RotateRows};
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
}

/// The sampled rows of a matrix.
#[derive(Debug)]
struct Sampled {
    name: String,
    rows: Vec<usize>,
    /// f32 `[rows, 4, K]`: both moments, and the moving means of the gradient and of its square.
    shadow: Buffer<f32>,
    /// Whether the shadow has seen an update of the row.
    started: Vec<bool>,
    /// Updates of rows that were seen: of each row one a step, in any order.
    seen: usize,
    /// Sums of the weights of the moving means, and of their squares.
    weights: (f64, f64),
    /// Sums over elements of the last step: squares of the mean gradient, and mean squares.
    moments: (f64, f64),
    step: Counts,
    run: Counts,
}

/// What is counted of updates.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    directions: u64,
    agreed: u64,
    moved: f64,
    /// How far they were to move.
    wanted: f64,
    kept: u64,
    flipped: u64,
    rows: u64,
    grown: u64,
    /// Of the last update.
    weights: u64,
    saturated: u64,
}

/// A sampled row before its update.
#[derive(Debug)]
pub(super) struct RowBefore {
    index: usize,
    state: RowState,
    moments: [Vec<f32>; 2],
}

#[derive(Debug)]
struct RowState {
    q: Vec<i8>,
    scale: f32,
    /// Of the plain weights.
    values: Vec<f32>,
}

impl Diagnostics {
    /// Samples rows of all hybrid matrices of `model`, by `seed`.
    pub fn new(ops: &dyn TrainOps, model: &Model, rule: Rule, seed: u64) -> Result<Self> {
        let mut matrices = Vec::new();
        for param in model.params.as_ref().list() {
            matrices.push(match param {
                Param::Matrix(matrix) if matches!(matrix.weight, Weight::Hybrid(_)) => {
                    let rows = sample(seed, u64::from(matrix.id.0), matrix.rows());
                    let len = rows.len() * PLANES * matrix.cols();
                    Some(Sampled {
                        name: matrix.name.clone(),
                        shadow: Buffer::zeros(ops, Owner::Workspace, "diagnostics", len)?,
                        started: vec![false; rows.len()],
                        seen: 0,
                        rows,
                        weights: (0.0, 0.0),
                        moments: (0.0, 0.0),
                        step: Counts::default(),
                        run: Counts::default(),
                    })
                }
                _ => None,
            });
        }
        Ok(Self { rule, matrices })
    }

    /// The sampled rows of a matrix that are among `rows`, as they are before their update.
    pub(super) fn before(
        &self,
        ops: &dyn TrainOps,
        id: TensorId,
        (weight, moments): (&HybridMatrix, &MatrixState),
        rows: &Range<usize>,
    ) -> Result<Vec<RowBefore>, AutogradError> {
        let Some(sampled) = &self.matrices[id.0 as usize] else { return Ok(Vec::new()) };
        let within = sampled.rows.iter().enumerate().filter(|(_, row)| rows.contains(row));
        let before = |(index, &row)| {
            let (state, moments) = (row_of(ops, weight, row)?, moments_of(ops, moments, row)?);
            Ok(RowBefore { index, state, moments })
        };
        within.map(before).collect()
    }

    /// Compares the rows with what they have become by the update of a step from `grad`, the gradient of
    /// `rows` as the update has left it, that of the plain weights, times `grad_scale`.
    pub(super) fn after(
        &mut self,
        ops: &dyn TrainOps,
        (id, weight): (TensorId, &HybridMatrix),
        before: Vec<RowBefore>,
        (rows, grad): (Range<usize>, &Buffer<f32>),
        (grad_scale, numbers): (f32, StepNumbers),
    ) -> Result<(), AutogradError> {
        let Some(sampled) = &mut self.matrices[id.0 as usize] else { return Ok(()) };
        let cols = weight.cols();
        for before in before {
            let (index, row) = (before.index, sampled.rows[before.index]);
            let mut g = vec![0.0; cols];
            grad.download(ops, (row - rows.start) * cols, &mut g)?;
            g.iter_mut().for_each(|g| *g *= grad_scale);
            let mut shadow = vec![0.0; PLANES * cols];
            sampled.shadow.download(ops, index * PLANES * cols, &mut shadow)?;
            if !sampled.started[index] {
                shadow[..cols].copy_from_slice(&before.moments[0]);
                shadow[cols..2 * cols].copy_from_slice(&before.moments[1]);
                sampled.started[index] = true;
            }
            if sampled.seen.is_multiple_of(sampled.rows.len()) {
                sampled.begin_step(MEMORY);
            }
            sampled.seen += 1;
            let after = row_of(ops, weight, row)?;
            let (moments, means) = shadow.split_at_mut(2 * cols);
            let rule = self.rule.at(numbers.step);
            let step = (numbers.lr, self.rule.weight_decay());
            sampled.step.compare(rule, step, (&before, &after), &g, moments);
            let (square, mean_square) = advance(means, &g, MEMORY);
            let total = sampled.weights.0;
            sampled.moments.0 += square / (total * total);
            sampled.moments.1 += mean_square / total;
            sampled.shadow.upload(ops, index * PLANES * cols, &shadow)?;
        }
        Ok(())
    }

    /// The numbers of the step that was done, which is added to the run.
    pub fn take_step(&mut self) -> Diagnosis {
        let mut all = Counts::default();
        for sampled in self.matrices.iter_mut().flatten() {
            let step = std::mem::take(&mut sampled.step);
            all.add(&step);
            let Counts { weights, saturated, .. } = step;
            sampled.run.add(&step);
            (sampled.run.weights, sampled.run.saturated) = (weights, saturated);
        }
        all.diagnosis(self.middle_snr())
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
    /// Makes room for one more gradient in the moving means.
    fn begin_step(&mut self, decay: f32) {
        let (decay, new) = (f64::from(decay), 1.0 - f64::from(decay));
        self.weights = (decay * self.weights.0 + new, decay * decay * self.weights.1 + new * new);
        self.moments = (0.0, 0.0);
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

impl Counts {
    /// Counts a row; `moments` are those of the shadow, which move.
    fn compare(
        &mut self,
        rule: RuleStep,
        (lr, weight_decay): (f32, f32),
        (before, after): (&RowBefore, &RowState),
        g: &[f32],
        moments: &mut [f32],
    ) {
        let (m, v) = moments.split_at_mut(g.len());
        for (i, &g) in g.iter().enumerate() {
            let [mut stored_m, mut stored_v] = before.moments.each_ref().map(|moment| moment[i]);
            let stored = rule.advance([&mut stored_m, &mut stored_v], g);
            let wanted = rule.advance([&mut m[i], &mut v[i]], g);
            if wanted == 0.0 {
                continue;
            }
            self.directions += 1;
            self.agreed += u64::from(stored != 0.0 && (stored > 0.0) == (wanted > 0.0));
            let decay = weight_decay * before.state.values[i];
            let moved = before.state.values[i] - after.values[i] - lr * decay;
            self.moved += if lr > 0.0 { f64::from(moved * wanted / lr) } else { 0.0 };
            self.wanted += f64::from(wanted * wanted);
        }
        let grown = after.scale > before.state.scale;
        self.rows += 1;
        self.grown += u64::from(grown);
        if !grown {
            let pairs = before.state.q.iter().zip(&after.q);
            self.kept += after.q.len() as u64;
            self.flipped += pairs.filter(|(old, new)| old != new).count() as u64;
        }
        self.weights += after.q.len() as u64;
        self.saturated += after.q.iter().filter(|q| q.unsigned_abs() == 127).count() as u64;
    }

    fn add(&mut self, other: &Self) {
        self.directions += other.directions;
        self.agreed += other.agreed;
        self.moved += other.moved;
        self.wanted += other.wanted;
        self.kept += other.kept;
        self.flipped += other.flipped;
        self.rows += other.rows;
        self.grown += other.grown;
        self.weights += other.weights;
        self.saturated += other.saturated;
    }

    fn diagnosis(&self, gradient_snr: Option<f64>) -> Diagnosis {
        let part = |part: f64, whole: u64| part / whole.max(1) as f64;
        Diagnosis {
            sign_agreement: part(self.agreed as f64, self.directions),
            flip_rate: part(self.flipped as f64, self.kept),
            landed: if self.wanted > 0.0 { self.moved / self.wanted } else { 0.0 },
            saturated: part(self.saturated as f64, self.weights),
            grown_rows: part(self.grown as f64, self.rows),
            gradient_snr,
        }
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
                rows: vec![0],
                shadow: Buffer::zeros(&ops, Owner::Workspace, "diagnostics", 0).unwrap(),
                started: vec![true],
                seen: 0,
                weights: (0.0, 0.0),
                moments: (0.0, 0.0),
                step: Counts::default(),
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
                sampled.begin_step(0.9);
                let (square, mean_square) = advance(&mut shadow, &g, 0.9);
                let total = sampled.weights.0;
                sampled.moments = (square / (total * total), mean_square / total);
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
