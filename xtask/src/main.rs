//! Repository tasks: `cargo xtask <task>`.

mod about;
mod bench_gemm;
mod bench_memory;
mod bench_step;
mod ci;
mod gpu_check;
mod gpu_model;
mod kernels;
mod options;
mod parity;
mod repository;
mod tidy;

use clap::Parser;
use std::process::ExitCode;

/// Repository tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    /// The memory table: what training takes, by model and states, and whether a budget is exceeded.
    BenchMemory(bench_memory::Args),
    /// The speed of optimizer steps by phase, for a model shape with random weights.
    BenchStep(bench_step::Args),
    /// Compiles the CUDA kernels to the PTX that is committed, and checks it.
    Kernels(kernels::Args),
    /// The speed of a model's INT8 products, in all three orientations, on any device.
    BenchGemm(bench_gemm::Args),
    /// All checks that need a GPU, here or packed into a folder for another machine.
    GpuCheck(gpu_check::Args),
    /// What a training step should take on an H200, an RTX 4090 and an RTX A6000, by what its kernels do; needs no GPU.
    GpuModel(gpu_model::Args),
    /// What INT8 states cost in quality: a table of losses and accuracies beside FP32 Lion and AdamW.
    Parity(Box<parity::Args>),
    /// Checks the rules of the repository that no compiler knows.
    Tidy,
    /// Writes docs/OPTIONS.md, the reference of all options, from their definitions.
    Options,
    /// Every check of the repository, the cheapest first.
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::BenchMemory(args) => bench_memory::run(&args),
        Task::BenchStep(args) => bench_step::run(&args),
        Task::Kernels(args) => kernels::run(&args),
        Task::BenchGemm(args) => bench_gemm::run(&args),
        Task::GpuCheck(args) => gpu_check::run(&args),
        Task::GpuModel(args) => gpu_model::run(&args),
        Task::Parity(args) => parity::run(&args),
        Task::Tidy => tidy::run(),
        Task::Options => options::run(),
        Task::Ci(args) => ci::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
