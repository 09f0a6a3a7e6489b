//! `samples.txt`: what the model writes after each prompt, from the beginning of a run to its end.

use super::metrics::write_atomically;
use crate::error::Result;
use crate::run::output::{METRICS_FILE, SAMPLES_FILE};
use crate::run::{Event, Observer, SampleMetrics};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Writes `samples.txt` from the samples in `metrics.jsonl`, which has to be written first.
#[derive(Debug, Default)]
pub struct SamplesFile {
    path: PathBuf,
    samples: Vec<SampleMetrics>,
}

impl Observer for SamplesFile {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Started { out, .. } => {
                *self = Self { path: out.join(SAMPLES_FILE), samples: known(out) };
            }
            Event::Sampled { sample, .. } => {
                let same = |known: &SampleMetrics| {
                    (known.step, &known.prompt) == (sample.step, &sample.prompt)
                };
                if !self.samples.iter().any(same) {
                    self.samples.push((*sample).clone());
                }
                write_atomically(&self.path, text(&self.samples).as_bytes())?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The samples of the steps that a run has done before it goes on.
fn known(out: &Path) -> Vec<SampleMetrics> {
    let lines = std::fs::read_to_string(out.join(METRICS_FILE)).unwrap_or_default();
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// All samples, by step.
fn text(samples: &[SampleMetrics]) -> String {
    let (mut text, mut last) = (String::new(), None);
    for SampleMetrics { step, prompt, sample } in samples {
        if last != Some(step) {
            // A String takes everything.
            let _ = writeln!(text, "=== step {step} ===\n");
        }
        let _ = writeln!(text, "{prompt}{sample}\n");
        last = Some(step);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Moment;

    fn sample(step: u64, prompt: &str) -> SampleMetrics {
        SampleMetrics { step, prompt: prompt.into(), sample: format!(" text {step}") }
    }

    #[test]
    fn a_run_that_goes_on_adds_to_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let tell = |file: &mut SamplesFile, sample: &SampleMetrics| {
            file.on(&Event::Sampled { moment: Moment::During, sample }).unwrap();
        };
        let started = Event::Started { out: dir.path(), step: 0, steps: 9 };
        let mut file = SamplesFile::default();
        file.on(&started).unwrap();
        let path = dir.path().join(SAMPLES_FILE);
        assert!(!path.exists(), "without samples there is no file");
        for (step, prompt) in [(0, "A"), (0, "B"), (4, "A"), (4, "B")] {
            tell(&mut file, &sample(step, prompt));
        }
        let expected =
            "=== step 0 ===\n\nA text 0\n\nB text 0\n\n=== step 4 ===\n\nA text 4\n\nB text 4\n\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        let line = |sample: &SampleMetrics| serde_json::to_string(sample).unwrap() + "\n";
        let lines =
            ["{\"step\": 1, \"loss\": 2.0}\n".into(), line(&sample(0, "A")), line(&sample(0, "B"))];
        std::fs::write(dir.path().join(METRICS_FILE), lines.concat()).unwrap();
        let mut file = SamplesFile::default();
        file.on(&started).unwrap();
        for (step, prompt) in [(0, "B"), (4, "A"), (4, "B")] {
            tell(&mut file, &sample(step, prompt));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
