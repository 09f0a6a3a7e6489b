//! What the processes of a job exchange in a step, before anything is loaded.

/// Bytes of a parameter's gradient as a whole number: as measured, and at most.
const GRADIENT_BYTES: (f64, f64) = (3.1, 4.0);

/// Bytes that an updated weight takes: where one in fifty has changed, and where it is sent as it is.
const UPDATE_BYTES: (f64, f64) = (0.2, 1.0);

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
        let bytes = |gradient: f64, update: f64| {
            (parameters as f64 * others * (gradient + update)).round() as u64
        };
        Self {
            typical_bytes: bytes(GRADIENT_BYTES.0, UPDATE_BYTES.0),
            most_bytes: bytes(GRADIENT_BYTES.1, UPDATE_BYTES.1),
        }
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
