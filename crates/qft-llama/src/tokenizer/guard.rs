//! Calls into the library of tokenizers that end in an error and never in a panic: it panics at some files that are
//! not as it expects.

use crate::error::Error;
use qft_files::panics::caught;
use std::path::Path;

/// Calls the library; `action` is what could not be done with the tokenizer in `path`, for the error.
///
/// Errors: [`Error::Tokenizer`], also for a panic, of which nothing is written to the terminal.
pub(super) fn guarded<T>(
    path: &Path,
    action: &'static str,
    call: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, Error> {
    let result = caught(call).unwrap_or_else(|panic| {
        Err(format!("the file has what no tokenizer should have ({panic})").into())
    });
    result.map_err(|source| Error::Tokenizer { path: path.to_path_buf(), action, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let path = Path::new("tokenizer.json");
        let error = guarded::<()>(path, "read the file", || panic!("no unk")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("no unk") && error.to_string().contains("tokenizer.json"));
        assert_eq!(guarded(path, "read the file", || Ok(3)).unwrap(), 3);
    }
}
