//! The order of sequences in training.

use super::weight::Weight;
use qft_tensor::{Philox, Purpose, RngKey};

/// Sequences that are taken equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many they are; those of the next share follow.
    pub sequences: usize,
    /// How often each pass takes them.
    pub weight: Weight,
}

/// Gives out sequences, pass after pass, each pass in an order of its own. Where a run is follows from how many
/// sequences it has taken: nothing needs to be saved.
///
/// A pass takes all sequences of weight 1 once. Of others it takes the next `weight * sequences` in an order that goes
/// on over the passes, so that all have been taken equally often whenever that order is through.
#[derive(Debug, Clone)]
pub struct Order {
    shares: Vec<Share>,
    seed: u64,
    shuffle: bool,
    /// Sequences that have been taken in all passes.
    taken: u64,
    /// The pass that `order` is of, counted from 0.
    pass: u64,
    order: Vec<u32>,
}

impl Order {
    /// Over the sequences of all shares, of which `taken` have been taken.
    pub fn at(shares: &[Share], seed: u64, shuffle: bool, taken: u64) -> Self {
        let shares = shares.to_vec();
        let mut order = Self { shares, seed, shuffle, taken, pass: 0, order: Vec::new() };
        order.pass = order.pass_at(taken);
        order.order = order.of_pass(order.pass);
        order
    }

