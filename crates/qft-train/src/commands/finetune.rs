//! `qft finetune`: from a model folder and data to a fine-tuned model folder.

use crate::error::{Context, Result};
use crate::machine::processes::Connection;
use crate::machine::signals::StopSignal;
use crate::options::FinetuneOptions;
use crate::report::{
    Bar, Console, MetricsLog, PageFile, RecordFile, SamplesFile, TensorBoard, log,
};
use crate::run::{Event, Observer, finetune_in};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What the first process of a job gets to say an error that all have.
const LEADER_FIRST: Duration = Duration::from_millis(300);

/// Runs the command; if `quiet`, without progress.
///
/// Errors: anything wrong with options, files or memory; nothing is left half-written.
pub fn run(options: &FinetuneOptions, quiet: bool) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = Signals { stop: Arc::clone(&stop), signal: None };
    let (mut console, mut bar) = (Console::default(), Bar::new(quiet, &options.progress));
    let (mut metrics, mut samples) = (MetricsLog::default(), SamplesFile::default());
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let mut record = RecordFile::new(words.collect());
    let (mut board, mut page) = (TensorBoard::default(), PageFile::default());
    // The files first: what is said of a step is in them already. The last two of them are made from the others.
    let observers: &mut [&mut dyn Observer] = &mut [
        &mut signals,
        &mut metrics,
        &mut samples,
        &mut record,
        &mut board,
        &mut page,
        &mut bar,
        &mut console,
    ];
    let connection = Connection::open(options.job).unwrap_or_else(|error| {
        log::end::<()>(&Err(error));
        Connection::leave()
    });
    let job = connection.job();
    // The others only listen for signals.
    let heard = if job.leads() { observers } else { &mut observers[..1] };
    let summary = match finetune_in(&job, options, &stop, heard) {
        Err(error) if !job.is_alone() => {
            // What all have to say, one says; the end of one takes the others along.
            if !job.leads() {
                std::thread::sleep(LEADER_FIRST);
            }
            log::end_of_job(&job, &error);
            job.processes().abort()
        }
        summary => summary?,
    };
    drop(job);
    connection.finish();
    let code = signals.signal.and_then(|signal| signal.exit_code());
    Ok(match summary.stopped {
        Some(_) => ExitCode::from(code.unwrap_or(1)),
        None => ExitCode::SUCCESS,
    })
}

/// Catches signals from the moment on when there is something to save; before that they end the process at once.
struct Signals {
    stop: Arc<AtomicBool>,
    signal: Option<StopSignal>,
}

impl Observer for Signals {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Started { .. } = event {
            let signal = StopSignal::install(Arc::clone(&self.stop));
            self.signal = Some(signal.context("cannot catch signals")?);
        }
        Ok(())
    }
}
