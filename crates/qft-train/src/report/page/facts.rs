//! What is said of a run in words and tables.

use super::numbers::{EVAL_LOSS, LOSS};
use super::scale::{Unit, number, text};
use crate::memory::gb;
use crate::report::history::{History, Sample, State};
use crate::report::record::{DataFacts, MachineFacts, ModelShape, OwnerMemory, Session};
use crate::step::diagnostics::Diagnosis;
use serde::Serialize;
use serde_json::Value;
use std::time::UNIX_EPOCH;

/// A run as the page has it.
#[derive(Serialize)]
pub(super) struct Facts {
    name: String,
    /// A line below the name.
    about: String,
    state: &'static str,
    step: u64,
    steps: u64,
    /// In a word, why it ended before its last step.
    ended_early: Option<String>,
    /// Of the whole run, in percent.
    done: f64,
    /// The last line of metrics, in seconds since 1970.
    written: u64,
    version: String,
    tiles: Vec<Tile>,
    samples: Vec<Prompt>,
    memory: Option<Memory>,
    quantizer: Vec<String>,
    matrices: Vec<Row>,
    phases: Vec<Bar>,
    data: Vec<Data>,
    model: Vec<Row>,
    recipe: Vec<Row>,
    sessions: Vec<SessionText>,
}

/// A number that stands out.
#[derive(Serialize)]
struct Tile {
    name: &'static str,
    value: String,
    beside: String,
}

/// What the model wrote after a prompt, as training went on.
#[derive(Serialize)]
struct Prompt {
    prompt: String,
    texts: Vec<Written>,
}

/// What it wrote after some steps.
#[derive(Serialize)]
struct Written {
    when: String,
    text: String,
}

/// The memory of a run.
#[derive(Serialize)]
struct Memory {
    /// By owner at the moment of the peak.
    bars: Vec<Bar>,
    rows: Vec<Row>,
    told: String,
}

/// A part of a whole.
#[derive(Serialize)]
struct Bar {
    name: String,
    value: String,
    /// In percent.
    part: f64,
}

/// A line of a table.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) cells: Vec<String>,
}

/// Data, in numbers.
#[derive(Serialize)]
struct Data {
    name: String,
    told: String,
    tiles: Vec<Tile>,
    /// Heights of bars, in percent of the highest.
    lengths: Vec<f64>,
    longest: usize,
    left_out: Vec<String>,
}

/// A process that ran a part of the run.
#[derive(Serialize)]
struct SessionText {
    began: u64,
    step: u64,
    command: String,
}

impl Facts {
    pub(super) fn of(run: &History) -> Self {
        let History { record, step, .. } = run;
        let steps = record.steps.max(*step);
        let written = std::fs::metadata(run.out.join(crate::run::output::METRICS_FILE));
        let written = written.and_then(|about| about.modified()).ok();
        let written = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            name: run.name.clone(),
            about: about(run),
            state: match run.state {
                State::Running => "running",
                State::Done => "done",
                State::Stopped => "stopped",
            },
            step: *step,
            steps,
            ended_early: run.ended_early.as_ref().map(|why| why.replace('-', " ")),
            done: 100.0 * *step as f64 / steps.max(1) as f64,
            written: written.unwrap_or_default().as_secs(),
            version: record.version.clone(),
            tiles: tiles(run),
            samples: samples(&run.samples),
            memory: memory(run),
            quantizer: quantizer(run),
            matrices: matrices(run),
            phases: phases(run),
            data: (record.train.iter().map(|facts| data("Training", facts)))
                .chain(record.held_out.iter().map(|facts| data("Held out", facts)))
                .collect(),
            model: model(record.model.as_ref(), record.machine.as_ref()),
            recipe: recipe_rows(&record.recipe)
                .into_iter()
                .map(|(name, value)| Row { name, cells: vec![value] })
                .collect(),
            sessions: record.sessions.iter().map(SessionText::of).collect(),
        }
    }
}

/// Model, states and data in a line.
fn about(run: &History) -> String {
    let mut parts = Vec::new();
    if let Some(model) = &run.record.model {
        parts.push(format!("{} parameters of {}", number(model.parameters as f64), model.family));
    }
    if !run.record.states.is_empty() {
        parts.push(format!("{} states", run.record.states));
    }
    if let Some(train) = &run.record.train {
        parts.push(format!("{} documents", number(train.documents as f64)));
    }
    parts.join(" · ")
}

/// By how much a loss fell or rose.
fn change(from: f64, to: f64) -> String {
    let percent = 100.0 * (to / from - 1.0);
    let change = if percent.is_finite() { format!("{percent:+.1} % ") } else { String::new() };
    format!("{change}from {}", number(from)).replace('-', "−")
}

