//! Calls into the library of tokenizers that end in an error and never in a panic: it panics at some files that are
//! not as it expects.

use crate::error::Error;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

thread_local! {
    /// Whether this thread is in a call whose panics become errors.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls the library; `action` is what could not be done with the tokenizer in `path`, for the error.
///
/// Errors: [`Error::Tokenizer`], also for a panic, of which nothing is written to the terminal.
pub(super) fn guarded<T>(
    path: &Path,
    action: &'static str,
    call: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, Error> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                others(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // What a panic leaves half done is the library's own; its next call ends in an error at worst.
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    let result = result.unwrap_or_else(|panic| Err(text_of(&*panic).into()));
    result.map_err(|source| Error::Tokenizer { path: path.to_path_buf(), action, source })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the file has what no tokenizer should have ({})", text.unwrap_or("no reason is given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_others_stay() {
        let path = Path::new("tokenizer.json");
        let error = guarded::<()>(path, "read the file", || panic!("no unk")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("no unk") && error.to_string().contains("tokenizer.json"));
        assert_eq!(guarded(path, "read the file", || Ok(3)).unwrap(), 3);
        assert!(!GUARDED.get());
    }
}
