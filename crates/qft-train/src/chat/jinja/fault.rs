//! Why a rendering ends early, and what it may cost.

use crate::error::{Error, ErrorKind};
use std::cell::Cell;
use std::fmt;

/// Why a template cannot be compiled or rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Fault {
    /// It has used up its fuel.
    OutOfFuel,
    /// What is wrong, and in which line of the template if that is known.
    Wrong {
        /// What is wrong.
        message: String,
        /// The line, from 1.
        line: Option<u32>,
    },
}

impl Fault {
    /// Something is wrong.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Wrong { message: message.into(), line: None }
    }

    /// Something that Jinja2 knows and this engine does not.
    pub(super) fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(format!("{what} is not supported; choose another template with --template"))
    }

    /// In this line, if none is known.
    pub(super) fn at(self, here: u32) -> Self {
        match self {
            Self::Wrong { message, line: None } => Self::Wrong { message, line: Some(here) },
            fault => fault,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFuel => f.write_str("it takes too long, or writes too much"),
            Self::Wrong { message, line: Some(line) } => write!(f, "line {line}: {message}"),
            Self::Wrong { message, line: None } => f.write_str(message),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::Other, fault.to_string())
    }
}

/// A result of anything that a template does.
pub(super) type Outcome<T> = Result<T, Fault>;

/// Bytes that a step may go through, or make, for one fuel.
const BYTES_PER_FUEL: usize = 64;

/// Levels of expressions, statements and macros within each other.
const MAX_LEVELS: u32 = 1200;

/// The fuel of a rendering. Each step takes one, and so does every 64th byte that is made or gone through.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<u64>,
    level: Cell<u32>,
}

impl Meter {
    pub(super) fn new(fuel: u64) -> Self {
        Self { left: Cell::new(fuel), level: Cell::new(0) }
    }

    /// What is left.
    pub(super) fn left(&self) -> u64 {
        self.left.get()
    }

    /// Takes fuel for some steps.
    pub(super) fn steps(&self, count: usize) -> Outcome<()> {
        let left = self.left.get().checked_sub(count as u64).ok_or(Fault::OutOfFuel)?;
        self.left.set(left);
        Ok(())
    }

    /// Takes fuel for a text of so many bytes.
    pub(super) fn bytes(&self, count: usize) -> Outcome<()> {
        self.steps(count / BYTES_PER_FUEL)
    }

    /// Takes one fuel, and goes a level deeper until [`Meter::leave`].
    pub(super) fn enter(&self) -> Outcome<()> {
        self.steps(1)?;
        if self.level.get() >= MAX_LEVELS {
            return Err(Fault::new("expressions, blocks and macros are nested too deeply"));
        }
        self.level.set(self.level.get() + 1);
        Ok(())
    }

    /// Goes a level up.
    pub(super) fn leave(&self) {
        self.level.set(self.level.get() - 1);
    }
}
