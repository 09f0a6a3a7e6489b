//! `cargo xtask bench-gemm`: the INT8 products of a model's layers on any device, in all three orientations.

use crate::about::About;
use anyhow::Result;
use qft_llama::LlamaConfig;
use qft_tensor::Orientation;
use qft_train::machine::Machine;
use qft_train::machine::products;
use qft_train::options::DeviceChoice;
use qft_train::options::MachineOptions;
use serde::Serialize;

/// What to time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A preset, whose layers give the shapes.
    #[arg(long, default_value = "llama-2-7b")]
    model: String,
    /// Tokens.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// CPU threads; all cores if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Rounds of each product; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Check the results first: computed this many times they have the same bits, and samples those of the definition.
    #[arg(long, value_name = "ROUNDS", default_missing_value = "50", num_args = 0..=1)]
    check: Option<usize>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// One product.
#[derive(Debug, Serialize)]
struct Row {
    layer: &'static str,
    product: &'static str,
    m: usize,
    n: usize,
    k: usize,
    seconds: f64,
    gops: f64,
    /// Of the checked result: the same on every device.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let about = About::now();
    let config = LlamaConfig::preset(&args.model)?;
    let machine = Machine::open(MachineOptions {
        device: args.device,
        threads: args.threads,
        ..MachineOptions::default()
    })?;
    let ops = &*machine.ops;
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let mut rows = Vec::new();
    for (layer, inputs, outputs) in [("attention", c, c), ("gate, up", c, f), ("down", f, c)] {
        let t = args.tokens;
        for (product, orientation, (m, n, k)) in [
            ("Y", Orientation::Nt, (t, outputs, inputs)),
            ("dX", Orientation::Nn, (t, inputs, outputs)),
            ("dW", Orientation::Tn, (outputs, inputs, t)),
        ] {
            let check = |rounds| products::check(ops, orientation, (m, n, k), rounds);
            let hash = args.check.map(check).transpose()?;
            let seconds = products::seconds(ops, orientation, (m, n, k), args.rounds)?;
            let gops = (2 * m * n * k) as f64 * 1e-9 / seconds;
            rows.push(Row { layer, product, m, n, k, seconds, gops, hash });
        }
    }
    let peak = machine.int8_gops();
    if args.json {
        let json = serde_json::json!({
            "about": about, "model": args.model, "tokens": args.tokens, "machine": machine.description(),
            "peak_gops": peak, "products": rows,
        });
        println!("{json}");
        return Ok(());
    }
    if let Some(rounds) = args.check {
        println!("all products are right, {rounds} times the same bits");
    }
    println!("{}, {} tokens, {}\n", args.model, args.tokens, machine.description());
    println!(
        "| layer | product | M, N, K | ms | GOP/s | % of INT8 peak |\n|---|---|---|---|---|---|"
    );
    for Row { layer, product, m, n, k, seconds, gops, .. } in rows {
        let share = peak.map_or(String::new(), |peak| format!("{:.0}", gops / peak * 100.0));
        println!(
            "| {layer} | {product} | {m}, {n}, {k} | {:.3} | {gops:.0} | {share} |",
            seconds * 1e3
        );
    }
    Ok(())
}