    /// The next `count` sequences. A pass that ends within them is followed by the next one. Empty if there are no
    /// sequences.
    pub fn take(&mut self, count: usize) -> Vec<usize> {
        if self.shares.iter().all(|share| share.sequences == 0) {
            return Vec::new();
        }
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> usize {
        // A pass of small fractions may be empty.
        while self.taken >= self.begin(self.pass + 1) {
            self.pass += 1;
            self.order = self.of_pass(self.pass);
        }
        let sequence = self.order[(self.taken - self.begin(self.pass)) as usize];
        self.taken += 1;
        sequence as usize
    }

    /// Sequences that have been taken before a pass.
    fn begin(&self, pass: u64) -> u64 {
        let taken = |share: &Share| share.weight.taken(share.sequences, pass);
        self.shares.iter().map(taken).fold(0, u64::saturating_add)
    }

    /// The pass in which `taken` have been taken.
    fn pass_at(&self, taken: u64) -> u64 {
        let (mut low, mut high) = (0, 1);
        while self.begin(high) <= taken && high < u64::MAX / 2 {
            (low, high) = (high, 2 * high);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            (low, high) = if self.begin(middle) <= taken { (middle, high) } else { (low, middle) };
        }
        low
    }

    fn of_pass(&self, pass: u64) -> Vec<u32> {
        let plain = self.shares.iter().all(|share| share.weight == Weight::ONCE);
        let mut first = 0;
        let mut taken = Vec::new();
        for (number, share) in self.shares.iter().enumerate() {
            let of_share: Vec<u32> = match plain {
                true => (0..share.sequences as u32).collect(),
                false => self.of_share(number, share, pass),
            };
            let count = of_share.len() as u64;
            let place =
                |(i, sequence): (usize, u32)| ((2 * i as u64 + 1, 2 * count), first + sequence);
            taken.extend(of_share.into_iter().enumerate().map(place));
            first += share.sequences as u32;
        }
        if !plain && !self.shuffle {
            // Each share spread evenly over the pass.
            let before = |a: (u64, u64), b: (u64, u64)| {
                (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
            };
            taken.sort_by(|(a, _), (b, _)| before(*a, *b));
        }
        let mut order: Vec<u32> = taken.into_iter().map(|(_, sequence)| sequence).collect();
        if self.shuffle {
            shuffle(&mut order, RngKey::new(self.seed, pass as u32, 0, Purpose::DataOrder));
        }
        order
    }

    /// The sequences of a share that a pass takes: the next ones of an order that goes on over the passes.
    fn of_share(&self, number: usize, share: &Share, pass: u64) -> Vec<u32> {
        let (sequences, weight) = (share.sequences, share.weight);
        let (mut start, end) = (weight.taken(sequences, pass), weight.taken(sequences, pass + 1));
        let mut taken = Vec::new();
        while start < end {
            let round = start / sequences as u64;
            let next = end.min((round + 1).saturating_mul(sequences as u64));
            let mut order: Vec<u32> = (0..sequences as u32).collect();
            if self.shuffle {
                let stream = number as u32 + 1;
                shuffle(
                    &mut order,
                    RngKey::new(self.seed, round as u32, stream, Purpose::DataOrder),
                );
            }
            let first = round * sequences as u64;
            taken.extend(&order[(start - first) as usize..(next - first) as usize]);
            start = next;
        }
        taken
    }
}

/// Fisher-Yates with one number of the stream per place.
fn shuffle(order: &mut [u32], key: RngKey) {
    let philox = Philox::new(key);
    let mut words = [0; qft_tensor::rng::BLOCK_WORDS];
    for i in 0..order.len() {
        let word = i % words.len();
        if word == 0 {
            words = philox.block((i / words.len()) as u32);
        }
        // Those from `i` on are not placed yet; one of them goes here.
        let left = (order.len() - i) as u64;
        let other = i + ((u64::from(words[word]) * left) >> 32) as usize;
        order.swap(i, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(sequences: usize) -> [Share; 1] {
        [Share { sequences, weight: Weight::ONCE }]
    }

    fn shares(shares: &[(usize, f64)]) -> Vec<Share> {
        let share = |&(sequences, times)| Share { sequences, weight: Weight::of(times).unwrap() };
        shares.iter().map(share).collect()
    }

    #[test]
    fn each_pass_has_every_sequence_once_in_an_order_of_its_own() {
        for sequences in [1, 2, 64, 65, 1000] {
            let mut order = Order::at(&once(sequences), 3, true, 0);
            let passes: Vec<Vec<usize>> = (0..3).map(|_| order.take(sequences)).collect();
            for pass in &passes {
                let mut sorted = pass.clone();
                sorted.sort();
                assert_eq!(sorted, (0..sequences).collect::<Vec<_>>());
            }
            assert!(sequences < 64 || (passes[0] != passes[1] && passes[1] != passes[2]));
        }
        assert_ne!(
            Order::at(&once(64), 1, true, 0).take(64),
            Order::at(&once(64), 2, true, 0).take(64)
        );
        assert_eq!(Order::at(&once(5), 1, false, 0).take(7), [0, 1, 2, 3, 4, 0, 1]);
        assert!(Order::at(&once(0), 1, true, 0).take(3).is_empty());
    }

    #[test]
    fn a_resumed_order_goes_on() {
        for shares in
            [once(23).to_vec(), shares(&[(20, 1.0), (7, 2.0), (9, 0.25)]), shares(&[(3, 0.1)])]
        {
            for shuffle in [true, false] {
                let mut whole = Order::at(&shares, 9, shuffle, 0);
                for step in 0..60 {
                    let mut part = Order::at(&shares, 9, shuffle, 3 * step);
                    assert_eq!(part.take(3), whole.take(3), "{step}");
                }
            }
        }
    }

    #[test]
    fn weights_say_how_often() {
        let shares = shares(&[(8, 1.0), (6, 2.0), (10, 0.3)]);
        for shuffle in [true, false] {
            let mut order = Order::at(&shares, 5, shuffle, 0);
            let mut counts = [0; 24];
            for pass in 0..10 {
                let taken = order.take(23);
                for &sequence in &taken {
                    counts[sequence] += 1;
                }
                assert!(taken.iter().filter(|&&sequence| sequence >= 14).count() == 3, "{pass}");
            }
            assert_eq!(counts[..8], [10; 8]);
            assert_eq!(counts[8..14], [20; 6]);
            assert_eq!(counts[14..], [3; 10]);
        }
        // In the order of the data, they are spread evenly.
        let taken = Order::at(&self::shares(&[(4, 1.0), (1, 2.0)]), 1, false, 0).take(6);
        assert_eq!(taken, [0, 4, 1, 2, 4, 3]);
    }

    #[test]
    fn orders_are_uniform() {
        // Each of the 6 orders of 3 sequences in 6000 passes: 1000, and within 5 standard deviations of 29.
        let mut counts = std::collections::BTreeMap::new();
        let mut order = Order::at(&once(3), 5, true, 0);
        for _ in 0..6000 {
            *counts.entry(order.take(3)).or_insert(0i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (count - 1000).abs() < 145), "{counts:?}");
    }
}
