//! The numbers of a run as charts: those that are known by their names and units, and any other by its key.

use super::chart::{Chart, Line, Sketch, Style};
use super::scale::Unit;
use crate::report::history::History;
use crate::report::series::Series;

/// What is known of a number.
struct Known {
    key: &'static str,
    title: &'static str,
    unit: Unit,
    from_zero: bool,
    style: Style,
}

const fn known(key: &'static str, title: &'static str, unit: Unit) -> Known {
    Known { key, title, unit, from_zero: true, style: Style::Scattered }
}

const KNOWN: [Known; 16] = [
    Known { style: Style::Exact, ..known("lr", "Learning rate", Unit::Number) },
    Known { from_zero: false, ..known("grad_norm", "Norm of the gradient", Unit::Number) },
    Known { from_zero: false, ..known("accuracy", "Accuracy in training", Unit::Part) },
    Known {
        from_zero: false,
        style: Style::Exact,
        ..known("eval_accuracy", "Accuracy on held-out data", Unit::Part)
    },
    known("positions_per_second", "Tokens per second", Unit::Number),
    known("speed_of_light", "Share of the machine’s INT8 rate", Unit::Part),
    Known { style: Style::Exact, ..known("peak_bytes", "Memory at the peak", Unit::Bytes) },
    known("rescaled_rows", "Rows given a larger scale in a step", Unit::Number),
    known("answers/ended", "Answers that end by themselves", Unit::Number),
    known("answers/mean_tokens", "Tokens in an answer", Unit::Number),
    Known {
        from_zero: false,
        ..known("diagnostics/sign_agreement", "Signs of float momentum", Unit::Part)
    },
    known("diagnostics/landed", "Length of updates that lands", Unit::Part),
    known("diagnostics/flip_rate", "Updates that change the INT8 digit", Unit::Part),
    known("diagnostics/saturated", "Weights at the end of their range", Unit::Part),
    known("diagnostics/grown_rows", "Row updates that enlarge the scale", Unit::Part),
    known("diagnostics/gradient_snr", "Signal to noise of the gradient", Unit::Number),
];

/// What is shown elsewhere, or only ever grows.
const ELSEWHERE: [&str; 7] = [
    "loss",
    "eval_loss",
    "saved_eval_loss",
    "tokens",
    "positions",
    "tokens_per_second",
    "answers/asked",
];

/// Key of the training loss.
pub(super) const LOSS: &str = "loss";

/// Key of the loss of all held-out data.
pub(super) const EVAL_LOSS: &str = "eval_loss";

/// Of a key, the name of the set of held-out data whose loss it is.
fn set(key: &str) -> Option<&str> {
    key.strip_prefix("eval/")?.strip_suffix("/loss")
}

/// Losses of training and held-out data, and of each named set of it.
pub(super) fn loss(run: &History) -> Option<Chart> {
    let line =
        |name: &str, colour, series, style| Line { name: name.into(), colour, series, style };
    let mut lines = Vec::new();
    lines.extend(run.of(LOSS).map(|series| line("training", 0, series, Style::Scattered)));
    lines.extend(run.of(EVAL_LOSS).map(|series| line("held out", 1, series, Style::Exact)));
    let sets = run.series.iter().filter_map(|(key, series)| Some((set(key)?, series)));
    for (colour, (name, series)) in sets.enumerate() {
        lines.push(line(name, 2 + colour, series, Style::Exact));
    }
    let title = "Loss, in nats per token".into();
    Sketch { title, unit: Unit::Number, from_zero: false, lines }.draw()
}

/// All other numbers of steps and evaluations: known ones first.
pub(super) fn of_steps(run: &History) -> Vec<Chart> {
    let is_known = |key: &str| KNOWN.iter().any(|known| known.key == key);
    let is_shown = |key: &str| ELSEWHERE.contains(&key) || set(key).is_some();
    let known = KNOWN.iter().filter(|known| !known.key.starts_with(DIAGNOSTICS));
    let known = known.filter_map(|known| known.draw(run));
    let others = run
        .series
        .iter()
        .filter(|(key, _)| !is_known(key) && !is_shown(key) && !key.starts_with(DIAGNOSTICS));
    known.chain(others.filter_map(|(key, series)| of_key(key, series))).collect()
}

const DIAGNOSTICS: &str = "diagnostics/";

/// What sampled rows say.
pub(super) fn of_diagnostics(run: &History) -> Vec<Chart> {
    let is_known = |key: &str| KNOWN.iter().any(|known| known.key == key);
    let known = KNOWN.iter().filter(|known| known.key.starts_with(DIAGNOSTICS));
    let others =
        run.series.iter().filter(|(key, _)| key.starts_with(DIAGNOSTICS) && !is_known(key));
    let others = others.filter_map(|(key, series)| of_key(key, series));
    known.filter_map(|known| known.draw(run)).chain(others).collect()
}

impl Known {
    fn draw(&self, run: &History) -> Option<Chart> {
        // Zero throughout is nothing to look at.
        let series =
            run.of(self.key).filter(|series| series.least.0 < 0.0 || series.greatest > 0.0)?;
        let line = Line { name: String::new(), colour: 0, series, style: self.style };
        let (title, lines) = (self.title.into(), vec![line]);
        Sketch { title, unit: self.unit, from_zero: self.from_zero, lines }.draw()
    }
}

/// A number of which only the key is known.
fn of_key(key: &str, series: &Series) -> Option<Chart> {
    let title = key.replace('_', " ").replace('/', " · ");
    let unit = if key.ends_with("accuracy") { Unit::Part } else { Unit::Number };
    let lines = vec![Line { name: String::new(), colour: 0, series, style: Style::Scattered }];
    Sketch { title, unit, from_zero: false, lines }.draw()
}

/// A number of several runs, each in its colour; none if only one has it.
pub(super) fn of_runs(runs: &[History], key: &str) -> Option<Chart> {
    let titles = [(LOSS, "Training loss"), (EVAL_LOSS, "Held-out loss")];
    let title = titles.iter().find(|(known, _)| *known == key).map(|(_, title)| *title);
    let known = KNOWN.iter().find(|known| known.key == key);
    // What scatters in several runs would hide them all.
    let exact = key == EVAL_LOSS || known.is_some_and(|known| known.style == Style::Exact);
    let style = if exact { Style::Exact } else { Style::Smooth };
    let lines: Vec<_> = (runs.iter().enumerate())
        .filter_map(|(colour, run)| {
            Some(Line { name: run.name.clone(), colour, series: run.of(key)?, style })
        })
        .collect();
    if lines.len() < 2 {
        return None;
    }
    let title = title.or(known.map(|known| known.title)).unwrap_or(key).to_owned();
    let (unit, from_zero) =
        known.map_or((Unit::Number, false), |known| (known.unit, known.from_zero));
    Sketch { title, unit, from_zero, lines }.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_sets_are_found_by_their_keys() {
        for (key, name) in [
            ("eval/chats/loss", Some("chats")),
            ("eval/chats/accuracy", None),
            ("eval_loss", None),
            ("loss", None),
        ] {
            assert_eq!(set(key), name, "{key}");
        }
    }
}
