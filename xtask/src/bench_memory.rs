//! `cargo xtask bench-memory`: the memory of training, planned from the code itself, and with `--run` measured.

use crate::repository::repository;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use qft_llama::model::Model;
use qft_llama::pass::Recompute;
use qft_llama::{Batch, LlamaConfig, PRESETS, Synthetic, WeightSource, Weights, export};
use qft_tensor::Owner;
use qft_train::TrainOps;
use qft_train::machine::Machine;
use qft_train::machine::rss;
use qft_train::memory::{MemoryPlan, OwnerBytes, Process, RunShape, StepShape, plan};
use qft_train::options::DeviceChoice;
use qft_train::options::PlanArgs;
use qft_train::options::states::WeightArgs;
use qft_train::options::{MachineOptions, OptimizerOptions};
use qft_train::options::{OptimizerKind, States};
use qft_train::step::Setup;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::trainer::Trainer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What to plan or run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A preset or a model folder; may be repeated. Default: all presets and the repository's model.
    #[arg(long)]
    model: Vec<String>,
    /// May be repeated. Default: all modes.
    #[arg(long)]
    states: Vec<States>,
    /// Tokens of a step, in one sequence if the model allows.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// What the backward pass keeps.
    #[arg(long, default_value = "block")]
    recompute: Keep,
    /// Fraction of protected weights; by default that of the mode.
    #[arg(long, alias = "outliers")]
    protected: Option<f64>,
    /// Processes that share the run, each with so many tokens: plans one of them.
    #[arg(long, default_value_t = 1, conflicts_with = "run")]
    ranks: usize,
    /// Really load a model of that shape and train it; compare planned with measured.
    #[arg(long)]
    run: bool,
    /// Steps of `--run`.
    #[arg(long, default_value_t = 2)]
    steps: usize,
    /// After the steps of `--run`: save a native checkpoint, do a step, load the checkpoint, and do the step again,
    /// to the same loss.
    #[arg(long, requires = "run")]
    checkpoint: bool,
    /// Where `--run` takes random weights from.
    #[arg(long, default_value = "files")]
    weights: From,
    /// Where `--run` trains: cpu, cuda or cuda:N.
    #[arg(long, default_value_t, requires = "run")]
    device: DeviceChoice,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Keep {
    None,
    Block,
}

/// Where `--run` takes weights from.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum From {
    /// Sharded bf16 safetensors, written first, read as a user's model is, removed afterwards.
    Files,
    /// Made up while loading, where the disk is too small.
    Synthetic,
}

#[derive(Debug, Deserialize)]
struct Budgets {
    budget: Vec<Budget>,
}

#[derive(Debug, Deserialize)]
struct Budget {
    model: String,
    states: States,
    tokens: usize,
    bytes_per_parameter: f64,
    peak_gb: f64,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    states: States,
    tokens: usize,
    #[serde(flatten)]
    plan: MemoryPlan,
    percent_of_standard: f64,
    card_gb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Measured>,
}

/// What a run measured.
#[derive(Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    plan: MemoryPlan,
    /// Resident bytes before the model was loaded.
    start_rss_bytes: u64,
    /// The most resident bytes of the process.
    peak_rss_bytes: u64,
    /// Bytes of a GPU that the run took, as its driver counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_bytes: Option<u64>,
    load_seconds: f64,
    step_seconds: Vec<f64>,
    losses: Vec<f64>,
}

/// Memory sizes of common cards, in GB; a card's last gigabyte belongs to the driver and the display.
const CARDS: [u64; 7] = [8, 12, 16, 24, 32, 48, 80];

/// Bytes per parameter of other systems, from what they store (DECISIONS.md names the sources).
const PEERS: [(&str, f64); 6] = [
    ("FP32 AdamW (the standard)", 16.0),
    ("LLM.Q (bf16/fp8, offloaded)", 9.0),
    ("torchtune, 8-bit AdamW in backward", 4.07),
    ("FlashOptim FlashLion", 4.06),
    ("QFT paper", 3.36),
    ("Q-GaLore (low-rank updates)", 1.74),
];

/// The largest relative difference between planned and measured bytes.
const TOLERANCE: f64 = 0.02;

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = repository();
    let mut models = args.model.clone();
    if models.is_empty() {
        models.extend(PRESETS.map(str::to_owned));
        models.push(root.join("examples/stories260k").display().to_string());
    }
    let modes: Vec<States> = if args.states.is_empty() {
        States::value_variants().to_vec()
    } else {
        args.states.clone()
    };
    ensure!(
        !args.run || models.len() * modes.len() == 1,
        "--run measures one process: give one --model and one --states"
    );
    let mut rows = Vec::new();
    for model in &models {
        let config = if Path::new(model).join("config.json").exists() {
            LlamaConfig::from_dir(Path::new(model))?
        } else {
            LlamaConfig::preset(model)?
        };
        for &states in &modes {
            rows.push(row(args, model, &config, states)?);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print(&rows);
    }
    if args.ranks > 1 {
        return Ok(());
    }
    check(&rows, &root.join("docs/memory-budget.toml"))
}

