//! `qft plan`: the memory of a run before anything is loaded, and what would fit.

use crate::fit::{Room, Wish, gb};
use crate::machine::Machine;
use crate::options::{OptimizerOptions, PlanOptions};
use crate::plan::{MemoryPlan, StepShape};
use anyhow::Result;
use qft_llama::LlamaConfig;
use qft_tensor::Owner;
use std::path::Path;

/// Runs the command.
pub fn run(options: &PlanOptions) -> Result<()> {
    let dir = Path::new(&options.model);
    let config = if dir.is_dir() {
        LlamaConfig::from_dir(dir)?
    } else {
        LlamaConfig::preset(&options.model)?
    };
    let seq_len = options.step.seq_len(config.max_position_embeddings)?;
    let shape = StepShape {
        seq_len,
        batch_size: options.step.batch_size,
        accumulate: options.step.accumulate,
    };
    let optimizer = OptimizerOptions::for_plan(options.optimizer);
    let wish = Wish { config: &config, state: options.state, optimizer: &optimizer, shape };
    let room = Room::of(&Machine::open(options.machine)?);
    let choice = wish.choose(room)?;
    if options.json {
        let owners: serde_json::Map<_, _> = (choice.plan.owners.iter())
            .map(|o| (o.owner.to_owned(), serde_json::json!(o.bytes)))
            .collect();
        let json = serde_json::json!({
            "parameters": choice.plan.parameters,
            "bytes_per_parameter": choice.plan.bytes_per_parameter,
            "owners": owners,
            "peak_bytes": choice.plan.peak_bytes,
            "reserved_bytes": choice.plan.reserved_bytes,
            "recompute": choice.recompute,
            "need_bytes": choice.need_bytes,
            "available_bytes": room.free_bytes,
            "fits": choice.fits(),
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    print(&choice.plan);
    let tokens = shape.seq_len * shape.batch_size * shape.accumulate;
    println!("\nfor {tokens} tokens a step, recomputation: {:?}", choice.recompute);
    println!("with {} for the program itself: {}", gb(room.overhead_bytes), gb(choice.need_bytes));
    match (room.free_bytes, choice.missing_bytes) {
        (None, _) => println!("this machine does not say how much memory is free"),
        (Some(free), None) => println!("fits: {} are free here", gb(free)),
        (Some(free), Some(missing)) => {
            println!("does not fit: {} are free here, {} are missing", gb(free), gb(missing));
            print!("{}", wish.proposals(room)?);
        }
    }
    Ok(())
}

/// Prints the table of a plan.
pub fn print(plan: &MemoryPlan) {
    println!("{} parameters, {:.3} bytes each", plan.parameters, plan.bytes_per_parameter);
    println!("\n{:<12} {:>12}", "owner", "at the peak");
    for owner in plan.owners.iter().filter(|o| o.bytes > 0) {
        println!("{:<12} {:>12}", owner.owner, gb(owner.bytes));
    }
    println!("{:<12} {:>12}", "peak", gb(plan.peak_bytes));
    println!("{:<12} {:>12}", "reserved", gb(plan.reserved_bytes));
    let loading = plan.owners.iter().find(|o| o.owner == Owner::Loading.name());
    if let Some(loading) = loading {
        println!("loading and saving hold {} at most, apart from steps", gb(loading.peak_bytes));
    }
}
