//! The tables of the page.

use super::lines::{Line, Lines};
use crate::parity::rows::{ADAMW, LION, ROWS, UNTRAINED};
use crate::parity::statistics::Estimate;
use std::fmt::Write;

/// What stands where there is no figure.
const NONE: &str = "–";

/// The named rows of a job, as far as they have run.
pub(super) fn main(text: &mut String, lines: &Lines<'_>, rows: &[&str]) {
    let lines_of = || rows.iter().filter_map(|name| lines.row(name));
    let asked = lines_of().any(|line| line.accuracy(None).is_some());
    let (title, rule) = if asked { ("accuracy % | ", "---|") } else { ("", "") };
    let _ = writeln!(
        text,
        "\n| row | lr | seeds | held-out loss | to Lion | to AdamW | exported | {title}B/param | tok/s |\n\
         |---|---|---|---|---|---|---|{rule}---|---|"
    );
    for line in lines_of() {
        let gap = |reference: &str| match lines.row(reference) {
            Some(other) if line.name != reference => shown(line.gap(other), 4, true),
            _ => NONE.into(),
        };
        let accuracy = match asked {
            true => format!("{} | ", shown(line.accuracy(None), 1, false)),
            false => String::new(),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {} | {accuracy}{:.2} | {:.0} |",
            line.name,
            rate(line),
            line.losses.len(),
            shown(line.loss(), 4, false),
            gap(LION),
            gap(ADAMW),
            shown(line.exported(), 4, false),
            line.mean(|run| run.trained.bytes_per_parameter),
            line.mean(|run| run.trained.tokens_per_second),
        );
    }
}

/// What each row is.
pub(super) fn rows(text: &mut String) {
    text.push_str("\n## Rows\n\n| row | options |\n|---|---|\n");
    for row in &ROWS {
        let _ = writeln!(text, "| `{}` | `{}` |", row.name, row.flags);
    }
}

/// Accuracies by set; nothing where no question was asked.
pub(super) fn accuracies(text: &mut String, lines: &Lines<'_>) {
    let mut sets: Vec<(&str, usize)> = Vec::new();
    for run in lines.all().iter().flat_map(|line| &line.runs) {
        for score in run.exported.iter().flat_map(|exported| &exported.scores) {
            if sets.iter().all(|(name, _)| *name != score.set) {
                sets.push((&score.set, score.questions));
            }
        }
    }
    if sets.is_empty() {
        return;
    }
    let mut sizes: Vec<_> = sets.iter().map(|(_, questions)| *questions).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let errors = sizes.iter().map(|n| format!("{:.1} of {n}", 50.0 / (*n as f64).sqrt()));
    let errors = errors.collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "\nAccuracy in percent, by set with its number of questions. The standard error of a figure near 50 % is {errors} \
         questions; rows are asked the same ones, so their differences have a smaller one."
    );
    let titles = sets.iter().map(|(name, n)| format!(" {name} ({n}) |")).collect::<String>();
    let _ = writeln!(text, "\n| row |{titles}\n|---|{}", "---|".repeat(sets.len()));
    let names = [UNTRAINED].into_iter().chain(ROWS.iter().map(|row| row.name));
    for line in names.filter_map(|name| lines.row(name)) {
        if line.accuracy(None).is_none() {
            continue;
        }
        let cells = sets.iter().map(|(set, _)| shown(line.accuracy(Some(set)), 1, false));
        let cells: String = cells.map(|cell| format!(" {cell} |")).collect();
        let _ = writeln!(text, "| `{}` |{cells}", line.name);
    }
}

/// The learning rate, and whether it is at an end of the grid.
fn rate(line: &Line<'_>) -> String {
    let mark = match line.ends {
        (true, _) => " ▼",
        (_, true) => " ▲",
        _ => "",
    };
    format!("{:e}{mark}", line.best().lr)
}

fn shown(estimate: Option<Estimate>, digits: usize, gap: bool) -> String {
    estimate.map_or_else(|| NONE.into(), |estimate| estimate.show(digits, gap))
}
