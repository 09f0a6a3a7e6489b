//! Whether a run fits into the memory there is, and what would.

use super::bytes::gb;
use super::plan::{MemoryPlan, RunShape, StepShape, plan};
use crate::error::{Result, bail, ensure};
use crate::machine::Machine;
use crate::options::{OptimizerKind, OptimizerOptions, RecomputeChoice, StateOptions, States};
use qft_autograd::Products;
use qft_llama::LlamaConfig;
use qft_llama::pass::Recompute;
use qft_tensor::{MAX_MICRO_BATCHES, MemoryReport};

/// More than any machine has, where it does not say.
const MOST_BYTES: u64 = 1 << 44;

/// The shortest sequences that are proposed.
const SHORTEST: usize = 64;

/// What a run would be.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The model.
    pub config: &'a LlamaConfig,
    /// How it is stored.
    pub state: StateOptions,
    /// How it is updated.
    pub optimizer: &'a OptimizerOptions,
    /// What it does.
    pub shape: RunShape,
}

/// The memory that a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Free bytes, if the system says.
    pub free_bytes: Option<u64>,
    /// Bytes that a run takes beside its plan.
    pub overhead_bytes: u64,
}

impl Budget {
    /// What is free on a machine now, or what its options allow.
    pub fn of(machine: &Machine) -> Self {
        Self { free_bytes: machine.free_bytes(), overhead_bytes: machine.overhead_bytes() }
    }
}

/// A plan, and the recomputation it is for.
#[derive(Debug)]
pub struct Fit {
    /// The memory.
    pub plan: MemoryPlan,
    /// What is recomputed.
    pub recompute: Recompute,
    /// All that the run takes.
    pub need_bytes: u64,
    /// How much of it is missing, if it does not fit. If the free memory is unknown, it does.
    pub missing_bytes: Option<u64>,
}

impl Fit {
    /// Whether that much memory is there.
    pub fn fits(&self) -> bool {
        self.missing_bytes.is_none()
    }
}

impl Fit {
    /// What the plan would need if something else followed once all of it is given back.
    pub fn need_with(&self, other: &MemoryReport) -> u64 {
        let more = other.peak_reserved_bytes.saturating_sub(self.plan.reserved_bytes);
        self.need_bytes + more
    }
}

