//! Whether a run fits into the memory there is, and what would.

use crate::machine::Machine;
use crate::options::choice::{ComputeKind, RecomputeChoice, States};
use crate::options::{OptimizerOptions, StateOptions};
use crate::plan::{MemoryPlan, StepShape, plan};
use anyhow::{Result, bail};
use clap::ValueEnum;
use qft_llama::LlamaConfig;
use qft_llama::pass::Recompute;

/// The shortest rows that are proposed.
const SHORTEST: usize = 64;

/// What a run would be.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The model.
    pub config: &'a LlamaConfig,
    /// How it is stored.
    pub state: StateOptions,
    /// How it is updated.
    pub optimizer: &'a OptimizerOptions,
    /// The data of a step.
    pub shape: StepShape,
}

/// The memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Free bytes, if the system says.
    pub free_bytes: Option<u64>,
    /// Bytes that a run takes beside its plan.
    pub overhead_bytes: u64,
}

impl Room {
    /// That of a machine, now.
    pub fn of(machine: &Machine) -> Self {
        Self { free_bytes: machine.available(), overhead_bytes: machine.overhead_bytes() }
    }
}

/// A plan, and the recomputation it is for.
#[derive(Debug)]
pub struct Choice {
    /// The memory.
    pub plan: MemoryPlan,
    /// What is recomputed.
    pub recompute: Recompute,
    /// All that the run takes.
    pub need_bytes: u64,
    /// How much of it is missing, if it does not fit. If the free memory is unknown, it does.
    pub missing_bytes: Option<u64>,
}

impl Choice {
    /// Whether that much memory is there.
    pub fn fits(&self) -> bool {
        self.missing_bytes.is_none()
    }
}

impl Wish<'_> {
    /// The first recomputation in the order of preference that fits, or else the last one.
    pub fn choose(&self, room: Room) -> Result<Choice> {
        let mut last = None;
        for &recompute in self.state.recompute_choices() {
            let plan =
                plan(self.config, &self.state.setup(self.optimizer, 0, recompute), self.shape)?;
            let need_bytes = plan.reserved_bytes + room.overhead_bytes;
            let missing = room.free_bytes.map_or(0, |free| need_bytes.saturating_sub(free));
            let choice = Choice {
                plan,
                recompute,
                need_bytes,
                missing_bytes: (missing > 0).then_some(missing),
            };
            if choice.fits() {
                return Ok(choice);
            }
            last = Some(choice);
        }
        match last {
            Some(choice) => Ok(choice),
            None => bail!("no recomputation to choose from"),
        }
    }

    /// What would fit, as text: fewer rows at a time, other states, and if nothing else helps shorter rows.
    pub fn proposals(&self, room: Room) -> Result<String> {
        let mut seq_len = self.shape.seq_len;
        loop {
            let lines = self.proposals_of(seq_len, room)?;
            if !lines.is_empty() {
                return Ok(lines.concat());
            }
            if seq_len <= SHORTEST {
                return Ok("  nothing of this model fits: choose a smaller one\n".to_owned());
            }
            seq_len = (seq_len / 2).max(SHORTEST);
        }
    }

    fn proposals_of(&self, seq_len: usize, room: Room) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let smaller = [States::Full, States::Balanced, States::Compact];
        for &states in std::iter::once(&self.state.states).chain(&smaller) {
            // The float reference has no INT8 options of its own to keep.
            let compute = match self.state.states {
                States::F32 if states.is_int8() => ComputeKind::Int8,
                _ => self.state.compute,
            };
            let recompute = RecomputeChoice::Auto;
            let state = StateOptions { states, compute, recompute, ..self.state };
            let mut batch_size = self.shape.batch_size;
            while batch_size > 0 {
                // Fewer sequences at a time, the same number a step.
                let accumulate = self.shape.accumulate * self.shape.batch_size.div_ceil(batch_size);
                let shape = StepShape { seq_len, batch_size, accumulate };
                let choice = Wish { state, shape, ..*self }.choose(room)?;
                if choice.fits() {
                    let line = self.line(states, shape, &choice);
                    if !found.contains(&line) {
                        found.push(line);
                    }
                    break;
                }
                batch_size /= 2;
            }
        }
        Ok(found)
    }

    /// A proposal, as options of the command line.
    fn line(&self, states: States, shape: StepShape, choice: &Choice) -> String {
        let name = states.to_possible_value().map_or(String::new(), |v| v.get_name().into());
        let StepShape { seq_len, batch_size, accumulate } = shape;
        let mut line = format!(
            "  would fit: --states {name} --batch-size {batch_size} --accumulate {accumulate}"
        );
        if seq_len != self.shape.seq_len {
            line += &format!(" --seq-len {seq_len}");
        }
        if self.state.recompute != RecomputeChoice::Auto {
            line += " --recompute auto";
        }
        line + &format!(" ({})\n", gb(choice.need_bytes))
    }
}

/// Bytes as people say them.
pub fn gb(bytes: u64) -> String {
    if bytes < 10_000_000 {
        return format!("{:.2} MB", bytes as f64 / 1e6);
    }
    if bytes < 1_000_000_000 {
        return format!("{:.0} MB", bytes as f64 / 1e6);
    }
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::choice::{GradientChoice, OptimizerKind};

    fn proposals(recompute: RecomputeChoice, shape: StepShape, free: u64) -> (Choice, String) {
        let config = LlamaConfig::preset("tinyllama-1.1b").unwrap();
        let optimizer = OptimizerOptions::for_plan(OptimizerKind::Lion);
        let state = StateOptions {
            states: States::Full,
            compute: ComputeKind::Int8,
            outliers: None,
            recompute,
            gradients: GradientChoice::Released,
            momentum_code: Default::default(),
            rounding: Default::default(),
        };
        let room = Room { free_bytes: Some(free), overhead_bytes: 50_000_000 };
        let wish = Wish { config: &config, state, optimizer: &optimizer, shape };
        let choice = wish.choose(room).unwrap();
        let text = wish.proposals(room).unwrap();
        (choice, text)
    }

    #[test]
    fn proposals_fit_and_say_what_to_change() {
        let shape = StepShape { seq_len: 2048, batch_size: 8, accumulate: 1 };
        let (choice, text) = proposals(RecomputeChoice::Auto, shape, 6_000_000_000);
        assert_eq!(choice.missing_bytes, Some(choice.need_bytes - 6_000_000_000));
        assert_eq!(choice.recompute, Recompute::Block);
        assert!(text.contains("--states full") && text.contains("--states compact"), "{text}");
        let same_rows = |line: &str| {
            let pairs = [(8, 1), (4, 2), (2, 4), (1, 8)];
            pairs.iter().any(|(b, a)| line.contains(&format!("--batch-size {b} --accumulate {a} ")))
        };
        assert!(text.lines().all(same_rows) && !text.contains("--recompute"), "{text}");

        // Who asked for no recomputation is told to let it be chosen.
        let (choice, text) = proposals(RecomputeChoice::None, shape, 6_000_000_000);
        assert!(!choice.fits());
        assert!(text.lines().all(|line| line.contains("--recompute auto")), "{text}");

        let long = StepShape { batch_size: 1, ..shape };
        let (_, text) = proposals(RecomputeChoice::Auto, long, 2_500_000_000);
        assert!(text.contains("--states compact") && text.contains("--seq-len"), "{text}");
        let (_, text) = proposals(RecomputeChoice::Auto, long, 1_000_000_000);
        assert!(text.contains("a smaller one"), "{text}");
    }
}
