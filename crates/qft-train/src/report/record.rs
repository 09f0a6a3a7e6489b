//! What a run is, as `run.json`: written when it begins, for those who read of it later.

use crate::data::documents::Counts;
use crate::data::{Documents, EvalSet, documents};
use crate::error::{Context, Result};
use crate::memory::{Fit, MemoryPlan};
use crate::run::output::RECORD_FILE;
use crate::run::{Event, Observer, Quantized};
use crate::step::flip_rate::FlipRates;
use qft_files::{AtomicFile, Disk};
use qft_llama::LlamaConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bars of a histogram of lengths.
const BINS: usize = 32;

/// What a run is, apart from what it comes to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The version of qft that ran it last.
    pub version: String,
    /// Steps of the whole run.
    pub steps: u64,
    /// The shape of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelShape>,
    /// What computes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFacts>,
    /// How the states are stored.
    pub states: String,
    /// What decides the result, by option.
    pub recipe: Value,
    /// Its memory as planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<PlannedMemory>,
    /// The training data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<DataFacts>,
    /// The held-out data, in sets.
    pub held_out: Vec<DataFacts>,
    /// What quantizing did to the model, when it was loaded from its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<Quantized>,
    /// How far an update moves the weights at the largest learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<FlipRates>,
    /// The processes that ran it, one after the other.
    pub sessions: Vec<Session>,
}

/// The shape of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelShape {
    /// Its family, by the name in `config.json`.
    pub family: String,
    /// Parameters.
    pub parameters: u64,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
}

/// What computes a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineFacts {
    /// The device.
    pub device: String,
    /// Threads of the processor.
    pub threads: usize,
    /// Its instruction set.
    pub isa: String,
}

/// The memory of a run as planned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedMemory {
    /// Bytes of all training states per parameter.
    pub bytes_per_parameter: f64,
    /// The most bytes in use at a time.
    pub peak_bytes: u64,
    /// The most bytes taken from the system.
    pub reserved_bytes: u64,
    /// All that the run takes, the program itself included.
    pub need_bytes: u64,
    /// By owner, in the order of reports: those that have any.
    pub owners: Vec<OwnerMemory>,
}

/// The bytes of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerMemory {
    /// The owner's name.
    pub owner: String,
    /// Its bytes at the moment of the run's peak.
    pub bytes: u64,
    /// The most it has at any time.
    pub peak_bytes: u64,
}

/// What was read of data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataFacts {
    /// What it is called, where there is more than one set of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Documents.
    pub documents: usize,
    /// Their positions.
    pub tokens: usize,
    /// Of these, such that count in the loss.
    pub learned: usize,
    /// What became of the records.
    pub counts: Counts,
    /// The same in words.
    pub told: String,
    /// Positions of the longest document.
    pub longest: usize,
    /// How many documents there are of each length: the bars are equally wide, and the last one ends at the longest.
    pub lengths: Vec<usize>,
    /// The first records that were left out or cut.
    pub left_out: Vec<documents::LeftOut>,
}

/// A process that ran a part of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Seconds since 1970 when it began.
    pub began: u64,
    /// Steps that were done then.
    pub step: u64,
    /// The words of its command line; empty where a library was called.
    pub command: Vec<String>,
}

