//! The page: a section for every job, with its tables, its curves and where its figures are from.

pub(super) mod lines;
mod origin;
mod table;

use super::curves;
use super::job::Job;
use super::results::Outcome;
use super::rows::{ABLATIONS, LION, MAIN, UNTRAINED};
use anyhow::{Context, Result, bail, ensure};
use lines::Lines;
use std::fmt::Write;
use std::path::Path;

/// What stands above the sections.
const HEAD: &str = "\
# Quality

<!-- Made by `cargo xtask parity` from its results. Not to be edited. -->

What INT8 states cost, beside FP32 Lion and FP32 AdamW in the same program. All rows of a section train the same model on the
same data; runs of the same seed take it in the same order. Every row is at its own best of a small grid of learning rates,
chosen by the held-out loss with the first seed; ▲ and ▼ mark a rate that is the highest or the lowest of the grid, where
another might be better.

* **held-out loss**: nats per target token after training, in the row's own arithmetic; mean and standard deviation of the
  seeds.
* **to Lion**, **to AdamW**: the difference to FP32 Lion and FP32 AdamW of the same seed, mean and standard deviation.
* **exported**: the loss of the Hugging Face folder that the run wrote in bf16, read again and evaluated in f32.
* **accuracy**: of that folder in f32, the mean over all sets of questions that were asked; each set has its own table. As
  lm-evaluation-harness has it: by log-likelihood per character of the choice where choices differ, by log-likelihood of the
  continuation where contexts do, and by the likeliest tokens where there is one continuation alone. A set is a file of JSON
  lines with `query`, `choices` and `gold`, with `context_options`, `continuation` and `gold`, or with `context` and
  `continuation`; `gold` counts from 0.
* **B/param**: all training states, in bytes per parameter. **tok/s**: target tokens per second of a step, as a mean over the
  seeds on the machine named below; other work on it makes this figure smaller and no other.

The commands are below each section's tables, and the [options of each row](#rows) at the end. With them and a section's data,
learning rate and seed, `qft finetune` is the same run; rounding to nearest needs `--insist` as well.
";

/// Writes the page of all outcomes, with a folder of curves beside it.
pub(super) fn write(outcomes: &[Outcome], path: &Path) -> Result<()> {
    ensure!(!outcomes.is_empty(), "there are no results to write about");
    let mut text = HEAD.to_owned();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let folder = path.with_file_name(&stem);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (number, job) in jobs(outcomes).into_iter().enumerate() {
        let lines = Lines::of(outcomes.iter().filter(|outcome| outcome.job == *job));
        let curves = format!("{}-{}.svg", job.model.to_lowercase(), number + 1);
        let drawn = curves::draw(&lines, &folder.join(&curves))?;
        section(&mut text, job, &lines, drawn.then(|| format!("{stem}/{curves}")).as_deref());
    }
    table::rows(&mut text);
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Every job, the first one first.
fn jobs(outcomes: &[Outcome]) -> Vec<&Job> {
    let mut jobs: Vec<&Job> = Vec::new();
    for outcome in outcomes {
        if !jobs.contains(&&outcome.job) {
            jobs.push(&outcome.job);
        }
    }
    jobs
}

fn section(text: &mut String, job: &Job, lines: &Lines<'_>, curves: Option<&str>) {
    let _ = writeln!(
        text,
        "\n## {} on {}\n\n{} parameters; {} steps of {} sequences of at most {} tokens; learning rate: {}. Held out: {}, \
         {} target tokens.",
        job.model,
        job.data.join(", "),
        job.parameters,
        job.steps,
        job.sequences_per_step,
        job.seq_len,
        job.schedule,
        job.held_out,
        job.held_out_tokens,
    );
    if let Some(untrained) = lines.row(UNTRAINED) {
        let _ = writeln!(text, "Before training: {:.4} in f32.", untrained.losses[0].1);
    }
    table::main(text, lines, MAIN.rows);
    if let Some(path) = curves {
        let _ = writeln!(
            text,
            "\n![Training loss with the first seed, and how far INT8 states are above FP32 Lion]({path})"
        );
    }
    table::accuracies(text, lines);
    for ablation in &ABLATIONS {
        let present = ablation.rows.iter().filter(|name| lines.row(name).is_some()).count();
        // A row of the main table beside nothing would say nothing new.
        let own =
            ablation.rows.iter().any(|name| !MAIN.rows.contains(name) && lines.row(name).is_some());
        if present > 1 && own {
            let _ = writeln!(text, "\n### {}", ablation.title);
            table::main(text, lines, ablation.rows);
        }
    }
    origin::write(text, lines);
}

/// The most that a short run of `full` may be above FP32 Lion, in nats: several times what the seed changes.
const MAX_GAP: f64 = 0.05;

/// Whether the short run came to what it should: every row learned, and `full` is as good as FP32 Lion.
pub(super) fn check(outcomes: &[Outcome]) -> Result<()> {
    let newest = outcomes.last().map(|outcome| &outcome.job);
    let lines = Lines::of(outcomes.iter().filter(|outcome| Some(&outcome.job) == newest));
    for name in MAIN.rows.iter().filter(|name| !name.contains("nearest")) {
        let Some(row) = lines.row(name) else { continue };
        let best = row.best();
        ensure!(
            best.trained.loss < best.trained.initial_loss,
            "{name} has learned nothing: {:?} before and {:?} after",
            best.trained.initial_loss,
            best.trained.loss
        );
    }
    let (Some(full), Some(lion)) = (lines.row("full"), lines.row(LION)) else { return Ok(()) };
    if let Some(gap) = full.gap(lion).filter(|gap| gap.mean > MAX_GAP) {
        bail!("full is {:.4} nats above {LION}, at most {MAX_GAP} are right", gap.mean);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
