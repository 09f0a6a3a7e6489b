//! Charts: curves as paths of SVG in a square of 1000 by 1000, which the page stretches to the place there is.

use super::scale::{Axis, Unit, text};
use crate::report::series::Series;
use serde::Serialize;
use std::fmt::Write;

/// A series of at most so many points is shown point by point.
const SPARSE: usize = 48;

/// Colours that the page has.
const COLOURS: usize = 8;

/// Width of the bell that noisy curves are smoothed by, as a part of their length.
const SMOOTHING: f64 = 0.035;

/// A chart.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    /// What the values count.
    unit: Unit,
    curves: Vec<Curve>,
}

/// What a chart is made of.
#[derive(Debug)]
pub(super) struct Sketch<'a> {
    pub(super) title: String,
    pub(super) unit: Unit,
    /// Whether the axis of values begins at zero.
    pub(super) from_zero: bool,
    pub(super) lines: Vec<Line<'a>>,
}

/// How a series is drawn. Few points are all marked, and never smoothed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As it is.
    Exact,
    /// Smoothed.
    Smooth,
    /// Smoothed, and what it was smoothed from is seen behind.
    Scattered,
}

/// A series in a chart.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub(super) name: String,
    /// The number of its colour.
    pub(super) colour: usize,
    pub(super) series: &'a Series,
    pub(super) style: Style,
}

/// A series as paths.
#[derive(Debug, Clone, Serialize)]
struct Curve {
    name: String,
    colour: usize,
    /// The value where the curve ends.
    last: String,
    /// The curve.
    path: String,
    /// The values that it was smoothed from.
    scatter: String,
    /// Between the smallest and the largest values, where neighbours were merged.
    band: String,
    /// The points of the curve, if they are few.
    dots: String,
}

impl Sketch<'_> {
    /// The chart; none without lines.
    pub(super) fn draw(self) -> Option<Chart> {
        if self.lines.is_empty() {
            return None;
        }
        let last = self.lines.iter().flat_map(|line| line.series.points()).map(|point| point.step);
        let x = Axis::of_steps(last.fold(0.0, f64::max));
        let shown = self.lines.iter().map(curve_of).collect::<Vec<_>>();
        let values = self.lines.iter().zip(&shown).flat_map(|(line, curve)| framed(line, curve));
        let y = Axis::of_values(values, self.unit, self.from_zero);
        let curves = self.lines.iter().zip(shown);
        let curves = curves.map(|(line, curve)| line.draw(&curve, (&x, &y), self.unit)).collect();
        Some(Chart { title: self.title, x, y, unit: self.unit, curves })
    }
}

fn is_sparse(series: &Series) -> bool {
    series.points().len() <= SPARSE
}

/// The points of the curve: all, or smoothed where they are many.
fn curve_of(line: &Line<'_>) -> Vec<(f64, f64)> {
    if is_sparse(line.series) || line.style == Style::Exact {
        return line.series.points().map(|point| (point.step, point.mean)).collect();
    }
    line.series.smooth(SMOOTHING)
}

/// The values that must be in the frame: the curve, and most of what scatters around it.
fn framed(line: &Line<'_>, curve: &[(f64, f64)]) -> Vec<f64> {
    let mut means: Vec<f64> = line.series.points().map(|point| point.mean).collect();
    means.sort_by(f64::total_cmp);
    let most = match line.style {
        Style::Exact => means,
        Style::Smooth => Vec::new(),
        Style::Scattered => means[means.len() / 50..means.len() - means.len() / 50].to_vec(),
    };
    most.into_iter().chain(curve.iter().map(|(_, value)| *value)).collect()
}

impl Line<'_> {
    fn draw(&self, curve: &[(f64, f64)], axes: (&Axis, &Axis), unit: Unit) -> Curve {
        let scattered = self.style == Style::Scattered && !is_sparse(self.series);
        let points = || self.series.points();
        let scatter = points().filter(|_| scattered).map(|point| (point.step, point.mean));
        let (mut band, is_whole) = (String::new(), self.series.is_whole());
        if scattered && !is_whole {
            let above: Vec<_> = points().map(|point| (point.step, point.max)).collect();
            let below = points().map(|point| (point.step, point.min)).collect::<Vec<_>>();
            band = path(above.into_iter().chain(below.into_iter().rev()), axes) + "Z";
        }
        Curve {
            name: self.name.clone(),
            colour: self.colour % COLOURS,
            last: text(curve.last().map_or(self.series.last, |(_, value)| *value), unit),
            path: path(curve.iter().copied(), axes),
            scatter: path(scatter, axes),
            band,
            dots: if is_sparse(self.series) { dots(curve, axes) } else { String::new() },
        }
    }
}

/// A path through points; y points down.
fn path(points: impl Iterator<Item = (f64, f64)>, (x, y): (&Axis, &Axis)) -> String {
    let mut out = String::new();
    let numbers = points.filter(|(_, value)| value.is_finite());
    for (i, (step, value)) in numbers.enumerate() {
        let (x, y) = (1000.0 * x.place(step), 1000.0 * (1.0 - y.place(value)));
        // A String takes everything.
        let _ = write!(out, "{}{x:.1} {y:.2}", if i == 0 { 'M' } else { 'L' });
    }
    out
}

/// Lines of no length at points, which round ends make dots.
fn dots(points: &[(f64, f64)], axes: (&Axis, &Axis)) -> String {
    points.iter().map(|point| path(std::iter::once(*point), axes) + "h0").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::new(0.0, values[0]);
        (1..values.len()).for_each(|i| series.push(i as f64, values[i]));
        series
    }

    fn chart(series: &Series, style: Style) -> Chart {
        let line = Line { name: "loss".into(), colour: 0, series, style };
        let lines = vec![line];
        Sketch { title: "Loss".into(), unit: Unit::Number, from_zero: true, lines }.draw().unwrap()
    }

    #[test]
    fn few_points_are_drawn_one_by_one() {
        let chart = chart(&series(&[0.0, 1.0, 2.0]), Style::Scattered);
        let curve = &chart.curves[0];
        assert_eq!(curve.path, "M0.0 1000.00L500.0 532.71L1000.0 65.42");
        assert_eq!(curve.dots, "M0.0 1000.00h0M500.0 532.71h0M1000.0 65.42h0");
        assert!(curve.scatter.is_empty() && curve.band.is_empty());
        assert_eq!(curve.last, "2");
    }

    #[test]
    fn many_points_are_smoothed_and_seen_behind() {
        let values: Vec<_> =
            (0..200).map(|i| if i == 50 { 1e6 } else { f64::from(i % 3) }).collect();
        let drawn = chart(&series(&values), Style::Scattered);
        let curve = &drawn.curves[0];
        assert!(curve.dots.is_empty() && curve.band.is_empty());
        assert_eq!(curve.scatter.matches('L').count(), 199);
        let long: Vec<_> = (0..5000).map(|i| f64::from(i % 3)).collect();
        let curve = &chart(&series(&long), Style::Scattered).curves[0];
        assert!(curve.band.ends_with('Z'));
        // What is exact is not smoothed.
        assert!(chart(&series(&values), Style::Exact).curves[0].scatter.is_empty());
    }

    #[test]
    fn nothing_is_no_chart() {
        let lines = Vec::new();
        let sketch = Sketch { title: String::new(), unit: Unit::Part, from_zero: false, lines };
        assert!(sketch.draw().is_none());
    }
}
