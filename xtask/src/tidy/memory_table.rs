//! The README's memory table: every figure must be what the plan of that model and mode says today.

use super::{Problems, Repository};
use crate::bench_memory::planned;
use clap::ValueEnum;
use qft_llama::PRESETS;
use qft_train::options::States;

/// Tokens of the step that the table is about.
const TOKENS: usize = 2048;

/// Where the table's figures begin: after the mode and what it stores.
const FIRST_FIGURE: usize = 2;

pub(super) fn check(repository: &Repository) -> Problems {
    match repository.text("README.md").and_then(|text| compare(text, figures)) {
        Ok(problems) => problems,
        Err(problem) => vec![problem],
    }
}

/// Bytes per parameter, and GB at the peak, as the README writes them.
fn figures(preset: &str, states: States) -> Result<(String, String), String> {
    let plan = planned(preset, states, TOKENS).map_err(|error| format!("{error:#}"))?;
    let gb = plan.reserved_bytes as f64 * 1e-9;
    Ok((format!("{:.2}", plan.bytes_per_parameter), format!("{gb:.1}")))
}

fn compare(
    readme: &str,
    figures: impl Fn(&str, States) -> Result<(String, String), String>,
) -> Result<Problems, String> {
    let mut lines = readme.lines().skip_while(|line| !line.starts_with("| `--states` |"));
    let header = lines.next().ok_or("README.md: no table of `--states`, which a rule needs")?;
    let models = cells(header).skip(FIRST_FIGURE + 1).map(preset).collect::<Result<Vec<_>, _>>()?;
    let mut problems = Problems::new();
    let mut modes = Vec::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let mode = cells(line).next().unwrap_or_default().trim_matches('`');
        let states = States::from_str(mode, false)
            .map_err(|_| format!("README.md: `{mode}` is no name of --states"))?;
        modes.push(states);
        let mut expected = Vec::new();
        for model in &models {
            let (bytes, gb) = figures(model, states)?;
            if *model == "llama-2-7b" {
                expected.insert(0, bytes);
            }
            expected.push(gb);
        }
        let found: Vec<_> = cells(line).skip(FIRST_FIGURE).collect();
        if found != expected {
            problems.push(format!("README.md: `{mode}` has {found:?}, the plan says {expected:?}"));
        }
    }
    if modes != States::value_variants() {
        problems.push(format!("README.md: the memory table has {modes:?}, not all of --states"));
    }
    Ok(problems)
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.trim_matches('|').split('|').map(str::trim)
}

fn preset(title: &str) -> Result<&'static str, String> {
    let found = PRESETS.into_iter().find(|name| name.eq_ignore_ascii_case(title));
    found.ok_or_else(|| format!("README.md: {title} is no preset of `qft plan`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readme(full: &str) -> String {
        let line = |states: &States| match states {
            States::Full => format!("| `full` | planes | {full} |\n"),
            other => format!("| `{other}` | | 3.02 | 21.6 |\n"),
        };
        let rows: String = States::value_variants().iter().map(line).collect();
        format!("| `--states` | what | B/param | LLaMA-2-7B |\n|---|---|---|---|\n{rows}\nmore\n")
    }

    #[test]
    fn another_figure_is_told() {
        let figures = |_: &str, _: States| Ok(("3.02".to_owned(), "21.6".to_owned()));
        assert_eq!(compare(&readme("3.02 | 21.6"), figures), Ok(Problems::new()));
        let told = compare(&readme("3.02 | 21.7"), figures).unwrap();
        assert!(told[0].contains("21.7") && told[0].contains("21.6"), "{told:?}");
        let short = readme("3.02 | 21.6").replace("| `f32` | | 3.02 | 21.6 |\n", "");
        assert!(compare(&short, figures).unwrap()[0].contains("not all of --states"));
        assert!(compare("no table", figures).is_err());
    }
}
