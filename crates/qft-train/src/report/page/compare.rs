//! A run beside others: what each came to, what differs between their recipes, and their curves.

use super::chart::Chart;
use super::facts::{Row, middle, recipe_rows};
use super::numbers::{self, EVAL_LOSS, LOSS};
use super::scale::number;
use crate::memory::gb;
use crate::report::history::History;
use serde::Serialize;
use std::collections::BTreeMap;

/// Numbers whose curves are compared.
const CURVES: [&str; 5] = [EVAL_LOSS, LOSS, "lr", "grad_norm", "positions_per_second"];

/// Several runs.
#[derive(Serialize)]
pub(super) struct Comparison {
    /// Their names.
    names: Vec<String>,
    /// What they came to.
    results: Vec<Row>,
    /// Options that are not the same in all.
    options: Vec<Row>,
    charts: Vec<Chart>,
}

impl Comparison {
    /// Of all runs, in their order.
    pub(super) fn of(runs: &[History]) -> Self {
        let charts = CURVES.iter().filter_map(|key| numbers::of_runs(runs, key)).collect();
        let names = runs.iter().map(|run| run.name.clone()).collect();
        Self { names, results: results(runs), options: options(runs), charts }
    }
}

/// What a cell says of a run, if it can be told.
type Cell<'a> = &'a dyn Fn(&History) -> Option<String>;

fn results(runs: &[History]) -> Vec<Row> {
    let last = |key: &'static str| move |run: &History| Some(number(run.of(key)?.last));
    let cells: [(&str, Cell<'_>); 9] = [
        ("steps", &|run| Some(run.step.to_string())),
        ("held-out loss before", &|run| Some(number(run.of(EVAL_LOSS)?.first))),
        ("held-out loss", &last(EVAL_LOSS)),
        ("lowest held-out loss", &|run| Some(number(run.of(EVAL_LOSS)?.least.0))),
        ("loss of the saved model", &last("saved_eval_loss")),
        ("training loss", &|run| Some(number(run.of(LOSS)?.smooth(0.05).last()?.1))),
        ("tokens learned", &last("tokens")),
        ("tokens per second", &|run| Some(number(middle(run.of("positions_per_second")?)))),
        ("memory", &|run| Some(gb(run.of("peak_bytes")?.last as u64))),
    ];
    let row = |(name, cell): (&str, Cell<'_>)| {
        let cells: Vec<_> = runs.iter().map(|run| cell(run).unwrap_or_default()).collect();
        let told = cells.iter().any(|cell| !cell.is_empty());
        told.then(|| Row { name: name.into(), cells })
    };
    cells.into_iter().filter_map(row).collect()
}

fn options(runs: &[History]) -> Vec<Row> {
    let recipes: Vec<BTreeMap<_, _>> =
        runs.iter().map(|run| recipe_rows(&run.record.recipe).into_iter().collect()).collect();
    let mut names: Vec<&String> = recipes.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let cells = recipes.iter().map(|recipe| recipe.get(name).cloned().unwrap_or_default());
        Row { name: name.clone(), cells: cells.collect() }
    };
    let rows = names.into_iter().map(row);
    rows.filter(|row| row.cells.iter().any(|cell| *cell != row.cells[0])).collect()
}
