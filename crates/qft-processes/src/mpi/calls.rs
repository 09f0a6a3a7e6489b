//! Every call of MPI. What is here belongs to one thread: no value can be sent to another.

#![allow(unsafe_code)] // Functions of a library that has no Rust interface.

use super::interface::{Constants, Handle, Interface};
use super::library::Library;
use super::packed::Packed;
use crate::Error;
use crate::ending::end_process;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ptr;

/// Room for any text of MPI; the longest that a library may give has 8192 bytes.
const TEXT_BYTES: usize = 16 << 10;

/// Lines between the same processes: for what is waited for, and for what goes on beside it.
pub(crate) const LINES: usize = 2;

/// Room for an `MPI_Status`, in words; the largest has 32 bytes.
const STATUS_WORDS: usize = 8;

type InitThread =
    unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
type Text = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
type Versions = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type Iallreduce<H> =
    unsafe extern "C" fn(*const c_void, *mut c_void, c_int, H, H, H, *mut H) -> c_int;
type Iallgatherv<H> = unsafe extern "C" fn(
    *const c_void,
    c_int,
    H,
    *mut c_void,
    *const c_int,
    *const c_int,
    H,
    H,
    *mut H,
) -> c_int;
type Ialltoallv<H> = unsafe extern "C" fn(
    *const c_void,
    *const c_int,
    *const c_int,
    H,
    *mut c_void,
    *const c_int,
    *const c_int,
    H,
    H,
    *mut H,
) -> c_int;

/// The functions of a library with handles of this kind.
struct Functions<H> {
    init_thread: InitThread,
    finalize: unsafe extern "C" fn() -> c_int,
    abort: unsafe extern "C" fn(H, c_int) -> c_int,
    comm_rank: unsafe extern "C" fn(H, *mut c_int) -> c_int,
    comm_dup: unsafe extern "C" fn(H, *mut H) -> c_int,
    comm_size: unsafe extern "C" fn(H, *mut c_int) -> c_int,
    set_errhandler: unsafe extern "C" fn(H, H) -> c_int,
    error_string: unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> c_int,
    processor_name: Text,
    iallreduce: Iallreduce<H>,
    iallgatherv: Iallgatherv<H>,
    ialltoallv: Ialltoallv<H>,
    test: unsafe extern "C" fn(*mut H, *mut c_int, *mut c_void) -> c_int,
}

impl<H: Handle> Functions<H> {
    fn of(library: &Library) -> Result<Self, Error> {
        // SAFETY: the types are those of the standard's C bindings, with the handles of the library's interface: `H` comes from
        // `AnyCalls::of`.
        unsafe {
            Ok(Self {
                init_thread: library.function(c"MPI_Init_thread")?,
                finalize: library.function(c"MPI_Finalize")?,
                abort: library.function(c"MPI_Abort")?,
                comm_rank: library.function(c"MPI_Comm_rank")?,
                comm_dup: library.function(c"MPI_Comm_dup")?,
                comm_size: library.function(c"MPI_Comm_size")?,
                set_errhandler: library.function(c"MPI_Comm_set_errhandler")?,
                error_string: library.function(c"MPI_Error_string")?,
                processor_name: library.function(c"MPI_Get_processor_name")?,
                iallreduce: library.function(c"MPI_Iallreduce")?,
                iallgatherv: library.function(c"MPI_Iallgatherv")?,
                ialltoallv: library.function(c"MPI_Ialltoallv")?,
                test: library.function(c"MPI_Test")?,
            })
        }
    }
}

/// A library, of whichever interface.
pub(crate) enum AnyCalls {
    /// Handles are pointers.
    Pointers(Calls<*mut c_void>),
    /// Handles are integers.
    Integers(Calls<c_int>),
}

impl AnyCalls {
    /// Finds out which interface the library has, and its functions.
    ///
    /// Errors: [`Error::NoFunction`], [`Error::UnknownInterface`].
    pub(crate) fn of(library: &Library) -> Result<Self, Error> {
        // SAFETY: the standard's binding of that function.
        let version: Text = unsafe { library.function(c"MPI_Get_library_version")? };
        // SAFETY: allowed before the begin of MPI, and there is room for any text.
        let version = text(|text, length| unsafe { version(text, length) });
        let has_variables = library.address(c"ompi_mpi_comm_world").is_some();
        let unknown = || Error::UnknownInterface {
            library: library.name().to_owned(),
            version: first_line(&version).to_owned(),
        };
        let interface =
            Interface::of(standard(library), has_variables, &version).ok_or_else(unknown)?;
        let about = format!("{} ({}, {interface})", first_line(&version), library.name());
        Ok(match interface {
            Interface::Standard => Self::Pointers(Calls {
                functions: Functions::of(library)?,
                constants: Constants::STANDARD,
                about,
            }),
            Interface::OpenMpi => Self::Pointers(Calls {
                functions: Functions::of(library)?,
                constants: open_mpi_constants(library)?,
                about,
            }),
            Interface::Mpich => Self::Integers(Calls {
                functions: Functions::of(library)?,
                constants: Constants::MPICH,
                about,
            }),
        })
    }
}

