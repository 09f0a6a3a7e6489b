//! Sequences of tokens: what a step takes.

use super::documents::Documents;
use super::pack::first_fit;
use crate::error::{Result, ensure};
use qft_llama::Batch;

/// Documents in sequences of a limited length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    documents: Documents,
    /// Documents by sequence; those of a sequence in the order of the data.
    order: Vec<u32>,
    /// Where sequences begin in `order`, and its length.
    starts: Vec<usize>,
}

impl Dataset {
    /// One document per sequence, or with `pack` as many as fit into `seq_len` positions.
    ///
    /// Errors: there are no documents, or more than can be counted.
    pub fn new(documents: Documents, seq_len: usize, pack: bool) -> Result<Self> {
        let count = documents.len();
        ensure!(
            count > 0,
            "the data contains nothing to learn: {documents}; give other data, a larger --seq-len, or --train-on all"
        );
        ensure!(u32::try_from(count).is_ok(), "the data has {count} documents; split it");
        if !pack {
            let order = (0..count as u32).collect();
            return Ok(Self { documents, order, starts: (0..=count).collect() });
        }
        let lengths = (0..count).map(|document| documents.positions(document));
        let sequence_of = first_fit(lengths, seq_len);
        let sequences = sequence_of.iter().max().map_or(0, |&last| last as usize + 1);
        let mut starts = vec![0; sequences + 1];
        for &sequence in &sequence_of {
            starts[sequence as usize + 1] += 1;
        }
        for sequence in 0..sequences {
            starts[sequence + 1] += starts[sequence];
        }
        let mut next = starts.clone();
        let mut order = vec![0; count];
        for (document, &sequence) in sequence_of.iter().enumerate() {
            order[next[sequence as usize]] = document as u32;
            next[sequence as usize] += 1;
        }
        Ok(Self { documents, order, starts })
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.starts.len() - 1
    }

    /// The documents.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Positions in a sequence.
    ///
    /// Panics if there is no such sequence.
    pub fn positions(&self, sequence: usize) -> usize {
        self.sequence(sequence)
            .iter()
            .map(|&document| self.documents.positions(document as usize))
            .sum()
    }

    /// Positions in the longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.sequences()).map(|sequence| self.positions(sequence)).max().unwrap_or(0)
    }

    fn sequence(&self, sequence: usize) -> &[u32] {
        &self.order[self.starts[sequence]..self.starts[sequence + 1]]
    }

    /// The sequences as a micro-batch.
    ///
    /// Panics if there is no such sequence.
    pub fn batch(&self, sequences: &[usize]) -> Batch {
        let mut batch = Batch::default();
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for &document in sequences.iter().flat_map(|&sequence| self.sequence(sequence)) {
            ids.clear();
            targets.clear();
            ids.extend(self.documents.ids(document as usize));
            targets.extend(self.documents.targets(document as usize));
            batch.push(&ids, &targets);
        }
        batch
    }

    /// All sequences in order, as micro-batches of `batch_size`, the last one smaller.
    pub fn batches(&self, batch_size: usize) -> impl Iterator<Item = Batch> {
        let all: Vec<usize> = (0..self.sequences()).collect();
        let size = batch_size.max(1);
        (0..all.len().div_ceil(size))
            .map(move |i| self.batch(&all[i * size..all.len().min((i + 1) * size)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(lengths: &[usize]) -> Documents {
        let mut documents = Documents::new(100, 8);
        for (i, &length) in lengths.iter().enumerate() {
            documents.push(&vec![i as u32; length + 1], |_| true).unwrap();
        }
        documents
    }

    #[test]
    fn sequences_hold_what_fits() {
        let packed = Dataset::new(documents(&[5, 6, 3, 2, 8, 1]), 8, true).unwrap();
        assert_eq!(packed.sequences(), 4);
        let tokens: Vec<_> = (0..4).map(|sequence| packed.positions(sequence)).collect();
        assert_eq!(tokens, [8, 8, 8, 1]);
        let batch = packed.batch(&[1, 0]);
        assert_eq!(batch.segments, [0, 6, 8, 13, 16]);
        assert_eq!((batch.ids[0], batch.ids[6], batch.ids[8], batch.ids[13]), (1, 3, 0, 2));
        let loose = Dataset::new(documents(&[5, 6, 3]), 8, false).unwrap();
        assert_eq!(loose.sequences(), 3);
        let sizes: Vec<_> = loose.batches(2).map(|batch| batch.tokens()).collect();
        assert_eq!(sizes, [11, 3]);
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        let error = Dataset::new(documents(&[0, 0]), 8, false).unwrap_err().to_string();
        assert!(error.contains("2 left out"), "{error}");
    }
}
