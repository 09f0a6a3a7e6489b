//! `qft plan`: the memory of a run before anything is loaded, and what would fit.

use crate::error::{Context, Result};
use crate::machine::Machine;
use crate::memory::{
    Budget, Fit, MemoryPlan, Process, Request, RunShape, StepShape, StepTraffic, gb,
};
use crate::options::{OptimizerOptions, PlanOptions};
use crate::report::{Fetching, write};
use crate::run::named;
use qft_hub::Need;
use qft_llama::LlamaConfig;
use qft_llama::pass::Recompute;
use qft_tensor::Owner;

/// Runs the command; if `quiet`, without progress.
pub fn run(options: &PlanOptions, quiet: bool) -> Result<()> {
    let mut fetching = Fetching::new(quiet);
    let (dir, origin) =
        named::model(&options.model, Need::Config, &mut |notice| fetching.show(notice))?;
    let config = if origin.is_some() || dir.exists() {
        LlamaConfig::from_dir(&dir)?
    } else {
        let context = || format!("--model: there is no folder {}", options.model);
        LlamaConfig::preset(&options.model.to_string()).with_context(context)?
    };
    let seq_len = options.step.seq_len(&config)?;
    let shape = StepShape {
        seq_len,
        batch_size: options.step.batch_size,
        accumulate: options.step.accumulate,
    };
    let optimizer = OptimizerOptions::for_plan(options.optimizer);
    // Of the last process: where rows cannot be shared out evenly, it has one more.
    let process = Process { rank: options.ranks - 1, size: options.ranks, by_devices: false };
    let run = RunShape { evaluated: Some(seq_len), process, ..shape.into() };
    let (state, optimizer) = (options.state, &optimizer);
    let request = Request { config: &config, state, optimizer, shape: run };
    let machine = Machine::open(options.machine)?;
    let budget = Budget::of(&machine);
    let fit = request.fit(budget)?;
    let traffic = StepTraffic::of(fit.plan.parameters, options.ranks);
    if options.json {
        return write(json(&fit, traffic, budget)?);
    }
    table(&fit.plan)?;
    let tokens = shape.seq_len * shape.batch_size * shape.accumulate;
    let again = match fit.recompute {
        Recompute::None => "nothing is computed again in the backward pass",
        Recompute::Block => "blocks are computed again in the backward pass",
    };
    write(format_args!("\nfor {tokens} tokens a step; {again}"))?;
    if options.ranks > 1 {
        write(format_args!(
            "each process sends and receives about {} a step, {} at most",
            gb(traffic.typical_bytes),
            gb(traffic.most_bytes)
        ))?;
    }
    write(format_args!(
        "with {} for the program itself: {}",
        gb(budget.overhead_bytes),
        gb(fit.need_bytes)
    ))?;
    match (budget.free_bytes, fit.missing_bytes) {
        (None, _) => write("this machine does not say how much memory is free"),
        (Some(free), None) => {
            write(format_args!("fits: {} are free ({})", gb(free), machine.memory_bound()))
        }
        (Some(free), Some(missing)) => write(format_args!(
            "does not fit: {} are free ({}), {} are missing\n{}",
            gb(free),
            machine.memory_bound(),
            gb(missing),
            request.proposals(budget)?.trim_end()
        )),
    }
}

/// The plan as one JSON object.
fn json(fit: &Fit, traffic: StepTraffic, budget: Budget) -> Result<String> {
    let owners: serde_json::Map<_, _> = (fit.plan.owners.iter())
        .map(|o| (o.owner.to_owned(), serde_json::json!(o.bytes)))
        .collect();
    let json = serde_json::json!({
        "parameters": fit.plan.parameters,
        "bytes_per_parameter": fit.plan.bytes_per_parameter,
        "owners": owners,
        "peak_bytes": fit.plan.peak_bytes,
        "reserved_bytes": fit.plan.reserved_bytes,
        "exchanged_bytes": traffic.typical_bytes,
        "exchanged_bytes_at_most": traffic.most_bytes,
        "recompute": fit.recompute,
        "need_bytes": fit.need_bytes,
        "available_bytes": budget.free_bytes,
        "fits": fit.fits(),
    });
    Ok(serde_json::to_string_pretty(&json)?)
}

/// Prints the table of a plan.
fn table(plan: &MemoryPlan) -> Result<()> {
    write(format_args!(
        "{} parameters, {:.3} bytes each",
        plan.parameters, plan.bytes_per_parameter
    ))?;
    write(format_args!("\n{:<12} {:>12}", "owner", "at the peak"))?;
    for owner in plan.owners.iter().filter(|o| o.bytes > 0) {
        write(format_args!("{:<12} {:>12}", owner.owner, gb(owner.bytes)))?;
    }
    write(format_args!("{:<12} {:>12}", "peak", gb(plan.peak_bytes)))?;
    write(format_args!("{:<12} {:>12}", "reserved", gb(plan.reserved_bytes)))?;
    let loading = plan.owners.iter().find(|o| o.owner == Owner::Loading.name());
    let bytes = gb(loading.map_or(0, |loading| loading.peak_bytes));
    write(format_args!("loading and saving hold {bytes} at most, apart from steps"))
}