/// The major version of the standard's interface that a library claims to have; libraries of MPI 5 alone can be asked.
fn standard(library: &Library) -> Option<c_int> {
    // SAFETY: the standard's binding of that function.
    let versions: Versions = unsafe { library.function(c"MPI_Abi_get_version") }.ok()?;
    let (mut major, mut minor) = (-1, -1);
    // SAFETY: writes two integers; allowed before the begin of MPI.
    let code = unsafe { versions(&mut major, &mut minor) };
    (code == 0).then_some(major)
}

/// Open MPI's handles: addresses of its variables.
fn open_mpi_constants(library: &Library) -> Result<Constants<*mut c_void>, Error> {
    let address = |name: &CStr| {
        let missing = || Error::NoFunction {
            library: library.name().to_owned(),
            function: name.to_string_lossy().into_owned(),
        };
        library.address(name).map(|address| address.as_ptr()).ok_or_else(missing)
    };
    Ok(Constants {
        world: address(c"ompi_mpi_comm_world")?,
        byte: address(c"ompi_mpi_byte")?,
        int32: address(c"ompi_mpi_int32_t")?,
        max: address(c"ompi_mpi_op_max")?,
        errors_return: address(c"ompi_mpi_errors_return")?,
        funneled: 1,
    })
}

/// An operation of all processes, with the memory that it reads and writes.
#[derive(Debug)]
pub(crate) enum Operation {
    /// The largest in every place.
    Max {
        /// What this process brings.
        mine: Vec<i32>,
        /// What comes of it; as long.
        largest: Vec<i32>,
    },
    /// Everybody's bytes for everybody.
    Gather {
        /// What this process brings.
        mine: Vec<u8>,
        /// What all bring.
        all: Packed,
    },
    /// Bytes for each, and from each.
    Exchange {
        /// What this process sends each.
        send: Packed,
        /// What it receives from each.
        receive: Packed,
    },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max { mine, .. } => write!(f, "the maximum of {} values", mine.len()),
            Self::Gather { all, .. } => write!(f, "the gathering of {} bytes", all.bytes.len()),
            Self::Exchange { send, receive } => write!(
                f,
                "the exchange of {} bytes to send and {} to receive",
                send.bytes.len(),
                receive.bytes.len()
            ),
        }
    }
}

/// An operation that MPI has begun.
#[derive(Debug)]
pub(crate) struct Pending<H> {
    request: H,
    /// Taken out when MPI is done with it.
    operation: Option<Operation>,
}

impl<H> Drop for Pending<H> {
    /// Memory that MPI may still write to is never given back.
    fn drop(&mut self) {
        std::mem::forget(self.operation.take());
    }
}

/// The functions of a library that has been loaded, with the constants of its interface.
pub(crate) struct Calls<H> {
    functions: Functions<H>,
    constants: Constants<H>,
    about: String,
}

impl<H: Handle> Calls<H> {
    /// The library in words: its version, where it was found, its interface.
    pub(crate) fn about(&self) -> &str {
        &self.about
    }

    /// Begins MPI, whose calls this thread alone may make from here on.
    ///
    /// Errors: [`Error::Call`].
    pub(crate) fn init(&self) -> Result<(), Error> {
        let mut provided = 0;
        // SAFETY: without arguments of the program, both may be null. The first call of MPI of this process: `Mpi::open` starts
        // the thread that has `Calls` once.
        let code = unsafe {
            (self.functions.init_thread)(
                ptr::null_mut(),
                ptr::null_mut(),
                self.constants.funneled,
                &mut provided,
            )
        };
        self.check("MPI_Init_thread", code)?;
        if provided < self.constants.funneled {
            let message = "the library allows no other threads in the process".to_owned();
            return Err(Error::Call { call: "MPI_Init_thread", message });
        }
        // SAFETY: handles of this library's interface, after `MPI_Init_thread`.
        let code = unsafe {
            (self.functions.set_errhandler)(self.constants.world, self.constants.errors_return)
        };
        self.check("MPI_Comm_set_errhandler", code)
    }

    /// What operations go over that belong together, a communicator for each of [`LINES`]: MPI may mix them.
    ///
    /// Errors: [`Error::Call`].
    pub(crate) fn lines(&self) -> Result<[H; LINES], Error> {
        let mut second = H::UNSET;
        // SAFETY: a handle of this library's interface, and one to write; all processes call it, after `MPI_Init_thread`.
        let code = unsafe { (self.functions.comm_dup)(self.constants.world, &mut second) };
        self.check("MPI_Comm_dup", code)?;
        Ok([self.constants.world, second])
    }

