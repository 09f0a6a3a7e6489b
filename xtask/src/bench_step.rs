//! `cargo xtask bench-step`: the speed of optimizer steps of a model of a given shape, and where their time goes.

use crate::bench_memory::{setup_of, text_like_batch};
use anyhow::Result;
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_llama::{LlamaConfig, Synthetic};
use qft_tensor::simd::peak;
use qft_tensor::{Cpu, CpuConfig, Isa};
use qft_train::options::choice::States;
use qft_train::plan::StepShape;
use qft_train::profile::{PhaseTotal, Profiled};
use qft_train::rss;
use qft_train::trainer::Trainer;
use std::sync::Arc;
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
    /// Timed steps, after one that is not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Worker threads; 0 for all cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Fraction of protected features; by default that of the mode.
    #[arg(long)]
    outliers: Option<f64>,
    /// Recompute blocks instead of keeping their activations.
    #[arg(long)]
    recompute: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let config = LlamaConfig::preset(&args.model)?;
    let recompute = if args.recompute { Recompute::Block } else { Recompute::None };
    let setup = setup_of(args.states, args.outliers, recompute)?;
    let cpu = Cpu::new(CpuConfig { threads: args.threads, ..CpuConfig::detect()? })?;
    let (isa, threads) = (cpu.isa(), cpu.threads());
    let peak = peak_gops(isa) * threads as f64;
    let ops = Profiled::new(Arc::new(cpu));
    let model =
        Model::load(&ops, &config, &Synthetic::new(&config, 0), setup.format, &mut |_, _| ())?;
    let mut trainer = Trainer::new(&ops, model, setup.optimizer, setup.pass, setup.gradients)?;
    let shape = StepShape { seq_len: args.seq_len, batch_size: args.batch_size, accumulate: 1 };
    let batch = text_like_batch(&config, shape);
    let mut step = || -> Result<(f64, f64, Vec<PhaseTotal>)> {
        ops.take();
        let start = Instant::now();
        let report = trainer.step(&ops, std::slice::from_ref(&batch), 1e-4)?;
        Ok((start.elapsed().as_secs_f64(), report.loss.mean, ops.take()))
    };
    step()?;
    let mut runs = (0..args.steps.max(1)).map(|_| step()).collect::<Result<Vec<_>>>()?;
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (seconds, loss, phases) = &runs[runs.len() / 2];
    let tokens = batch.tokens();
    let gemm: u64 = phases.iter().map(|p| p.operations).sum();
    let of_peak = gemm as f64 * 1e-9 / seconds / peak;
    if args.json {
        let phases: serde_json::Map<_, _> = (phases.iter())
            .map(|p| (p.phase.name().to_owned(), serde_json::json!(p.seconds)))
            .collect();
        let json = serde_json::json!({
            "model": args.model, "states": args.states, "threads": threads, "isa": isa.name(),
            "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens as f64 / seconds,
            "loss": loss, "peak_gops": peak, "share_of_peak": of_peak, "phases": phases,
            "peak_rss_bytes": rss::peak(),
        });
        println!("{json}");
        return Ok(());
    }
    println!(
        "{} {:?}, {tokens} tokens in sequences of {}, {threads} threads, {isa} (peak {peak:.0} GOP/s)",
        args.model, args.states, args.seq_len
    );
    println!(
        "median step {seconds:.3} s, {:.0} tok/s, {:.1} % of the INT8 peak\n",
        tokens as f64 / seconds,
        of_peak * 100.0
    );
    println!("| phase | s | % | GOP/s |\n|---|---|---|---|");
    let known: f64 = phases.iter().map(|p| p.seconds).sum();
    for p in phases.iter().filter(|p| p.seconds > 0.0) {
        let rate = match p.operations {
            0 => String::new(),
            n => format!("{:.0}", n as f64 * 1e-9 / p.seconds),
        };
        println!(
            "| {} | {:.4} | {:.1} | {rate} |",
            p.phase.name(),
            p.seconds,
            p.seconds / seconds * 100.0
        );
    }
    println!("| other | {:.4} | {:.1} | |", seconds - known, (seconds - known) / seconds * 100.0);
    if let Some(bytes) = rss::peak() {
        println!("\npeak resident memory {:.0} MB", bytes as f64 * 1e-6);
    }
    Ok(())
}

/// The INT8 rate of one thread from registers alone, in GOP/s; the best of a few tries.
fn peak_gops(isa: Isa) -> f64 {
    const ROUNDS: u32 = 1 << 20;
    (0..5)
        .filter_map(|_| {
            let start = Instant::now();
            let operations = peak::int8_operations(isa, ROUNDS)?;
            Some(operations as f64 * 1e-9 / start.elapsed().as_secs_f64())
        })
        .fold(f64::NAN, f64::max)
}
