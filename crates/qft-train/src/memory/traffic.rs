//! What the processes of a job exchange in a step, before anything is loaded.

/// Bytes of a parameter, its gradient to the owner and its update from there: as measured on SmolLM2-135M in `full`.
const TYPICAL_BYTES: f64 = 3.3;

/// The same where nothing can be packed: a whole number, and the INT8 weight as it is.
const MOST_BYTES: f64 = 5.0;

/// Bytes that each process sends to others in a step, and receives from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTraffic {
    /// About as many.
    pub typical_bytes: u64,
    /// No more than these, but for what is small beside them.
    pub most_bytes: u64,
}

impl StepTraffic {
    /// Of each of `ranks` processes that train so many parameters in INT8; nothing where one is alone.
    pub fn of(parameters: u64, ranks: usize) -> Self {
        let others = (ranks.max(1) - 1) as f64 / ranks.max(1) as f64;
        let bytes = |of_each: f64| (parameters as f64 * others * of_each).round() as u64;
        Self { typical_bytes: bytes(TYPICAL_BYTES), most_bytes: bytes(MOST_BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_exchanges_nothing_and_each_more_a_little_more() {
        assert_eq!(StepTraffic::of(1_000_000, 1), StepTraffic { typical_bytes: 0, most_bytes: 0 });
        let two = StepTraffic::of(1_000_000, 2);
        assert_eq!(two, StepTraffic { typical_bytes: 1_650_000, most_bytes: 2_500_000 });
        assert_eq!(StepTraffic::of(1_000_000, 4).most_bytes, 3_750_000);
    }
}
