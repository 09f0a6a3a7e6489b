//! Panics of libraries that read what a user gives, as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in a call whose panics become errors.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library, of whose panics nothing is written to the terminal.
///
/// Errors: what the panic said.
pub fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                others(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    // What a panic leaves half done is the library's own; its next call ends in an error at worst.
    let result = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(outer);
    result.map_err(|panic| text_of(&*panic))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason is given").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_others_stay() {
        assert_eq!(caught::<()>(|| panic!("no {}", "unk")).unwrap_err(), "no unk");
        assert_eq!(caught(|| 3), Ok(3));
        assert!(!CAUGHT.get());
    }
}
