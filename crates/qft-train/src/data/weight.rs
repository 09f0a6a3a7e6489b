//! How often data is taken.

use serde::{Deserialize, Serialize};

/// How often sequences are taken in each pass, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(u32);

impl Weight {
    /// Once.
    pub const ONCE: Self = Self(1000);

    /// This many times; absent if that is not above zero, or has more than three decimals.
    pub fn of(times: f64) -> Option<Self> {
        let thousandths = (times * 1000.0).round();
        let exact = (thousandths / 1000.0 - times).abs() < 1e-9;
        let within = (1.0..=f64::from(u32::MAX)).contains(&thousandths);
        (exact && within).then_some(Self(thousandths as u32))
    }

    /// How many of `sequences` have been taken before the pass `pass`, counted from 0.
    pub(super) fn taken(self, sequences: usize, pass: u64) -> u64 {
        let taken = u128::from(pass) * u128::from(self.0) * sequences as u128 / 1000;
        u64::try_from(taken).unwrap_or(u64::MAX)
    }

    /// How often.
    pub fn times(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_three_decimals() {
        for (times, thousandths) in [(1.0, 1000), (0.001, 1), (2.5, 2500), (0.1 + 0.2, 300)] {
            assert_eq!(Weight::of(times), Some(Weight(thousandths)));
        }
        for wrong in [0.0, -1.0, 0.0005, 1.00005, f64::NAN, f64::INFINITY, 1e9] {
            assert_eq!(Weight::of(wrong), None);
        }
    }

    #[test]
    fn a_fraction_takes_all_in_the_end() {
        let weight = Weight::of(0.3).unwrap();
        let taken: Vec<u64> = (0..5).map(|pass| weight.taken(7, pass)).collect();
        assert_eq!(taken, [0, 2, 4, 6, 8]);
        assert_eq!(weight.taken(7, 10), 21);
    }
}