    /// The number of this process, and how many there are.
    ///
    /// Errors: [`Error::Call`].
    pub(crate) fn rank_and_size(&self) -> Result<(usize, usize), Error> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: a handle of this library's interface, and an integer to write.
        let code = unsafe { (self.functions.comm_rank)(self.constants.world, &mut rank) };
        self.check("MPI_Comm_rank", code)?;
        // SAFETY: as above.
        let code = unsafe { (self.functions.comm_size)(self.constants.world, &mut size) };
        self.check("MPI_Comm_size", code)?;
        Ok((usize::try_from(rank).unwrap_or(0), usize::try_from(size).unwrap_or(0)))
    }

    /// The name of this machine.
    pub(crate) fn host(&self) -> String {
        // SAFETY: room for any text.
        text(|text, length| unsafe { (self.functions.processor_name)(text, length) })
    }

    /// Begins an operation, on one of [`lines`](Self::lines).
    ///
    /// Errors: [`Error::Call`].
    pub(crate) fn start(&self, line: H, operation: Operation) -> Result<Pending<H>, Error> {
        let mut pending = Pending { request: H::UNSET, operation: Some(operation) };
        let Pending { request, operation } = &mut pending;
        let (functions, c) = (&self.functions, &self.constants);
        // SAFETY, of each: handles of this library's interface; counts and places within the memory of `operation`, which
        // `Packed` and the asserts uphold; that memory is neither moved, touched nor freed before the operation ends, by
        // `Pending`.
        let (call, code) = match operation.as_mut().expect("just set") {
            Operation::Max { mine, largest } => {
                assert_eq!(mine.len(), largest.len());
                let count = c_int::try_from(mine.len()).expect("a piece fits an int");
                let (mine, largest) = (mine.as_ptr().cast(), largest.as_mut_ptr().cast());
                let begin = functions.iallreduce;
                // SAFETY: see above.
                let code = unsafe { begin(mine, largest, count, c.int32, c.max, line, request) };
                ("MPI_Iallreduce", code)
            }
            Operation::Gather { mine, all } => {
                let count = c_int::try_from(mine.len()).expect("a piece fits an int");
                let (counts, starts) = (all.counts.as_ptr(), all.starts.as_ptr());
                let (mine, all) = (mine.as_ptr().cast(), all.bytes.as_mut_ptr().cast());
                let begin = functions.iallgatherv;
                // SAFETY: see above.
                let code = unsafe {
                    begin(mine, count, c.byte, all, counts, starts, c.byte, line, request)
                };
                ("MPI_Iallgatherv", code)
            }
            Operation::Exchange { send, receive } => {
                let begin = functions.ialltoallv;
                // SAFETY: see above.
                let code = unsafe {
                    begin(
                        send.bytes.as_ptr().cast(),
                        send.counts.as_ptr(),
                        send.starts.as_ptr(),
                        c.byte,
                        receive.bytes.as_mut_ptr().cast(),
                        receive.counts.as_ptr(),
                        receive.starts.as_ptr(),
                        c.byte,
                        line,
                        request,
                    )
                };
                ("MPI_Ialltoallv", code)
            }
        };
        self.check(call, code)?;
        Ok(pending)
    }

    /// The operation, once it has ended.
    ///
    /// Errors: [`Error::Call`].
    pub(crate) fn test(&self, pending: &mut Pending<H>) -> Result<Option<Operation>, Error> {
        let (mut done, mut status) = (0, [0_u64; STATUS_WORDS]);
        // SAFETY: a request of `start`, which is not used again after its end: `operation` is gone then.
        let code = unsafe {
            (self.functions.test)(&mut pending.request, &mut done, status.as_mut_ptr().cast())
        };
        self.check("MPI_Test", code)?;
        Ok(if done == 0 { None } else { pending.operation.take() })
    }

    /// Ends MPI, together with all other processes: waits for them.
    ///
    /// Errors: [`Error::Call`].
    pub(crate) fn finalize(&self) -> Result<(), Error> {
        // SAFETY: once, at the end of the thread; no operation is under way.
        let code = unsafe { (self.functions.finalize)() };
        self.check("MPI_Finalize", code)
    }

    /// Ends all processes.
    pub(crate) fn abort(&self) -> ! {
        // SAFETY: a handle of this library's interface, after `MPI_Init_thread`.
        unsafe { (self.functions.abort)(self.constants.world, 1) };
        end_process()
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: room for any text.
        let message =
            text(|text, length| unsafe { (self.functions.error_string)(code, text, length) });
        Err(Error::Call { call, message })
    }
}

/// What a function writes as a text.
fn text(write: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> String {
    let (mut bytes, mut length) = (vec![0_u8; TEXT_BYTES], 0);
    write(bytes.as_mut_ptr().cast(), &mut length);
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    // Some count the zero at its end.
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').trim().to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
