//! `cargo xtask gpu-model`: how long a training step should take on a card, by what its kernels do.
//!
//! The trainer does a step on a device that only writes down what it is asked for. The kernels of that step are run from their PTX,
//! a few blocks of each launch, and what these take of a multiprocessor is set against what the card has. No GPU takes part.

mod arithmetic;
mod block;
mod cards;
mod ladder;
mod memory;
mod opcode;
mod program;
mod recorder;
mod report;
mod resources;
mod step;
mod time;
mod warp;
mod work;

use anyhow::{Result, ensure};
use cards::{CARDS, Card};
use ladder::Rung;
use qft_llama::LlamaConfig;
use qft_llama::pass::Recompute;
use qft_train::options::States;
use report::Modelled;
use step::{Recorded, Way};
use work::Runner;

/// What to model.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A preset.
    #[arg(long, default_value = "llama-2-7b")]
    model: String,
    /// Training states, without protected weights.
    #[arg(long, default_value = "full")]
    states: States,
    /// Tokens per sequence.
    #[arg(long, default_value_t = 2048)]
    seq_len: usize,
    /// Sequences per step; may be repeated. The ladder of changes is that of the last.
    #[arg(long, default_values_t = [1, 8])]
    sequences: Vec<usize>,
    /// A card of the model, by a part of its name; all if absent.
    #[arg(long)]
    card: Option<String>,
    /// Also print what each kernel takes in the fastest way to do the step.
    #[arg(long)]
    kernels: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let config = LlamaConfig::preset(&args.model)?;
    let is_asked = |card: &Card| args.card.as_ref().is_none_or(|name| card.name.contains(name));
    let cards: Vec<_> = CARDS.into_iter().filter(is_asked).collect();
    ensure!(!cards.is_empty(), "--card: none of {:?}", CARDS.map(|card| card.name));
    let mut runner = Runner::default();
    for (i, &sequences) in args.sequences.iter().enumerate() {
        println!("\n{} {}, {sequences} x {} tokens:\n", args.model, args.states, args.seq_len);
        report::steps_head();
        let mut modelled = Vec::new();
        for &card in &cards {
            let ways = ways(&mut runner, &card, &config, args, sequences)?;
            ways.iter().for_each(|way| report::step(&card, way));
            modelled.push((card, ways));
        }
        for (card, ways) in modelled.iter().filter(|_| args.kernels) {
            if let Some((fastest, _)) = report::fastest(card, ways, 0) {
                report::kernels(card, fastest);
            }
        }
        if i + 1 == args.sequences.len() {
            report::ladder(&modelled);
        }
    }
    Ok(())
}

/// A step with all activations kept, and one with blocks recomputed, each in the largest micro-batches for which the card has the
/// memory; the latter only if they are larger.
fn ways(
    runner: &mut Runner,
    card: &Card,
    config: &LlamaConfig,
    args: &Args,
    sequences: usize,
) -> Result<Vec<Modelled>> {
    let mut ways: Vec<Modelled> = Vec::new();
    for recompute in [Recompute::None, Recompute::Block] {
        let most = ways.first().map_or(0, |way| way.way.shape.batch_size);
        let mut all = Way::all(args.seq_len, sequences, recompute);
        all.retain(|way| way.shape.batch_size > most);
        for way in all {
            let Some(recorded) = step::record(card, config, args.states, way)? else { continue };
            let Recorded { requests, peak_bytes } = recorded;
            let mut work = runner.work(&requests)?;
            let rungs = Rung::ALL.map(|rung| {
                work = rung.apply(std::mem::take(&mut work), way.shape.accumulate);
                work.clone()
            });
            ways.push(Modelled { way, peak_bytes, rungs: rungs.into() });
            break;
        }
    }
    Ok(ways)
}
