//! Event files for TensorBoard: what `metrics.jsonl` says, as it comes to be said there.

mod event;
mod record;

use super::numbers::numbers;
use crate::error::{Context, Result};
use crate::run::output::{METRICS_FILE, TENSORBOARD, event_file};
use crate::run::{Event, Observer};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Follows `metrics.jsonl` of a run and writes its numbers into an event file beside it. To be told of events after
/// [`MetricsLog`](super::MetricsLog), which writes that file.
///
/// A file that cannot be written is told once, and ends nothing.
#[derive(Debug, Default)]
pub struct TensorBoard(Option<Following>);

/// The two files of a session.
#[derive(Debug)]
struct Following {
    metrics: File,
    /// The beginning of a line that is not whole yet.
    line: Vec<u8>,
    events: File,
}

impl Observer for TensorBoard {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        let done = match (event, &mut self.0) {
            (Event::Started { out, step, .. }, following) => {
                Following::begin(out, *step).map(|begun| *following = begun)
            }
            (_, Some(following)) => following.go_on(),
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!("no more is written for TensorBoard: {error:#}");
            self.0 = None;
        }
        Ok(())
    }
}

impl Following {
    /// For a session that begins after `step` steps in the folder `out`; none if nobody writes metrics. The first session
    /// writes all that is there, a later one what comes.
    fn begin(out: &Path, step: u64) -> Result<Option<Self>> {
        let mut metrics = match File::open(out.join(METRICS_FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("cannot read {METRICS_FILE}"))?,
        };
        let folder = out.join(TENSORBOARD);
        if folder.exists() {
            metrics.seek(SeekFrom::End(0))?;
        }
        let now = seconds();
        let path = folder.join(event_file(now as u64, step));
        let open = || {
            std::fs::create_dir_all(&folder)?;
            OpenOptions::new().create(true).append(true).open(&path)
        };
        let events = open().with_context(|| format!("cannot write {}", path.display()))?;
        let mut following = Self { metrics, line: Vec::new(), events };
        let mut bytes = record::framed(&event::version(now));
        // From here on, what an earlier session wrote of these steps counts no more.
        bytes.extend(record::framed(&event::session(now, step + 1)));
        following.events.write_all(&bytes)?;
        following.go_on()?;
        Ok(Some(following))
    }

    /// Writes an event for every line that is new.
    fn go_on(&mut self) -> Result<()> {
        self.metrics.read_to_end(&mut self.line)?;
        let Some(end) = self.line.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let mut bytes = Vec::new();
        for line in self.line[..end].split(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Value>(line) else { continue };
            let mut scalars = Vec::new();
            numbers(&line, &mut |key, number| scalars.push((key.to_owned(), number as f32)));
            if !scalars.is_empty() {
                let step = line["step"].as_u64().unwrap_or(0);
                bytes.extend(record::framed(&event::scalars(seconds(), step, &scalars)));
            }
        }
        self.line.drain(..=end);
        Ok(self.events.write_all(&bytes)?)
    }
}

/// Since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{EvalMetrics, Moment};

    /// The events of all files, in the order of their names.
    fn events(out: &Path) -> Vec<Vec<u8>> {
        let mut paths: Vec<_> = std::fs::read_dir(out.join(TENSORBOARD))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths
            .iter()
            .flat_map(|path| record::tests::unframed(&std::fs::read(path).unwrap()))
            .collect()
    }

    fn append(path: &Path, text: &str) {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_become_events_as_they_become_whole() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let metrics = out.join(METRICS_FILE);
        let some = Event::Evaluated {
            moment: Moment::During,
            metrics: EvalMetrics {
                step: 0,
                eval_loss: 0.0,
                eval_accuracy: 0.0,
                compute: qft_autograd::Compute::Int8,
            },
        };
        let mut board = TensorBoard::default();
        // Nobody writes metrics.
        board.on(&Event::Started { out, step: 0, steps: 9 }).unwrap();
        board.on(&some).unwrap();
        assert!(!out.join(TENSORBOARD).exists());

        append(&metrics, "");
        board.on(&Event::Started { out, step: 0, steps: 9 }).unwrap();
        append(
            &metrics,
            "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 1, \"note\": \"x\"}\n{\"step\": 2, ",
        );
        board.on(&some).unwrap();
        assert_eq!(events(out).len(), 3);
        append(&metrics, "\"loss\": 2.25}\n");
        board.on(&some).unwrap();
        board.on(&some).unwrap();
        let all = events(out);
        assert_eq!(all.len(), 4);
        assert!(all[3].ends_with(&2.25f32.to_le_bytes()));
        // A session that goes on writes what is new, and into a folder without files everything.
        let mut again = TensorBoard::default();
        again.on(&Event::Started { out, step: 2, steps: 9 }).unwrap();
        assert_eq!(events(out).len(), 6);
        std::fs::remove_dir_all(out.join(TENSORBOARD)).unwrap();
        TensorBoard::default().on(&Event::Started { out, step: 2, steps: 9 }).unwrap();
        assert_eq!(events(out).len(), 4);
    }

    #[test]
    fn what_cannot_be_written_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        std::fs::write(out.join(METRICS_FILE), "").unwrap();
        std::fs::write(out.join(TENSORBOARD), "a file, where a folder should be").unwrap();
        let mut board = TensorBoard::default();
        board.on(&Event::Started { out, step: 0, steps: 9 }).unwrap();
        assert!(board.0.is_none());
    }
}
