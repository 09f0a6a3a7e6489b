//! The page of made-up outcomes.

use super::*;
use crate::parity::results::Exported;
use crate::parity::results::tests::outcome;
use crate::parity::rows::ADAMW;
use qft_train::run::scores::{Figure, Metric, Score};
use std::collections::BTreeMap;

fn outcomes() -> Vec<Outcome> {
    let mut all = vec![
        outcome(UNTRAINED, 0.0, 0, Some(5.0)),
        outcome(LION, 1e-3, 0, Some(2.5)),
        outcome(LION, 1e-3, 1, Some(2.7)),
        outcome(ADAMW, 3e-3, 0, Some(2.4)),
        outcome("full", 3e-4, 0, Some(2.9)),
        outcome("full", 1e-3, 0, Some(9.0)),
        outcome("full", 3e-3, 0, None),
        outcome("full", 1e-3, 0, Some(2.51)),
        outcome("full", 1e-3, 1, Some(2.73)),
        outcome("compact", 1e-3, 0, Some(2.52)),
        outcome("compact", 3e-4, 0, Some(2.6)),
        outcome("paper", 1e-3, 0, None),
    ];
    let figure = |value| Figure { value, stderr: Some(0.05) };
    all[7].exported = Some(Exported {
        loss: 2.52,
        questions: None,
        scores: vec![Score {
            set: "piqa".into(),
            questions: 100,
            left_out: 0,
            figures: BTreeMap::from([(Metric::Acc, figure(0.4)), (Metric::AccNorm, figure(0.5))]),
        }],
    });
    all
}

#[test]
fn a_row_is_told_at_its_best_rate_with_its_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("QUALITY.md");
    write(&outcomes(), &path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for line in [
        "## story on plays.txt",
        "Before training: 5.0000 in f32.",
        "| `f32-lion` | 1e-3 | 2 | 2.6000 ± 0.1414 | – | +0.1000 | 2.6000 ± 0.1414 | – | 3.02 | 1000 |",
        "| `full` | 1e-3 | 2 | 2.6200 ± 0.1556 | +0.0200 ± 0.0141 | +0.1100 | 2.6250 ± 0.1485 | 50.0 | 3.02 | 1000 |",
        "| `compact` | 1e-3 ▲ | 1 | 2.5200 | +0.0200 | +0.1200 | 2.5200 | – | 3.02 | 1000 |",
        "| row | piqa (100) |",
        "| `full` | 50.0 |",
        "| `f32-adamw` | `--states f32 --optimizer adamw` |",
        "![Training loss with the first seed, and how far INT8 states are above FP32 Lion](quality/story-1.svg)",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("| `paper` | 1e-3") && !text.contains("different versions"), "{text}");
    let svg = std::fs::read_to_string(folder.path().join("quality/story-1.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("f32-lion"), "{svg}");
}

#[test]
fn a_gap_that_is_too_large_is_told() {
    check(&outcomes()).unwrap();
    let mut worse = outcomes();
    worse[8].trained.loss = Some(2.9);
    assert!(check(&worse).unwrap_err().to_string().contains("above f32-lion"));
    worse[8].trained.loss = Some(2.7);
    worse[9].trained.loss = Some(6.0);
    worse[10].trained.loss = Some(6.5);
    assert!(check(&worse).unwrap_err().to_string().contains("compact has learned nothing"));
}
