//! Axes: from numbers to places, round numbers to mark, and numbers as text.

use crate::memory::gb;
use serde::Serialize;

/// With values that lie so far apart, equal distances are equal ratios.
const LOG_RATIO: f64 = 100.0;

/// And with such that lie farther apart than this, small ones are not told apart.
const LARGEST_RATIO: f64 = 1e9;

/// No value is taken for larger: the distance of two is a number.
const LARGEST: f64 = 1e300;

/// Marks of an axis that are aimed at.
const TICKS: f64 = 4.0;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unit {
    /// Anything.
    Number,
    /// What comes one by one.
    Count,
    /// A part of a whole, shown in percent.
    Part,
    /// Bytes.
    Bytes,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Whether equal distances are equal ratios.
    log: bool,
    ticks: Vec<Tick>,
}

/// A mark of an axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Tick {
    /// Its place in percent, from the low end.
    at: f64,
    label: String,
}

impl Axis {
    /// Of steps from 0 to `last`.
    pub(super) fn of_steps(last: f64) -> Self {
        let mut axis = Self { low: 0.0, high: last.max(1.0), log: false, ticks: Vec::new() };
        axis.mark(Unit::Count);
        axis
    }

    /// Of `values`, with some room around them, or from zero on.
    pub(super) fn of_values(
        values: impl Iterator<Item = f64>,
        unit: Unit,
        from_zero: bool,
    ) -> Self {
        let ends = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), ends);
        (low, high) = (low.max(-LARGEST), high.min(LARGEST));
        if low > high || (low == 0.0 && high == 0.0) {
            (low, high) = (0.0, 1.0);
        }
        let log = !from_zero && low > 0.0 && high / low >= LOG_RATIO;
        if log {
            (low, high) = (low.max(high / LARGEST_RATIO) / 1.2, high * 1.2);
        } else {
            let room = 0.07 * if high > low { high - low } else { high.abs() };
            let floor =
                if low >= 0.0 && (from_zero || low < 0.2 * high) { 0.0 } else { low - room };
            (low, high) = (floor, high + room);
        }
        let mut axis = Self { low, high, log, ticks: Vec::new() };
        axis.mark(unit);
        axis
    }

    /// The place of a value: 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        // Beyond the frame it is cut off there, so it need not be farther.
        place.clamp(-1.0, 2.0)
    }

    fn mark(&mut self, unit: Unit) {
        let values = if self.log { self.decades() } else { self.round_values(unit) };
        let ticks = values.into_iter().map(|(value, label)| Tick {
            at: (10_000.0 * self.place(value)).round() / 100.0,
            label,
        });
        self.ticks = ticks.collect();
    }

    fn decades(&self) -> Vec<(f64, String)> {
        let range = self.low.log10().ceil() as i32..=self.high.log10().floor() as i32;
        range.map(|power| (10f64.powi(power), number(10f64.powi(power)))).collect()
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn round_values(&self, unit: Unit) -> Vec<(f64, String)> {
        let part = if unit == Unit::Part { 100.0 } else { 1.0 };
        let (low, high) = (self.low * part, self.high * part);
        let rough = (high - low) / TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let step = if unit == Unit::Count { step.max(1.0) } else { step };
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let label = |value: f64| match unit {
            Unit::Bytes => gb(value as u64),
            Unit::Part => format!("{value:.decimals$} %"),
            Unit::Number | Unit::Count if high >= 1e4 => number(value),
            Unit::Number if high < 1e-2 => short_exponent(value),
            Unit::Number | Unit::Count => format!("{value:.decimals$}"),
        };
        let range = (low / step).ceil() as i64..=(high / step).floor() as i64;
        range.map(|i| (i as f64 * step / part, label(i as f64 * step))).collect()
    }
}

