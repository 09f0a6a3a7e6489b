//! A run: training as `qft finetune` does it, and what became of the model that it wrote.

use super::job::JobData;
use super::results::{Exported, Questions, Trained};
use anyhow::{Result, bail, ensure};
use qft_llama::model::Model;
use qft_llama::pass::{PassOptions, Recompute};
use qft_train::ErrorKind;
use qft_train::data::QuestionSet;
use qft_train::machine::Machine;
use qft_train::options::states::WeightArgs;
use qft_train::options::{FinetuneOptions, MachineOptions, TooLong};
use qft_train::run::questions::{Candidate, EncodedSet};
use qft_train::run::scores::{Score, Scored};
use qft_train::run::{Event, ModelFolder, Moment, Observer, finetune};
use qft_train::step::trainer::evaluate;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Points of a curve at most.
const POINTS: u64 = 60;

/// Texts of questions that go through a model together.
const TEXTS_AT_ONCE: usize = 4;

/// Hears the loss of every step, and keeps means of as many as one point stands for.
#[derive(Default)]
struct Curve {
    /// Steps of a point.
    width: u64,
    points: Vec<(u64, f64)>,
    sum: f64,
    count: u64,
    initial_loss: Option<f64>,
}

impl Curve {
    fn add(&mut self, step: u64, loss: f64) {
        self.sum += loss;
        self.count += 1;
        if self.count == self.width {
            self.end(step);
        }
    }

    /// Makes a point of the steps since the last one.
    fn end(&mut self, step: u64) {
        if self.count > 0 {
            let mean = self.sum / self.count as f64;
            // Four decimals are what tables have.
            self.points.push((step, (mean * 1e4).round() / 1e4));
            (self.sum, self.count) = (0.0, 0);
        }
    }
}

impl Observer for Curve {
    fn on(&mut self, event: &Event<'_>) -> qft_train::Result<()> {
        match event {
            Event::Started { steps, .. } => self.width = steps.div_ceil(POINTS).max(1),
            Event::Evaluated { moment: Moment::Before, metrics } => {
                self.initial_loss = Some(metrics.eval_loss);
            }
            Event::Stepped(metrics) => self.add(metrics.step, metrics.loss),
            Event::Finished(summary) => self.end(summary.steps),
            _ => {}
        }
        Ok(())
    }
}

/// Trains, and leaves the model in the folder that the options name. A loss that is no number is an outcome.
pub(super) fn train(options: &FinetuneOptions) -> Result<Trained> {
    let mut curve = Curve::default();
    let finite = |loss: f64| Some(loss).filter(|loss| loss.is_finite());
    match finetune(options, &AtomicBool::new(false), &mut [&mut curve]) {
        Ok(summary) => {
            ensure!(summary.stopped.is_none(), "the run was stopped");
            Ok(Trained {
                initial_loss: summary.initial_eval_loss.and_then(finite),
                loss: summary.final_eval_loss.and_then(finite),
                bytes_per_parameter: summary.bytes_per_parameter,
                peak_bytes: summary.peak_bytes,
                tokens_per_second: summary.tokens as f64 / summary.seconds.max(f64::MIN_POSITIVE),
                seconds: summary.seconds,
                curve: curve.points.into_iter().filter(|point| point.1.is_finite()).collect(),
            })
        }
        Err(error) if error.kind() == ErrorKind::Diverged => Ok(Trained {
            initial_loss: curve.initial_loss.and_then(finite),
            loss: None,
            bytes_per_parameter: 0.0,
            peak_bytes: 0,
            tokens_per_second: 0.0,
            seconds: 0.0,
            curve: curve.points,
        }),
        Err(error) => bail!("{error:#}"),
    }
}

/// A model that is only read, in float.
struct Reading {
    folder: ModelFolder,
    machine: Machine,
    model: Model,
    pass: PassOptions,
}

impl Reading {
    /// Loads a folder as `qft eval` does unless told otherwise.
    fn open(dir: &Path, machine: MachineOptions) -> Result<Self> {
        let machine = Machine::open(machine)?;
        let folder = ModelFolder::open(dir)?;
        let state = WeightArgs::default().resolve_reading()?;
        let never = AtomicBool::new(false);
        let model = folder.load(&*machine.ops, state.format(), &never, &mut |_, _| ())?;
        Ok(Self { folder, machine, model, pass: state.pass(0, Recompute::None) })
    }

    /// How it answers the questions of a set; those that are too long for it are left out.
    fn score(&self, set: &QuestionSet) -> Result<Score> {
        let encoded = EncodedSet::new(set, &self.folder, Some(TooLong::Drop))?;
        let (ops, model, pass) = (&*self.machine.ops, &self.model, self.pass);
        let candidate = Candidate { ops, model, pass, batch_size: TEXTS_AT_ONCE };
        Ok(Scored::of(set, &candidate.answer(&encoded)?).score())
    }
}

/// What a folder with a model is worth, in float: its loss on the job's held-out data, and its answers.
pub(super) fn examine(
    dir: &Path,
    options: &FinetuneOptions,
    data: &JobData,
    sets: &[QuestionSet],
    questions: Option<&Questions>,
) -> Result<Exported> {
    let reading = Reading::open(dir, options.machine)?;
    let batches = data.held_out(options);
    let loss = evaluate(&*reading.machine.ops, &reading.model, &reading.pass, batches)?.mean;
    let scores = sets.iter().map(|set| reading.score(set)).collect::<Result<_>>()?;
    Ok(Exported { loss, questions: questions.cloned(), scores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_means_of_equal_parts() {
        let mut curve = Curve { width: 2, ..Curve::default() };
        (1..=3).for_each(|step| curve.add(step, step as f64));
        curve.end(3);
        curve.end(3);
        assert_eq!(curve.points, [(2, 1.5), (3, 3.0)]);
    }
}
