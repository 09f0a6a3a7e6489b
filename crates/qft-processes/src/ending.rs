//! The end of a process that does not wait for anybody.

#![allow(unsafe_code)] // `_exit`.

use std::io::Write;

/// Says a line on standard error, if anybody listens: where the launcher has gone, a closed one must not keep a process from its end.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ends this process at once with code 1, without what libraries do at the end, which can wait for others.
pub(crate) fn end_process() -> ! {
    // SAFETY: no precondition.
    unsafe { libc::_exit(1) }
}
