//! The error type of this crate: what keeps a process from becoming one of a job.

use crate::Launcher;

/// What can go wrong until processes can exchange something. Later errors are [`qft_tensor::Error::Communication`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A launcher's variables do not fit together.
    #[error("{name}={value}: expected {expected}; {launcher} sets it, or unset it")]
    Variable {
        /// Whose variable it is.
        launcher: Launcher,
        /// Its name.
        name: &'static str,
        /// Its value, or nothing.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// Processes that TCP is to connect do not find each other, or do not fit together.
    #[error("{0}")]
    Meeting(String),
    /// A process that this one was to start does not start, or has ended.
    #[error("{0}; see what it has said")]
    Team(String),
    /// No library was found.
    #[error(
        "no MPI library: tried {tried}; install the MPI that started this process ({launcher}), or set QFT_MPI_LIB to the path of its libmpi"
    )]
    NoLibrary {
        /// What was tried, and what the system says of each.
        tried: String,
        /// Who started the process.
        launcher: Launcher,
    },
    /// A library is not MPI, or an old one.
    #[error(
        "{library}: has no function {function}, which MPI 3 has; set QFT_MPI_LIB to the path of another libmpi"
    )]
    NoFunction {
        /// The library.
        library: String,
        /// The function.
        function: String,
    },
    /// A library has an interface that we don't know.
    #[error(
        "{library}: `{version}` is neither Open MPI nor of MPICH's kind, and has not the interface of the MPI 5 standard; set QFT_MPI_LIB to the path of another libmpi"
    )]
    UnknownInterface {
        /// The library.
        library: String,
        /// What it says it is.
        version: String,
    },
    /// A call failed.
    #[error("{call}: {message}")]
    Call {
        /// The function.
        call: &'static str,
        /// What the library says.
        message: String,
    },
    /// The library belongs to another MPI than the launcher.
    #[error(
        "{launcher} started process {launched}, but for {library} it is {found}: they belong to different MPIs; set QFT_MPI_LIB to the libmpi of the launcher, or start with the mpirun of that library"
    )]
    Misfit {
        /// Who started the process.
        launcher: Launcher,
        /// Number and size as the launcher has them.
        launched: String,
        /// The library.
        library: String,
        /// Number and size as the library has them.
        found: String,
    },
    /// The library does not begin.
    #[error(
        "MPI did not begin within {seconds} s: another process has not started, or cannot be reached"
    )]
    Slow {
        /// How long it was waited for.
        seconds: f64,
    },
    /// MPI begins once in a process.
    #[error("MPI was begun before in this process, and begins only once")]
    Twice,
    /// A thread cannot be made, or has ended.
    #[error("the thread that exchanges: {0}")]
    Thread(String),
}
