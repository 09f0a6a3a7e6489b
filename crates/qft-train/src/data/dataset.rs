//! Sequences of tokens: what a step takes.

use super::documents::Documents;
use super::order::Share;
use super::pack::first_fit;
use crate::error::{Result, ensure};
use qft_llama::Batch;
use std::ops::Range;

/// Documents in sequences of a limited length.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    documents: Documents,
    /// Documents by sequence; those of a sequence in the order of the data.
    order: Vec<u32>,
    /// Where sequences begin in `order`, and its length.
    starts: Vec<usize>,
    /// The sequences by how often they are taken.
    shares: Vec<Share>,
}

impl Dataset {
    /// One document per sequence, or with `pack` as many as fit into `seq_len` positions, of those that are taken equally
    /// often.
    ///
    /// Errors: there are no documents, or more than can be counted.
    pub fn new(documents: Documents, seq_len: usize, pack: bool) -> Result<Self> {
        let count = documents.len();
        ensure!(
            count > 0,
            "the data contains nothing to learn: {documents}; give other data, a larger --seq-len, or --train-on all"
        );
        ensure!(u32::try_from(count).is_ok(), "the data has {count} documents; split it");
        let (order, starts) = (Vec::with_capacity(count), vec![0]);
        let mut dataset = Self { documents, order, starts, shares: Vec::new() };
        let mut first = 0;
        for part in dataset.documents.parts().to_vec() {
            let (before, end) = (dataset.sequences(), first + part.documents);
            if pack {
                dataset.pack(first..end, seq_len);
            } else {
                dataset.order.extend(first as u32..end as u32);
                dataset.starts.extend(first + 1..=end);
            }
            let sequences = dataset.sequences() - before;
            dataset.shares.push(Share { sequences, weight: part.weight });
            first = end;
        }
        Ok(dataset)
    }

    /// Lays documents into sequences of `seq_len` positions.
    fn pack(&mut self, documents: Range<usize>, seq_len: usize) {
        let first = documents.start;
        let lengths = documents.map(|document| self.documents.positions(document));
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
        let mut order = vec![0; sequence_of.len()];
        for (document, &sequence) in sequence_of.iter().enumerate() {
            order[next[sequence as usize]] = (first + document) as u32;
            next[sequence as usize] += 1;
        }
        let before = self.order.len();
        self.order.extend(order);
        self.starts.extend(starts[1..].iter().map(|start| before + start));
    }

    /// The sequences by how often they are taken, for [`Order::at`](super::Order::at).
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Sequences that a pass takes, as a mean over many.
    pub fn sequences_per_pass(&self) -> f64 {
        self.shares.iter().map(|share| share.sequences as f64 * share.weight.times()).sum()
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
    ///
    /// Errors: those of [`Documents::get`].
    pub fn batch(&self, sequences: &[usize]) -> Result<Batch> {
        let mut batch = Batch::default();
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for &document in sequences.iter().flat_map(|&sequence| self.sequence(sequence)) {
            let document = self.documents.get(document as usize)?;
            ids.clear();
            targets.clear();
            ids.extend(document.ids());
            targets.extend(document.targets());
            batch.push(&ids, &targets);
        }
        Ok(batch)
    }

    /// All sequences in order, as micro-batches of `batch_size`, the last one smaller.
    pub fn batches(&self, batch_size: usize) -> impl Iterator<Item = Result<Batch>> {
        let all: Vec<usize> = (0..self.sequences()).collect();
        let size = batch_size.max(1);
        (0..all.len().div_ceil(size))
            .map(move |i| self.batch(&all[i * size..all.len().min((i + 1) * size)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::documents::DocumentWriter;
    use crate::data::weight::Weight;

    fn documents(parts: &[(&[usize], f64)]) -> Documents {
        let mut documents = DocumentWriter::in_memory(100, 8);
        for (lengths, times) in parts {
            for &length in *lengths {
                documents.push(&vec![documents.len() as u32; length + 1], |_| true).unwrap();
            }
            documents.part(Weight::of(*times).unwrap());
        }
        documents.finish().unwrap()
    }

    #[test]
    fn sequences_hold_what_fits() {
        let packed = Dataset::new(documents(&[(&[5, 6, 3, 2, 8, 1], 1.0)]), 8, true).unwrap();
        assert_eq!(packed.sequences(), 4);
        let tokens: Vec<_> = (0..4).map(|sequence| packed.positions(sequence)).collect();
        assert_eq!(tokens, [8, 8, 8, 1]);
        let batch = packed.batch(&[1, 0]).unwrap();
        assert_eq!(batch.segments, [0, 6, 8, 13, 16]);
        assert_eq!((batch.ids[0], batch.ids[6], batch.ids[8], batch.ids[13]), (1, 3, 0, 2));
        let loose = Dataset::new(documents(&[(&[5, 6, 3], 1.0)]), 8, false).unwrap();
        assert_eq!(loose.sequences(), 3);
        let sizes: Vec<_> = loose.batches(2).map(|batch| batch.unwrap().tokens()).collect();
        assert_eq!(sizes, [11, 3]);
    }

    #[test]
    fn data_of_other_weight_has_sequences_of_its_own() {
        let parts: [(&[usize], f64); 3] = [(&[5, 2], 1.0), (&[3, 3], 0.5), (&[4], 2.0)];
        for (pack, sequences) in [(true, [1, 1, 1]), (false, [2, 2, 1])] {
            let data = Dataset::new(documents(&parts), 8, pack).unwrap();
            let shares: Vec<usize> = data.shares().iter().map(|share| share.sequences).collect();
            assert_eq!(shares, sequences);
            let positions: usize = (0..data.sequences()).map(|i| data.positions(i)).sum();
            assert_eq!(
                (positions, data.batch(&[data.sequences() - 1]).unwrap().ids),
                (17, vec![4; 4])
            );
        }
        let data = Dataset::new(documents(&parts), 8, false).unwrap();
        assert_eq!(data.sequences_per_pass(), 5.0);
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        let error = Dataset::new(documents(&[(&[0, 0], 1.0)]), 8, false).unwrap_err().to_string();
        assert!(error.contains("2 left out"), "{error}");
    }
}