fn row(args: &Args, model: &str, config: &LlamaConfig, states: States) -> Result<Row> {
    let shape = step_shape(config, args.tokens);
    let recompute = match args.recompute {
        Keep::None => Recompute::None,
        Keep::Block => Recompute::Block,
    };
    let setup = setup_of(states, args.protected, recompute)?;
    let shape = StepShape { accumulate: args.ranks.max(1), ..shape };
    let size = args.ranks.max(1);
    let process = Process { rank: size - 1, size, by_devices: false };
    let planned = plan(config, &setup, RunShape { process, ..shape.into() })?;
    let measured = if args.run {
        Some(measure(args, config, &setup, shape, planned.arena_bytes)?)
    } else {
        None
    };
    // A gigabyte of a card goes to the driver, the context and the kernels.
    let card_gb =
        CARDS.into_iter().find(|gb| planned.reserved_bytes + 1_000_000_000 <= gb * (1 << 30));
    let name = Path::new(model).file_name().map_or(model.into(), |n| n.to_string_lossy());
    Ok(Row {
        model: name.into_owned(),
        states,
        tokens: shape.seq_len * shape.batch_size,
        percent_of_standard: planned.bytes_per_parameter / 16.0 * 100.0,
        card_gb,
        plan: planned,
        measured,
    })
}

/// The plan of a preset with block recomputation, as the table of this task has it.
pub(crate) fn planned(model: &str, states: States, tokens: usize) -> Result<MemoryPlan> {
    let config = LlamaConfig::preset(model)?;
    let setup = setup_of(states, None, Recompute::Block)?;
    Ok(plan(&config, &setup, step_shape(&config, tokens))?)
}

/// That many tokens, in one sequence if the model allows.
fn step_shape(config: &LlamaConfig, tokens: usize) -> StepShape {
    let seq_len = tokens.min(config.max_position_embeddings);
    StepShape { seq_len, batch_size: tokens.div_ceil(seq_len), accumulate: 1 }
}

/// The setup of a mode with Lion.
pub(crate) fn setup_of(
    states: States,
    protected: Option<f64>,
    recompute: Recompute,
) -> Result<Setup> {
    let weights = WeightArgs { states: Some(states), protected, ..WeightArgs::default() };
    let asked = PlanArgs { weights, ..PlanArgs::default() };
    let optimizer = OptimizerOptions::for_plan(OptimizerKind::Lion);
    Ok(asked.resolve()?.state.setup(&optimizer, 0, recompute))
}

/// Loads a model of random weights and does complete optimizer steps in an arena of so many bytes.
fn measure(
    args: &Args,
    config: &LlamaConfig,
    setup: &Setup,
    shape: StepShape,
    arena_bytes: u64,
) -> Result<Measured> {
    let synthetic = Synthetic::new(config, 0);
    let folder = RandomModel::new(args.weights, config, &synthetic)?;
    let start_rss_bytes = rss::current().context("/proc/self/status is not readable")?;
    let machine =
        Machine::open(MachineOptions { device: args.device, ..MachineOptions::default() })?;
    let (ops, free_before) = (&*machine.ops, machine.free_bytes());
    let start = Instant::now();
    let source: Box<dyn Weights> = match &folder.0 {
        Some(dir) => Box::new(WeightSource::open(dir, config)?),
        None => Box::new(synthetic),
    };
    let model = Model::load(ops, config, &*source, setup.format, &mut |_, _| ())?;
    let load_seconds = start.elapsed().as_secs_f64();
    let mut trainer = Trainer::new(ops, model, setup.optimizer, setup.pass, setup.gradients)?;
    ops.reserve(arena_bytes)?;
    let batch = text_like_batch(config, shape);
    let (mut losses, mut step_seconds) = (Vec::new(), Vec::new());
    for _ in 0..args.steps {
        let start = Instant::now();
        let report = trainer.step(ops, std::slice::from_ref(&batch), 1e-4)?;
        step_seconds.push(start.elapsed().as_secs_f64());
        losses.push(report.loss.mean);
        eprintln!("step: loss {:.4}, {:.1} s", report.loss.mean, start.elapsed().as_secs_f64());
    }
    ensure!(losses.iter().all(|l| l.is_finite()), "a loss is not finite: {losses:?}");
    ensure!(losses.windows(2).all(|l| l[1] < l[0]), "the loss does not fall: {losses:?}");
    if args.checkpoint {
        check_resume(ops, &mut trainer, &batch)?;
    }
    // Nothing that training reserved has been given back yet.
    let device_bytes = match args.device {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda(_) => {
            free_before.zip(machine.free_bytes()).map(|(before, now)| before.saturating_sub(now))
        }
    };
    Ok(Measured {
        plan: MemoryPlan::of_device(ops, config, setup.gradients),
        start_rss_bytes,
        device_bytes,
        peak_rss_bytes: rss::peak().context("/proc/self/status is not readable")?,
        load_seconds,
        step_seconds,
        losses,
    })
}