fn tiles(run: &History) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut tile = |name, value, beside| tiles.push(Tile { name, value, beside });
    if let Some(eval) = run.of(EVAL_LOSS) {
        let (least, at) = eval.least;
        let beside = match least < eval.last {
            true => format!("lowest {} at step {at:.0}", number(least)),
            false if eval.points().len() > 1 => change(eval.first, eval.last),
            false => "before training".into(),
        };
        tile("Held-out loss", number(eval.last), beside);
    }
    if let Some(saved) = run.of("saved_eval_loss") {
        tile("Saved model’s loss", number(saved.last), "in float compute".into());
    }
    if let Some(loss) = run.of(LOSS) {
        let smooth = loss.smooth(0.05);
        if let (Some((_, first)), Some((_, last))) = (smooth.first(), smooth.last()) {
            tile("Training loss", number(*last), change(*first, *last));
        }
    }
    if let Some(accuracy) = run.of("eval_accuracy") {
        let beside = "of held-out tokens are the likeliest".into();
        tile("Accuracy", text(accuracy.last, Unit::Part), beside);
    }
    if let Some(tokens) = run.of("tokens") {
        let positions = run.of("positions").map_or(0.0, |positions| positions.last);
        let beside = format!("of {} read", number(positions));
        tile("Tokens learned", number(tokens.last), beside);
    }
    if let Some(rate) = run.of("positions_per_second") {
        let beside = match run.of("speed_of_light") {
            Some(light) => format!("{} of the INT8 rate", text(middle(light), Unit::Part)),
            None => String::new(),
        };
        tile("Tokens per second", number(middle(rate)), beside);
    }
    if let Some(peak) = run.of("peak_bytes") {
        let beside = run.record.memory.as_ref();
        let beside =
            beside.map(|memory| format!("{:.2} bytes a parameter", memory.bytes_per_parameter));
        tile("Memory", gb(peak.last as u64), beside.unwrap_or_default());
    }
    tiles
}

/// The value in the middle.
pub(super) fn middle(series: &crate::report::series::Series) -> f64 {
    let mut means: Vec<f64> = series.points().map(|point| point.mean).collect();
    means.sort_by(f64::total_cmp);
    means.get(means.len() / 2).copied().unwrap_or_default()
}

/// By prompt: the first text, the last, and those between.
fn samples(samples: &[Sample]) -> Vec<Prompt> {
    let mut prompts: Vec<Prompt> = Vec::new();
    for sample in samples {
        let written = Written {
            when: if sample.step == 0 {
                "before".into()
            } else {
                format!("after step {}", sample.step)
            },
            text: sample.text.clone(),
        };
        match prompts.iter_mut().find(|prompt| prompt.prompt == sample.prompt) {
            Some(prompt) => prompt.texts.push(written),
            None => prompts.push(Prompt { prompt: sample.prompt.clone(), texts: vec![written] }),
        }
    }
    prompts
}

fn memory(run: &History) -> Option<Memory> {
    let plan = run.record.memory.as_ref().filter(|plan| !plan.owners.is_empty())?;
    let whole = plan.peak_bytes.max(1) as f64;
    let at_peak = plan.owners.iter().filter(|owner| owner.bytes > 0);
    let bars = at_peak.map(|owner| Bar {
        name: owner.owner.clone(),
        value: gb(owner.bytes),
        part: 100.0 * owner.bytes as f64 / whole,
    });
    let measured = run.summary.as_ref().map(|summary| &summary.owners.measured);
    let row = |OwnerMemory { owner, bytes, peak_bytes }: &OwnerMemory| {
        let mut cells = vec![gb(*bytes), gb(*peak_bytes)];
        cells.extend(measured.map(|bytes| gb(bytes.get(owner).copied().unwrap_or(0))));
        Row { name: owner.clone(), cells }
    };
    let told = format!(
        "{} in use at the peak, {} with what is kept for reuse and the program itself",
        gb(plan.peak_bytes),
        gb(plan.need_bytes)
    );
    Some(Memory { bars: bars.collect(), rows: plan.owners.iter().map(row).collect(), told })
}

/// What quantizing did, and how far updates move weights.
fn quantizer(run: &History) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(quantized) = run.record.quantized.filter(|quantized| quantized.matrices > 0) {
        let mut line = format!(
            "{} matrices are in INT8, which is {} away from the weights that were loaded (L2 norm)",
            quantized.matrices,
            number(quantized.l2_error)
        );
        if quantized.protected_fraction > 0.0 {
            line += &format!(
                "; without the {} of protected weights it would be {}",
                text(quantized.protected_fraction, Unit::Part),
                number(quantized.l2_error_unprotected)
            );
        }
        told.push(line + ".");
    }
    if let Some(rates) = run.record.rates.as_ref().filter(|rates| !rates.rates.is_empty()) {
        told.push(format!(
            "At its peak the learning rate moves a weight by {} of its 127 steps of INT8 in an update ({} to {} by matrix).",
            number(rates.median_row),
            number(rates.range.0),
            number(rates.range.1)
        ));
    }
    if let Some(summary) = run.summary.as_ref().filter(|summary| summary.rescaled_rows > 0) {
        let rows = summary.rescaled_rows;
        told.push(format!("{rows} rows outgrew their scale and were given a larger one."));
    }
    told
}