impl RunRecord {
    /// Of the run in `out`; empty where there is none, or none that can be read.
    pub fn read(out: &Path) -> Self {
        let text = std::fs::read(out.join(RECORD_FILE)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes it into `out` as a session that begins after `step` steps. What an earlier session knew of the same run and this
    /// one does not stays.
    ///
    /// Errors: the file cannot be written.
    fn begin(&mut self, out: &Path, step: u64, command: &[String]) -> Result<()> {
        let earlier = if step > 0 { Self::read(out) } else { Self::default() };
        self.quantized = self.quantized.or(earlier.quantized);
        self.sessions = earlier.sessions;
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.sessions.push(Session { began, step, command: command.to_vec() });
        let path = out.join(RECORD_FILE);
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        AtomicFile::write_whole(&Disk::default(), &path, &text).with_context(|| {
            format!("{}: cannot be written; check the disk's free space", path.display())
        })
    }
}

impl From<&LlamaConfig> for ModelShape {
    fn from(config: &LlamaConfig) -> Self {
        Self {
            family: config.family.model_type().into(),
            parameters: config.parameters(),
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            vocabulary: config.vocab_size,
        }
    }
}

impl From<&Fit> for PlannedMemory {
    fn from(fit: &Fit) -> Self {
        let MemoryPlan { bytes_per_parameter, peak_bytes, reserved_bytes, owners, .. } = &fit.plan;
        let owners = owners.iter().filter(|owner| owner.peak_bytes > 0);
        let owners = owners.map(|owner| OwnerMemory {
            owner: owner.owner.into(),
            bytes: owner.bytes,
            peak_bytes: owner.peak_bytes,
        });
        Self {
            bytes_per_parameter: *bytes_per_parameter,
            peak_bytes: *peak_bytes,
            reserved_bytes: *reserved_bytes,
            need_bytes: fit.need_bytes,
            owners: owners.collect(),
        }
    }
}

impl From<&Documents> for DataFacts {
    fn from(data: &Documents) -> Self {
        let positions = || (0..data.len()).map(|document| data.positions(document));
        let longest = positions().max().unwrap_or(0);
        let width = longest.div_ceil(BINS).max(1);
        let mut lengths = vec![0; longest.div_ceil(width)];
        positions()
            .filter(|&length| length > 0)
            .for_each(|length| lengths[(length - 1) / width] += 1);
        Self {
            name: None,
            documents: data.len(),
            tokens: data.tokens(),
            learned: data.target_tokens(),
            counts: data.counts(),
            told: data.to_string(),
            longest,
            lengths,
            left_out: data.left_out().to_vec(),
        }
    }
}

/// Writes `run.json`.
#[derive(Debug, Default)]
pub struct RecordFile {
    record: RunRecord,
    command: Vec<String>,
}

impl RecordFile {
    /// Of a run that the words of this command line began; none where a library was called.
    pub fn new(command: Vec<String>) -> Self {
        let version = env!("CARGO_PKG_VERSION").into();
        Self { record: RunRecord { version, ..RunRecord::default() }, command }
    }
}

impl Observer for RecordFile {
    fn on(&mut self, event: &Event<'_>) -> Result<()> {
        let record = &mut self.record;
        match event {
            Event::DataRead { train, held_out } => {
                record.train = Some((*train).into());
                let facts = |set: &EvalSet<Documents>| DataFacts {
                    name: set.name.clone(),
                    ..(&set.data).into()
                };
                record.held_out = held_out.iter().map(facts).collect();
            }
            Event::Planned { fit, states, steps, .. } => {
                record.memory = Some((*fit).into());
                (record.states, record.steps) = (states.name().into(), *steps);
            }
            Event::Decided { recipe, model, device, host } => {
                record.recipe = recipe.to_json()?;
                record.model = Some((*model).into());
                let (threads, isa) = (host.threads(), host.isa().to_string());
                record.machine = Some(MachineFacts { device: device.to_string(), threads, isa });
            }
            Event::Loaded(quantized) => record.quantized = Some(**quantized),
            Event::Rates(rates) => record.rates = Some((*rates).clone()),
            Event::Started { out, step, .. } => record.begin(out, *step, &self.command)?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_goes_on_keeps_what_the_first_one_knew() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |quantized, step, word: &str| {
            let mut record = RunRecord { quantized, steps: 9, ..RunRecord::default() };
            record.begin(dir.path(), step, &[word.to_owned()]).unwrap();
            RunRecord::read(dir.path())
        };
        let quantized = Some(Quantized { matrices: 3, ..Quantized::default() });
        let first = begin(quantized, 0, "one");
        assert_eq!((first.quantized, first.sessions.len()), (quantized, 1));
        let second = begin(None, 5, "two");
        assert_eq!(second.quantized, quantized);
        let steps: Vec<_> =
            second.sessions.iter().map(|s| (s.step, s.command[0].as_str())).collect();
        assert_eq!(steps, [(0, "one"), (5, "two")]);
        // Another run in the same folder.
        let other = begin(None, 0, "three");
        assert_eq!((other.quantized, other.sessions.len()), (None, 1));
        std::fs::write(dir.path().join(RECORD_FILE), "{").unwrap();
        assert_eq!(RunRecord::read(dir.path()), RunRecord::default());
    }
}
