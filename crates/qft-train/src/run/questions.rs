//! Sets of questions, asked as lm-evaluation-harness asks them: how likely is each possible answer?
//!
//! A possible answer's log-likelihood is the sum over its tokens, given its context. Context and answer are encoded as
//! one text with a space between, behind the tokens that the tokenizer puts before a text; the answer's tokens are those behind
//! as many as the context alone has. Blanks at the end of a context go to the answer. An empty context is the token that
//! begins a text, or else the one that ends it.

use super::folder::ModelFolder;
use crate::TrainOps;
use crate::data::encoder::at_start;
use crate::data::question_set::{AskedQuestion, Form, PossibleAnswer, QuestionSet};
use crate::error::{Context, ErrorKind, OfKind, Result, bail, ensure};
use crate::options::TooLong;
use qft_llama::model::Model;
use qft_llama::pass::{self, PassOptions};
use qft_llama::{Batch, IGNORE, Tokenizer};

/// A text that is read, and the part of it that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text {
    ids: Vec<u32>,
    /// Tokens before the part that counts; at least 1, and fewer than there are.
    given: usize,
}

impl Text {
    /// Tokens that a model reads of it: all but the last.
    fn positions(&self) -> usize {
        self.ids.len() - 1
    }

    /// Adds it to a batch, with those targets that count.
    fn push(&self, batch: &mut Batch) {
        let Self { ids, given } = self;
        let target = |next: usize| if next < *given { IGNORE } else { ids[next] };
        let targets: Vec<_> = (1..ids.len()).map(target).collect();
        batch.push(&ids[..ids.len() - 1], &targets);
    }
}

/// A set of questions in a model's tokens.
#[derive(Debug)]
pub struct EncodedSet<'a> {
    set: &'a QuestionSet,
    /// Place of each question in the set, and its possible answers.
    questions: Vec<(usize, Vec<Text>)>,
}

impl<'a> EncodedSet<'a> {
    /// Encodes the questions of `set`. `too_long` says what becomes of one with more tokens than the model can read: left
    /// out and counted, or cut at the beginning as lm-evaluation-harness does it; absent: an error.
    ///
    /// Errors: a question that is too long, or has no token to ask for; the line is named.
    pub fn new(
        set: &'a QuestionSet,
        folder: &ModelFolder,
        too_long: Option<TooLong>,
    ) -> Result<Self> {
        let longest = folder.config.longest_sequence();
        let mut questions = Vec::with_capacity(set.questions.len());
        for (index, question) in set.questions.iter().enumerate() {
            let place = || format!("{}, line {}", set.path.display(), question.line);
            let texts = fitting(question, &folder.tokenizer, longest, too_long);
            let texts = texts.with_context(place).of_kind(ErrorKind::Data)?;
            questions.extend(texts.map(|texts| (index, texts)));
        }
        ensure!(
            !questions.is_empty(),
            "{}: every question has more than the {longest} tokens that the model can read; give shorter ones, or \
             --too-long cut",
            set.path.display()
        );
        Ok(Self { set, questions })
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        let texts = self.questions.iter().flat_map(|(_, texts)| texts);
        texts.map(Text::positions).max().unwrap_or(0)
    }
}

/// The texts of a question; none if it is to be left out.
fn fitting(
    question: &AskedQuestion,
    tokenizer: &Tokenizer,
    longest: usize,
    too_long: Option<TooLong>,
) -> Result<Option<Vec<Text>>> {
    let texts = question.answers.iter().map(|answer| encode(tokenizer, answer));
    let mut texts = texts.collect::<Result<Vec<_>>>()?;
    for text in &mut texts {
        let tokens = text.positions();
        if tokens <= longest {
            continue;
        }
        let answer = text.ids.len() - text.given;
        match too_long {
            Some(TooLong::Drop) => return Ok(None),
            Some(TooLong::Cut) if answer <= longest => {
                text.ids.drain(..tokens - longest);
                text.given = text.ids.len() - answer;
            }
            Some(TooLong::Cut) => bail!(
                "an answer has {answer} tokens and the model can read {longest}; remove the line, or give --too-long drop"
            ),
            _ => bail!(
                "the question has {tokens} tokens with an answer, and the model can read {longest}; give --too-long drop to \
                 leave such questions out, or --too-long cut to cut off how they begin, as lm-evaluation-harness does"
            ),
        }
    }
    Ok(Some(texts))
}

