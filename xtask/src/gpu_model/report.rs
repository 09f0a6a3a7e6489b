//! The tables of the model.

use super::cards::Card;
use super::ladder::Rung;
use super::step::Way;
use super::time::{Bound, GAP_SECONDS, time};
use super::work::Work;
use qft_llama::pass::Recompute;
use std::collections::BTreeMap;

/// What launches are for; the last is for the rest.
const CLASSES: [(&str, &[&str]); 8] = [
    ("products", &["gemm_", "transpose"]),
    ("attention", &["attention"]),
    ("update", &["lion", "adamw", "add_update_stats", "store_squares", "square_sum"]),
    ("quantization, rotation", &["quantize", "column", "rotate"]),
    ("norm, RoPE, SwiGLU", &["rmsnorm", "sum_shares", "swiglu", "rope"]),
    ("loss", &["loss"]),
    ("sums of micro-batches", &["raise_bound", "from_units"]),
    ("rest", &[""]),
];

/// A step done in one way.
#[derive(Debug)]
pub(super) struct Modelled {
    pub(super) way: Way,
    pub(super) peak_bytes: u64,
    /// After each rung of the ladder, in order.
    pub(super) rungs: Vec<Vec<Work>>,
}

/// Seconds of a step, the gaps between its launches included.
pub(super) fn seconds(card: &Card, work: &[Work]) -> f64 {
    work.iter().map(|work| time(card, work).seconds + GAP_SECONDS).sum()
}

/// The fastest way at a rung, and its seconds.
pub(super) fn fastest<'a>(
    card: &Card,
    ways: &'a [Modelled],
    rung: usize,
) -> Option<(&'a Modelled, f64)> {
    let timed = ways.iter().map(|modelled| (modelled, seconds(card, &modelled.rungs[rung])));
    timed.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn describe(way: Way) -> String {
    let recompute = if way.recompute == Recompute::Block { "recompute" } else { "keep all" };
    let shape = way.shape;
    format!("{} x {} x {}, {recompute}", shape.accumulate, shape.batch_size, shape.seq_len)
}

/// Prints the head of the table of steps.
pub(super) fn steps_head() {
    print!("| card | micro-batches x sequences x tokens | GB | tok/s | ms |");
    CLASSES.iter().for_each(|(name, _)| print!(" {name} |"));
    println!(" launches and the gaps between them |");
    println!("|---|---|---|---|---|{}", "---|".repeat(CLASSES.len() + 1));
}

/// Prints a line of the table of steps.
pub(super) fn step(card: &Card, modelled: &Modelled) {
    let (way, work) = (modelled.way, &modelled.rungs[0]);
    let all = seconds(card, work);
    let (gb, rate) = (modelled.peak_bytes as f64 * 1e-9, way.tokens() as f64 / all);
    print!("| {} | {} | {gb:.1} | {rate:.0} | {:.0} |", card.name, describe(way), all * 1e3);
    let mut classes = [0.0; CLASSES.len()];
    for work in work {
        let class = CLASSES.iter().position(|(_, prefixes)| {
            prefixes.iter().any(|prefix| work.kernel.starts_with(prefix))
        });
        classes[class.unwrap_or(CLASSES.len() - 1)] += time(card, work).seconds;
    }
    classes.iter().for_each(|seconds| print!(" {:.0} |", seconds * 1e3));
    println!(" {}: {:.0} |", work.len(), work.len() as f64 * GAP_SECONDS * 1e3);
}

/// Prints what each kernel of a step takes, the longest first.
pub(super) fn kernels(card: &Card, modelled: &Modelled) {
    let mut sums: BTreeMap<&str, (usize, f64, BTreeMap<String, f64>)> = BTreeMap::new();
    for work in &modelled.rungs[0] {
        let taken = time(card, work);
        let (count, seconds, bounds) = sums.entry(work.kernel).or_default();
        (*count, *seconds) = (*count + 1, *seconds + taken.seconds);
        let bound = match taken.bound {
            Bound::Memory => "memory".to_owned(),
            Bound::Cache => "L2 cache".to_owned(),
            Bound::Unit(unit) => format!("{unit:?}").to_lowercase(),
        };
        *bounds.entry(bound).or_default() += taken.seconds;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    println!("\n{}, {}:\n", card.name, describe(modelled.way));
    println!("| kernel | launches | ms | held up by |\n|---|---|---|---|");
    for (kernel, (count, seconds, bounds)) in sums {
        let most = bounds.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let bound = most.map_or_else(String::new, |(bound, _)| bound);
        println!("| `{kernel}` | {count} | {:.1} | {bound} |", seconds * 1e3);
    }
}

/// Prints the ladder: tokens per second of each card after each change.
pub(super) fn ladder(cards: &[(Card, Vec<Modelled>)]) {
    print!("\n| tok/s with all changes down to this line |");
    cards.iter().for_each(|(card, _)| print!(" {} |", card.name));
    println!("\n|---|{}", "---|".repeat(cards.len()));
    for (at, rung) in Rung::ALL.iter().enumerate() {
        print!("| {} |", rung.name());
        for (card, ways) in cards {
            match fastest(card, ways, at) {
                Some((fastest, seconds)) => {
                    print!(" {:.0} |", fastest.way.tokens() as f64 / seconds)
                }
                None => print!(" no room |"),
            }
        }
        println!();
    }
}
