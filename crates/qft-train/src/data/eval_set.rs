//! Held-out data in sets: of each the loss is told.

use std::fmt;

/// A set of held-out data: its documents, or something else that it is on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalSet<T> {
    /// What it is called; the one that was given without a name has none.
    pub name: Option<String>,
    /// The data.
    pub data: T,
}

impl<T: fmt::Display> fmt::Display for EvalSet<T> {
    /// `chats: 12 documents`, or without a name the data alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}: {}", self.data),
            None => self.data.fmt(f),
        }
    }
}
