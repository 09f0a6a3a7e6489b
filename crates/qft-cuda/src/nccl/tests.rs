//! The calls of NCCL, against a library that writes them down.

use super::library::{Calls, Line};
use crate::Error;
use libloading::Library;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The stub, compiled into `dir`; nothing where there is no compiler.
fn stub(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nccl/stub.c");
    let library = dir.join("libnccl.so.2");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled =
        Command::new(&compiler).args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    match compiled {
        Ok(status) if status.success() => Some(library),
        _ => {
            eprintln!("skipped: {compiler} compiles nothing here");
            None
        }
    }
}

/// What was called since the library was loaded.
fn called(stub: &Library) -> String {
    // SAFETY: the type is that of stub.c; the text is the library's.
    unsafe {
        let calls = stub.get::<unsafe extern "C" fn() -> *const c_char>("stub_calls").unwrap();
        CStr::from_ptr(calls()).to_str().unwrap().to_owned()
    }
}

fn fail(stub: &Library, name: &CString) {
    // SAFETY: as above; the name outlives its use.
    unsafe {
        stub.get::<unsafe extern "C" fn(*const c_char)>("stub_fail").unwrap()(name.as_ptr());
    }
}

fn text(result: Result<(), Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn calls_are_those_of_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = stub(dir.path()) else { return };
    let name = path.to_str().unwrap();
    let calls = Calls::load_first(&["/no/libnccl.so", name]).unwrap();
    // SAFETY: initializers of the stub: none.
    let stub = unsafe { Library::new(&path) }.unwrap();
    assert_eq!(calls.about(), format!("{name} (2.27.3)"));
    let id = calls.unique_id().unwrap();
    assert_eq!((id[0], id[1], id[127]), (0, 3, (3 * 127_u32 % 256) as u8));

    let comm = calls.join(id, 2, 5).unwrap();
    let sum: u32 = id.iter().map(|&byte| u32::from(byte)).sum();
    let line = Line { calls: &calls, comm, stream: 0x55 as _ };
    // SAFETY: the stub touches no memory.
    unsafe {
        line.max(0x1000, 7).unwrap();
        line.sum(0x2000, 0x3000, 9).unwrap();
        line.gather([(0x4000, 4), (0x4004, 0), (0x4004, 6)].into_iter()).unwrap();
    }
    line.check_progress().unwrap();
    let expected = [
        format!("join 2 of 5 by {sum}"),
        "reduce 0x1000 0x1000 7 type 3 op 2 0x77 0x55".to_owned(),
        "scatter 0x2000 0x3000 9 type 2 op 0 0x77 0x55".to_owned(),
        "(".to_owned(),
        "broadcast 0x4000 0x4000 4 type 1 root 0 0x77 0x55".to_owned(),
        "broadcast 0x4004 0x4004 6 type 1 root 2 0x77 0x55".to_owned(),
        ")".to_owned(),
    ];
    assert_eq!(called(&stub), expected.join(";") + ";");

    let name = CString::new("ncclBroadcast").unwrap();
    fail(&stub, &name);
    // SAFETY: as above.
    let error = text(unsafe { line.gather([(0x4000, 4)].into_iter()) });
    assert_eq!(error, "ncclBroadcast: unhandled system error: connection reset by peer");
    assert!(called(&stub).ends_with(");"), "the group is ended");
    let later = CString::new("later").unwrap();
    fail(&stub, &later);
    let error = text(line.check_progress());
    assert!(error.starts_with("an exchange between GPUs: unhandled system error"), "{error}");
    // SAFETY: the last use.
    unsafe { line.leave() };
    assert!(called(&stub).ends_with("abort 0x77;"));
    let join = CString::new("ncclCommInitRank").unwrap();
    fail(&stub, &join);
    let error = text(calls.join(id, 0, 1).map(drop));
    assert_eq!(error, "ncclCommInitRank: unhandled system error");
}

#[test]
fn a_library_that_is_missing_or_another_is_told() {
    let error = Calls::load_first(&["/no/libnccl.so.2"]).unwrap_err().to_string();
    assert!(error.starts_with("no NCCL: ") && error.contains("/no/libnccl.so.2"), "{error}");
    // It exists wherever tests run, and is not NCCL.
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        let error = Calls::load_first(&["libc.so.6"]).unwrap_err().to_string();
        assert!(error.contains("ncclGetVersion"), "{error}");
    }
}

#[test]
fn the_library_itself_gives_identities() {
    let Ok(calls) = Calls::load() else {
        eprintln!("skipped: there is no NCCL here; QFT_NCCL_LIB names one");
        return;
    };
    println!("{}", calls.about());
    assert_ne!(calls.unique_id().unwrap(), calls.unique_id().unwrap());
}
