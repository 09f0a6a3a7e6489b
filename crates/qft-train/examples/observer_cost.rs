//! What watching a run costs: a fine-tune with all observers that write files, and the time of each.
//!
//! ```sh
//! cargo run --release -p qft-train --example observer_cost -- --config run.toml --eval-every 10 --out watched
//! ```

use clap::Parser;
use qft_train::Result;
use qft_train::options::FinetuneArgs;
use qft_train::report::{MetricsLog, PageFile, RecordFile, TensorBoard};
use qft_train::run::{Event, Observer, finetune};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The options of `qft finetune`.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    finetune: FinetuneArgs,
}

/// An observer, and the time that it took.
struct Timed<'a> {
    observer: &'a mut dyn Observer,
    /// Of the longest event.
    longest: Duration,
    total: Duration,
}

impl<'a> Timed<'a> {
    fn new(observer: &'a mut dyn Observer) -> Self {
        Self { observer, longest: Duration::ZERO, total: Duration::ZERO }
    }
}

impl Observer for Timed<'_> {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        let begin = Instant::now();
        let heard = self.observer.on(event);
        let time = begin.elapsed();
        self.longest = self.longest.max(time);
        self.total += time;
        heard
    }
}

fn main() -> Result<()> {
    let options = Args::parse().finetune.resolve()?;
    let (mut metrics, mut record) = (MetricsLog::default(), RecordFile::default());
    let (mut board, mut page) = (TensorBoard::default(), PageFile::default());
    let (mut metrics, mut record) = (Timed::new(&mut metrics), Timed::new(&mut record));
    let (mut board, mut page) = (Timed::new(&mut board), Timed::new(&mut page));
    let observers: &mut [&mut dyn Observer] =
        &mut [&mut metrics, &mut record, &mut board, &mut page];
    let summary = finetune(&options, &AtomicBool::new(false), observers)?;
    println!("{} steps in {:.1} s", summary.steps, summary.seconds);
    for (name, timed) in [
        ("metrics.jsonl", &metrics),
        ("run.json", &record),
        ("TensorBoard", &board),
        ("the page", &page),
    ] {
        println!(
            "{name}: {:.2} ms in all, {:.4} % of the steps; at most {:.2} ms for an event",
            1e3 * timed.total.as_secs_f64(),
            1e2 * timed.total.as_secs_f64() / summary.seconds,
            1e3 * timed.longest.as_secs_f64()
        );
    }
    Ok(())
}
