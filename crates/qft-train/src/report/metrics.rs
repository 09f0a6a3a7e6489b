//! What a run leaves to be read: `metrics.jsonl`, an object per step, and `summary.json`.

use crate::error::{Context, Result};
use crate::run::output::{METRICS_FILE, PREVIOUS_METRICS_FILE, SUMMARY_FILE};
use crate::run::{EvalMetrics, Event, Observer, SampleMetrics, SetMetrics, Summary};
use qft_files::{AtomicFile, Disk};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A line of the file, as far as it is read back.
#[derive(Deserialize)]
struct Line {
    step: u64,
    eval_loss: Option<f64>,
    /// Of a sample.
    prompt: Option<String>,
}

/// Writes `metrics.jsonl`, and `summary.json` at the end.
#[derive(Debug, Default)]
pub struct MetricsLog(Option<Open>);

/// The file of steps, open to be written on.
#[derive(Debug)]
struct Open {
    out: PathBuf,
    path: PathBuf,
    file: File,
    /// Steps that were done at the last evaluation that it has.
    evaluated: Option<u64>,
    /// The samples that it has, by step and prompt.
    sampled: HashSet<(u64, String)>,
}

impl Observer for MetricsLog {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match (event, &mut self.0) {
            (Event::Started { out, step, .. }, open) => *open = Some(Open::after(out, *step)?),
            (Event::Stepped(metrics), Some(open)) => open.line(metrics)?,
            // A run that was resumed, or has ended early, says again what is known.
            (Event::SetEvaluated { metrics: SetMetrics { step, .. }, .. }, Some(open))
            | (Event::Evaluated { metrics: EvalMetrics { step, .. }, .. }, Some(open))
                if open.evaluated == Some(*step) => {}
            (Event::SetEvaluated { metrics, .. }, Some(open)) => open.line(metrics)?,
            (Event::Evaluated { metrics, .. }, Some(open)) => {
                open.line(metrics)?;
                open.evaluated = Some(metrics.step);
            }
            (Event::Sampled { sample, .. }, Some(open)) => open.sample(sample)?,
            (Event::Answered { metrics, .. }, Some(open)) => open.line(metrics)?,
            (Event::Finished(summary), Some(open)) => open.summary(summary)?,
            (Event::SavedEvaluated(summary), Some(open)) => {
                if let Some(found) = &summary.saved_eval {
                    open.line(found)?;
                }
                open.summary(summary)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Open {
    /// Opens the file in the output folder `out` for a run of which `step` steps are done. Lines of later steps, and one
    /// that was cut off, are taken out; if that takes steps away, the file as it was is kept beside the new one.
    ///
    /// Errors: the file cannot be read or written.
    fn after(out: &Path, step: u64) -> Result<Self> {
        let path = out.join(METRICS_FILE);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            bytes => bytes.with_context(|| {
                format!("{}: cannot be read; make it readable, or move it away", path.display())
            })?,
        };
        let (mut kept, mut steps_lost) = (Vec::new(), false);
        let (mut evaluated, mut sampled) = (None, HashSet::new());
        for bytes in bytes.split_inclusive(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(bytes) else { continue };
            // A run that has done nothing yet evaluates before its first step, again.
            let again = line.step > step || step == 0;
            steps_lost |= again;
            if !again && bytes.ends_with(b"\n") {
                kept.extend_from_slice(bytes);
                evaluated = line.eval_loss.map(|_| line.step).or(evaluated);
                sampled.extend(line.prompt.map(|prompt| (line.step, prompt)));
            }
        }
        if kept != bytes {
            if steps_lost {
                write_atomically(&out.join(PREVIOUS_METRICS_FILE), &bytes)?;
            }
            write_atomically(&path, &kept)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| cannot_write(&path))?;
        Ok(Self { out: out.to_path_buf(), path, file, evaluated, sampled })
    }

    /// A line of a sample that is not there yet.
    fn sample(&mut self, sample: &SampleMetrics) -> Result<()> {
        match self.sampled.insert((sample.step, sample.prompt.clone())) {
            true => self.line(sample),
            false => Ok(()),
        }
    }

    /// Writes the file of the whole run, in place of the one that was there.
    fn summary(&self, summary: &Summary) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(summary)?;
        text.push(b'\n');
        write_atomically(&self.out.join(SUMMARY_FILE), &text)
    }

