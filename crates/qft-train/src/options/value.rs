//! How values are read that the option parser does not know by itself.

use std::str::FromStr;

/// A number that is neither infinite nor NaN.
pub(super) fn number<T: FromStr + Copy + Into<f64>>(text: &str) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(value) if value.into().is_finite() => Ok(value),
        _ => Err("expected a finite number".into()),
    }
}

/// A whole number that is not negative.
pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number that is not negative".into())
}

/// The number that an f32 is written as: 0.95, and not the f64 next to it.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
