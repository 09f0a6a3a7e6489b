//! Work on many items by several threads, whose results come in the order of the items.

use crate::chat;
use crate::error::{Context, Result};
use std::panic::resume_unwind;
use std::thread;

/// Threads at most: beyond these, memory is what limits.
const MAX_THREADS: usize = 16;

/// Threads that work on items.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// Does `work` for every item, and hands the results to `take` in order.
///
/// Errors: the first one of `take`; there are no threads to be had.
pub(super) fn in_order<T: Send, R: Send>(
    mut items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
    take: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let share = items.len().div_ceil(threads()).max(1);
    let mut shares = Vec::new();
    while !items.is_empty() {
        let rest = items.split_off(share.min(items.len()));
        shares.push(std::mem::replace(&mut items, rest));
    }
    let work = &work;
    let results = thread::scope(|scope| {
        let all = |share: Vec<T>| share.into_iter().map(work).collect::<Vec<R>>();
        let threads: Result<Vec<_>, _> =
            shares.into_iter().map(|share| chat::spawn(scope, move || all(share))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<R>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.map(|threads| threads.into_iter().flat_map(join).collect::<Vec<R>>())
    });
    let results = results.context("cannot start a thread that encodes data")?;
    results.into_iter().try_for_each(take)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::bail;

    #[test]
    fn results_come_in_order_up_to_the_first_error() {
        let items: Vec<usize> = (0..20_000).collect();
        let mut taken = Vec::new();
        in_order(
            items.clone(),
            |item| (item, item * item),
            |(item, result)| {
                assert_eq!(result, item * item);
                taken.push(item);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(taken, items);
        let error =
            in_order(items, |item| item, |item| if item > 9 { bail!("{item}") } else { Ok(()) });
        assert_eq!(error.unwrap_err().to_string(), "10");
        in_order(Vec::<u8>::new(), |_| (), |()| Ok(())).unwrap();
    }
}
