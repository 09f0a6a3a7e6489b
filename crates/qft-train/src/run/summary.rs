//! The numbers of a run: of a step, of an evaluation, and of the whole.

use super::named::Origins;
use crate::machine::profile::Profile;
use crate::step::answers::Answers;
use crate::step::diagnostics::{Diagnosis, DiagnosticsReport};
use crate::step::evaluations::Best;
use qft_autograd::Compute;
use qft_tensor::Traffic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a step did. A number that is not finite is written as `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepMetrics {
    /// Steps that are done, this one included.
    pub step: u64,
    /// Mean negative log-likelihood per target token, before the update.
    pub loss: f64,
    /// Target tokens of this step that the model found the likeliest, as a fraction of all, before the update.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
    /// Target tokens of all steps that are done: those that count in the loss.
    pub tokens: u64,
    /// Target tokens of this step per second.
    pub tokens_per_second: f64,
    /// Positions of all steps that are done: all tokens that the model read.
    pub positions: u64,
    /// Positions of this step per second.
    pub positions_per_second: f64,
    /// The most bytes in use at a time, until now.
    pub peak_bytes: u64,
    /// Global norm of the gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Rows whose scale grew in this step, since a weight left its range.
    pub rescaled_rows: u64,
    /// The rate of all products over the whole step, as a fraction of the machine's INT8 rate; with `--profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_of_light: Option<f64>,
    /// Sampled rows beside float momentum; with `--diagnostics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Diagnosis>,
    /// What this process exchanged with others of its job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeMetrics>,
}

/// What a process exchanged with others in a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExchangeMetrics {
    /// To others.
    pub sent_bytes: u64,
    /// From others.
    pub received_bytes: u64,
    /// Seconds in which exchanges were under way.
    pub seconds: f64,
    /// Seconds in which this process waited for them, for other processes too, and did nothing else.
    pub waited_seconds: f64,
}

impl From<Traffic> for ExchangeMetrics {
    fn from(traffic: Traffic) -> Self {
        Self {
            sent_bytes: traffic.sent_bytes,
            received_bytes: traffic.received_bytes,
            seconds: traffic.exchanged.as_secs_f64(),
            waited_seconds: traffic.waited.as_secs_f64(),
        }
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EvalMetrics {
    /// Steps that were done.
    pub step: u64,
    /// Mean negative log-likelihood per target token of the held-out data.
    pub eval_loss: f64,
    /// Target tokens of the held-out data that the model finds the likeliest, as a fraction of all.
    pub eval_accuracy: f64,
    /// Arithmetic of the linear layers.
    pub compute: Compute,
}

/// What an evaluation found of a set of held-out data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetMetrics {
    /// Steps that were done.
    pub step: u64,
    /// The name of the set.
    pub set: String,
    /// Mean negative log-likelihood per target token.
    pub set_loss: f64,
    /// Target tokens that the model finds the likeliest, as a fraction of all.
    pub set_accuracy: f64,
}

/// How the model continues a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleMetrics {
    /// Steps that were done.
    pub step: u64,
    /// The prompt.
    pub prompt: String,
    /// What the model wrote behind it, each token the likeliest one.
    pub sample: String,
}

/// What was found of the saved model, read again from its folder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SavedEval {
    /// Steps that were done.
    pub step: u64,
    /// Mean negative log-likelihood per target token of the held-out data; absent if it was left out.
    pub saved_eval_loss: Option<f64>,
    /// Arithmetic of the linear layers.
    pub compute: Compute,
    /// Why it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Why the saved model was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// It takes this many bytes, which are not free.
    Memory(u64),
    /// The run was asked to stop.
    Stopped,
}

/// What became of the answers to held-out questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AnswerMetrics {
    /// Steps that were done.
    pub step: u64,
    /// What became of them.
    pub answers: Answers,
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Loss of the held-out data before training.
    pub initial_eval_loss: Option<f64>,
    /// Loss of the held-out data after training, in the arithmetic of training.
    pub final_eval_loss: Option<f64>,
    /// The evaluation whose model was saved; with `--keep-best`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// Set if training ended before its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_early: Option<EarlyEnd>,
    /// Loss of the held-out data under the saved model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_eval: Option<SavedEval>,
    /// What became of the answers before training; with `--answers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_answers: Option<Answers>,
    /// What became of the answers after training; with `--answers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_answers: Option<Answers>,
    /// Loss of the last step of this process.
    pub final_loss: Option<f64>,
    /// Optimizer steps.
    pub steps: u64,
    /// Target tokens of all steps: those that count in the loss.
    pub tokens: u64,
    /// Positions of all steps: all tokens that the model read.
    pub positions: u64,
    /// Seconds of all steps, without loading, evaluating and saving.
    pub seconds: f64,
    /// Rows whose scale grew, since a weight left its range.
    pub rescaled_rows: u64,
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
    /// Sampled rows beside float momentum, in the steps of this process; with `--diagnostics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<DiagnosticsReport>,
    /// Where model and data came from, if they were named in the hub.
    #[serde(default, skip_serializing_if = "Origins::is_empty")]
    pub origins: Origins,
    /// Set if the run was stopped before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// Bytes by owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Owners {
    /// As planned before loading.
    pub planned: BTreeMap<String, u64>,
    /// As measured.
    pub measured: BTreeMap<String, u64>,
}

/// Why training ended before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EarlyEnd {
    /// As many evaluations in a row as `--patience` says found no lower held-out loss.
    Patience,
    /// The time of `--max-minutes` was over.
    MaxMinutes,
}

/// How a run ended that was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The checkpoint to go on from; absent if nothing was done that could be lost.
    pub checkpoint: Option<PathBuf>,
}
