//! The page about a run.

use super::{SMALL, Target, scratch};
use qft_train::report::page;

/// The files that the page is made from, one behind the other, with a [`BORDER`] between them.
pub const REPORT: Target = Target { name: "report", run: read, base_bytes: SMALL };

/// The files, in their order.
const FILES: [&str; 3] = ["run.json", "summary.json", "metrics.jsonl"];

/// The line between two of them.
const BORDER: &[u8] = b"\n====\n";

fn read(bytes: &[u8]) {
    let out = scratch::folder("report");
    let mut rest = Some(bytes);
    for name in FILES {
        let part = rest.unwrap_or_default();
        let end = part.windows(BORDER.len()).position(|window| window == BORDER);
        scratch::write(&out, name, &part[..end.unwrap_or(part.len())]);
        rest = end.map(|end| &part[end + BORDER.len()..]);
    }
    let page = page::of_run(&out).expect("a damaged file is read as far as it goes");
    assert!(page.trim_end().ends_with("</html>"), "the page is whole");
}
