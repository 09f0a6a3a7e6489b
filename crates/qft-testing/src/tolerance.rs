//! Named bounds on errors.

/// Unit roundoff of f32: the largest relative error of one operation.
pub const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// A bound on the error of each element: `absolute + relative * |want|`.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Why errors of this size, and no larger ones, are expected.
    pub reason: &'static str,
    /// Part that does not depend on the value.
    pub absolute: f64,
    /// Part in proportion to the value.
    pub relative: f64,
}

impl Tolerance {
    /// A tolerance of `units` f32 roundings of values of size `scale`.
    pub fn roundings(reason: &'static str, units: f64, scale: f64) -> Self {
        Self { reason, absolute: units * UNIT * scale, relative: 0.0 }
    }

    /// Compares; otherwise names the worst element and how many others are off.
    pub fn check(
        &self,
        what: &str,
        got: &[impl Into<f64> + Copy],
        want: &[f64],
    ) -> Result<(), String> {
        if got.len() != want.len() {
            return Err(format!("{what}: {} elements, expected {}", got.len(), want.len()));
        }
        let mut off = 0;
        let mut worst = (0.0, 0);
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            let error = (got.into() - want).abs();
            let share = match error {
                0.0 => 0.0,
                // NaN is infinitely wrong.
                error if error.is_nan() => f64::INFINITY,
                error => error / (self.absolute + self.relative * want.abs()),
            };
            off += usize::from(share > 1.0);
            if share > worst.0 {
                worst = (share, i);
            }
        }
        if off == 0 {
            return Ok(());
        }
        let (share, i) = worst;
        Err(format!(
            "{what}: {off} of {} elements are off; the worst, [{i}], is {} instead of {}, {share:.2} times the \
             tolerance ({})",
            got.len(),
            got[i].into(),
            want[i],
            self.reason
        ))
    }

    /// Panics unless all elements are within the bound.
    #[track_caller]
    pub fn assert(&self, what: &str, got: &[impl Into<f64> + Copy], want: &[f64]) {
        if let Err(message) = self.check(what, got, want) {
            panic!("{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_off() {
        let tolerance = Tolerance { reason: "test", absolute: 0.1, relative: 0.0 };
        assert!(tolerance.check("same", &[1.0f32, 2.0], &[1.05, 1.95]).is_ok());
        assert!(tolerance.check("off", &[1.0f32, 2.0], &[1.0, 2.2]).is_err());
        assert!(tolerance.check("nan", &[f32::NAN], &[0.0]).is_err());
        assert!(tolerance.check("length", &[0.0f32], &[0.0, 0.0]).is_err());
        let exact = Tolerance { reason: "moved", absolute: 0.0, relative: 0.0 };
        assert!(exact.check("inf", &[f32::INFINITY], &[0.0]).is_err());
    }
}