fn encode(tokenizer: &Tokenizer, answer: &PossibleAnswer) -> Result<Text> {
    let PossibleAnswer { context, continuation } = answer;
    let given = context.trim_end();
    let blanks = &context[given.len()..];
    let continuation = format!("{blanks} {continuation}");
    let (ids, given) = if given.is_empty() {
        let first = tokenizer.bos().or(tokenizer.eos().first().copied()).context(
            "the context is empty, and the tokenizer has no token that begins or ends a text; give a context",
        )?;
        let ids = tokenizer.encode(&continuation)?;
        // An answer that begins with that token has it already.
        (if ids.first() == Some(&first) { ids } else { [vec![first], ids].concat() }, 1)
    } else {
        let whole = at_start(tokenizer, &format!("{given}{continuation}"))?;
        (whole, at_start(tokenizer, given)?.len())
    };
    ensure!(ids.len() > 1, "the question has no token to ask for; give longer texts");
    // A tokenizer may join the two: at least the last token counts then.
    let given = given.clamp(1, ids.len() - 1);
    Ok(Text { ids, given })
}

/// What a model finds of a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihoods {
    /// The question's place in its set.
    pub index: usize,
    /// Log-likelihood of each possible answer, in nats.
    pub sums: Vec<f64>,
    /// Whether each token of the answer is the likeliest; of [`Form::Continuation`] only.
    pub greedy: Option<bool>,
}

/// Who answers.
pub struct Candidate<'a> {
    /// The device.
    pub ops: &'a dyn TrainOps,
    /// The model.
    pub model: &'a Model,
    /// How it computes.
    pub pass: PassOptions,
    /// Texts that go through the model together.
    pub batch_size: usize,
}

impl Candidate<'_> {
    /// Asks all questions of a set.
    ///
    /// Errors: a likelihood that is no number; those of the device.
    pub fn answer(&self, encoded: &EncodedSet<'_>) -> Result<Vec<Likelihoods>> {
        let texts: Vec<_> = encoded.questions.iter().flat_map(|(_, texts)| texts).collect();
        let mut found = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.batch_size.max(1)) {
            // Every question has lengths of its own, and buffers of others would pile up.
            self.ops.trim();
            found.extend(match encoded.set.form {
                Form::Continuation => self.greedy(texts)?,
                _ => self.sums(texts)?.into_iter().map(|sum| (sum, None)).collect(),
            });
        }
        self.ops.trim();
        let broken = found.iter().any(|(sum, _)| !sum.is_finite());
        ensure!(
            !broken,
            "{}: a log-likelihood is not a number: the model's weights are broken; check the folder",
            encoded.set.name
        );
        let mut found = found.into_iter();
        let question = |(index, texts): &(usize, Vec<Text>)| {
            let of: Vec<_> = found.by_ref().take(texts.len()).collect();
            let greedy = of.first().and_then(|(_, greedy)| *greedy);
            Likelihoods {
                index: *index,
                sums: of.into_iter().map(|(sum, _)| sum).collect(),
                greedy,
            }
        };
        Ok(encoded.questions.iter().map(question).collect())
    }

    /// Of the part of each text that counts: the sum of its tokens' log-probabilities.
    fn sums(&self, texts: &[&Text]) -> Result<Vec<f64>> {
        let batch = batch(texts);
        let losses = pass::evaluate(self.ops, self.model, &self.pass, &batch)?;
        let mut losses = losses.nll.into_iter();
        let sum = |text: &&Text| -losses.by_ref().take(text.ids.len() - text.given).sum::<f64>();
        Ok(texts.iter().map(sum).collect())
    }

    /// The same, and whether each of these tokens is the likeliest one.
    fn greedy(&self, texts: &[&Text]) -> Result<Vec<(f64, Option<bool>)>> {
        let batch = batch(texts);
        let logits = pass::target_logits(self.ops, self.model, &self.pass, &batch)?;
        let mut rows = logits.chunks_exact(self.model.head().rows());
        let mut text = |text: &&Text| {
            let (mut sum, mut greedy) = (0.0, true);
            // The ids first: the end of the other must not cost a row.
            for (&id, row) in text.ids[text.given..].iter().zip(rows.by_ref()) {
                sum += log_probability(row, id as usize);
                greedy &= largest(row) == Some(id as usize);
            }
            (sum, Some(greedy))
        };
        Ok(texts.iter().map(&mut text).collect())
    }
}

fn batch(texts: &[&Text]) -> Batch {
    let mut batch = Batch::default();
    texts.iter().for_each(|text| text.push(&mut batch));
    batch
}

/// The logarithm of the softmax of `row` at `index`.
fn log_probability(row: &[f32], index: usize) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    f64::from(row[index] - most) - sum.ln()
}

/// Where the largest number is; the first of several.
pub(super) fn largest<T: PartialOrd>(values: &[T]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
mod tests;
