//! Loss curves as SVG: the training loss, and how far it lies above that of FP32 Lion on the same sequences.

use super::report::lines::{Line, Lines};
use super::rows::{ADAMW, LION, MAIN};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Points of a curve: steps and a loss.
type Points = Vec<(f64, f64)>;

/// A curve and how it is drawn.
struct Curve<'a> {
    name: &'a str,
    points: Points,
    colour: RGBColor,
    /// With float products, a row has the colour of its INT8 row, pale and thin.
    pale: bool,
}

/// Colours that are told apart by all eyes (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws the rows of the main table, with their first seed; says whether there were any.
pub(super) fn draw(lines: &Lines<'_>, path: &Path) -> Result<bool> {
    let curves = curves(lines);
    if curves.is_empty() {
        return Ok(false);
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (900, 720)).into_drawing_area();
        let (above, below) = area.split_vertically(400);
        let told =
            |error: DrawingAreaErrorKind<_>| anyhow!("cannot draw {}: {error}", path.display());
        area.fill(&WHITE).map_err(told)?;
        panel(&above, "training loss, nats per token", &curves, true).map_err(told)?;
        panel(&below, "above FP32 Lion", &gaps(&curves), false).map_err(told)?;
        area.present().map_err(told)?;
    }
    std::fs::write(path, svg)?;
    Ok(true)
}

fn curves<'a>(lines: &Lines<'a>) -> Vec<Curve<'a>> {
    let mut colours: Vec<&str> = Vec::new();
    let mut curves = Vec::new();
    for line in MAIN.rows.iter().filter_map(|name| lines.row(name)) {
        let plain = line.name.strip_suffix("-float").unwrap_or(line.name);
        if !colours.contains(&plain) {
            colours.push(plain);
        }
        let place = colours.iter().position(|known| *known == plain).unwrap_or_default();
        curves.push(Curve {
            name: line.name,
            points: points(line),
            colour: COLOURS[place % COLOURS.len()],
            pale: plain != line.name,
        });
    }
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

fn points(line: &Line<'_>) -> Points {
    line.best().trained.curve.iter().map(|(step, loss)| (*step as f64, *loss)).collect()
}

/// Each curve less that of FP32 Lion, where both have a point. Without rows that are far from it by their nature, which
/// would leave the others one line.
fn gaps<'a>(curves: &[Curve<'a>]) -> Vec<Curve<'a>> {
    let Some(lion) = curves.iter().find(|curve| curve.name == LION) else { return Vec::new() };
    let of = |step: f64| lion.points.iter().find(|point| point.0 == step);
    let far = |name: &str| name == LION || name == ADAMW || name.contains("nearest");
    let others = curves.iter().filter(|curve| !far(curve.name));
    others
        .map(|curve| Curve {
            name: curve.name,
            points: (curve.points.iter())
                .filter_map(|(step, loss)| Some((*step, loss - of(*step)?.1)))
                .collect(),
            colour: curve.colour,
            pale: curve.pale,
        })
        .collect()
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    curves: &[Curve<'_>],
    with_names: bool,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (steps, losses) = (range(all().map(|p| p.0)), range(all().map(|p| p.1)));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(steps, losses)?;
    let mut mesh = chart.configure_mesh();
    mesh.label_style(("sans-serif", 13)).max_light_lines(1);
    mesh.x_desc("step").y_desc(title).draw()?;
    for curve in curves {
        let (strength, width) = if curve.pale { (0.55, 1) } else { (1.0, 2) };
        let style = ShapeStyle::from(curve.colour.mix(strength)).stroke_width(width);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], style));
    }
    if !with_names {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
}

/// From the smallest to the largest value; never empty.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let ends = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
    match values.fold((f64::INFINITY, f64::NEG_INFINITY), ends) {
        (low, high) if low < high => low..high,
        (low, high) if low == high => low - 0.5..high + 0.5,
        _ => 0.0..1.0,
    }
}
