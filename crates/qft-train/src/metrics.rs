//! What a run leaves to be read: `metrics.jsonl`, an object per step, and `summary.json`.

use crate::profile::Profile;
use anyhow::{Context, Result};
use qft_files::{AtomicFile, Disk};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Name of the file of steps, in the output folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Name of the file of the whole run, in the output folder.
pub const SUMMARY_FILE: &str = "summary.json";

/// What a step did. A number that is not finite is written as `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepMetrics {
    /// Steps that are done, this one included.
    pub step: u64,
    /// Mean negative log-likelihood per target token, before the update.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens of all steps that are done.
    pub tokens: u64,
    /// Tokens of this step per second.
    pub tokens_per_second: f64,
    /// The most bytes in use at a time, until now.
    pub peak_bytes: u64,
    /// Global norm of the gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// The rate of all products over the whole step, as a fraction of the machine's INT8 rate; with `--profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_of_light: Option<f64>,
}

/// What an evaluation found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EvalMetrics {
    /// Steps that were done.
    pub step: u64,
    /// Mean negative log-likelihood per target token of the held-out data.
    pub eval_loss: f64,
}

/// A line of the file, as far as it is read back.
#[derive(Deserialize)]
struct Line {
    step: u64,
    eval_loss: Option<f64>,
}

/// The file of steps, open to be written on.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    evals: Vec<EvalMetrics>,
}

impl MetricsLog {
    /// Begins the file anew in the output folder `out`.
    ///
    /// Errors: the file cannot be written.
    pub fn create(out: &Path) -> Result<Self> {
        let path = out.join(METRICS_FILE);
        let file = File::create(&path).with_context(|| cannot_write(&path))?;
        Ok(Self { path, file, evals: Vec::new() })
    }

    /// Goes on with the file of a run that is resumed after `step` steps: lines of later steps, and one that was cut
    /// off, are taken out.
    ///
    /// Errors: the file cannot be read or written.
    pub fn resume(out: &Path, step: u64) -> Result<Self> {
        let path = out.join(METRICS_FILE);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::create(out),
            bytes => bytes.with_context(|| {
                format!("{}: cannot be read; make it readable, or move it away", path.display())
            })?,
        };
        let (mut kept, mut evals) = (Vec::new(), Vec::new());
        for bytes in bytes.split_inclusive(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(bytes) else { continue };
            if line.step > step || !bytes.ends_with(b"\n") {
                continue;
            }
            kept.extend_from_slice(bytes);
            if let Some(eval_loss) = line.eval_loss {
                evals.push(EvalMetrics { step: line.step, eval_loss });
            }
        }
        if kept != bytes {
            write_atomically(&path, &kept)?;
        }
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| cannot_write(&path))?;
        Ok(Self { path, file, evals })
    }

    /// The evaluations of the run, those from before it was resumed included.
    pub fn evals(&self) -> &[EvalMetrics] {
        &self.evals
    }

    /// Adds a step.
    ///
    /// Errors: the file cannot be written.
    pub fn step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.line(metrics)
    }

    /// Adds an evaluation.
    ///
    /// Errors: the file cannot be written.
    pub fn eval(&mut self, metrics: EvalMetrics) -> Result<()> {
        self.evals.push(metrics);
        self.line(&metrics)
    }

    /// A line in one write: a crash leaves it whole or cuts it, and never mixes two.
    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| cannot_write(&self.path))
    }
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Loss of the held-out data before training.
    pub initial_eval_loss: Option<f64>,
    /// Loss of the held-out data after training.
    pub final_eval_loss: Option<f64>,
    /// Loss of the last step.
    pub final_loss: Option<f64>,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens of all steps.
    pub tokens: u64,
    /// Seconds of all steps, without loading, evaluating and saving.
    pub seconds: f64,
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of all training states per parameter.
    pub bytes_per_parameter: f64,
    /// The most bytes in use at a time, as planned.
    pub planned_peak_bytes: u64,
    /// The most bytes in use at a time, as measured.
    pub peak_bytes: u64,
    /// The most bytes of each owner.
    pub owners: Owners,
    /// Where the time of the steps of this process went; with `--profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// Bytes by owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Owners {
    /// As planned before loading.
    pub planned: BTreeMap<String, u64>,
    /// As measured.
    pub measured: BTreeMap<String, u64>,
}

impl Summary {
    /// Writes `summary.json` into the output folder `out`: the whole file, or none of it.
    ///
    /// Errors: the file cannot be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        write_atomically(&out.join(SUMMARY_FILE), &text)
    }
}

fn cannot_write(path: &Path) -> String {
    format!(
        "{}: cannot be written; see to the disk's space and the folder's rights",
        path.display()
    )
}

/// Writes a whole file, or leaves what was there.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    AtomicFile::write_whole(&Disk::default(), path, bytes).with_context(|| cannot_write(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn step(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 2.5,
            lr: 1e-5,
            tokens: 10 * step,
            tokens_per_second: 100.0,
            peak_bytes: 7,
            grad_norm: None,
            speed_of_light: None,
        }
    }

    fn lines(dir: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(dir.join(METRICS_FILE)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_resumed_run_forgets_the_steps_it_does_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::create(dir.path()).unwrap();
        log.eval(EvalMetrics { step: 0, eval_loss: 3.0 }).unwrap();
        for done in 1..=5 {
            log.step(&step(done)).unwrap();
        }
        log.eval(EvalMetrics { step: 5, eval_loss: 2.0 }).unwrap();
        log.file.write_all(b"{\"step\": 2, \"lo").unwrap();
        drop(log);
        let mut log = MetricsLog::resume(dir.path(), 3).unwrap();
        assert_eq!(log.evals(), [EvalMetrics { step: 0, eval_loss: 3.0 }]);
        log.step(&StepMetrics { grad_norm: Some(0.5), loss: f64::NAN, ..step(4) }).unwrap();
        let lines = lines(dir.path());
        let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4]);
        assert_eq!(
            lines[1],
            json!({"step": 1, "loss": 2.5, "lr": 1e-5, "tokens": 10, "tokens_per_second": 100.0,
                   "peak_bytes": 7})
        );
        assert_eq!((&lines[4]["loss"], &lines[4]["grad_norm"]), (&Value::Null, &json!(0.5)));
    }

    #[test]
    fn a_file_that_is_missing_or_cut_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        MetricsLog::resume(dir.path(), 3).unwrap().step(&step(4)).unwrap();
        std::fs::write(dir.path().join(METRICS_FILE), b"{\"step\": 1}\n\xff\xfe\n{\"step\": 2}")
            .unwrap();
        MetricsLog::resume(dir.path(), 3).unwrap().step(&step(4)).unwrap();
        assert_eq!(lines(dir.path()).len(), 2);
        let error = MetricsLog::create(&dir.path().join("absent")).unwrap_err();
        assert!(format!("{error:#}").contains(METRICS_FILE), "{error:#}");
    }

    #[test]
    fn the_summary_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let summary = Summary {
            initial_eval_loss: Some(3.0),
            final_eval_loss: None,
            final_loss: Some(2.0),
            steps: 5,
            tokens: 50,
            seconds: 1.5,
            parameters: 10,
            bytes_per_parameter: 3.1,
            planned_peak_bytes: 40,
            peak_bytes: 41,
            profile: None,
            owners: Owners { planned: [("weights".into(), 10)].into(), ..Owners::default() },
        };
        summary.write(dir.path()).unwrap();
        summary.write(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(SUMMARY_FILE)).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(summary.write(&dir.path().join("absent")).is_err());
    }
}