/// `5e-6`, without digits that say nothing.
fn short_exponent(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let text = format!("{value:.2e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A number for people: as many digits as say something, thousands as `12.3k`, millions as `4.5M`.
pub(super) fn number(value: f64) -> String {
    let with = |value: f64, suffix: &str| {
        let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") };
        format!("{}{suffix}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match value.abs() {
        size if size >= 1e9 => with(value / 1e9, "B"),
        size if size >= 1e6 => with(value / 1e6, "M"),
        size if size >= 1e4 => with(value / 1e3, "k"),
        size if size == size.round() => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.2}"),
        size if size >= 0.01 => format!("{value:.4}"),
        _ => short_exponent(value),
    }
}

/// A value of a unit for people.
pub(super) fn text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Number | Unit::Count => number(value),
        Unit::Part if value == 0.0 || value.abs() >= 0.001 => format!("{:.1} %", 100.0 * value),
        Unit::Part if value.abs() >= 1e-5 => format!("{:.3} %", 100.0 * value),
        Unit::Part => format!("{} %", short_exponent(100.0 * value)),
        Unit::Bytes => gb(value as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    fn axis(values: &[f64], unit: Unit, from_zero: bool) -> Axis {
        Axis::of_values(values.iter().copied(), unit, from_zero)
    }

    #[test]
    fn axes_have_a_few_round_marks() {
        assert_eq!(labels(&Axis::of_steps(300.0)), ["0", "100", "200", "300"]);
        assert_eq!(labels(&Axis::of_steps(0.0)), ["0", "1"]);
        assert_eq!(labels(&Axis::of_steps(3.0)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Axis::of_steps(40_000.0)), ["0", "10k", "20k", "30k", "40k"]);
        assert_eq!(labels(&axis(&[1.48, 1.63], Unit::Number, false)), ["1.50", "1.55", "1.60"]);
        assert_eq!(labels(&axis(&[0.0, 1e-5], Unit::Number, true)), ["0", "5e-6", "1e-5"]);
        assert_eq!(labels(&axis(&[0.41, 0.44], Unit::Part, true)), ["0 %", "20 %", "40 %"]);
        assert_eq!(
            labels(&axis(&[3e9], Unit::Bytes, true)),
            ["0.00 MB", "1.00 GB", "2.00 GB", "3.00 GB"]
        );
        assert_eq!(labels(&axis(&[0.05, 50.0], Unit::Number, false)), ["0.1000", "1", "10"]);
        for odd in [&[][..], &[2.0], &[0.0], &[-1.0, 1.0], &[1e308, -1e308], &[1e-320, 1e308]] {
            let axis = axis(odd, Unit::Number, false);
            assert!(odd.iter().all(|value| axis.place(*value).is_finite()), "{axis:?}");
            assert!(axis.high > axis.low && axis.ticks.len() < 12, "{axis:?}");
        }
    }

    #[test]
    fn places_run_from_end_to_end() {
        let linear = axis(&[0.0, 1.0], Unit::Number, true);
        assert_eq!(linear.place(0.0), 0.0);
        assert!((linear.place(1.0) - 1.0 / 1.07).abs() < 1e-12);
        let log = axis(&[1.0, 10_000.0], Unit::Number, false);
        assert!((log.place(100.0) - 0.5).abs() < 1e-12);
        assert_eq!((log.place(0.0), log.place(f64::INFINITY)), (-1.0, 2.0));
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (300.0, "300"),
            (1.495_63, "1.4956"),
            (12.345, "12.35"),
            (623_344.0, "623k"),
            (134_515_008.0, "135M"),
            (12_340.0, "12.3k"),
            (1e-5, "1e-5"),
            (9.238e-6, "9.24e-6"),
        ] {
            assert_eq!(number(value), expected);
        }
        assert_eq!(text(0.4567, Unit::Part), "45.7 %");
        assert_eq!(text(0.000_45, Unit::Part), "0.045 %");
        assert_eq!(text(0.000_001_2, Unit::Part), "1.2e-4 %");
    }
}
