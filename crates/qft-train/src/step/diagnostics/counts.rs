//! What an update does to a sampled row, in numbers that can be added.

use super::{Diagnosis, RowBefore, RowState};
use bytemuck::{Pod, Zeroable};
use qft_optim::rule::RuleStep;

/// What a step did to a sampled row.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct RowUpdate {
    pub(super) counts: Counts,
    /// Sum of the squares of the moving means of its gradient.
    pub(super) square: f64,
    /// Sum of the moving means of the squares.
    pub(super) mean_square: f64,
}

/// What is counted of updates.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Counts {
    directions: u64,
    agreed: u64,
    moved: f64,
    /// How far they were to move.
    wanted: f64,
    kept: u64,
    flipped: u64,
    pub(super) rows: u64,
    grown: u64,
    /// Of the last update.
    pub(super) weights: u64,
    pub(super) saturated: u64,
}

impl Counts {
    /// Counts a row; `moments` are those of the shadow, which move.
    pub(super) fn compare(
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

    pub(super) fn add(&mut self, other: &Self) {
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

    pub(super) fn diagnosis(&self, gradient_snr: Option<f64>) -> Diagnosis {
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