impl Request<'_> {
    /// The first recomputation in the order of preference that fits, or else the last one.
    ///
    /// Errors: a step of more tokens than could be planned, let alone trained on.
    pub fn fit(&self, budget: Budget) -> Result<Fit> {
        self.check_tokens(budget)?;
        let mut last = None;
        for &recompute in self.state.recompute.candidates() {
            let plan =
                plan(self.config, &self.state.setup(self.optimizer, 0, recompute), self.shape)?;
            let need_bytes = plan.reserved_bytes + budget.overhead_bytes;
            let missing = budget.free_bytes.map_or(0, |free| need_bytes.saturating_sub(free));
            let fit = Fit {
                plan,
                recompute,
                need_bytes,
                missing_bytes: (missing > 0).then_some(missing),
            };
            if fit.fits() {
                return Ok(fit);
            }
            last = Some(fit);
        }
        match last {
            Some(fit) => Ok(fit),
            None => bail!("no recomputation to choose from"),
        }
    }

    /// A plan holds the token ids of a step as the run does: a slip of the keyboard must not fill the memory with them.
    fn check_tokens(&self, budget: Budget) -> Result<()> {
        let StepShape { seq_len, batch_size, accumulate } = self.shape.step;
        let tokens = (seq_len * batch_size * accumulate) as u64;
        // Each leaves its residual stream at one block at least, in two bytes a channel.
        let least = tokens.saturating_mul(2 * self.config.hidden_size as u64);
        let free = budget.free_bytes.unwrap_or(u64::MAX).min(MOST_BYTES);
        ensure!(
            least <= free,
            "--batch-size {batch_size} with --accumulate {accumulate} and sequences of {seq_len} tokens: {tokens} \
             tokens in a step need more than {}, and {} may be used; make one of them smaller",
            gb(least),
            gb(free)
        );
        Ok(())
    }

    /// What would fit, as text: fewer sequences at a time, other states, and if nothing else helps shorter sequences.
    pub fn proposals(&self, budget: Budget) -> Result<String> {
        if budget.free_bytes.is_some_and(|free| free <= budget.overhead_bytes) {
            let own = gb(budget.overhead_bytes);
            return Ok(format!("  the program itself takes {own}: give it more memory\n"));
        }
        let mut seq_len = self.shape.step.seq_len;
        loop {
            let lines = self.proposals_of(seq_len, budget)?;
            if !lines.is_empty() {
                return Ok(lines.concat());
            }
            if seq_len <= SHORTEST {
                return Ok(
                    "  this model does not fit in any configuration: choose a smaller one\n"
                        .to_owned(),
                );
            }
            seq_len = (seq_len / 2).max(SHORTEST);
        }
    }

    fn proposals_of(&self, seq_len: usize, budget: Budget) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for &states in std::iter::once(&self.state.states).chain(&States::SMALLER) {
            if states == States::Tiny && self.optimizer.kind != OptimizerKind::Lion {
                continue;
            }
            // The float reference has no INT8 options of its own to keep.
            let compute = match self.state.states {
                States::F32 if states.is_int8() => Products::INT8,
                _ => self.state.compute,
            };
            let recompute = RecomputeChoice::Auto;
            let state = StateOptions { states, compute, recompute, ..self.state };
            let mut batch_size = self.shape.step.batch_size;
            while batch_size > 0 {
                // Fewer sequences at a time, the same number a step.
                let StepShape { batch_size: asked, accumulate, .. } = self.shape.step;
                let accumulate = accumulate * asked.div_ceil(batch_size);
                if accumulate > MAX_MICRO_BATCHES {
                    break;
                }
                let shape = StepShape { seq_len, batch_size, accumulate };
                let evaluated = self.shape.evaluated.map(|tokens| tokens.min(seq_len));
                let run = RunShape { step: shape, evaluated, ..self.shape };
                let fit = Request { state, shape: run, ..*self }.fit(budget)?;
                if fit.fits() {
                    let line = self.line(states, shape, &fit);
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
    fn line(&self, states: States, shape: StepShape, fit: &Fit) -> String {
        let StepShape { seq_len, batch_size, accumulate } = shape;
        let mut line = format!(
            "  would fit: --states {states} --batch-size {batch_size} --accumulate {accumulate}"
        );
        if seq_len != self.shape.step.seq_len {
            line += &format!(" --seq-len {seq_len}");
        }
        if self.state.recompute != RecomputeChoice::Auto {
            line += " --recompute auto";
        }
        line + &format!(" ({})\n", gb(fit.need_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::GradientMode;

    fn proposals(recompute: RecomputeChoice, shape: StepShape, free: u64) -> (Fit, String) {
        let config = LlamaConfig::preset("tinyllama-1.1b").unwrap();
        let optimizer = OptimizerOptions::for_plan(OptimizerKind::Lion);
        let state = StateOptions {
            states: States::Full,
            compute: Products::INT8,
            protected: None,
            rotation: true,
            recompute,
            gradients: GradientMode::Released,
            momentum_code: None,
            rounding: Default::default(),
        };
        let budget = Budget { free_bytes: Some(free), overhead_bytes: 50_000_000 };
        let shape = shape.into();
        let request = Request { config: &config, state, optimizer: &optimizer, shape };
        let fit = request.fit(budget).unwrap();
        let text = request.proposals(budget).unwrap();
        (fit, text)
    }

    #[test]
    fn proposals_fit_and_say_what_to_change() {
        let shape = StepShape { seq_len: 2048, batch_size: 8, accumulate: 1 };
        let (fit, text) = proposals(RecomputeChoice::Auto, shape, 6_000_000_000);
        assert_eq!(fit.missing_bytes, Some(fit.need_bytes - 6_000_000_000));
        assert_eq!(fit.recompute, Recompute::Block);
        assert!(text.contains("--states full") && text.contains("--states compact"), "{text}");
        let same_rows = |line: &str| {
            let pairs = [(8, 1), (4, 2), (2, 4), (1, 8)];
            pairs.iter().any(|(b, a)| line.contains(&format!("--batch-size {b} --accumulate {a} ")))
        };
        assert!(text.lines().all(same_rows) && !text.contains("--recompute"), "{text}");

        // Who asked for no recomputation is told to let it be chosen.
        let (fit, text) = proposals(RecomputeChoice::None, shape, 6_000_000_000);
        assert!(!fit.fits());
        assert!(text.lines().all(|line| line.contains("--recompute auto")), "{text}");

        let long = StepShape { batch_size: 1, ..shape };
        let (_, text) = proposals(RecomputeChoice::Auto, long, 2_500_000_000);
        assert!(text.contains("--states tiny") && !text.contains("--seq-len"), "{text}");
        let (_, text) = proposals(RecomputeChoice::Auto, long, 2_200_000_000);
        assert!(text.contains("--states tiny") && text.contains("--seq-len"), "{text}");
        let (_, text) = proposals(RecomputeChoice::Auto, long, 1_000_000_000);
        assert!(text.contains("a smaller one"), "{text}");
    }
}
