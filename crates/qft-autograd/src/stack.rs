//! A stack that is pushed in one pass and popped in the next.

use crate::Error;

/// Last in, first out; push and pop are O(1) and nothing is looked up by name.
///
/// The activation stack is pushed by the forward pass and popped by the backward pass; the gradient stack is
/// pushed by the backward pass and popped by the optimizer. (QFT, arXiv 2310.07147, section 4.3.)
#[derive(Debug)]
pub struct Stack<T> {
    name: &'static str,
    items: Vec<T>,
}

impl<T> Stack<T> {
    /// An empty stack; `name` appears in errors.
    pub fn new(name: &'static str) -> Self {
        Self { name, items: Vec::new() }
    }

    /// Puts `item` on top.
    pub fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Takes the top item.
    ///
    /// Errors: [`Error::EmptyStack`].
    pub fn pop(&mut self) -> Result<T, Error> {
        self.items.pop().ok_or(Error::EmptyStack { stack: self.name })
    }

    /// Whether nothing is on the stack.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items from bottom to top.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pops_in_reverse_and_then_refuses() {
        let mut stack = Stack::new("test");
        (0..3).for_each(|i| stack.push(i));
        assert!(!stack.is_empty());
        assert_eq!((0..3).map(|_| stack.pop().unwrap()).collect::<Vec<_>>(), [2, 1, 0]);
        assert!(matches!(stack.pop(), Err(Error::EmptyStack { stack: "test" })));
        assert!(stack.is_empty());
    }
}
