//! What one forward pass reads: tokens, targets, and where documents begin.

/// The target of a position that does not count in the loss.
pub const IGNORE: u32 = u32::MAX;

/// A micro-batch: documents laid end to end, without padding. Attention never crosses a document's border,
/// and rotary positions start at 0 in each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Token ids `[T]`.
    pub ids: Vec<u32>,
    /// The token that each position must predict `[T]`, or [`IGNORE`].
    pub targets: Vec<u32>,
    /// Where documents begin, and `T` at the end: `[documents + 1]`, first 0, strictly rising.
    pub segments: Vec<usize>,
}

impl Batch {
    /// Number of positions T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of positions that count in the loss.
    pub fn target_tokens(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORE).count()
    }

    /// The rotary position of each token: its distance from the start of its document.
    pub fn positions(&self) -> Vec<u32> {
        self.segments.windows(2).flat_map(|s| 0..(s[1] - s[0]) as u32).collect()
    }

    /// Appends a document: `ids[i]` is at rotary position `i` and must predict `targets[i]`.
    pub fn push(&mut self, ids: &[u32], targets: &[u32]) {
        assert_eq!(ids.len(), targets.len(), "one target per token");
        if ids.is_empty() {
            return;
        }
        if self.segments.is_empty() {
            self.segments.push(0);
        }
        self.ids.extend_from_slice(ids);
        self.targets.extend_from_slice(targets);
        self.segments.push(self.ids.len());
    }
}
