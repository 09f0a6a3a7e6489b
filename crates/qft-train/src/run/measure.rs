//! A model measured: the loss of data, and the scores of questions.

use super::folder::ModelFolder;
use super::questions::{Candidate, EncodedSet, Likelihoods};
use super::scores::{Scored, SequenceLoss};
use crate::TrainOps;
use crate::data::{Cache, Counts, Dataset, Loader, Progress, QuestionSet};
use crate::error::{Result, ensure};
use crate::options::EvalOptions;
use crate::step::trainer::evaluate_each;
use qft_llama::Batch;
use qft_llama::model::Model;
use qft_llama::pass::{PassOptions, Recompute};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What was found of a model.
#[derive(Debug)]
pub struct Measured {
    /// Its loss on the data, if there is data.
    pub data: Option<MeasuredData>,
    /// By set, in their order.
    pub sets: Vec<MeasuredSet>,
}

/// The loss of data.
#[derive(Debug)]
pub struct MeasuredData {
    /// What was read.
    pub counts: Counts,
    /// The same in words.
    pub told: String,
    /// Mean negative log-likelihood per target token, in nats.
    pub nll: f64,
    /// Target tokens.
    pub tokens: usize,
    /// Of each sequence.
    pub losses: Vec<SequenceLoss>,
}

/// The answers to a set.
#[derive(Debug)]
pub struct MeasuredSet {
    /// Of each question.
    pub found: Vec<Likelihoods>,
    /// What they are worth.
    pub scored: Scored,
}

/// Hears how far a measurement is.
pub struct Watch<'a> {
    /// How much of the data is read; an error of its ends the measurement.
    pub reading: &'a dyn Fn(Progress) -> Result<()>,
    /// The weights are there.
    pub ready: &'a mut dyn FnMut(),
}

/// Measures the model in `dir` as `options` say; the model is gone afterwards. Everything is encoded before weights are read,
/// and `watch` hears when they have been.
///
/// Errors: a folder, data or questions that cannot be read; a loss that is not finite.
pub fn measure(
    ops: &dyn TrainOps,
    dir: &Path,
    sets: &[QuestionSet],
    options: &EvalOptions,
    watch: &mut Watch<'_>,
) -> Result<Measured> {
    let folder = ModelFolder::open(dir)?.for_chats(&options.reading)?;
    let encoded = sets.iter().map(|set| EncodedSet::new(set, &folder, options.questions.too_long));
    let encoded = encoded.collect::<Result<Vec<_>>>()?;
    let mut longest = encoded.iter().map(EncodedSet::longest).max().unwrap_or(0);
    let mut data = None;
    if !options.data.is_empty() {
        let seq_len = options.step.seq_len(&folder.config)?;
        longest = longest.max(seq_len);
        let cache = Cache::of(&options.cache)?;
        let loader = Loader {
            reader: folder.reader(&options.reading, seq_len),
            model_sha256: &folder.text_sha256()?,
            cache: cache.as_ref(),
            told: watch.reading,
        };
        let documents = loader.read(&options.data)?;
        let (counts, told) = (documents.counts(), documents.to_string());
        data = Some((counts, told, Dataset::new(documents, seq_len, false)?));
    }
    let folder = folder.for_sequences(longest);
    let never = AtomicBool::new(false);
    let model = folder.load(ops, options.state.format(), &never, &mut |_, _| ())?;
    (watch.ready)();
    let pass = options.state.pass(0, Recompute::None);
    let data = match data {
        None => None,
        Some((counts, told, dataset)) => {
            let batches = dataset.batches(options.step.batch_size);
            let batches = batches.take(options.limit.unwrap_or(usize::MAX));
            let (nll, tokens, losses) = losses(ops, &model, &pass, batches)?;
            Some(MeasuredData { counts, told, nll, tokens, losses })
        }
    };
    let batch_size = options.step.batch_size;
    let candidate = Candidate { ops, model: &model, pass, batch_size };
    let ask = |(set, encoded): (&QuestionSet, &EncodedSet<'_>)| {
        tracing::info!("{}: {} questions of {}", dir.display(), set.questions.len(), set.name);
        let found = candidate.answer(encoded)?;
        Ok(MeasuredSet { scored: Scored::of(set, &found), found })
    };
    let sets = sets.iter().zip(&encoded).map(ask).collect::<Result<_>>()?;
    Ok(Measured { data, sets })
}

/// The loss per target token, how many tokens these are, and the loss of each sequence.
fn losses(
    ops: &dyn TrainOps,
    model: &Model,
    pass: &PassOptions,
    batches: impl Iterator<Item = Result<Batch>>,
) -> Result<(f64, usize, Vec<SequenceLoss>)> {
    let mut losses = Vec::new();
    let mut each = |batch: &Batch, nll: &[f64]| {
        let mut rest = nll;
        for sequence in batch.segments.windows(2) {
            let targets = &batch.targets[sequence[0]..sequence[1]];
            let tokens = targets.iter().filter(|&&target| target != qft_llama::IGNORE).count();
            let (own, others) = rest.split_at(tokens);
            losses.push(SequenceLoss { sum: own.iter().sum(), tokens });
            rest = others;
        }
    };
    let loss = evaluate_each(ops, model, pass, batches, &mut each)?;
    let (nll, tokens) = (loss.mean, loss.target_tokens);
    ensure!(nll.is_finite(), "the loss is {nll}: the model's weights or the data are broken");
    Ok((nll, tokens, losses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::EvalArgs;
    use qft_tensor::{Cpu, CpuConfig, Device};
    use qft_testing::material::{repository, stories260k, tinyshakespeare};

    #[test]
    fn a_model_is_gone_before_the_next_comes() {
        let dir = stories260k();
        let questions = repository().join("crates/qft-testing/data/questions");
        let mut args =
            EvalArgs { model: vec![dir.clone().into()], limit: Some(2), ..EvalArgs::default() };
        args.data = vec![tinyshakespeare()];
        args.questions.questions = vec![questions.clone()];
        let options = args.resolve().unwrap();
        let sets = QuestionSet::read_all(&[questions], None).unwrap();
        let ops = Cpu::new(CpuConfig { threads: 2, ..CpuConfig::detect().unwrap() }).unwrap();
        let mut loaded = 0;
        let mut peak = || {
            let mut ready = || loaded += 1;
            let mut watch = Watch { reading: &|_| Ok(()), ready: &mut ready };
            let measured = measure(&ops, &dir, &sets, &options, &mut watch).unwrap();
            assert_eq!((measured.sets.len(), measured.data.is_some()), (3, true));
            ops.trim();
            let report = ops.ledger().report();
            assert_eq!(report.current_bytes, 0, "{:?}", report.owners);
            report.peak_reserved_bytes
        };
        let first = peak();
        assert_eq!(peak(), first);
        assert_eq!(loaded, 2);
    }
}
