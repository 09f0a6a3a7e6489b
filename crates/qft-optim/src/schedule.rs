//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// The shape of a schedule after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to the floor.
    Linear,
    /// Falls to the floor along half a cosine.
    #[default]
    Cosine,
    /// Warm-up, stable, decay: stays at the peak, and falls to the floor at the end.
    Wsd,
}

/// Learning rate as a function of the step; defined for every step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The shape.
    pub kind: ScheduleKind,
    /// The largest learning rate.
    pub peak: f64,
    /// The floor, as a fraction of the peak.
    pub floor: f64,
    /// Steps of linear rise: step 0 has `peak / warmup`, step `warmup` has the peak.
    pub warmup: u64,
    /// Steps of the fall at the end of [`ScheduleKind::Wsd`]; no more count than there are after the warm-up.
    pub decay: u64,
    /// Steps of the run; the floor is reached at this step and kept.
    pub total: u64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let fraction = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - done,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            ScheduleKind::Wsd => {
                let decay = self.decay.clamp(1, span);
                let fallen =
                    (step - self.warmup).saturating_sub(span - decay) as f64 / decay as f64;
                1.0 - fallen.min(1.0).sqrt()
            }
        };
        self.peak * (self.floor + (1.0 - self.floor) * fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_on_every_step() {
        let at = |kind, floor, step| {
            Schedule { kind, peak: 1.0, floor, warmup: 10, decay: 20, total: 110 }.lr(step)
        };
        use ScheduleKind::{Constant, Cosine, Linear, Wsd};
        for kind in [Constant, Linear, Cosine, Wsd] {
            assert_eq!(at(kind, 0.1, 0), 0.1, "{kind:?}");
            assert_eq!(at(kind, 0.1, 9), 1.0, "{kind:?}");
            assert_eq!(at(kind, 0.1, 10), 1.0, "{kind:?}");
            let end = if kind == ScheduleKind::Constant { 1.0 } else { 0.1 };
            for step in [110, 111, u64::MAX] {
                assert!((at(kind, 0.1, step) - end).abs() < 1e-12, "{kind:?} {step}");
            }
        }
        assert!((at(ScheduleKind::Linear, 0.0, 60) - 0.5).abs() < 1e-12);
        assert!((at(ScheduleKind::Cosine, 0.0, 60) - 0.5).abs() < 1e-12);
        for step in 10..=90 {
            assert_eq!(at(Wsd, 0.0, step), 1.0, "{step}");
        }
        assert_eq!((at(Wsd, 0.0, 95), at(Wsd, 0.1, 95)), (0.5, 0.55));
    }

    #[test]
    fn degenerate_lengths_are_defined() {
        for (warmup, total) in [(0, 0), (0, 1), (5, 5), (7, 5)] {
            for (kind, decay) in
                [(ScheduleKind::Cosine, 0), (ScheduleKind::Wsd, 0), (ScheduleKind::Wsd, 99)]
            {
                let schedule = Schedule { kind, peak: 1.0, floor: 0.0, warmup, decay, total };
                for step in 0..10 {
                    let lr = schedule.lr(step);
                    assert!((0.0..=1.0).contains(&lr), "{kind:?} {warmup} {decay} {total} {step}");
                }
            }
        }
    }
}
