//! Questions with choices: which one a model finds likelier, as lm-evaluation-harness asks it.
//!
//! A choice's log-likelihood is the sum over its tokens, given the question: text and choice are encoded as one text, with a
//! space between, and the choice's tokens are those behind as many as the question alone has. `accuracy` takes the
//! choice with the largest sum, `normalised` the one with the largest sum per character of the choice. Where a set has
//! one continuation under several contexts, the sums are of the continuation. Where it has one alone, it is right if
//! each of its tokens is the likeliest.

use anyhow::{Context, Result, ensure};
use qft_llama::model::Model;
use qft_llama::pass::{self, PassOptions};
use qft_llama::{Batch, IGNORE, Tokenizer};
use qft_train::TrainOps;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A set of questions.
pub(super) struct Set {
    pub(super) name: String,
    questions: Vec<Question>,
}

/// A line of a set.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Question {
    /// Which of the choices follows?
    Choices { query: String, choices: Vec<String>, gold: usize },
    /// Behind which of the contexts does it follow?
    Contexts { context_options: Vec<String>, continuation: String, gold: usize },
    /// Does it follow?
    Continuation { context: String, continuation: String },
}

/// How a model did on a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Score {
    pub(super) set: String,
    pub(super) questions: usize,
    /// Questions that are longer than what the model can read.
    pub(super) left_out: usize,
    pub(super) accuracy: f64,
    /// By the length of the choices, where they differ.
    pub(super) normalised: Option<f64>,
}

impl Score {
    /// The figure that lm-evaluation-harness is quoted with.
    pub(super) fn shown(&self) -> f64 {
        self.normalised.unwrap_or(self.accuracy)
    }
}

/// The sets in a folder, by name, with the first `limit` questions of each. Files with other lines are no sets.
///
/// Errors: there is no set; a line that is not like the first.
pub(super) fn read(folder: &Path, limit: Option<usize>) -> Result<Vec<Set>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    paths.sort();
    let mut sets = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let first = text.lines().next().unwrap_or_default();
        if serde_json::from_str::<Question>(first).is_err() {
            continue;
        }
        let lines = text.lines().enumerate().take(limit.unwrap_or(usize::MAX));
        let questions = lines.map(|(i, line)| {
            let place = || format!("{}, line {}: no question", path.display(), i + 1);
            serde_json::from_str::<Question>(line).with_context(place)
        });
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sets.push(Set { name, questions: questions.collect::<Result<_>>()? });
    }
    ensure!(!sets.is_empty(), "--eval: {} has no set of questions", folder.display());
    Ok(sets)
}

/// Who answers.
pub(super) struct Candidate<'a> {
    pub(super) ops: &'a dyn TrainOps,
    pub(super) model: &'a Model,
    pub(super) pass: PassOptions,
    pub(super) tokenizer: &'a Tokenizer,
}

/// A text that is read, and the part of it that counts.
#[derive(Debug, Clone, PartialEq)]
struct Text {
    ids: Vec<u32>,
    /// Tokens before the part that counts; at least 1.
    given: usize,
}

impl Candidate<'_> {
    /// Asks all questions of a set.
    pub(super) fn answer(&self, set: &Set) -> Result<Score> {
        let (mut asked, mut right, mut right_normalised) = (0, 0, 0);
        let mut with_choices = false;
        for question in &set.questions {
            let texts = self.texts(question)?;
            let most = self.model.config.longest_sequence();
            if texts.iter().any(|text| text.ids.len() > most) {
                continue;
            }
            asked += 1;
            match question {
                Question::Choices { choices, gold, .. } => {
                    let sums = self.log_likelihoods(&texts)?;
                    let lengths = choices.iter().map(|choice| choice.chars().count().max(1));
                    let means: Vec<_> =
                        sums.iter().zip(lengths).map(|(s, n)| s / n as f64).collect();
                    with_choices = true;
                    right += usize::from(largest(&sums) == Some(*gold));
                    right_normalised += usize::from(largest(&means) == Some(*gold));
                }
                Question::Contexts { gold, .. } => {
                    right += usize::from(largest(&self.log_likelihoods(&texts)?) == Some(*gold));
                }
                Question::Continuation { .. } => {
                    right += usize::from(self.is_likeliest(&texts[0])?)
                }
            }
        }
        let of = |right: usize| right as f64 / asked.max(1) as f64;
        Ok(Score {
            set: set.name.clone(),
            questions: asked,
            left_out: set.questions.len() - asked,
            accuracy: of(right),
            normalised: with_choices.then(|| of(right_normalised)),
        })
    }

    /// Every text of a question.
    fn texts(&self, question: &Question) -> Result<Vec<Text>> {
        match question {
            Question::Choices { query, choices, .. } => {
                choices.iter().map(|choice| self.text(query, choice)).collect()
            }
            Question::Contexts { context_options, continuation, .. } => {
                context_options.iter().map(|context| self.text(context, continuation)).collect()
            }
            Question::Continuation { context, continuation } => {
                Ok(vec![self.text(context, continuation)?])
            }
        }
    }

    fn text(&self, context: &str, continuation: &str) -> Result<Text> {
        let encode = |text: &str| -> Result<Vec<u32>> {
            let bos = self.tokenizer.bos().into_iter();
            Ok(bos.chain(self.tokenizer.encode(text)?).collect())
        };
        let ids = encode(&format!("{context} {continuation}"))?;
        ensure!(ids.len() > 1, "a question has no token to ask for");
        // A tokenizer may join the two: at least the last token counts then.
        let given = encode(context)?.len().clamp(1, ids.len() - 1);
        Ok(Text { ids, given })
    }

    /// Of the part of each text that counts: the sum of its tokens' log-probabilities.
    fn log_likelihoods(&self, texts: &[Text]) -> Result<Vec<f64>> {
        let mut batch = Batch::default();
        for Text { ids, given } in texts {
            let targets: Vec<_> =
                (1..ids.len()).map(|next| if next < *given { IGNORE } else { ids[next] }).collect();
            batch.push(&ids[..ids.len() - 1], &targets);
        }
        // Every question has lengths of its own, and buffers of others would pile up.
        self.ops.trim();
        let mut losses = pass::evaluate(self.ops, self.model, &self.pass, &batch)?.into_iter();
        let sum = |text: &Text| -losses.by_ref().take(text.ids.len() - text.given).sum::<f64>();
        Ok(texts.iter().map(sum).collect())
    }

    /// Whether every token that counts is the likeliest one.
    fn is_likeliest(&self, Text { ids, given }: &Text) -> Result<bool> {
        let mut batch = Batch::default();
        let read = &ids[..ids.len() - 1];
        batch.push(read, &vec![IGNORE; read.len()]);
        self.ops.trim();
        let logits = pass::logits(self.ops, self.model, &self.pass, &batch)?;
        let rows = logits.chunks_exact(self.model.head().rows()).skip(given - 1);
        let mut counted = rows.zip(&ids[*given..]);
        Ok(counted.all(|(row, id)| largest(row) == Some(*id as usize)))
    }
}

/// Where the largest number is; the first of several.
fn largest<T: PartialOrd>(values: &[T]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
mod tests;