/// A step after a checkpoint, and the same step after loading it, must have the same loss.
fn check_resume(ops: &dyn TrainOps, trainer: &mut Trainer, batch: &Batch) -> Result<()> {
    let root = scratch("checkpoint");
    let progress = Progress::of(trainer);
    let start = Instant::now();
    let dir = checkpoint::save(ops, trainer, &progress, &root)?;
    let saved = start.elapsed().as_secs_f64();
    // Two steps: the loss of the second depends on the momentum that was saved.
    let two_steps = |trainer: &mut Trainer| -> Result<[f64; 2]> {
        let first = trainer.step(ops, std::slice::from_ref(batch), 1e-4)?.loss.mean;
        Ok([first, trainer.step(ops, std::slice::from_ref(batch), 1e-4)?.loss.mean])
    };
    let before = two_steps(trainer)?;
    let start = Instant::now();
    checkpoint::load(ops, trainer, &progress, &dir)?;
    let loaded = start.elapsed().as_secs_f64();
    let after = two_steps(trainer)?;
    std::fs::remove_dir_all(&root)?;
    ensure!(before == after, "losses {before:?} before and {after:?} after loading the checkpoint");
    eprintln!(
        "checkpoint: saved in {saved:.1} s, loaded in {loaded:.1} s, same losses {after:?} after it"
    );
    Ok(())
}

/// A folder for this process's large temporary files.
fn scratch(name: &str) -> PathBuf {
    repository().join(format!("target/bench-memory-{}-{name}", std::process::id()))
}

/// A folder of random weights that is removed when dropped.
struct RandomModel(Option<PathBuf>);

impl RandomModel {
    fn new(from: From, config: &LlamaConfig, weights: &Synthetic) -> Result<Self> {
        if from == From::Synthetic {
            return Ok(Self(None));
        }
        let dir = scratch("model");
        let this = Self(Some(dir.clone()));
        eprintln!("writing {:.1} GB of random weights", config.parameters() as f64 * 2e-9);
        export::export_folder(
            &dir,
            None,
            config,
            export::SavedWeights::default(),
            export::DEFAULT_SHARD_BYTES,
            &Arc::default(),
            &mut |t, rows, out| weights.read_rows(&t.name, rows, out),
        )?;
        Ok(this)
    }
}

impl Drop for RandomModel {
    fn drop(&mut self) {
        if let Some(dir) = &self.0
            && let Err(e) = std::fs::remove_dir_all(dir)
        {
            eprintln!("cannot remove {}: {e}", dir.display());
        }
    }
}

/// Sequences that can be learned: each token follows from the one before.
pub(crate) fn text_like_batch(config: &LlamaConfig, shape: StepShape) -> Batch {
    let mut batch = Batch::default();
    for s in 0..shape.batch_size {
        let ids: Vec<u32> = (0..=shape.seq_len)
            .map(|i| ((i * 37 + s * 101) % config.vocab_size.min(997)) as u32)
            .collect();
        batch.push(&ids[..shape.seq_len], &ids[1..]);
    }
    batch
}

