//! The order of rows, and where in it a run is.

use qft_tensor::{Philox, Purpose, RngKey};
use serde::{Deserialize, Serialize};

/// Where a run is in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes over the data that are complete.
    pub epoch: u32,
    /// Rows of the current pass that have been taken.
    pub position: u64,
}

/// Gives out rows, pass after pass, each pass in an order of its own. Nothing but the [`Cursor`] needs to be saved.
#[derive(Debug, Clone)]
pub struct Sampler {
    rows: usize,
    seed: u64,
    shuffle: bool,
    cursor: Cursor,
    order: Vec<u32>,
}

impl Sampler {
    /// Over `rows` rows, from the beginning.
    pub fn new(rows: usize, seed: u64, shuffle: bool) -> Self {
        Self::at(rows, seed, shuffle, Cursor::default())
    }

    /// Over `rows` rows, from where a run was. A position beyond the rows counts as the next pass.
    pub fn at(rows: usize, seed: u64, shuffle: bool, cursor: Cursor) -> Self {
        let order = order(rows, seed, shuffle, cursor.epoch);
        Self { rows, seed, shuffle, cursor, order }
    }

    /// Where the run is.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next `count` rows. A pass that ends within them is followed by the next one, so that every step is of the
    /// same size. Empty if there are no rows.
    pub fn take(&mut self, count: usize) -> Vec<usize> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count && self.rows > 0 {
            let Some(&row) = usize::try_from(self.cursor.position)
                .ok()
                .and_then(|position| self.order.get(position))
            else {
                let epoch = self.cursor.epoch.wrapping_add(1);
                self.cursor = Cursor { epoch, position: 0 };
                self.order = order(self.rows, self.seed, self.shuffle, epoch);
                continue;
            };
            taken.push(row as usize);
            self.cursor.position += 1;
        }
        taken
    }
}

/// The order of rows in a pass: Fisher-Yates with one number of the pass's stream per row.
fn order(rows: usize, seed: u64, shuffle: bool, epoch: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    if !shuffle {
        return order;
    }
    let philox = Philox::new(RngKey::new(seed, epoch, 0, Purpose::DataOrder));
    let mut words = [0; qft_tensor::rng::BLOCK_WORDS];
    for i in 0..rows {
        let word = i % words.len();
        if word == 0 {
            words = philox.block((i / words.len()) as u32);
        }
        // The rows from `i` on are not placed yet; one of them goes here.
        let left = (rows - i) as u64;
        let other = i + ((u64::from(words[word]) * left) >> 32) as usize;
        order.swap(i, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_has_every_row_once_in_an_order_of_its_own() {
        for rows in [1, 2, 64, 65, 1000] {
            let mut sampler = Sampler::new(rows, 3, true);
            let passes: Vec<Vec<usize>> = (0..3).map(|_| sampler.take(rows)).collect();
            for pass in &passes {
                let mut sorted = pass.clone();
                sorted.sort();
                assert_eq!(sorted, (0..rows).collect::<Vec<_>>());
            }
            assert!(rows < 64 || (passes[0] != passes[1] && passes[1] != passes[2]));
            assert_eq!(sampler.cursor(), Cursor { epoch: 2, position: rows as u64 });
        }
        assert_ne!(Sampler::new(64, 1, true).take(64), Sampler::new(64, 2, true).take(64));
        assert_eq!(Sampler::new(5, 1, false).take(7), [0, 1, 2, 3, 4, 0, 1]);
        assert!(Sampler::new(0, 1, true).take(3).is_empty());
    }

    #[test]
    fn a_resumed_sampler_goes_on() {
        let mut whole = Sampler::new(23, 9, true);
        let mut parts = Sampler::new(23, 9, true);
        for step in 0..40 {
            let saved = serde_json::to_string(&parts.cursor()).unwrap();
            parts = Sampler::at(23, 9, true, serde_json::from_str(&saved).unwrap());
            assert_eq!(parts.take(3), whole.take(3), "{step}");
        }
    }

    #[test]
    fn orders_are_uniform() {
        // Each of the 6 orders of 3 rows in 6000 passes: 1000, and within 5 standard deviations of 29.
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(order(3, 5, true, epoch)).or_insert(0i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (count - 1000).abs() < 145), "{counts:?}");
    }
}
