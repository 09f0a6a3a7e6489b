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
    high_water: usize,
}

impl<T> Stack<T> {
    /// An empty stack; `name` appears in errors.
    pub fn new(name: &'static str) -> Self {
        Self { name, items: Vec::new(), high_water: 0 }
    }

    /// Puts `item` on top.
    pub fn push(&mut self, item: T) {
        self.items.push(item);
        self.high_water = self.high_water.max(self.items.len());
    }

    /// Takes the top item.
    ///
    /// Errors: [`Error::EmptyStack`].
    pub fn pop(&mut self) -> Result<T, Error> {
        self.items.pop().ok_or(Error::EmptyStack { stack: self.name })
    }

    /// Items on the stack.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is on the stack.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The most items that were ever on the stack.
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// The items from bottom to top.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pops_in_reverse_and_then_refuses() {
        let mut stack = Stack::new("test");
        (0..3).for_each(|i| stack.push(i));
        assert_eq!((stack.len(), stack.high_water()), (3, 3));
        assert_eq!((0..3).map(|_| stack.pop().unwrap()).collect::<Vec<_>>(), [2, 1, 0]);
        assert!(matches!(stack.pop(), Err(Error::EmptyStack { stack: "test" })));
        assert_eq!(stack.high_water(), 3);
    }
}
