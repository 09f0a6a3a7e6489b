//! `qft eval`: the loss of data under models, and how they answer questions.

use crate::data::QuestionSet;
use crate::error::{Context, ErrorKind, OfKind, Result};
use crate::machine::Machine;
use crate::machine::profile::StepClock;
use crate::options::EvalOptions;
use crate::report::{Fetching, ReadingBar, Scores, write};
use crate::run::measure::{Measured, Watch, measure};
use crate::run::{NamedFiles, named};
use qft_files::{AtomicFile, Disk};
use qft_hub::{ModelName, Need, Notice, Origin};
use serde_json::json;
use std::path::PathBuf;

/// Runs the command; if `quiet`, without progress. One model is in memory at a time.
pub fn run(options: &EvalOptions, quiet: bool) -> Result<()> {
    let machine = Machine::open(options.machine)?;
    let sets = QuestionSet::read_all(&options.questions.paths, options.questions.limit)?;
    let mut scores = Scores::new(options);
    let mut profiles = Vec::new();
    let mut log = String::new();
    let (ops, mut clock) = machine.watched(options.profile);
    let Found { data, dirs, origins } = find(options, quiet)?;
    let options = &EvalOptions { data, ..options.clone() };
    for (name, dir) in options.models.iter().zip(&dirs) {
        let bar = ReadingBar::new(quiet);
        let mut ready = || {
            bar.finish();
            if let Some(clock) = &mut clock {
                clock.begin();
            }
        };
        let reading = |progress| bar.show(progress);
        let mut watch = Watch { reading: &reading, ready: &mut ready };
        let measured = measure(&*ops, dir, &sets, options, &mut watch)?;
        profiles.extend(clock.as_mut().map(StepClock::end));
        // What the model's buffers were must not stand beside the next model.
        ops.trim();
        if options.questions.log.is_some() {
            samples(&mut log, name, &sets, &measured);
        }
        scores.add(name.as_path(), measured);
    }
    if let Some(path) = &options.questions.log {
        let written = AtomicFile::write_whole(&Disk::default(), path, log.as_bytes());
        let place = || format!("--log-samples: cannot write {}", path.display());
        written.with_context(place).of_kind(ErrorKind::Output)?;
    }
    if options.json {
        let mut json = scores.json()?;
        if !origins.is_empty() {
            json["origins"] = serde_json::to_value(origins)?;
        }
        if options.profile {
            let mut profiles =
                profiles.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
            json["profile"] = match profiles.len() {
                1 => profiles.remove(0),
                _ => profiles.into(),
            };
        }
        return write(json);
    }
    write(&scores)?;
    profiles.iter().try_for_each(|profile| write(format_args!("\n{profile}")))
}

/// What was named or given as paths.
struct Found {
    data: Vec<PathBuf>,
    /// Of the models, in their order.
    dirs: Vec<PathBuf>,
    /// Of what was named.
    origins: Vec<Origin>,
}

/// Finds data and models; those that are named in the hub are fetched.
fn find(options: &EvalOptions, quiet: bool) -> Result<Found> {
    let mut fetching = Fetching::new(quiet);
    let mut watch = |notice: &Notice<'_>| fetching.show(notice);
    let NamedFiles { paths, mut origins } = named::data(&options.data, &mut watch)?;
    let mut dirs = Vec::new();
    for name in &options.models {
        let (dir, origin) = named::model(name, Need::All, &mut watch)?;
        dirs.push(dir);
        origins.extend(origin);
    }
    Ok(Found { data: paths, dirs, origins })
}

/// Adds a line for every question that a model was asked.
fn samples(log: &mut String, name: &ModelName, sets: &[QuestionSet], measured: &Measured) {
    for (set, measured) in sets.iter().zip(&measured.sets) {
        for found in &measured.found {
            let question = &set.questions[found.index];
            let mut line = json!({
                "model": name,
                "set": set.name,
                "line": question.line,
                "gold": question.gold,
                "log_likelihoods": found.sums,
            });
            if let Some(greedy) = found.greedy {
                line["greedy"] = greedy.into();
            }
            *log += &line.to_string();
            log.push('\n');
        }
    }
}
