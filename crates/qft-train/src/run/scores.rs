//! Scores of questions, as lm-evaluation-harness defines them, with their standard errors and differences.

use super::questions::{Likelihoods, largest};
use crate::data::question_set::{Form, QuestionSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Negative log-likelihood per target token of data, in nats.
    Nll,
    /// Questions whose right answer has the largest log-likelihood. Of a continuation alone: whether each of its tokens
    /// is the likeliest.
    Acc,
    /// Questions whose right answer has the largest log-likelihood per character.
    AccNorm,
    /// Questions whose right answer has the largest log-likelihood per byte of UTF-8.
    AccBytes,
    /// Of data: the exponential of [`Metric::Nll`]. Of continuations: the exponential of the mean over them of the negative
    /// log-likelihood of all their tokens.
    Perplexity,
}

impl Metric {
    /// As lm-evaluation-harness calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nll => "nll",
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::Perplexity => "perplexity",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A number that was estimated from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The estimate.
    pub value: f64,
    /// Its standard error; absent of a sample of one.
    pub stderr: Option<f64>,
}

/// How a model did on a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The set's name.
    pub set: String,
    /// Questions that were asked.
    pub questions: usize,
    /// Questions that are longer than what the model can read.
    pub left_out: usize,
    /// By metric.
    pub figures: BTreeMap<Metric, Figure>,
}

impl Score {
    /// The accuracy that a set of this form is quoted with: by character where choices differ.
    pub fn quoted(&self) -> f64 {
        let figure = self.figures.get(&Metric::AccNorm).or(self.figures.get(&Metric::Acc));
        figure.map_or(0.0, |figure| figure.value)
    }
}

/// What a model did on each question of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    set: String,
    left_out: usize,
    /// Places of the questions that were asked.
    asked: Vec<usize>,
    /// By metric, of each question that was asked: right is 1; of [`Metric::Perplexity`], the log-likelihood.
    values: BTreeMap<Metric, Vec<f64>>,
}

impl Scored {
    /// Judges answers to questions of `set`.
    pub fn of(set: &QuestionSet, found: &[Likelihoods]) -> Self {
        let mut values: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
        let mut add = |metric, value| values.entry(metric).or_default().push(value);
        for Likelihoods { index, sums, greedy } in found {
            let question = &set.questions[*index];
            let right = |of: &[f64]| f64::from(u8::from(largest(of) == Some(question.gold)));
            let by = |length: fn(&str) -> usize| -> Vec<f64> {
                let lengths = question.answers.iter().map(|answer| length(&answer.continuation));
                sums.iter().zip(lengths).map(|(sum, length)| sum / length as f64).collect()
            };
            match set.form {
                Form::Choices => {
                    add(Metric::Acc, right(sums));
                    add(Metric::AccNorm, right(&by(|text| text.chars().count())));
                    add(Metric::AccBytes, right(&by(str::len)));
                }
                Form::Contexts => add(Metric::Acc, right(sums)),
                Form::Continuation => {
                    add(Metric::Acc, f64::from(u8::from(*greedy == Some(true))));
                    add(Metric::Perplexity, sums.iter().sum());
                }
            }
        }
        Self {
            set: set.name.clone(),
            left_out: set.questions.len() - found.len(),
            asked: found.iter().map(|found| found.index).collect(),
            values,
        }
    }

    /// The set's name.
    pub fn set(&self) -> &str {
        &self.set
    }

    /// All of them together.
    pub fn score(&self) -> Score {
        let figure = |(&metric, values): (&Metric, &Vec<f64>)| {
            let figure = match metric {
                Metric::Perplexity => perplexity(values),
                _ => mean(values),
            };
            (metric, figure)
        };
        Score {
            set: self.set.clone(),
            questions: self.asked.len(),
            left_out: self.left_out,
            figures: self.values.iter().map(figure).collect(),
        }
    }

    /// How far each figure lies above that of `base`, question by question; absent where the two were asked others.
    pub fn above(&self, base: &Self) -> Option<BTreeMap<Metric, Figure>> {
        if self.asked != base.asked || self.set != base.set {
            return None;
        }
        let figure = |(&metric, values): (&Metric, &Vec<f64>)| {
            let of_base = base.values.get(&metric)?;
            let figure = match metric {
                Metric::Perplexity => perplexity_above(values, of_base),
                _ => mean(&values.iter().zip(of_base).map(|(a, b)| a - b).collect::<Vec<_>>()),
            };
            Some((metric, figure))
        };
        Some(self.values.iter().filter_map(figure).collect())
    }
}

/// The loss of a sequence of data: the sum over its target tokens in nats, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLoss {
    /// Sum of the negative log-likelihoods.
    pub sum: f64,
    /// Target tokens.
    pub tokens: usize,
}

