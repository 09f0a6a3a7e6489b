//! The library, which is looked for at run time, and its functions.

use crate::Error;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

/// Names the library, in place of the usual ones.
pub(crate) const LIBRARY_VARIABLE: &str = "QFT_NCCL_LIB";

/// The name that packages install, and that of a developer's.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Bytes by which processes find each other.
pub const ID_BYTES: usize = 128;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; ID_BYTES]);

/// `ncclComm_t`.
pub(super) type Comm = *mut c_void;
/// `cudaStream_t`, which is the driver's `CUstream`.
pub(super) type Stream = *mut c_void;

/// `ncclDataType_t`.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub(super) enum DataType {
    Uint8 = 1,
    Int32 = 2,
    Uint32 = 3,
}

/// `ncclRedOp_t`.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub(super) enum Reduction {
    Sum = 0,
    Max = 2,
}

/// `ncclResult_t` of a call that did what it was to do.
const SUCCESS: c_int = 0;

type Reduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> c_int;

/// What is called of NCCL, as its documentation declares it.
pub struct Calls {
    name: String,
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    comm_init_rank: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> c_int,
    comm_abort: unsafe extern "C" fn(Comm) -> c_int,
    comm_get_async_error: unsafe extern "C" fn(Comm, *mut c_int) -> c_int,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    get_last_error: Option<unsafe extern "C" fn(Comm) -> *const c_char>,
    all_reduce: Reduce,
    reduce_scatter: Reduce,
    broadcast: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Comm,
        Stream,
    ) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    // Last: the functions are those of the library.
    _library: Library,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Calls {
    /// Those of the library that `QFT_NCCL_LIB` names, or else of the first that the system finds.
    ///
    /// Errors: [`Error::NoNccl`].
    pub fn load() -> Result<Self, Error> {
        match std::env::var(LIBRARY_VARIABLE) {
            Ok(named) if !named.is_empty() => Self::load_first(&[&named]),
            _ => Self::load_first(&NAMES),
        }
    }

    /// Those of the first library of these names that the system finds.
    ///
    /// Errors: [`Error::NoNccl`].
    pub fn load_first(names: &[&str]) -> Result<Self, Error> {
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: the initializers of NCCL have no precondition.
            match unsafe { Library::new(*name) } {
                Ok(library) => return Self::of(name, library),
                Err(error) => tried.push(reason(&error)),
            }
        }
        Err(Error::NoNccl { tried: tried.join("; ") })
    }

    fn of(name: &str, library: Library) -> Result<Self, Error> {
        /// The function of that name.
        ///
        /// # Safety
        ///
        /// `F` is its type.
        unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, Error> {
            // SAFETY: the caller's promise.
            match unsafe { library.get::<F>(name) } {
                Ok(symbol) => Ok(*symbol),
                Err(error) => Err(Error::NoNccl { tried: reason(&error) }),
            }
        }
        // SAFETY: the types are those of NCCL's documentation, the same in all its versions from 2.4 on.
        unsafe {
            Ok(Self {
                name: name.to_owned(),
                get_version: function(&library, "ncclGetVersion")?,
                get_unique_id: function(&library, "ncclGetUniqueId")?,
                comm_init_rank: function(&library, "ncclCommInitRank")?,
                comm_abort: function(&library, "ncclCommAbort")?,
                comm_get_async_error: function(&library, "ncclCommGetAsyncError")?,
                get_error_string: function(&library, "ncclGetErrorString")?,
                // From 2.13 on.
                get_last_error: function(&library, "ncclGetLastError").ok(),
                all_reduce: function(&library, "ncclAllReduce")?,
                reduce_scatter: function(&library, "ncclReduceScatter")?,
                broadcast: function(&library, "ncclBroadcast")?,
                group_start: function(&library, "ncclGroupStart")?,
                group_end: function(&library, "ncclGroupEnd")?,
                _library: library,
            })
        }
    }

    /// Name and version, as `libnccl.so.2 (2.27.3)`.
    pub fn about(&self) -> String {
        let mut version = 0;
        // SAFETY: writes one integer.
        let known = unsafe { (self.get_version)(&mut version) } == SUCCESS;
        let text = format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
        if known { format!("{} ({text})", self.name) } else { self.name.clone() }
    }

    /// An identity for a job, for its first process to hand out.
    ///
    /// Errors: [`Error::Nccl`].
    pub fn unique_id(&self) -> Result<[u8; ID_BYTES], Error> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: writes the identity.
        self.check("ncclGetUniqueId", unsafe { (self.get_unique_id)(&mut id) }, None)?;
        Ok(id.0)
    }

    /// Joins the job of this identity; returns when all `size` processes have. The GPU is the one that is current on this
    /// thread.
    ///
    /// Errors: [`Error::Nccl`].
    pub(super) fn join(&self, id: [u8; ID_BYTES], rank: usize, size: usize) -> Result<Comm, Error> {
        let mut comm: Comm = std::ptr::null_mut();
        // SAFETY: writes one handle; the numbers of processes fit.
        let result =
            unsafe { (self.comm_init_rank)(&mut comm, size as c_int, UniqueId(id), rank as c_int) };
        self.check("ncclCommInitRank", result, None)?;
        Ok(comm)
    }

    /// The failure of a call, or of what was started by an earlier one, in the library's words.
    fn check(&self, call: &str, result: c_int, comm: Option<Comm>) -> Result<(), Error> {
        if result == SUCCESS {
            return Ok(());
        }
        let text = |found: *const c_char| {
            // SAFETY: null, or a text of the library that ends with a zero.
            (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy())
        };
        // SAFETY: no precondition.
        let said = text(unsafe { (self.get_error_string)(result) });
        let last = self.get_last_error.and_then(|last| {
            // SAFETY: a handle of this library, or null, which is any.
            text(unsafe { last(comm.unwrap_or(std::ptr::null_mut())) })
        });
        let last = last.filter(|last| !last.is_empty());
        let words: Vec<_> =
            said.into_iter().chain(last).map(|text| text.trim().to_owned()).collect();
        Err(Error::Nccl { call: call.to_owned(), message: words.join(": ") })
    }
}