    /// A line in one write: a crash leaves it whole or cuts it, and never mixes two.
    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!(
        "{}: cannot be written; check the free space on the disk and the folder's permissions",
        path.display()
    )
}

/// Writes a whole file, or leaves what was there.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    AtomicFile::write_whole(&Disk::default(), path, bytes).with_context(|| cannot_write(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Moment, StepMetrics};
    use serde_json::{Value, json};

    fn step(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 2.5,
            accuracy: 0.5,
            lr: 1e-5,
            tokens: 10 * step,
            tokens_per_second: 100.0,
            positions: 20 * step,
            positions_per_second: 200.0,
            peak_bytes: 7,
            grad_norm: None,
            rescaled_rows: 0,
            speed_of_light: None,
            diagnostics: None,
            exchange: None,
        }
    }

    fn started(out: &Path, step: u64) -> MetricsLog {
        let mut log = MetricsLog::default();
        log.on(&Event::Started { out, step, steps: 9 }).unwrap();
        log
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_resumed_run_writes_the_steps_it_does_again_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS_FILE);
        let mut log = started(dir.path(), 0);
        let eval = |step, eval_loss| Event::Evaluated {
            moment: Moment::During,
            metrics: EvalMetrics {
                step,
                eval_loss,
                eval_accuracy: 0.5,
                compute: qft_autograd::Compute::Int8,
            },
        };
        log.on(&eval(0, 3.0)).unwrap();
        for done in 1..=5 {
            log.on(&Event::Stepped(&step(done))).unwrap();
        }
        log.on(&eval(5, 2.0)).unwrap();
        log.0.as_mut().unwrap().file.write_all(b"{\"step\": 2, \"lo").unwrap();
        drop(log);
        let before = std::fs::read(&path).unwrap();
        let mut log = started(dir.path(), 3);
        let changed = StepMetrics { grad_norm: Some(0.5), loss: f64::NAN, ..step(4) };
        log.on(&Event::Stepped(&changed)).unwrap();
        let lines = lines(&path);
        let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4]);
        assert_eq!(
            lines[1],
            json!({"step": 1, "loss": 2.5, "accuracy": 0.5, "lr": 1e-5, "tokens": 10, "tokens_per_second": 100.0,
                   "positions": 20, "positions_per_second": 200.0, "peak_bytes": 7, "rescaled_rows": 0})
        );
        assert_eq!((&lines[4]["loss"], &lines[4]["grad_norm"]), (&Value::Null, &json!(0.5)));
        // What was taken out can still be read.
        assert_eq!(std::fs::read(dir.path().join(PREVIOUS_METRICS_FILE)).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_missing_or_cut_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS_FILE);
        started(dir.path(), 3).on(&Event::Stepped(&step(4))).unwrap();
        std::fs::write(&path, b"{\"step\": 1}\n\xff\xfe\n{\"step\": 2}").unwrap();
        started(dir.path(), 3).on(&Event::Stepped(&step(4))).unwrap();
        assert_eq!(lines(&path).len(), 2);
        // A run from the start begins the file anew, and keeps what was there.
        started(dir.path(), 0).on(&Event::Stepped(&step(1))).unwrap();
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(lines(&dir.path().join(PREVIOUS_METRICS_FILE)).len(), 2);
        let out = &dir.path().join("absent");
        let error = MetricsLog::default().on(&Event::Started { out, step: 0, steps: 9 });
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains(METRICS_FILE), "{error}");
    }
}
