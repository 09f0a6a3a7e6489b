//! Rows of tokens: what a step takes.

use super::documents::Documents;
use super::pack::first_fit;
use anyhow::{Result, ensure};
use qft_llama::Batch;

/// Documents in rows of at most the sequence length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    documents: Documents,
    /// Documents by row; those of a row in the order of the data.
    order: Vec<u32>,
    /// Where rows begin in `order`, and its length.
    starts: Vec<usize>,
}

impl Dataset {
    /// One document per row, or with `pack` as many as fit into `seq_len` positions.
    ///
    /// Errors: there are no documents, or more than can be counted.
    pub fn new(documents: Documents, seq_len: usize, pack: bool) -> Result<Self> {
        let count = documents.len();
        ensure!(
            count > 0,
            "the data has nothing to learn: {documents}; give other data, a larger --seq-len, or --train-on all"
        );
        ensure!(u32::try_from(count).is_ok(), "the data has {count} documents; split it");
        if !pack {
            let order = (0..count as u32).collect();
            return Ok(Self { documents, order, starts: (0..=count).collect() });
        }
        let lengths = (0..count).map(|document| documents.positions(document));
        let row_of = first_fit(lengths, seq_len);
        let rows = row_of.iter().max().map_or(0, |&row| row as usize + 1);
        let mut starts = vec![0; rows + 1];
        for &row in &row_of {
            starts[row as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut order = vec![0; count];
        for (document, &row) in row_of.iter().enumerate() {
            order[next[row as usize]] = document as u32;
            next[row as usize] += 1;
        }
        Ok(Self { documents, order, starts })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The documents.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Positions in a row.
    ///
    /// Panics if there is no such row.
    pub fn row_tokens(&self, row: usize) -> usize {
        self.row(row).iter().map(|&document| self.documents.positions(document as usize)).sum()
    }

    fn row(&self, row: usize) -> &[u32] {
        &self.order[self.starts[row]..self.starts[row + 1]]
    }

    /// The rows as a micro-batch.
    ///
    /// Panics if there is no such row.
    pub fn batch(&self, rows: &[usize]) -> Batch {
        let mut batch = Batch::default();
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for &document in rows.iter().flat_map(|&row| self.row(row)) {
            ids.clear();
            targets.clear();
            ids.extend(self.documents.ids(document as usize));
            targets.extend(self.documents.targets(document as usize));
            batch.push(&ids, &targets);
        }
        batch
    }

    /// All rows in order, as micro-batches of `batch_size`, the last one smaller.
    pub fn batches(&self, batch_size: usize) -> impl Iterator<Item = Batch> {
        let rows: Vec<usize> = (0..self.rows()).collect();
        let size = batch_size.max(1);
        (0..rows.len().div_ceil(size))
            .map(move |i| self.batch(&rows[i * size..rows.len().min((i + 1) * size)]))
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
    fn rows_hold_what_fits() {
        let packed = Dataset::new(documents(&[5, 6, 3, 2, 8, 1]), 8, true).unwrap();
        assert_eq!(packed.rows(), 4);
        let tokens: Vec<_> = (0..4).map(|row| packed.row_tokens(row)).collect();
        assert_eq!(tokens, [8, 8, 8, 1]);
        let batch = packed.batch(&[1, 0]);
        assert_eq!(batch.segments, [0, 6, 8, 13, 16]);
        assert_eq!((batch.ids[0], batch.ids[6], batch.ids[8], batch.ids[13]), (1, 3, 0, 2));
        let loose = Dataset::new(documents(&[5, 6, 3]), 8, false).unwrap();
        assert_eq!(loose.rows(), 3);
        let sizes: Vec<_> = loose.batches(2).map(|batch| batch.tokens()).collect();
        assert_eq!(sizes, [11, 3]);
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        let error = Dataset::new(documents(&[0, 0]), 8, false).unwrap_err().to_string();
        assert!(error.contains("2 left out"), "{error}");
    }
}
