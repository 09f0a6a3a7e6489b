//! `qft plan`: the memory of a run before anything is loaded, and what would fit.

use crate::options::choice::{ComputeKind, States};
use crate::options::{OptimizerOptions, PlanOptions, StateOptions};
use crate::plan::{MemoryPlan, StepShape, plan};
use crate::rss;
use anyhow::{Result, bail};
use clap::ValueEnum;
use qft_llama::LlamaConfig;
use qft_llama::pass::Recompute;
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
    let available = rss::available();
    let choice = choose(&config, &options.state, &optimizer, shape, available)?;
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
            "available_bytes": available,
            "fits": choice.fits,
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    print(&choice.plan);
    let tokens = shape.seq_len * shape.batch_size * shape.accumulate;
    println!("\nfor {tokens} tokens a step, recomputation: {:?}", choice.recompute);
    match available {
        None => println!("this machine does not say how much memory is free"),
        Some(free) if choice.fits => println!("fits: {} are free here", gb(free)),
        Some(free) => {
            println!("does not fit: {} are free here", gb(free));
            print!("{}", proposals(&config, &options.state, &optimizer, shape, free)?);
        }
    }
    Ok(())
}

/// A plan, and the recomputation it is for.
#[derive(Debug)]
pub struct Choice {
    /// The memory.
    pub plan: MemoryPlan,
    /// What is recomputed.
    pub recompute: Recompute,
    /// Whether that much memory is there (true if unknown).
    pub fits: bool,
}

/// Bytes a process needs beyond its buffers: code, stacks, file buffers, and the products' packing buffers.
pub fn process_bytes() -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    (32 << 20) + qft_tensor::simd::gemm_i8::max_scratch_bytes(threads) as u64
}

/// The first recomputation in the order of preference that fits, or else the last one.
pub fn choose(
    config: &LlamaConfig,
    state: &StateOptions,
    optimizer: &OptimizerOptions,
    shape: StepShape,
    available: Option<u64>,
) -> Result<Choice> {
    let mut last = None;
    for &recompute in state.recompute_choices() {
        let plan = plan(config, &state.setup(optimizer, 0, recompute), shape)?;
        let fits = available.is_none_or(|free| plan.reserved_bytes + process_bytes() <= free);
        last = Some(Choice { plan, recompute, fits });
        if fits {
            break;
        }
    }
    match last {
        Some(choice) => Ok(choice),
        None => bail!("no recomputation to choose from"),
    }
}

/// What would fit into `free` bytes, as text: smaller batches, and other states.
pub fn proposals(
    config: &LlamaConfig,
    state: &StateOptions,
    optimizer: &OptimizerOptions,
    shape: StepShape,
    free: u64,
) -> Result<String> {
    let mut found = Vec::new();
    let smaller = [States::Full, States::Balanced, States::Compact];
    for &states in std::iter::once(&state.states).chain(&smaller) {
        let state = match state.states {
            // The float reference has no INT8 options of its own to keep.
            States::F32 if states.is_int8() => {
                StateOptions { states, compute: ComputeKind::Int8, ..*state }
            }
            _ => StateOptions { states, ..*state },
        };
        let mut batch_size = shape.batch_size;
        loop {
            // Fewer sequences at a time, the same number a step.
            let accumulate = shape.accumulate * shape.batch_size.div_ceil(batch_size);
            let tried = StepShape { batch_size, accumulate, ..shape };
            let choice = choose(config, &state, optimizer, tried, Some(free))?;
            if choice.fits {
                let name =
                    states.to_possible_value().map_or(String::new(), |v| v.get_name().into());
                let line = format!(
                    "  would fit: --states {name} --batch-size {batch_size} --accumulate {accumulate} \
                     ({})\n",
                    gb(choice.plan.reserved_bytes)
                );
                if !found.contains(&line) {
                    found.push(line);
                }
                break;
            }
            if batch_size == 1 {
                break;
            }
            batch_size /= 2;
        }
    }
    if found.is_empty() {
        return Ok("  nothing fits with this sequence length; try a smaller --seq-len\n".to_owned());
    }
    Ok(found.concat())
}

/// Bytes as people say them.
pub fn gb(bytes: u64) -> String {
    if bytes < 10_000_000 {
        return format!("{:.2} MB", bytes as f64 / 1e6);
    }
    if bytes < 1_000_000_000 {
        return format!("{:.0} MB", bytes as f64 / 1e6);
    }
    format!("{:.2} GB", bytes as f64 / 1e9)
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
