//! Long texts, cut into documents.

use std::convert::Infallible;

/// Cuts the tokens of a long text into documents of `seq_len` positions, the last one shorter.
///
/// With `before`, the tokens that begin a text, each begins with them and predicts the tokens that follow. Without any,
/// each begins with the last token that the one before predicted.
pub fn windows(ids: &[u32], before: &[u32], seq_len: usize) -> Vec<Vec<u32>> {
    let (mut windows, mut all) = (Windows::new(before, seq_len), Vec::new());
    let Ok(()) = windows.push(ids, |window| {
        all.push(window.to_vec());
        Ok::<_, Infallible>(())
    });
    all.extend(windows.finish());
    all
}

/// [`windows`] of tokens that come one after the other.
#[derive(Debug)]
pub(super) struct Windows {
    before: Vec<u32>,
    /// Tokens of a document after `before`.
    room: usize,
    /// Tokens that two documents share.
    overlap: usize,
    pending: Vec<u32>,
}

impl Windows {
    pub(super) fn new(before: &[u32], seq_len: usize) -> Self {
        Self {
            before: before.to_vec(),
            room: (seq_len + 1).saturating_sub(before.len().max(1)).max(1),
            overlap: usize::from(before.is_empty()),
            pending: Vec::new(),
        }
    }

    /// Adds tokens; hands the documents on that are full.
    ///
    /// Errors: those of `take`.
    pub(super) fn push<E>(
        &mut self,
        ids: &[u32],
        mut take: impl FnMut(&[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pending.extend(ids);
        let (room, overlap) = (self.room, self.overlap);
        let mut start = 0;
        while self.pending.len() - start > room + overlap {
            take(&[&self.before, &self.pending[start..start + room + overlap]].concat())?;
            start += room;
        }
        self.pending.drain(..start);
        Ok(())
    }

    /// The last document, if anything is left to be predicted.
    pub(super) fn finish(&mut self) -> Option<Vec<u32>> {
        let rest = std::mem::take(&mut self.pending);
        (rest.len() > self.overlap).then(|| [self.before.as_slice(), &rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_predict_every_token_once() {
        let ids: Vec<u32> = (0..10).collect();
        let with = windows(&ids, &[99], 4);
        assert_eq!(with, [vec![99, 0, 1, 2, 3], vec![99, 4, 5, 6, 7], vec![99, 8, 9]]);
        let without = windows(&ids, &[], 4);
        assert_eq!(without, [vec![0, 1, 2, 3, 4], vec![4, 5, 6, 7, 8], vec![8, 9]]);
        assert_eq!(windows(&ids[..9], &[], 4).len(), 2);
        assert_eq!(windows(&ids[..8], &[99], 4).len(), 2);
        assert!(windows(&[], &[99], 4).is_empty() && windows(&[5], &[], 4).is_empty());
        for (before, whole) in [(&[99][..], with), (&[], without)] {
            for parts in 1..7 {
                let (mut windows, mut all) = (Windows::new(before, 4), Vec::new());
                for part in ids.chunks(parts) {
                    let Ok(()) = windows.push(part, |window| {
                        all.push(window.to_vec());
                        Ok::<_, Infallible>(())
                    });
                }
                all.extend(windows.finish());
                assert_eq!(all, whole);
            }
        }
    }
}
