//! The error of the trainer: what kind it is, what went wrong, and what caused it.

use std::error::Error as StdError;
use std::fmt;

/// The result of what can fail in the trainer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error is about, for callers that act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option is missing or out of its range, or options exclude each other.
    Options,
    /// The model's folder cannot be read or is not supported.
    Model,
    /// The data cannot be read, or has nothing to learn.
    Data,
    /// The run does not fit into the memory there is.
    Memory,
    /// The run differs from the one of the checkpoint that it was to continue.
    Resume,
    /// The output folder is in use, or holds what must not be overwritten.
    Output,
    /// The loss is no longer a number, or has exploded.
    Diverged,
    /// It was asked to stop.
    Stopped,
    /// Anything else: a device or a file system that failed.
    #[default]
    Other,
}

/// What went wrong, with its causes.
///
/// `{}` shows the outermost message; `{:#}` all of them, each after a colon.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// What it is about.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error, of a kind that only its caller knows; a kind that it has stays.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        if self.0.kind == ErrorKind::Other {
            self.0.kind = kind;
        }
        self
    }

    /// This error as the cause of `message`.
    pub(crate) fn context(self, message: impl Into<String>) -> Self {
        let (kind, message) = (self.kind(), message.into());
        Self(Box::new(Inner { kind, message, source: Some(Box::new(self)) }))
    }

    fn foreign(source: impl StdError + Send + Sync + 'static) -> Self {
        let kind = ErrorKind::Other;
        // Its own message is this one's; what caused it is kept.
        Self(Box::new(Inner { kind, message: chain(&source), source: None }))
    }
}

/// An error's message and those of its causes, each after a colon. Where a message ends in that of its cause, it is
/// not repeated.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { f.write_str(&chain(self)) } else { f.write_str(&self.0.message) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Errors of other crates that become errors of the trainer by `?`.
macro_rules! from_foreign {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::foreign(error)
            }
        })*
    };
}

from_foreign!(
    qft_files::Error,
    qft_hub::Error,
    qft_tensor::Error,
    qft_quant::Error,
    qft_optim::Error,
    qft_autograd::Error,
    std::io::Error,
    serde_json::Error,
    toml::de::Error,
    csv::Error,
    parquet::errors::ParquetError,
);

#[cfg(unix)]
from_foreign!(qft_processes::Error);

impl From<qft_llama::Error> for Error {
    fn from(error: qft_llama::Error) -> Self {
        let kind = match error {
            qft_llama::Error::Stopped { .. } => ErrorKind::Stopped,
            qft_llama::Error::Autograd(qft_autograd::Error::LossNotFinite { .. }) => {
                ErrorKind::Diverged
            }
            _ => ErrorKind::Other,
        };
        Self::foreign(error).of_kind(kind)
    }
}

#[cfg(feature = "cuda")]
from_foreign!(qft_cuda::Error);

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// With a message that costs nothing.
    fn context(self, message: &'static str) -> Result<T>;
    /// With a message that is made when it is needed.
    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: &'static str) -> Result<T> {
        self.with_context(|| message)
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().context(message()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, message: &'static str) -> Result<T> {
        self.with_context(|| message)
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.ok_or_else(|| Error::new(ErrorKind::Other, message()))
    }
}

/// Says what an error is about, at the border of a part of the program.
pub(crate) trait OfKind<T> {
    /// Unless it is known already.
    fn of_kind(self, kind: ErrorKind) -> Result<T>;
}

impl<T> OfKind<T> for Result<T> {
    fn of_kind(self, kind: ErrorKind) -> Result<T> {
        self.map_err(|error| error.of_kind(kind))
    }
}

/// Returns an error with a formatted message.
macro_rules! bail {
    ($($message:tt)*) => {
        return Err($crate::error::Error::new(
            $crate::error::ErrorKind::Other, format!($($message)*),
        ))
    };
}

/// Returns an error unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        // A comparison with a number that is none does not hold either.
        let holds: bool = $condition;
        if !holds {
            $crate::error::bail!($($message)*);
        }
    };
}

pub(crate) use {bail, ensure};

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Result<String> {
        std::fs::read_to_string("/no/such/file").context("cannot read the file")
    }

    #[test]
    fn messages_causes_and_kinds() {
        let error = read().of_kind(ErrorKind::Data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert_eq!(error.to_string(), "cannot read the file");
        let whole = format!("{error:#}");
        assert!(whole.starts_with("cannot read the file: No such file"), "{whole}");
        let outer = Err::<(), _>(error).with_context(|| "step 3").unwrap_err();
        assert_eq!(outer.kind(), ErrorKind::Data, "a kind goes along");
        assert!(format!("{outer:#}").starts_with("step 3: cannot read the file: No"), "{outer:#}");
        assert_eq!(outer.of_kind(ErrorKind::Model).kind(), ErrorKind::Data);
        let loss = qft_autograd::Error::LossNotFinite { sum: f64::NAN };
        let loss = Error::from(qft_llama::Error::Autograd(loss));
        assert_eq!(loss.kind(), ErrorKind::Diverged);
        let absent: Result<u8> = None.context("nothing here");
        assert_eq!(absent.unwrap_err().to_string(), "nothing here");
    }
}
