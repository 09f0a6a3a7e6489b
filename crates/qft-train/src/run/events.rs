//! What happens in a run, for those who watch it.

use super::recipe::Recipe;
use super::summary::{
    AnswerMetrics, EarlyEnd, EvalMetrics, SampleMetrics, SetMetrics, StepMetrics, Summary,
};
use crate::data::{Documents, EvalSet, Progress};
use crate::error::Result;
use crate::memory::Fit;
use crate::options::States;
use crate::step::checkpoint::Progress as TrainerProgress;
use crate::step::evaluations::Best;
use crate::step::flip_rate::FlipRates;
use qft_hub::{Notice, Watch};
use qft_llama::LlamaConfig;
use qft_quant::EncodeReport;
use qft_tensor::{DeviceKind, Host};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Something that happened in a run. They come in the order of the variants; those from [`Event::Sampled`] to
/// [`Event::Saved`] may come again and again.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something happened to a model or data that is named in the hub.
    Hub(&'a Notice<'a>),
    /// The data is being read. Comes again and again, and not where it is read at once.
    Reading(Progress),
    /// The data was read.
    DataRead {
        /// What is trained on.
        train: &'a Documents,
        /// What the loss is measured on, in sets.
        held_out: &'a [EvalSet<Documents>],
    },
    /// The run fits into the memory there is.
    Planned {
        /// Its memory.
        fit: &'a Fit,
        /// How its states are stored.
        states: States,
        /// Sequences of the training data.
        sequences: usize,
        /// Steps of the whole run.
        steps: u64,
    },
    /// It is known what decides the result, and what computes it.
    Decided {
        /// What decides the result.
        recipe: &'a Recipe,
        /// The shape of the model.
        model: &'a LlamaConfig,
        /// Where it is computed.
        device: DeviceKind,
        /// The threads and the instruction set there, or beside a GPU.
        host: &'a Host,
    },
    /// The model was loaded.
    Loaded(&'a Quantized),
    /// A checkpoint was loaded.
    Resumed {
        /// The checkpoint's folder.
        from: &'a Path,
        /// Steps that are done.
        step: u64,
    },
    /// How far an update moves the weights.
    Rates(&'a FlipRates),
    /// The output folder held a run that was done, and it was moved to this folder in there.
    SetAside(&'a Path),
    /// The output folder is there, and is this run's alone. From here on there may be something to lose.
    Started {
        /// The output folder.
        out: &'a Path,
        /// Steps that are done.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
    },
    /// The model has continued a sample prompt.
    Sampled {
        /// When.
        moment: Moment,
        /// The prompt and what follows.
        sample: &'a SampleMetrics,
    },
    /// The loss of a set of held-out data that has a name was measured.
    SetEvaluated {
        /// When.
        moment: Moment,
        /// What was found.
        metrics: &'a SetMetrics,
    },
    /// The loss of all held-out data was measured.
    Evaluated {
        /// When.
        moment: Moment,
        /// What was found.
        metrics: EvalMetrics,
    },
    /// The model has answered the held-out questions.
    Answered {
        /// When.
        moment: Moment,
        /// What became of the answers.
        metrics: AnswerMetrics,
    },
    /// A step was done.
    Stepped(&'a StepMetrics),
    /// A checkpoint was saved.
    Saved {
        /// Its folder.
        checkpoint: &'a Path,
        /// Steps that are done.
        step: u64,
    },
    /// Training ends before its last step.
    EndedEarly {
        /// Why.
        why: EarlyEnd,
        /// Where the run stands.
        progress: &'a TrainerProgress,
    },
    /// The best model of the run was loaded again, to be saved instead of the last; with `--keep-best`.
    TookBest(Best),
    /// The run was asked to stop, and has.
    Stopped {
        /// Steps that are done.
        step: u64,
        /// The checkpoint to go on from; absent if nothing was done that could be lost.
        checkpoint: Option<&'a Path>,
    },
    /// The model was written.
    Exported(&'a Path),
    /// It was written for other programs as well, to this folder.
    ExportedAs(&'a Path),
    /// The run is done, and what it leaves is whole.
    Finished(&'a Summary),
    /// The saved model was measured on the held-out data, or that was left out; the summary says so. Comes where there is
    /// held-out data.
    SavedEvaluated(&'a Summary),
}

/// When in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the first step.
    Before,
    /// Between steps.
    During,
    /// After the last step.
    After,
}

/// Is told everything that happens in a run.
pub trait Observer {
    /// Something happened.
    ///
    /// Errors: end the run; what was saved stays.
    fn on(&mut self, event: &Event<'_>) -> Result<()>;
}

/// All observers of a run, as one.
pub(super) struct Observers<'a, 'b>(pub(super) &'a mut [&'b mut dyn Observer]);

impl Observers<'_, '_> {
    pub(super) fn tell(&mut self, event: Event<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|observer| observer.on(&event))
    }

    /// Does `work`, and tells what happens to what is named in the hub.
    pub(super) fn hear<T>(&mut self, work: impl FnOnce(&mut Watch<'_>) -> Result<T>) -> Result<T> {
        let mut told = Ok(());
        let done = work(&mut |notice| {
            if told.is_ok() {
                told = self.tell(Event::Hub(notice));
            }
        })?;
        told.map(|()| done)
    }
}

/// What quantizing did to a model.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantized {
    /// Quantized matrices.
    pub matrices: usize,
    /// Fraction of protected weights, as a mean over the matrices.
    pub protected_fraction: f64,
    /// L2 norm of what quantizing changed.
    pub l2_error: f64,
    /// The same if no weight were protected.
    pub l2_error_unprotected: f64,
}

impl Quantized {
    /// Adds a matrix.
    pub(super) fn add(&mut self, report: &EncodeReport) {
        let n = self.matrices as f64;
        self.protected_fraction =
            (self.protected_fraction * n + report.protected_fraction) / (n + 1.0);
        self.l2_error = self.l2_error.hypot(report.l2_error);
        self.l2_error_unprotected = self.l2_error_unprotected.hypot(report.l2_error_unprotected);
        self.matrices += 1;
    }
}