/// Loss and perplexity of data. Sequences are what was drawn at random, not tokens: those of a sequence are alike.
pub fn data_figures(losses: &[SequenceLoss]) -> BTreeMap<Metric, Figure> {
    let (nll, shares) = shares(losses);
    let perplexity = nll.exp();
    let stderr = ratio_stderr(shares.into_iter());
    BTreeMap::from([
        (Metric::Nll, Figure { value: nll, stderr }),
        (
            Metric::Perplexity,
            Figure { value: perplexity, stderr: stderr.map(|stderr| stderr * perplexity) },
        ),
    ])
}

/// How far loss and perplexity of data lie above those under another model; absent where the two models have other
/// tokens.
pub fn data_above(
    losses: &[SequenceLoss],
    base: &[SequenceLoss],
) -> Option<BTreeMap<Metric, Figure>> {
    let tokens =
        |losses: &[SequenceLoss]| losses.iter().map(|loss| loss.tokens).collect::<Vec<_>>();
    if tokens(losses) != tokens(base) {
        return None;
    }
    let ((nll, own), (of_base, others)) = (shares(losses), shares(base));
    let above = |value: f64, factors: (f64, f64)| {
        let shares = own.iter().zip(&others).map(|(a, b)| a * factors.0 - b * factors.1);
        Figure { value, stderr: ratio_stderr(shares) }
    };
    let factors = (nll.exp(), of_base.exp());
    Some(BTreeMap::from([
        (Metric::Nll, above(nll - of_base, (1.0, 1.0))),
        (Metric::Perplexity, above(factors.0 - factors.1, factors)),
    ]))
}

/// The loss per token, and what each sequence moves it by.
fn shares(losses: &[SequenceLoss]) -> (f64, Vec<f64>) {
    let tokens = losses.iter().map(|loss| loss.tokens).sum::<usize>().max(1) as f64;
    let nll = losses.iter().map(|loss| loss.sum).sum::<f64>() / tokens;
    let share = |loss: &SequenceLoss| (loss.sum - nll * loss.tokens as f64) / tokens;
    (nll, losses.iter().map(share).collect())
}

/// The standard error of an estimate that each of n independent parts moves by its share.
fn ratio_stderr(shares: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let n = shares.len() as f64;
    let squares: f64 = shares.map(|share| share * share).sum();
    (n > 1.0).then(|| (squares * n / (n - 1.0)).sqrt())
}

/// The mean, and its standard error from the standard deviation of the sample.
fn mean(values: &[f64]) -> Figure {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let stderr = ratio_stderr(values.iter().map(|value| (value - mean) / n));
    Figure { value: mean, stderr }
}

/// The exponential of minus the mean of log-likelihoods. Its standard error is what the bootstrap of
/// lm-evaluation-harness tends to with more and more draws, which has a closed form.
fn perplexity(values: &[f64]) -> Figure {
    let value = (-mean(values).value).exp();
    let stderr = (values.len() > 1).then(|| value * bootstrap_covariance(values, values).sqrt());
    Figure { value, stderr }
}

/// How far the perplexity of `values` lies above that of `base`, whose questions are drawn together.
fn perplexity_above(values: &[f64], base: &[f64]) -> Figure {
    let (own, other) = (perplexity(values).value, perplexity(base).value);
    let part = |a: &[f64], b: &[f64]| bootstrap_covariance(a, b);
    let variance = own * own * part(values, values) + other * other * part(base, base)
        - 2.0 * own * other * part(values, base);
    let stderr = (values.len() > 1).then(|| variance.max(0.0).sqrt());
    Figure { value: own - other, stderr }
}

/// The covariance of `exp(mean(a) - mean of a draw of a)` and the same of `b`, over all draws of n from the n questions,
/// with replacement: the mean of n independent draws `x` has `E[exp(-mean)] = E[exp(-x / n)]^n`.
fn bootstrap_covariance(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().max(1) as f64;
    let (mean_a, mean_b) = (mean(a).value, mean(b).value);
    let log_moment = |of: &dyn Fn(usize) -> f64| {
        // exp_m1 and ln_1p: all of these are near 1, and their differences are what counts.
        let moment = (0..a.len()).map(|i| (of(i) / n).exp_m1()).sum::<f64>() / n;
        n * moment.ln_1p()
    };
    let (own, other) = (|i: usize| mean_a - a[i], |i: usize| mean_b - b[i]);
    let (first, second) = (log_moment(&own), log_moment(&other));
    let both = log_moment(&|i| own(i) + other(i));
    (first + second).exp() * (both - first - second).exp_m1()
}

#[cfg(test)]
mod tests;