/// Bytes of an owner in the table.
fn shown_bytes(owner: &OwnerBytes) -> u64 {
    if owner.owner == Owner::Loading.name() { owner.peak_bytes } else { owner.bytes }
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn print(rows: &[Row]) {
    let owners: Vec<_> = rows[0].plan.owners.iter().map(|o| o.owner).collect();
    println!(
        "GB (10^9 bytes) by owner at the moment of the peak, one step with the given tokens; loading, which is \
         over by then or yet to come, with its own peak:\n"
    );
    print!("| model | states | tokens | B/param | % of 16 B |");
    owners.iter().for_each(|o| print!(" {o} |"));
    println!(" peak | reserved | card |");
    println!("|---|---|---|{}", "---|".repeat(owners.len() + 5));
    for row in rows {
        print!(
            "| {} | {:?} | {} | {:.3} | {:.1} |",
            row.model,
            row.states,
            row.tokens,
            row.plan.bytes_per_parameter,
            row.percent_of_standard
        );
        row.plan.owners.iter().for_each(|o| print!(" {:.3} |", gb(shown_bytes(o))));
        let card = row.card_gb.map_or("> 80 GB".to_owned(), |c| format!("{c} GB"));
        println!(" {:.2} | {:.2} | {card} |", gb(row.plan.peak_bytes), gb(row.plan.reserved_bytes));
    }
    println!(
        "\nOther systems, bytes per parameter from what they store, and GB for the same models:\n"
    );
    let mut models: Vec<_> = rows.iter().map(|r| (&r.model, r.plan.parameters)).collect();
    models.dedup();
    print!("| system | B/param |");
    models.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|---|{}", "---|".repeat(models.len()));
    for (name, bytes) in PEERS {
        print!("| {name} | {bytes:.2} |");
        models.iter().for_each(|(_, n)| print!(" {:.1} |", *n as f64 * bytes * 1e-9));
        println!();
    }
    for row in rows {
        let Some(m) = &row.measured else { continue };
        println!(
            "\n{} {:?}, measured:\n\n| owner | planned GB | measured GB |",
            row.model, row.states
        );
        println!("|---|---|---|");
        for (p, m) in row.plan.owners.iter().zip(&m.plan.owners) {
            println!("| {} | {:.4} | {:.4} |", p.owner, gb(p.peak_bytes), gb(m.peak_bytes));
        }
        println!("| peak | {:.4} | {:.4} |", gb(row.plan.peak_bytes), gb(m.plan.peak_bytes));
        println!(
            "| reserved | {:.4} | {:.4} |",
            gb(row.plan.reserved_bytes),
            gb(m.plan.reserved_bytes)
        );
        match m.device_bytes {
            None => println!(
                "| process | {:.4} | {:.4} |",
                gb(row.plan.reserved_bytes + m.start_rss_bytes),
                gb(m.peak_rss_bytes)
            ),
            Some(bytes) => {
                println!("| device | {:.4} | {:.4} |", gb(row.plan.reserved_bytes), gb(bytes));
                println!("| process | | {:.4} |", gb(m.peak_rss_bytes));
            }
        }
        println!(
            "\nloaded in {:.1} s; steps {:.1?} s; losses {:.4?}",
            m.load_seconds, m.step_seconds, m.losses
        );
    }
}

/// What a process needs beyond its ledger: thread stacks, packing buffers of the products, file buffers.
const PROCESS_BYTES: u64 = 64 << 20;

/// Fails when a budget is exceeded, or when planned and measured differ.
fn check(rows: &[Row], path: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let budgets: Budgets =
        toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let mut problems = Vec::new();
    for row in rows {
        let name = format!("{} {}", row.model, row.states);
        let budget = (budgets.budget.iter())
            .find(|b| (&b.model, b.states, b.tokens) == (&row.model, row.states, row.tokens));
        if let Some(budget) = budget {
            let measured = row.measured.as_ref();
            let taken = measured.map_or(0, |m| m.device_bytes.unwrap_or(m.peak_rss_bytes));
            for (what, got, most) in [
                ("bytes per parameter", row.plan.bytes_per_parameter, budget.bytes_per_parameter),
                ("planned GB", gb(row.plan.reserved_bytes), budget.peak_gb),
                ("measured GB", gb(taken), budget.peak_gb),
            ] {
                if got > most {
                    problems.push(format!("{name}: {what} {got:.3}, budget {most:.3}"));
                }
            }
        }
        let Some(m) = &row.measured else { continue };
        let mut pairs: Vec<_> = (row.plan.owners.iter().zip(&m.plan.owners))
            .map(|(p, m)| (p.owner, p.peak_bytes, m.peak_bytes))
            .collect();
        pairs.push(("reserved", row.plan.reserved_bytes, m.plan.reserved_bytes));
        for (what, planned, measured) in pairs {
            // The plan of loading is that of saving too, and a run need not save; what is exchanged is packed as it can be.
            let less_is_fine = [Owner::Loading.name(), Owner::Exchange.name()].contains(&what)
                && measured <= planned;
            let difference = planned.abs_diff(measured) as f64;
            if !less_is_fine && difference > TOLERANCE * planned as f64 {
                problems
                    .push(format!("{name}: {what} planned {planned}, measured {measured} bytes"));
            }
        }
        let (what, taken, planned) = match m.device_bytes {
            Some(bytes) => ("GPU", bytes, row.plan.reserved_bytes),
            None => ("process", m.peak_rss_bytes, row.plan.reserved_bytes + m.start_rss_bytes),
        };
        if taken as f64 > planned as f64 * (1.0 + TOLERANCE) + PROCESS_BYTES as f64 {
            problems.push(format!("{name}: the {what} holds {taken} bytes, planned {planned}"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("memory budget:\n{}", problems.join("\n"))
}
