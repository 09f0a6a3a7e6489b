//! How long processes wait for one another before they give up.

use std::time::Duration;

/// How long processes wait for one another before they give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// In the beginning: until all have met, and for what is exchanged first, which finds processes that load at different rates.
    pub first: Duration,
    /// Later.
    pub others: Duration,
}

impl Deadlines {
    /// So long, and three times as long in the beginning.
    pub fn of(others: Duration) -> Self {
        Self { first: others.saturating_mul(3), others }
    }
}
