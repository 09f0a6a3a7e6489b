//! What `qft eval` found of models: a table of figures with their standard errors, or the same as JSON.

use super::arithmetic;
use crate::error::Result;
use crate::options::{EvalOptions, StateOptions};
use crate::run::measure::Measured;
use crate::run::scores::{Figure, Metric, Scored, data_above, data_figures};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The figures of models; those of the others are compared with the first one's.
#[derive(Debug)]
pub struct Scores {
    state: StateOptions,
    models: Vec<(String, Measured)>,
}

/// Figures by metric.
type Figures = BTreeMap<Metric, Figure>;

/// Figures of one model, and how far they lie above those of the first one.
struct Section<'a> {
    set: &'a str,
    count: String,
    figures: Figures,
    above: Option<Figures>,
}

impl Scores {
    /// None yet.
    pub fn new(options: &EvalOptions) -> Self {
        Self { state: options.state, models: Vec::new() }
    }

    /// Adds what was found of the model in `dir`.
    pub fn add(&mut self, dir: &Path, measured: Measured) {
        self.models.push((dir.display().to_string(), measured));
    }

    /// All of it as JSON: an object of the one model, or an object with a list of them under `models`.
    ///
    /// Errors: none that figures should cause.
    pub fn json(&self) -> Result<Value> {
        let all = (0..self.models.len()).map(|model| self.model_json(model));
        let mut all = all.collect::<Result<Vec<_>>>()?;
        Ok(match all.len() {
            1 => all.remove(0),
            _ => json!({ "models": all }),
        })
    }

    fn model_json(&self, model: usize) -> Result<Value> {
        let (name, measured) = &self.models[model];
        let mut json = json!({ "model": name });
        if let Some(data) = &measured.data {
            let section = self.data_section(model);
            json["nll"] = data.nll.into();
            json["nll_stderr"] =
                json!(section.as_ref().and_then(|s| s.figures[&Metric::Nll].stderr));
            json["perplexity"] = data.nll.exp().into();
            json["tokens"] = data.tokens.into();
            json["data"] = json!(data.counts);
            if let Some(above) = section.and_then(|section| section.above) {
                json["difference"] = json!(above);
            }
        }
        let mut sets = Vec::new();
        for (set, measured) in measured.sets.iter().enumerate() {
            let mut json = serde_json::to_value(measured.scored.score())?;
            if let Some(above) = self.scored_above(model, set) {
                json["difference"] = json!(above);
            }
            sets.push(json);
        }
        if !sets.is_empty() {
            json["sets"] = sets.into();
        }
        json["states"] = json!(self.state.states);
        json["compute"] = json!(self.state.compute.forward);
        Ok(json)
    }

    /// The loss of data under a model.
    fn data_section(&self, model: usize) -> Option<Section<'_>> {
        let data = self.models[model].1.data.as_ref()?;
        let first = self.models[0].1.data.as_ref().filter(|_| model > 0);
        Some(Section {
            set: "data",
            count: format!("{} tokens", data.tokens),
            figures: data_figures(&data.losses),
            above: first.and_then(|first| data_above(&data.losses, &first.losses)),
        })
    }

    fn scored(&self, model: usize, set: usize) -> &Scored {
        &self.models[model].1.sets[set].scored
    }

    fn scored_above(&self, model: usize, set: usize) -> Option<Figures> {
        if model == 0 {
            return None;
        }
        self.scored(model, set).above(self.scored(0, set))
    }

    /// The answers of a model to a set.
    fn set_section(&self, model: usize, set: usize) -> Section<'_> {
        let scored = self.scored(model, set);
        let score = scored.score();
        Section {
            set: scored.set(),
            count: format!("{} questions", score.questions),
            figures: score.figures,
            above: self.scored_above(model, set),
        }
    }

    /// Of everything that was measured, the sections of all models.
    fn sections(&self) -> Vec<Vec<Section<'_>>> {
        let models = || 0..self.models.len();
        let sets = 0..self.models.first().map_or(0, |(_, measured)| measured.sets.len());
        let data: Vec<_> = models().filter_map(|model| self.data_section(model)).collect();
        let sets = sets.map(|set| models().map(|model| self.set_section(model, set)).collect());
        std::iter::once(data).chain(sets).filter(|sections| !sections.is_empty()).collect()
    }

    /// The cells of the table, its titles first.
    fn rows(&self) -> Vec<Vec<String>> {
        let several = self.models.len() > 1;
        let titles: &[&str] = match several {
            true => &["set", "of", "metric", "model", "value", "±", "difference", "±"],
            false => &["set", "of", "metric", "value", "±"],
        };
        let mut rows = vec![titles.iter().map(|&title| title.to_owned()).collect::<Vec<_>>()];
        for sections in self.sections() {
            let metrics: Vec<Metric> =
                sections.first().map_or(Vec::new(), |s| s.figures.keys().copied().collect());
            for metric in metrics {
                for (section, (model, _)) in sections.iter().zip(&self.models) {
                    let mut row = vec![
                        section.set.to_owned(),
                        section.count.clone(),
                        metric.name().to_owned(),
                    ];
                    row.extend(several.then(|| model.clone()));
                    row.extend(cells(section.figures.get(&metric), false));
                    if several {
                        let above = section.above.as_ref().and_then(|above| above.get(&metric));
                        row.extend(cells(above, true));
                    }
                    rows.push(row);
                }
            }
        }
        rows
    }
}

/// A figure and its standard error.
fn cells(figure: Option<&Figure>, signed: bool) -> [String; 2] {
    let Some(Figure { value, stderr }) = figure else { return [String::new(), String::new()] };
    let value = if signed { format!("{value:+.4}") } else { format!("{value:.4}") };
    [value, stderr.map_or_else(String::new, |stderr| format!("{stderr:.4}"))]
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, measured) in &self.models {
            let of = if self.models.len() > 1 { format!(" for {name}") } else { String::new() };
            if let Some(data) = &measured.data {
                writeln!(f, "data{of}: {}", data.told)?;
            }
            for measured in &measured.sets {
                let score = measured.scored.score();
                if score.left_out > 0 {
                    let (set, left_out) = (score.set, score.left_out);
                    writeln!(
                        f,
                        "{set}{of}: {left_out} questions left out, longer than the model can read"
                    )?;
                }
            }
        }
        let rows = self.rows();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<_> = (0..rows[0].len()).map(|column| width(column).unwrap_or(0)).collect();
        for (i, row) in rows.iter().enumerate() {
            let line: String =
                row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |")).collect();
            writeln!(f, "|{line}")?;
            if i == 0 {
                let rule: String = widths.iter().map(|width| "-".repeat(width + 2) + "|").collect();
                writeln!(f, "|{rule}")?;
            }
        }
        let StateOptions { states, compute, .. } = self.state;
        write!(f, "{}, weights as {states}", arithmetic(compute.forward))
    }
}
