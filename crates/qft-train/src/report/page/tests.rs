//! The page of runs that are done, killed or under way.

use super::*;
use crate::report::MetricsLog;
use crate::run::output::{METRICS_FILE, RECORD_FILE, SUMMARY_FILE};
use crate::run::{EvalMetrics, StepMetrics};
use qft_autograd::Compute;
use qft_files::FolderLock;
use serde_json::json;

fn step(step: u64) -> StepMetrics {
    StepMetrics {
        step,
        loss: 2.0 + 1.0 / step as f64,
        accuracy: 0.5,
        lr: 1e-5,
        tokens: 10 * step,
        tokens_per_second: 100.0,
        positions: 20 * step,
        positions_per_second: 200.0,
        peak_bytes: 3_000_000_000,
        grad_norm: Some(0.5),
        rescaled_rows: 0,
        speed_of_light: None,
        diagnostics: None,
        exchange: None,
    }
}

fn evaluated(step: u64) -> Event<'static> {
    let metrics = EvalMetrics { step, eval_loss: 2.5, eval_accuracy: 0.5, compute: Compute::Int8 };
    Event::Evaluated { moment: Moment::During, metrics }
}

/// A run of this many steps in `out`, which is then killed.
fn killed(out: &Path, steps: u64) {
    std::fs::create_dir_all(out).unwrap();
    let (mut metrics, mut page) = (MetricsLog::default(), PageFile::default());
    let mut observers: [&mut dyn Observer; 2] = [&mut metrics, &mut page];
    let mut tell = |event: Event<'_>| {
        observers.iter_mut().for_each(|observer| observer.on(&event).unwrap());
    };
    tell(Event::Started { out, step: 0, steps: 9 });
    (1..=steps).for_each(|done| tell(Event::Stepped(&step(done))));
    tell(evaluated(steps));
}

#[test]
fn a_run_that_is_killed_has_a_whole_page() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 3);
    let page = std::fs::read_to_string(dir.path().join(PAGE_FILE)).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"), "{page}");
    let now = of_run(dir.path()).unwrap();
    assert!(now.contains(">stopped</p>") && now.contains("step 3 of 3"), "{now}");
    assert!(now.contains("Learning rate") && now.contains("Norm of the gradient"), "{now}");
    // Nothing comes from elsewhere.
    assert!(!now.contains("http") && !now.contains("src="), "{now}");
    let _lock = FolderLock::acquire(dir.path()).unwrap();
    assert!(of_run(dir.path()).unwrap().contains(">running</p>"));
}

#[test]
fn what_others_wrote_is_text() {
    let dir = tempfile::tempdir().unwrap();
    let script = "<script>alert(1)</script>";
    let line = json!({"step": 1, "prompt": script, "sample": script, script: 1.5});
    std::fs::write(dir.path().join(METRICS_FILE), format!("{line}\n")).unwrap();
    let session = json!({"began": 1, "step": 0, "command": ["qft", script, "it's"]});
    let record =
        json!({"recipe": {script: script}, "sessions": [session], "train": {"told": script}});
    std::fs::write(dir.path().join(RECORD_FILE), record.to_string()).unwrap();
    let page = of_run(dir.path()).unwrap();
    assert!(
        !page.contains("<script>alert") && page.matches("&lt;script&gt;").count() >= 6,
        "{page}"
    );
}

#[test]
fn files_with_odd_values_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    for lines in [
        "",
        "{\"step\": 0, \"eval_loss\": 1e308}\n{\"step\": 18446744073709551615, \"eval_loss\": -1e308, \"loss\": -1e308}\n",
        "{\"step\": 5, \"loss\": 0, \"lr\": 0, \"peak_bytes\": -1}\n",
        "{\"step\": 5, \"loss\": 1e-320, \"grad_norm\": 1e-320}\n{\"step\": 4, \"grad_norm\": 1e300}\n",
    ] {
        std::fs::write(dir.path().join(METRICS_FILE), lines).unwrap();
        let page = of_run(dir.path()).unwrap();
        assert!(!page.contains("NaN") && !page.contains("inf "), "{lines}\n{page}");
    }
    std::fs::write(dir.path().join(SUMMARY_FILE), "{\"steps\": 9}").unwrap();
    std::fs::write(dir.path().join(RECORD_FILE), "[]").unwrap();
    of_run(dir.path()).unwrap();
}

#[test]
fn earlier_runs_and_others_are_compared_with() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tuned");
    killed(&out, 3);
    assert!(!of_run(&out).unwrap().contains("Beside other runs"));
    killed(&out.join("earlier-2"), 5);
    killed(&out.join("earlier-10"), 4);
    std::fs::create_dir(out.join("earlier-x")).unwrap();
    let record = |lr| json!({"recipe": {"lr": lr, "seed": 0}}).to_string();
    std::fs::write(out.join(RECORD_FILE), record(1e-5)).unwrap();
    std::fs::write(out.join("earlier-2").join(RECORD_FILE), record(2e-5)).unwrap();
    let page = of_run(&out).unwrap();
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
    assert!(place(">earlier-10<") < place(">earlier-2<"), "the newest first");
    assert!(page.contains("<tr><th>lr</th><td>1e-5</td><td></td><td>2e-5</td></tr>"), "{page}");
    assert!(page.contains("<tr><th>steps</th><td>3</td><td>4</td><td>5</td></tr>"), "{page}");
    let other = dir.path().join("other");
    killed(&other, 2);
    let page = of_runs(&[other.clone(), out]).unwrap();
    assert!(page.contains("<h1>other</h1>") && !page.contains(">earlier-2<"), "{page}");
    let error = of_runs(&[other, dir.path().join("none")]).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[test]
fn a_page_that_cannot_be_written_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(PAGE_FILE)).unwrap();
    std::fs::write(dir.path().join(METRICS_FILE), "").unwrap();
    let mut page = PageFile::default();
    page.on(&Event::Started { out: dir.path(), step: 0, steps: 9 }).unwrap();
    assert!(page.failed);
    page.on(&evaluated(1)).unwrap();
}
