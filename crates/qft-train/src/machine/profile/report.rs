//! The profile of steps: time and rates by phase, beside the rate that the machine could reach.

use super::{Phase, Profiled};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Time and work of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseTotal {
    /// The phase.
    pub phase: Phase,
    /// Its seconds.
    pub seconds: f64,
    /// Its multiplications and additions; 0 where they are not counted.
    pub operations: u64,
}

/// Where the time of some steps went.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Steps that were watched.
    pub steps: u64,
    /// Seconds of all of them.
    pub seconds: f64,
    /// The INT8 rate of the machine in 10⁹ operations per second, measured at the start; absent where it cannot be.
    pub peak_gops: Option<f64>,
    /// The rate of all products over the whole time, as a fraction of `peak_gops`.
    pub speed_of_light: Option<f64>,
    /// Time and work by phase.
    pub phases: Vec<PhaseTotal>,
}

impl Profile {
    /// Adds a step of `seconds`, of which `phases` are known.
    fn add(&mut self, seconds: f64, phases: &[PhaseTotal]) {
        self.steps += 1;
        self.seconds += seconds;
        if self.phases.is_empty() {
            self.phases = phases.to_vec();
        } else {
            for (sum, step) in self.phases.iter_mut().zip(phases) {
                sum.seconds += step.seconds;
                sum.operations += step.operations;
            }
        }
        let operations = self.phases.iter().map(|p| p.operations).sum();
        self.speed_of_light = self.peak_gops.map(|peak| gops(operations, self.seconds) / peak);
    }
}

fn gops(operations: u64, seconds: f64) -> f64 {
    operations as f64 * 1e-9 / seconds
}

/// A table in Markdown, per step.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.max(1) as f64;
        writeln!(f, "| phase | s per step | % | GOP/s | % of INT8 peak |\n|---|---|---|---|---|")?;
        let mut line = |name: &str, seconds: f64, operations: u64| {
            let percent = seconds / self.seconds * 100.0;
            write!(f, "| {name} | {:.4} | {percent:.1} | ", seconds / steps)?;
            let rate = gops(operations, seconds);
            match (operations, self.peak_gops) {
                (0, _) => writeln!(f, "| |"),
                (_, None) => writeln!(f, "{rate:.0} | |"),
                (_, Some(peak)) => writeln!(f, "{rate:.0} | {:.1} |", rate / peak * 100.0),
            }
        };
        let (mut known, mut operations) = (0.0, 0);
        for p in self.phases.iter().filter(|p| p.seconds > 0.0) {
            line(p.phase.name(), p.seconds, p.operations)?;
            known += p.seconds;
            operations += p.operations;
        }
        line("rest", self.seconds - known, 0)?;
        line("step", self.seconds, operations)
    }
}

/// Watches the steps of a run.
#[derive(Debug)]
pub struct StepClock {
    device: Arc<Profiled>,
    start: Instant,
    /// All steps until now.
    pub total: Profile,
}

impl StepClock {
    /// For steps on `device`, whose machine reaches `peak_gops`.
    pub fn new(device: Arc<Profiled>, peak_gops: Option<f64>) -> Self {
        Self { device, start: Instant::now(), total: Profile { peak_gops, ..Profile::default() } }
    }

    /// A step begins: what the device did since the last one does not count.
    pub fn begin(&mut self) {
        self.device.take();
        self.start = Instant::now();
    }

    /// The data of the step is ready.
    pub fn data_ready(&self) {
        self.device.add(Phase::Data, self.start.elapsed());
    }

    /// The step has ended; its own profile.
    pub fn end(&mut self) -> Profile {
        let seconds = self.start.elapsed().as_secs_f64();
        let phases = self.device.take();
        let mut step = Profile { peak_gops: self.total.peak_gops, ..Profile::default() };
        step.add(seconds, &phases);
        self.total.add(seconds, &phases);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(phase: Phase, seconds: f64, operations: u64) -> PhaseTotal {
        PhaseTotal { phase, seconds, operations }
    }

    #[test]
    fn a_table_of_two_steps() {
        let mut profile = Profile { peak_gops: Some(100.0), ..Profile::default() };
        for _ in 0..2 {
            let phases = [
                total(Phase::GemmForward, 0.5, 40_000_000_000),
                total(Phase::Update, 0.25, 0),
                total(Phase::Loss, 0.0, 0),
            ];
            profile.add(1.0, &phases);
        }
        assert_eq!((profile.steps, profile.seconds), (2, 2.0));
        assert!((profile.speed_of_light.unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(
            profile.to_string().lines().skip(2).collect::<Vec<_>>(),
            [
                "| gemm forward | 0.5000 | 50.0 | 80 | 80.0 |",
                "| update | 0.2500 | 25.0 | | |",
                "| rest | 0.2500 | 25.0 | | |",
                "| step | 1.0000 | 100.0 | 40 | 40.0 |",
            ]
        );
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
        assert!(text.contains("gemm-forward"), "{text}");
    }

    #[test]
    fn without_a_peak_there_is_no_speed_of_light() {
        let mut profile = Profile::default();
        profile.add(1.0, &[total(Phase::GemmForward, 0.5, 10_000_000_000)]);
        assert_eq!(profile.speed_of_light, None);
        assert!(profile.to_string().contains("| gemm forward | 0.5000 | 50.0 | 20 | |"));
    }
}
