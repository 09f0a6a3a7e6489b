//! The binary interfaces of MPI libraries: what their handles are, and the values of the few constants that we need.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;

/// Which one a library has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// That of the MPI 5 standard: small numbers as pointers.
    Standard,
    /// Open MPI: addresses of variables of the library.
    OpenMpi,
    /// MPICH, and what is compatible with it: Intel MPI, MVAPICH, Cray MPICH: integers.
    Mpich,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standard => "interface of MPI 5",
            Self::OpenMpi => "interface of Open MPI",
            Self::Mpich => "interface of MPICH",
        })
    }
}

/// How those of MPICH's kind call themselves in `MPI_Get_library_version`.
const LIKE_MPICH: [&str; 4] = ["MPICH", "Intel(R) MPI", "MVAPICH", "ParaStation"];

impl Interface {
    /// Which one a library has: `standard` is the version of the standard's interface that it claims, `has_variables` whether
    /// it has Open MPI's variables, and `version` what it says it is. The standard's comes first: a library that has it may
    /// stand on one that has Open MPI's variables.
    pub(crate) fn of(standard: Option<c_int>, has_variables: bool, version: &str) -> Option<Self> {
        match standard {
            Some(1..) => Some(Self::Standard),
            _ if has_variables => Some(Self::OpenMpi),
            _ => LIKE_MPICH.iter().any(|name| version.contains(name)).then_some(Self::Mpich),
        }
    }
}

/// How an interface passes communicators, types, operations and requests.
pub(crate) trait Handle: Copy + fmt::Debug + 'static {
    /// The value of a variable that a call is going to set.
    const UNSET: Self;
}

/// MPICH's.
impl Handle for c_int {
    const UNSET: Self = 0;
}

/// Open MPI's and the standard's.
impl Handle for *mut c_void {
    const UNSET: Self = ptr::null_mut();
}

/// The constants of an interface. Source: `mpi.h` of MPICH 5.0.2 and Open MPI 5.0.11, `mpi_abi.h` of the standard (MPI 5.0,
/// appendix A).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Constants<H> {
    /// `MPI_COMM_WORLD`.
    pub(crate) world: H,
    /// `MPI_BYTE`.
    pub(crate) byte: H,
    /// `MPI_INT32_T`.
    pub(crate) int32: H,
    /// `MPI_MAX`.
    pub(crate) max: H,
    /// `MPI_ERRORS_RETURN`.
    pub(crate) errors_return: H,
    /// `MPI_THREAD_FUNNELED`.
    pub(crate) funneled: c_int,
}

impl Constants<c_int> {
    /// MPICH's.
    pub(crate) const MPICH: Self = Self {
        world: 0x4400_0000,
        byte: 0x4c00_010d,
        int32: 0x4c00_0439,
        max: 0x5800_0001,
        errors_return: 0x5400_0001,
        funneled: 1,
    };
}

impl Constants<*mut c_void> {
    /// The standard's.
    pub(crate) const STANDARD: Self = Self {
        world: ptr::without_provenance_mut(0x101),
        byte: ptr::without_provenance_mut(0x247),
        int32: ptr::without_provenance_mut(0x250),
        max: ptr::without_provenance_mut(0x23),
        errors_return: ptr::without_provenance_mut(0x143),
        funneled: 1024,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_known_by_what_it_has() {
        let mpich = "MPICH Version:      5.0.2\nMPICH Release date: ...";
        let intel = "Intel(R) MPI Library 2021.18.1 for Linux* OS";
        let open = "Open MPI v5.0.11, package: Open MPI";
        assert_eq!(Interface::of(Some(1), false, mpich), Some(Interface::Standard));
        assert_eq!(Interface::of(Some(1), true, open), Some(Interface::Standard));
        assert_eq!(Interface::of(Some(-1), false, mpich), Some(Interface::Mpich));
        assert_eq!(Interface::of(None, false, intel), Some(Interface::Mpich));
        assert_eq!(Interface::of(None, true, open), Some(Interface::OpenMpi));
        assert_eq!(Interface::of(None, false, "Microsoft MPI 10.1"), None);
    }
}
