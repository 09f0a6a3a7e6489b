//! `cargo xtask bench-step`: the speed of optimizer steps of a model of a given shape, and where their time goes.

use crate::about::About;
use crate::bench_memory::{setup_of, text_like_batch};
use anyhow::{Result, bail};
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_llama::{LlamaConfig, Synthetic, Weights, WithOutliers};
use qft_train::TrainOps;
use qft_train::machine::Machine;
use qft_train::machine::rss;
use qft_train::memory::{StepShape, plan};
use qft_train::options::DeviceChoice;
use qft_train::options::MachineOptions;
use qft_train::options::States;
use qft_train::step::Setup;
use qft_train::step::trainer::Trainer;
use std::time::Instant;

/// What to time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A preset.
    #[arg(long, default_value = "llama-110m")]
    model: String,
    /// Training states.
    #[arg(long, default_value = "full")]
    states: States,
    /// Tokens per sequence.
    #[arg(long, default_value_t = 256)]
    seq_len: usize,
    /// Sequences per step.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Timed steps, after one that is not; another one tells where the time goes.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// CPU threads; all cores if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Fraction of protected weights; by default that of the mode.
    #[arg(long, alias = "outliers")]
    protected: Option<f64>,
    /// Recompute blocks instead of keeping their activations.
    #[arg(long)]
    recompute: bool,
    /// Give the inputs of all linear layers of the blocks four outlier channels.
    #[arg(long)]
    outlier_channels: bool,
    /// Give each step sequences of another length, between half of `--seq-len` and all of it, as real data does; the rate is then
    /// that of all steps together.
    #[arg(long)]
    ragged: bool,
    /// Reserve nothing before the first step: blocks are kept by size, and given back whenever lengths change.
    #[arg(long)]
    no_reserve: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let about = About::now();
    let config = LlamaConfig::preset(&args.model)?;
    let recompute = if args.recompute { Recompute::Block } else { Recompute::None };
    let setup = setup_of(args.states, args.protected, recompute)?;
    let machine = Machine::open(MachineOptions {
        device: args.device,
        threads: args.threads,
        ..MachineOptions::default()
    })?;
    let (ops, clock) = machine.watched(true);
    let Some(mut clock) = clock else { bail!("the device has no clock around it") };
    let shape = StepShape { seq_len: args.seq_len, batch_size: args.batch_size, accumulate: 1 };
    let mut trainer = trainer(args, &*ops, (&config, &setup), shape)?;
    let whole = text_like_batch(&config, shape);
    // The clock looks at every operation, for which a GPU has to be waited for: it is not there while steps are timed.
    let mut step = |number: usize| -> Result<Run> {
        let seq_len = if args.ragged { ragged_length(args.seq_len, number) } else { args.seq_len };
        let batch = text_like_batch(&config, StepShape { seq_len, ..shape });
        let (began, cores) = (Instant::now(), core_seconds());
        let loss = trainer.step(&*machine.ops, std::slice::from_ref(&batch), 1e-4)?.loss.mean;
        machine.ops.synchronize()?;
        let seconds = began.elapsed().as_secs_f64();
        let cores = core_seconds().zip(cores).map(|(end, start)| end - start);
        Ok(Run { loss, tokens: batch.tokens(), seconds, cores })
    };
    step(0)?;
    let mut runs = (1..=args.steps.max(1)).map(&mut step).collect::<Result<Vec<_>>>()?;
    let taken: f64 = runs.iter().map(|run| run.seconds).sum();
    let all_tokens: usize = runs.iter().map(|run| run.tokens).sum();
    clock.begin();
    trainer.step(&*ops, std::slice::from_ref(&whole), 1e-4)?;
    let profile = clock.end();
    // On a machine with other work the time of the cores says more than the clock.
    let cores = runs.iter().filter_map(|run| run.cores).min_by(f64::total_cmp);
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let Run { loss, seconds, .. } = runs[runs.len() / 2];
    let tokens = whole.tokens();
    let rate = if args.ragged { all_tokens as f64 / taken } else { tokens as f64 / seconds };
    if args.json {
        let json = serde_json::json!({
            "about": about, "model": args.model, "states": args.states, "machine": machine.description(),
            "tokens": tokens, "ragged": args.ragged, "seconds": seconds, "core_seconds": cores, "tokens_per_second": rate, "loss": loss,
            "profile": profile, "peak_rss_bytes": rss::peak(),
            "peak_device_bytes": ops.ledger().report().peak_reserved_bytes,
        });
        println!("{json}");
        return Ok(());
    }
    println!(
        "{} {}, {tokens} tokens in sequences of {}, {}",
        args.model,
        args.states,
        args.seq_len,
        machine.description()
    );
    println!("median step {seconds:.3} s, {rate:.0} tok/s");
    if let Some(cores) = cores {
        println!("least time of all cores together in a step: {cores:.3} s");
    }
    if let (Some(peak), Some(light)) = (profile.peak_gops, profile.speed_of_light) {
        println!("{:.1} % of the INT8 peak, {peak:.0} GOP/s", light * 100.0);
    }
    print!("\n{profile}");
    if let Some(bytes) = rss::peak() {
        println!("\npeak resident memory {:.0} MB", bytes as f64 * 1e-6);
    }
    Ok(())
}

/// A trainer of random weights, for whose steps memory is reserved unless that is not wanted.
fn trainer(
    args: &Args,
    ops: &dyn TrainOps,
    (config, setup): (&LlamaConfig, &Setup),
    shape: StepShape,
) -> Result<Trainer> {
    let source = Synthetic::new(config, 0);
    let with_outliers = WithOutliers::new(&source, config);
    let weights: &dyn Weights = if args.outlier_channels { &with_outliers } else { &source };
    let model = Model::load(ops, config, weights, setup.format, &mut |_, _| ())?;
    let trainer = Trainer::new(ops, model, setup.optimizer, setup.pass, setup.gradients)?;
    if !args.no_reserve {
        ops.reserve(plan(config, setup, shape)?.arena_bytes)?;
    }
    Ok(trainer)
}

/// The length of the sequences of a step whose number is this: each from half of the longest on once before any comes again,
/// in no order.
fn ragged_length(longest: usize, number: usize) -> usize {
    let lengths = longest.div_ceil(2);
    longest - (number * 37) % lengths
}

/// A timed step.
struct Run {
    loss: f64,
    tokens: usize,
    seconds: f64,
    /// Seconds of all cores together.
    cores: Option<f64>,
}

/// What all threads of this process have spent on cores, where the system tells.
fn core_seconds() -> Option<f64> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let times = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += times.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 * 1e-9)
}
