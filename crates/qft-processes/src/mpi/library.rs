//! A library that is looked for at run time: which names are tried, and what it has.

#![allow(unsafe_code)] // The system's loader.

use crate::{Error, Launcher};
use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

/// The names of MPI libraries: the interface of the standard, Open MPI, MPICH and Intel MPI, Debian's MPICH, and what a
/// developer's package leaves.
const NAMES: [&str; 5] =
    ["libmpi_abi.so.1", "libmpi.so.40", "libmpi.so.12", "libmpich.so.12", "libmpi.so"];

/// What is tried, in this order: `named` alone, where something is; else the usual names, those of the launcher first.
pub(crate) fn candidates(named: Option<String>, launcher: Launcher) -> Vec<String> {
    if let Some(named) = named.filter(|name| !name.is_empty()) {
        return vec![named];
    }
    let first: &[&str] = match launcher {
        Launcher::OpenMpi => &["libmpi.so.40"],
        Launcher::Mpich => &["libmpi.so.12", "libmpich.so.12"],
        _ => &[],
    };
    let others = NAMES.iter().filter(|name| !first.contains(name));
    first.iter().chain(others).map(|name| (*name).to_owned()).collect()
}

/// A library that stays loaded as long as the process.
#[derive(Debug)]
pub(crate) struct Library {
    handle: NonNull<c_void>,
    name: String,
}

impl Library {
    /// Loads the first of `names` that the system's loader finds.
    ///
    /// Errors: [`Error::NoLibrary`], with what the loader says of each name.
    pub(crate) fn open(names: &[String], launcher: Launcher) -> Result<Self, Error> {
        let mut tried = Vec::new();
        for name in names {
            let Ok(text) = CString::new(name.as_str()) else { continue };
            // Plugins of Open MPI look for the symbols of the library among those of the process.
            // SAFETY: `text` ends with a zero; the initializers of an MPI library have no precondition.
            let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            match NonNull::new(handle) {
                Some(handle) => return Ok(Self { handle, name: name.clone() }),
                None => tried.push(loader_error(name)),
            }
        }
        Err(Error::NoLibrary { tried: tried.join("; "), launcher })
    }

    /// The name by which it was found.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where a symbol of the library is, if it has it.
    pub(crate) fn address(&self, symbol: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is of `dlopen` and never closed, `symbol` ends with a zero.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), symbol.as_ptr()) })
    }

    /// A function of the library.
    ///
    /// # Safety
    ///
    /// `F` is the type of a function, and that which the library's documentation gives for `name`.
    ///
    /// Errors: [`Error::NoFunction`].
    pub(crate) unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, Error> {
        const { assert!(size_of::<F>() == size_of::<NonNull<c_void>>()) }
        let Some(address) = self.address(name) else {
            let (library, function) = (self.name.clone(), name.to_string_lossy().into_owned());
            return Err(Error::NoFunction { library, function });
        };
        // SAFETY: both have the size of an address; that there is a function of this type is the caller's promise.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }
}

/// What the loader says of its last failure, which was about `name`.
fn loader_error(name: &str) -> String {
    // SAFETY: no precondition; the text is the thread's own until its next call of the loader.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return name.to_owned();
    }
    // SAFETY: not null, so a text that ends with a zero.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if text.contains(name) { text.into_owned() } else { format!("{name}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_library_is_tried_alone_and_the_launchers_first() {
        assert_eq!(candidates(Some("/a/libmpi.so".into()), Launcher::OpenMpi), ["/a/libmpi.so"]);
        assert_eq!(candidates(Some(String::new()), Launcher::Slurm), NAMES);
        let open = candidates(None, Launcher::OpenMpi);
        assert_eq!((open[0].as_str(), open.len()), ("libmpi.so.40", NAMES.len()));
        let mpich = candidates(None, Launcher::Mpich);
        assert_eq!(mpich[..3], ["libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1"]);
    }

    #[test]
    fn a_missing_library_is_told_with_what_to_do() {
        let names = ["/no/libmpi.so".to_owned(), "libnone.so.3".to_owned()];
        let error = Library::open(&names, Launcher::OpenMpi).unwrap_err().to_string();
        for part in ["/no/libmpi.so", "libnone.so.3", "mpirun of Open MPI", "set QFT_MPI_LIB"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
