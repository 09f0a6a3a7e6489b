//! Means and spreads of a few numbers.

/// A mean, and how far the numbers lie from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) mean: f64,
    /// Sample standard deviation; absent of a single number.
    pub(super) deviation: Option<f64>,
}

impl Estimate {
    /// Of all `values`; absent if there are none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<_> = values.into_iter().collect();
        let n = values.len() as f64;
        let mean = (n > 0.0).then(|| values.iter().sum::<f64>() / n)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (n > 1.0).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { mean, deviation })
    }

    /// With `digits` decimals; a gap has its sign.
    pub(super) fn show(self, digits: usize, gap: bool) -> String {
        let nothing = self.mean.abs() < 0.5 * 0.1f64.powi(digits as i32);
        let mean = if nothing { 0.0 } else { self.mean };
        let mean = match gap {
            true => format!("{mean:+.digits$}"),
            false => format!("{mean:.digits$}"),
        };
        match self.deviation {
            Some(deviation) => format!("{mean} ± {deviation:.digits$}"),
            None => mean,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        assert_eq!(Estimate::of([]), None);
        assert_eq!(Estimate::of([2.0]).unwrap().show(2, false), "2.00");
        assert_eq!(Estimate::of([1.0, 3.0]).unwrap().show(3, false), "2.000 ± 1.414");
        assert_eq!(Estimate::of([0.25]).unwrap().show(1, true), "+0.2");
        assert_eq!(Estimate::of([-0.0004]).unwrap().show(3, true), "+0.000");
    }
}