/// What diagnostics say of each matrix, the fewest signs first.
fn matrices(run: &History) -> Vec<Row> {
    let report = run.summary.as_ref().and_then(|summary| summary.diagnostics.as_ref());
    let mut found: Vec<_> =
        report.map(|report| report.matrices.iter().collect()).unwrap_or_default();
    found.sort_by(|(_, a), (_, b)| a.sign_agreement.total_cmp(&b.sign_agreement));
    let row = |(name, diagnosis): (&String, &Diagnosis)| {
        let Diagnosis { sign_agreement, landed, flip_rate, saturated, grown_rows, gradient_snr } =
            diagnosis;
        let parts = [sign_agreement, landed, flip_rate, saturated, grown_rows];
        let mut cells: Vec<_> = parts.map(|part| text(*part, Unit::Part)).into();
        cells.push(gradient_snr.map_or_else(String::new, number));
        Row { name: name.clone(), cells }
    };
    found.into_iter().map(row).collect()
}

/// Where the time of a step went, the most first.
fn phases(run: &History) -> Vec<Bar> {
    let Some(profile) = run.summary.as_ref().and_then(|summary| summary.profile.as_ref()) else {
        return Vec::new();
    };
    let steps = profile.steps.max(1) as f64;
    let mut phases: Vec<_> = profile.phases.iter().filter(|phase| phase.seconds > 0.0).collect();
    phases.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let bar = |phase: &&crate::machine::profile::PhaseTotal| Bar {
        name: phase.phase.name().into(),
        value: format!("{:.3} s", phase.seconds / steps),
        part: 100.0 * phase.seconds / profile.seconds,
    };
    phases.iter().map(bar).collect()
}

fn data(kind: &str, facts: &DataFacts) -> Data {
    let tile = |name, value: usize, beside| Tile { name, value: number(value as f64), beside };
    let learned = facts.learned as f64 / facts.tokens.max(1) as f64;
    let mut tiles = vec![
        tile("documents", facts.documents, String::new()),
        tile("tokens", facts.tokens, String::new()),
        tile("learned", facts.learned, text(learned, Unit::Part)),
        tile("longest", facts.longest, "tokens".into()),
    ];
    let counts = &facts.counts;
    for (name, count) in [
        ("cut", counts.truncated),
        ("too long", counts.too_long),
        ("nothing to learn", counts.dropped),
        ("unreadable", counts.bad),
    ] {
        if count > 0 {
            tiles.push(tile(name, count, String::new()));
        }
    }
    let most = facts.lengths.iter().copied().max().unwrap_or(0).max(1) as f64;
    let name = facts.name.as_ref();
    Data {
        name: name.map_or_else(|| kind.into(), |name| format!("{kind}: {name}")),
        told: facts.told.clone(),
        tiles,
        lengths: facts.lengths.iter().map(|&count| 100.0 * count as f64 / most).collect(),
        longest: facts.longest,
        left_out: facts.left_out.iter().map(|left_out| left_out.what.clone()).collect(),
    }
}

fn model(shape: Option<&ModelShape>, machine: Option<&MachineFacts>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: &str, cell: String| rows.push(Row { name: name.into(), cells: vec![cell] });
    if let Some(shape) = shape {
        row("family", shape.family.clone());
        row("parameters", number(shape.parameters as f64));
        row("layers", shape.layers.to_string());
        row("width", format!("{}, {} in the MLP", shape.hidden_size, shape.intermediate_size));
        row("heads", format!("{}, {} of keys and values", shape.heads, shape.key_value_heads));
        row("vocabulary", shape.vocabulary.to_string());
    }
    if let Some(machine) = machine {
        row("device", machine.device.clone());
        row("processor", format!("{} threads, {}", machine.threads, machine.isa));
    }
    rows
}

/// The options of a recipe and their values. What is kept of files is their hashes, which tell a reader nothing.
pub(super) fn recipe_rows(recipe: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (name, value) in recipe.as_object().into_iter().flatten() {
        match value {
            Value::Object(asked) if name == "asked" => {
                let asked = asked.iter().filter(|(_, value)| !value.is_null());
                rows.extend(asked.map(|(name, value)| (name.clone(), shown(value))));
            }
            Value::Object(_) => {}
            Value::Null => {}
            value => rows.push((name.clone(), shown(value))),
        }
    }
    rows.retain(|(name, value)| name != "model" && !value.is_empty());
    rows
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(found) => match found.as_f64() {
            Some(small) if small > 0.0 && small < 1e-3 => number(small),
            _ => found.to_string(),
        },
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

impl SessionText {
    fn of(session: &Session) -> Self {
        let Session { began, step, ref command } = *session;
        let quoted = |word: &String| match word
            .contains(|c: char| c.is_whitespace() || "'\"$\\".contains(c))
        {
            true => format!("'{}'", word.replace('\'', "'\\''")),
            false => word.clone(),
        };
        let command = command.iter().map(quoted).collect::<Vec<_>>().join(" ");
        Self { began, step, command }
    }
}
