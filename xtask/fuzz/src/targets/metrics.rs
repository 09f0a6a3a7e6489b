//! The steps of a run that goes on.

use super::{SMALL, Target, scratch};
use qft_train::report::MetricsLog;
use qft_train::run::{Event, Observer};

/// A `metrics.jsonl`, of which the steps that will be done again are taken out.
pub const METRICS: Target = Target { name: "metrics", run: read, base_bytes: SMALL };

fn read(bytes: &[u8]) {
    let out = scratch::folder("metrics");
    for step in [0, 3, u64::MAX] {
        let path = scratch::write(&out, "metrics.jsonl", bytes);
        let started = Event::Started { out: &out, step, steps: step };
        MetricsLog::default().on(&started).expect("no file of steps is an obstacle");
        let kept = std::fs::read(path).expect("the file is there");
        assert!(kept.len() <= bytes.len() && (step > 0 || kept.is_empty()), "lines go, none come");
    }
}