/// What the system's loader says, which is behind what libloading says.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// A process's place in a job, and the stream on which it exchanges.
pub(super) struct Line<'a> {
    pub(super) calls: &'a Calls,
    pub(super) comm: Comm,
    pub(super) stream: Stream,
}

impl Line<'_> {
    fn check(&self, call: &str, result: c_int) -> Result<(), Error> {
        self.calls.check(call, result, Some(self.comm))
    }

    /// [`super::PeerExchange::Max`].
    ///
    /// # Safety
    ///
    /// `len` u32 are at `values` on the GPU of the stream, here and in all that follow until the exchange has ended.
    pub(super) unsafe fn max(&self, values: u64, len: usize) -> Result<(), Error> {
        let (at, kind) = (values as *mut c_void, DataType::Uint32 as c_int);
        // SAFETY: the caller's promise.
        let result = unsafe {
            let op = Reduction::Max as c_int;
            (self.calls.all_reduce)(at, at, len, kind, op, self.comm, self.stream)
        };
        self.check("ncclAllReduce", result)
    }

    /// [`super::PeerExchange::Sum`].
    ///
    /// # Safety
    ///
    /// As [`Self::max`], of `len` i32 a process at `shares` and `len` at `sums`.
    pub(super) unsafe fn sum(&self, shares: u64, sums: u64, len: usize) -> Result<(), Error> {
        let (from, to) = (shares as *const c_void, sums as *mut c_void);
        let (kind, op) = (DataType::Int32 as c_int, Reduction::Sum as c_int);
        // SAFETY: the caller's promise.
        let result =
            unsafe { (self.calls.reduce_scatter)(from, to, len, kind, op, self.comm, self.stream) };
        self.check("ncclReduceScatter", result)
    }

    /// [`super::PeerExchange::Gather`], of parts that begin at these addresses.
    ///
    /// # Safety
    ///
    /// As [`Self::max`], of the bytes of all parts.
    pub(super) unsafe fn gather(
        &self,
        parts: impl Iterator<Item = (u64, usize)>,
    ) -> Result<(), Error> {
        // SAFETY: no precondition; the group is ended whatever happens in between.
        self.check("ncclGroupStart", unsafe { (self.calls.group_start)() })?;
        let kind = DataType::Uint8 as c_int;
        let broadcast = |(root, (start, len)): (usize, (u64, usize))| {
            let at = start as *mut c_void;
            // SAFETY: the caller's promise.
            let result = unsafe {
                let root = root as c_int;
                (self.calls.broadcast)(at, at, len, kind, root, self.comm, self.stream)
            };
            self.check("ncclBroadcast", result)
        };
        let begun = parts.enumerate().filter(|(_, (_, len))| *len > 0).try_for_each(broadcast);
        // SAFETY: a group was started.
        let ended = self.check("ncclGroupEnd", unsafe { (self.calls.group_end)() });
        begun.and(ended)
    }

    /// Whether what was started goes on as it is to.
    pub(super) fn check_progress(&self) -> Result<(), Error> {
        let mut failure = SUCCESS;
        // SAFETY: a handle of this library; writes one integer.
        let asked = unsafe { (self.calls.comm_get_async_error)(self.comm, &mut failure) };
        self.check("ncclCommGetAsyncError", asked)?;
        self.check("an exchange between GPUs", failure)
    }

    /// Leaves the job without waiting for anybody.
    ///
    /// # Safety
    ///
    /// The handle is not used any more.
    pub(super) unsafe fn leave(&self) {
        // SAFETY: the caller's promise. What fails here ends with the process.
        let _ = unsafe { (self.calls.comm_abort)(self.comm) };
    }
}
