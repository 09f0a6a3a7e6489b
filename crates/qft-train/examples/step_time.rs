//! Times optimizer steps of a model of a given shape with random weights: `step_time PRESET STATES SEQ BATCH STEPS`.

use anyhow::{Context, Result};
use clap::ValueEnum;
use qft_llama::model::Model;
use qft_llama::pass::{PassOptions, Recompute};
use qft_llama::{Batch, LlamaConfig, Synthetic};
use qft_optim::{FloatRule, LionConfig, MomentumCode, WeightRounding};
use qft_tensor::{Cpu, CpuConfig, Device};
use qft_train::optimizer::OptimizerConfig;
use qft_train::options::choice::States;
use qft_train::trainer::Trainer;
use std::time::Instant;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or(default.to_owned());
    let config = LlamaConfig::preset(&arg(0, "llama-15m"))?;
    let states = States::from_str(&arg(1, "full"), true).map_err(anyhow::Error::msg)?;
    let (seq, batch, steps): (usize, usize, usize) =
        (arg(2, "256").parse()?, arg(3, "4").parse()?, arg(4, "5").parse()?);
    let outliers: f64 = arg(5, "0.01").parse()?;
    let threads: usize = arg(6, "0").parse()?;
    let cpu = Cpu::new(CpuConfig { threads, ..CpuConfig::detect()? })?;
    let lion = LionConfig::default();
    let optimizer = OptimizerConfig {
        lion,
        float: FloatRule::Lion(lion),
        momentum: MomentumCode::Sqrt,
        rounding: WeightRounding::Stochastic,
        max_grad_norm: f64::INFINITY,
    };
    let pass = PassOptions {
        compute: states.compute(),
        recompute: if arg(7, "none") == "block" { Recompute::Block } else { Recompute::None },
        stream: states.stream(),
        seed: 0,
        step: 0,
    };
    let start = Instant::now();
    let source = Synthetic::new(&config, 0);
    let model = Model::load(&cpu, &config, &source, states.format(outliers), &mut |_, _| ())?;
    println!("loaded in {:.1} s", start.elapsed().as_secs_f64());
    let mut trainer = Trainer::new(&cpu, model, optimizer, pass, states.gradients())?;
    let mut data = Batch::default();
    for s in 0..batch {
        let ids: Vec<u32> =
            (0..=seq).map(|i| ((i * 7919 + s * 104_729) % config.vocab_size) as u32).collect();
        data.push(&ids[..seq], &ids[1..]);
    }
    for _ in 0..steps {
        let start = Instant::now();
        let report = trainer.step(&cpu, std::slice::from_ref(&data), 1e-4)?;
        let s = start.elapsed().as_secs_f64();
        println!(
            "loss {:.4} norm {:.3} {:.3} s {:.0} tok/s",
            report.loss.mean,
            report.update.grad_norm,
            s,
            (seq * batch) as f64 / s
        );
    }
    let report = cpu.ledger().report();
    println!(
        "peak {} MB reserved {} MB",
        report.peak_bytes >> 20,
        report.peak_reserved_bytes >> 20
    );
    let status = std::fs::read_to_string("/proc/self/status").context("status")?;
    for line in status.lines().filter(|l| l.starts_with("VmHWM")) {
        println!("{line}");
    }
    Ok(())
}
