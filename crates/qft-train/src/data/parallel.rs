//! Work on many records by several threads, whose results come in the order of the records.

use crate::error::Result;
use std::panic::resume_unwind;
use std::thread;

/// Threads at most: beyond these, memory is what limits.
const MAX_THREADS: usize = 16;

/// Items that a thread works on before the results are taken.
const ITEMS_PER_THREAD: usize = 256;

/// Does `work` for every item, and hands the results to `take` in order.
///
/// Errors: the first one of `take`.
pub(super) fn in_order<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    for items in items.chunks(threads * ITEMS_PER_THREAD) {
        let results = on_threads(items, threads, &work);
        items.iter().zip(results).try_for_each(|(item, result)| take(item, result))?;
    }
    Ok(())
}

fn on_threads<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: &(impl Fn(&T) -> R + Sync),
) -> Vec<R> {
    let share = items.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let all = |items: &[T]| items.iter().map(work).collect::<Vec<R>>();
        let shares: Vec<_> =
            items.chunks(share).map(|items| scope.spawn(move || all(items))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<R>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        shares.into_iter().flat_map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::bail;

    #[test]
    fn results_come_in_order_up_to_the_first_error() {
        let items: Vec<usize> = (0..20_000).collect();
        let mut taken = Vec::new();
        let square = |item: &usize| item * item;
        in_order(&items, square, |&item, result| {
            assert_eq!(result, item * item);
            taken.push(item);
            Ok(())
        })
        .unwrap();
        assert_eq!(taken, items);
        let error =
            in_order(&items, square, |item, _| if *item > 9 { bail!("{item}") } else { Ok(()) });
        assert_eq!(error.unwrap_err().to_string(), "10");
        in_order(&[] as &[u8], |_| (), |_, ()| Ok(())).unwrap();
    }
}
