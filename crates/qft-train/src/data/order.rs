//! The order of sequences in training.

use qft_tensor::{Philox, Purpose, RngKey};

/// Gives out sequences, pass after pass, each pass in an order of its own. Where a run is follows from how many
/// sequences it has taken: nothing needs to be saved.
#[derive(Debug, Clone)]
pub struct Order {
    sequences: usize,
    seed: u64,
    shuffle: bool,
    /// Sequences that have been taken in all passes.
    taken: u64,
    /// The pass that `order` is of, counted from 0.
    pass: u32,
    order: Vec<u32>,
}

impl Order {
    /// Over `sequences` sequences, of which `taken` have been taken.
    pub fn at(sequences: usize, seed: u64, shuffle: bool, taken: u64) -> Self {
        let pass = (taken / sequences.max(1) as u64) as u32;
        let order = order(sequences, seed, shuffle, pass);
        Self { sequences, seed, shuffle, taken, pass, order }
    }

    /// The next `count` sequences. A pass that ends within them is followed by the next one. Empty if there are no
    /// sequences.
    pub fn take(&mut self, count: usize) -> Vec<usize> {
        if self.sequences == 0 {
            return Vec::new();
        }
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> usize {
        let sequences = self.sequences as u64;
        let pass = (self.taken / sequences) as u32;
        if pass != self.pass {
            self.pass = pass;
            self.order = order(self.sequences, self.seed, self.shuffle, pass);
        }
        let sequence = self.order[(self.taken % sequences) as usize];
        self.taken += 1;
        sequence as usize
    }
}

/// The order of sequences in a pass: Fisher-Yates with one number of the pass's stream per sequence.
fn order(sequences: usize, seed: u64, shuffle: bool, pass: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..sequences as u32).collect();
    if !shuffle {
        return order;
    }
    let philox = Philox::new(RngKey::new(seed, pass, 0, Purpose::DataOrder));
    let mut words = [0; qft_tensor::rng::BLOCK_WORDS];
    for i in 0..sequences {
        let word = i % words.len();
        if word == 0 {
            words = philox.block((i / words.len()) as u32);
        }
        // The sequences from `i` on are not placed yet; one of them goes here.
        let left = (sequences - i) as u64;
        let other = i + ((u64::from(words[word]) * left) >> 32) as usize;
        order.swap(i, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_has_every_sequence_once_in_an_order_of_its_own() {
        for sequences in [1, 2, 64, 65, 1000] {
            let mut order = Order::at(sequences, 3, true, 0);
            let passes: Vec<Vec<usize>> = (0..3).map(|_| order.take(sequences)).collect();
            for pass in &passes {
                let mut sorted = pass.clone();
                sorted.sort();
                assert_eq!(sorted, (0..sequences).collect::<Vec<_>>());
            }
            assert!(sequences < 64 || (passes[0] != passes[1] && passes[1] != passes[2]));
        }
        assert_ne!(Order::at(64, 1, true, 0).take(64), Order::at(64, 2, true, 0).take(64));
        assert_eq!(Order::at(5, 1, false, 0).take(7), [0, 1, 2, 3, 4, 0, 1]);
        assert!(Order::at(0, 1, true, 0).take(3).is_empty());
    }

    #[test]
    fn a_resumed_order_goes_on() {
        let mut whole = Order::at(23, 9, true, 0);
        for step in 0..40 {
            let mut part = Order::at(23, 9, true, 3 * step);
            assert_eq!(part.take(3), whole.take(3), "{step}");
        }
    }

    #[test]
    fn orders_are_uniform() {
        // Each of the 6 orders of 3 sequences in 6000 passes: 1000, and within 5 standard deviations of 29.
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(order(3, 5, true, epoch)).or_insert(0i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (count - 1000).abs() < 145), "{counts:?}");
    }
}
