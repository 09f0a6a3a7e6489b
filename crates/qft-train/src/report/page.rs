//! The page about a run: `report.html`, whole in itself, made from what is in the run's folder.

mod chart;
mod compare;
mod facts;
mod numbers;
mod scale;

use super::history::{History, State};
use crate::error::{Context, Result};
use crate::run::output::PAGE_FILE;
use crate::run::{Event, Moment, Observer};
use chart::Chart;
use compare::Comparison;
use facts::Facts;
use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use qft_files::{AtomicFile, Disk};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Earlier runs in a folder that its page compares with, at most.
const MOST_EARLIER: usize = 4;

/// Time between pages where nothing else asks for one.
const PAGE_EVERY: Duration = Duration::from_secs(60);

/// Writing pages takes no more than one part in this many of a run's time.
const TIME_SHARE: u32 = 100;

/// What the page is made of.
#[derive(Serialize)]
struct Page {
    /// The run that the page is about.
    run: Facts,
    loss: Option<Chart>,
    /// Numbers of the steps.
    charts: Vec<Chart>,
    /// What INT8 does to updates.
    diagnostics: Vec<Chart>,
    /// Beside other runs.
    comparison: Option<Comparison>,
}

/// The page about the run in the folder `out`, beside those that were done there before.
///
/// Errors: there is no run, or its files cannot be read.
pub fn of_run(out: &Path) -> Result<String> {
    let run = History::read(out)?;
    with_earlier(run)
}

/// The page about the run in the first of these folders, beside those in the others.
///
/// Errors: in one of them is no run, or its files cannot be read.
pub fn of_runs(outs: &[PathBuf]) -> Result<String> {
    let runs = outs.iter().map(|out| History::read(out)).collect::<Result<Vec<_>>>()?;
    render(&runs)
}

fn with_earlier(run: History) -> Result<String> {
    let earlier = run.earlier().into_iter().take(MOST_EARLIER);
    // What was set aside may have been tidied up since.
    let earlier: Vec<_> = earlier.filter_map(|out| History::read(&out).ok()).collect();
    let mut runs = vec![run];
    runs.extend(earlier);
    render(&runs)
}

fn render(runs: &[History]) -> Result<String> {
    let Some(run) = runs.first() else { return Ok(String::new()) };
    let page = Page {
        run: Facts::of(run),
        loss: numbers::loss(run),
        charts: numbers::of_steps(run),
        diagnostics: numbers::of_diagnostics(run),
        comparison: (runs.len() > 1).then(|| Comparison::of(runs)),
    };
    let mut templates = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    templates.set_syntax(syntax.map_err(of_template)?);
    for (name, source) in [
        ("page.html", include_str!("page/page.html")),
        ("parts.html", include_str!("page/parts.html")),
        ("page.css", include_str!("page/page.css")),
        ("page.js", include_str!("page/page.js")),
    ] {
        templates.add_template(name, source).map_err(of_template)?;
    }
    let template = templates.get_template("page.html").map_err(of_template)?;
    template.render(Serde(&page)).map_err(of_template)
}

fn of_template(error: minijinja::Error) -> crate::Error {
    crate::Error::new(crate::ErrorKind::Other, format!("the page cannot be made: {error:#}"))
}

/// Writes a page, or leaves what was there.
///
/// Errors: it cannot be written.
pub fn write(path: &Path, page: &str) -> Result<()> {
    AtomicFile::write_whole(&Disk::default(), path, page.as_bytes())
        .with_context(|| format!("{}: cannot be written", path.display()))
}

/// Writes `report.html` when a run begins, at each evaluation, every minute, and at the end. To be told of events after
/// [`MetricsLog`](super::MetricsLog) and [`RecordFile`](super::RecordFile), from whose files it is made.
///
/// All of it takes one part in a hundred of the time of a run at most: where an evaluation comes sooner, it has no page. A page
/// that cannot be written is told once, and ends nothing.
#[derive(Debug, Default)]
pub struct PageFile {
    out: Option<PathBuf>,
    /// When the last page was written, and how long that took.
    last: Option<(Instant, Duration)>,
    failed: bool,
}

impl Observer for PageFile {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Started { out, .. } => {
                self.out = Some(out.to_path_buf());
                self.write(State::Running);
            }
            Event::Evaluated { moment: Moment::During, .. } if self.is_due(Duration::ZERO) => {
                self.write(State::Running);
            }
            Event::Stepped(_) if self.is_due(PAGE_EVERY) => self.write(State::Running),
            Event::Stopped { .. } => self.write(State::Stopped),
            Event::Finished(_) | Event::SavedEvaluated(_) => self.write(State::Done),
            _ => {}
        }
        Ok(())
    }
}

impl PageFile {
    /// Whether the last page is `age` old, and its cost is forgotten.
    fn is_due(&self, age: Duration) -> bool {
        self.last.is_none_or(|(when, cost)| when.elapsed() >= age.max(cost * TIME_SHARE))
    }

    /// Writes the page of a run that is in `state`, as nobody knows better.
    fn write(&mut self, state: State) {
        let Some(out) = self.out.as_ref().filter(|_| !self.failed) else { return };
        let begin = Instant::now();
        let page = History::read(out).and_then(|run| with_earlier(History { state, ..run }));
        let written = page.and_then(|page| write(&out.join(PAGE_FILE), &page));
        if let Err(error) = written {
            tracing::warn!("no page about the run: {error:#}");
            self.failed = true;
        }
        self.last = Some((Instant::now(), begin.elapsed()));
    }
}

#[cfg(test)]
mod tests;
