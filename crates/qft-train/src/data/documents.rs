//! Tokenized documents, in compact form.

use crate::error::{Result, bail};
use qft_files::Sha256;
use std::fmt;
use std::ops::Range;

/// Set on a token that counts in the loss. Vocabularies are far below.
const TRAINED: u32 = 1 << 31;

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Texts, records and conversations that were read.
    pub read: usize,
    /// Documents that were cut at the sequence length.
    pub truncated: usize,
    /// Documents without a token that counts in the loss: they were left out.
    pub dropped: usize,
    /// Records that were left out because they are longer than a sequence.
    pub too_long: usize,
    /// Records that were left out because they cannot be read.
    pub bad: usize,
    /// Conversations with tools that the template does not write.
    pub tools_unseen: usize,
    /// Records, or turns of conversations, with something to learn.
    pub samples: usize,
    /// Of these, such that no token is learned by which generation stops.
    pub endless: usize,
    /// Tokens of these that are learned and stand for what the tokenizer cannot spell.
    pub unknown: usize,
}

/// The problems that are told of records which were left out.
const MAX_PROBLEMS: usize = 3;

/// With more learned tokens than one in this many unknown to the tokenizer, it is told.
const UNKNOWN_SHARE: usize = 50;

/// Documents as token ids with a mark on those that count in the loss; 4 bytes a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    tokens: Vec<u32>,
    starts: Vec<usize>,
    /// What became of the data.
    pub counts: Counts,
    /// The first problems of records that were left out, each with its place.
    problems: Vec<String>,
    /// A SHA-256 of the chat template that they were written with, as hexadecimal digits; absent if there was none.
    pub template: Option<String>,
    vocab_size: usize,
    seq_len: usize,
}

impl Documents {
    /// None yet, for a vocabulary and a largest number of positions.
    pub fn new(vocab_size: usize, seq_len: usize) -> Self {
        let starts = vec![0];
        Self {
            tokens: Vec::new(),
            starts,
            counts: Counts::default(),
            problems: Vec::new(),
            template: None,
            vocab_size,
            seq_len,
        }
    }

    /// Adds a document: its ids, and for each whether the loss counts its prediction. The first is never predicted.
    /// Cut to `seq_len` positions; left out if nothing in it is to be learned.
    ///
    /// Errors: an id outside the vocabulary.
    pub fn push(&mut self, ids: &[u32], trained: impl Fn(usize) -> bool) -> Result<()> {
        let limit = self.vocab_size.min(TRAINED as usize);
        if let Some(id) = ids.iter().find(|&&id| id as usize >= limit) {
            bail!(
                "token id {id} is outside the model's vocabulary of {limit}; the tokenizer does not belong to the \
                 model, or has tokens that the model lacks"
            );
        }
        let kept = ids.len().min(self.seq_len + 1);
        self.counts.truncated += usize::from(kept < ids.len());
        if !(1..kept).any(&trained) {
            self.counts.dropped += 1;
            return Ok(());
        }
        let marked = |(i, &id): (usize, &u32)| id | if trained(i) { TRAINED } else { 0 };
        self.tokens.extend(ids[..kept].iter().enumerate().map(marked));
        self.starts.push(self.tokens.len());
        Ok(())
    }

    /// Takes all documents from `first` on `times` times.
    pub(super) fn repeat(&mut self, first: usize, times: usize) {
        let (start, last) = (self.starts[first], self.len());
        let tokens = self.tokens[start..].to_vec();
        let lengths: Vec<usize> =
            (first..last).map(|document| self.range(document).len()).collect();
        for _ in 1..times {
            self.tokens.extend(&tokens);
            for length in &lengths {
                self.starts.push(self.starts[self.starts.len() - 1] + length);
            }
        }
    }

    /// Counts a record that cannot be read; `problem` says why, with its place.
    pub(super) fn bad(&mut self, problem: String) {
        self.counts.bad += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// Notes the text of a template that documents are written with.
    pub(super) fn add_template(&mut self, source: &str) {
        let mut hash = Sha256::new();
        hash.update(source.as_bytes());
        let new = hash.hex();
        self.template = Some(match self.template.take() {
            Some(other) if other != new => {
                let mut both = Sha256::new();
                both.update(other.as_bytes());
                both.update(new.as_bytes());
                both.hex()
            }
            _ => new,
        });
    }

    /// A SHA-256 of all that training sees of the documents, as hexadecimal digits: ids, which of them are learned, and
    /// where documents begin.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for tokens in self.tokens.chunks(1 << 14) {
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            hash.update(&bytes);
        }
        for &start in &self.starts {
            hash.update(&(start as u64).to_le_bytes());
        }
        hash.hex()
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn range(&self, document: usize) -> Range<usize> {
        self.starts[document]..self.starts[document + 1]
    }

    /// Positions of a document: each predicts the next token.
    pub fn positions(&self, document: usize) -> usize {
        self.range(document).len() - 1
    }

    /// The ids at the positions of a document.
    pub fn ids(&self, document: usize) -> impl Iterator<Item = u32> {
        let Range { start, end } = self.range(document);
        self.tokens[start..end - 1].iter().map(|token| token & !TRAINED)
    }

    /// The target of each position, or [`qft_llama::IGNORE`].
    pub fn targets(&self, document: usize) -> impl Iterator<Item = u32> {
        let Range { start, end } = self.range(document);
        self.tokens[start + 1..end].iter().map(|token| match token & TRAINED {
            0 => qft_llama::IGNORE,
            _ => token & !TRAINED,
        })
    }

    /// The tokens of a document before the first that is learned, and how many are learned in a row from there on: a
    /// question and the length of its answer. None where nothing comes before, or the answer was cut.
    pub fn question(&self, document: usize) -> Option<(Vec<u32>, usize)> {
        let tokens = &self.tokens[self.range(document)];
        let learned = |token: &u32| token & TRAINED != 0;
        let start = tokens.iter().position(learned).filter(|&start| start > 0)?;
        let answer = tokens[start..].iter().take_while(|token| learned(token)).count();
        let cut = start + answer == tokens.len() && tokens.len() > self.seq_len;
        (!cut).then(|| (tokens[..start].to_vec(), answer))
    }

    /// Positions of all documents.
    pub fn tokens(&self) -> usize {
        self.tokens.len() - self.len()
    }

    /// Positions that count in the loss.
    pub fn target_tokens(&self) -> usize {
        let counted = |d| self.targets(d).filter(|&target| target != qft_llama::IGNORE).count();
        (0..self.len()).map(counted).sum()
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { truncated, dropped, too_long, bad, tools_unseen, .. } = self.counts;
        let targets = self.target_tokens();
        write!(f, "{} documents, {} tokens, {targets} of them learned", self.len(), self.tokens())?;
        if truncated > 0 {
            write!(f, "; {truncated} cut at {} tokens", self.seq_len)?;
        }
        if too_long > 0 {
            write!(f, "; {too_long} left out, of more than {} tokens (--too-long)", self.seq_len)?;
        }
        if dropped > 0 {
            write!(f, "; {dropped} left out, having nothing to learn")?;
        }
        if bad > 0 {
            let more = if bad > self.problems.len() { " ..." } else { "" };
            write!(
                f,
                "; {bad} left out that cannot be read ({}{more})",
                self.problems.join(" | ")
            )?;
        }
        if tools_unseen > 0 {
            write!(
                f,
                "; {tools_unseen} with tools that the chat template does not write: the model learns to call what it \
                 cannot see (give another --template, such as chatml)"
            )?;
        }
        self.write_ends(f)?;
        self.write_unknown(f, targets)
    }
}

impl Documents {
    fn write_ends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { samples, endless, .. } = self.counts;
        let remedy = "name the token that ends them in tokenizer_config.json or generation_config.json, or give another \
                      --template";
        match endless {
            0 => Ok(()),
            all if all == samples => write!(
                f,
                "; no answer ends with a token that generation stops at, so the model does not learn to stop ({remedy})"
            ),
            some => write!(
                f,
                "; {some} answers end without a token that generation stops at ({remedy})"
            ),
        }
    }

    fn write_unknown(&self, f: &mut fmt::Formatter<'_>, targets: usize) -> fmt::Result {
        let unknown = self.counts.unknown;
        if unknown.saturating_mul(UNKNOWN_SHARE) <= targets {
            return Ok(());
        }
        write!(
            f,
            "; {unknown} learned tokens stand for what the tokenizer cannot spell: the model learns to write those \
             (use a model whose tokenizer fits the language)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_llama::IGNORE;

    #[test]
    fn a_question_is_what_comes_before_the_first_answer() {
        let mut documents = Documents::new(10, 5);
        documents.push(&[1, 2, 3, 4, 5], |i| i == 2 || i == 3).unwrap();
        documents.push(&[6, 7, 8], |_| true).unwrap();
        documents.push(&[1, 2, 3, 4, 5, 6, 7], |i| i >= 3).unwrap();
        documents.push(&[4, 5, 6], |i| i >= 1).unwrap();
        let questions: Vec<_> = (0..4).map(|document| documents.question(document)).collect();
        let (two, one) = ((vec![1, 2], 2), (vec![4], 2));
        assert_eq!(questions, [Some(two), None, None, Some(one)]);
    }

    #[test]
    fn documents_are_taken_several_times() {
        let mut documents = Documents::new(10, 5);
        for ids in [[1, 2, 3].as_slice(), &[4, 5], &[6, 7, 8, 9]] {
            documents.push(ids, |_| true).unwrap();
        }
        documents.repeat(1, 3);
        let all: Vec<Vec<u32>> =
            (0..documents.len()).map(|document| documents.targets(document).collect()).collect();
        let (first, a, b) = (vec![2, 3], vec![5], vec![7, 8, 9]);
        assert_eq!(all, [first, a.clone(), b.clone(), a.clone(), b.clone(), a, b]);
        documents.repeat(7, 3);
        assert_eq!(documents.len(), 7);
    }

    #[test]
    fn what_became_of_the_data_is_told() {
        let mut documents = Documents::new(10, 5);
        documents.push(&[1, 2, 3], |_| true).unwrap();
        for line in 1..5 {
            documents.bad(format!("f.jsonl:{line}: no"));
        }
        documents.counts = Counts {
            too_long: 2,
            tools_unseen: 3,
            samples: 4,
            endless: 4,
            unknown: 1,
            ..documents.counts
        };
        let text = documents.to_string();
        for told in [
            "2 left out, of more than 5",
            "4 left out that cannot be read (f.jsonl:1: no | ",
            " ...)",
            "3 with tools",
        ] {
            assert!(text.contains(told), "{text}");
        }
        assert!(text.contains("does not learn to stop") && text.contains("cannot spell"), "{text}");
    }

    #[test]
    fn documents_are_cut_masked_and_left_out() {
        let mut documents = Documents::new(10, 3);
        documents.push(&[1, 2, 3, 4, 5], |i| i != 2).unwrap();
        documents.push(&[7], |_| true).unwrap();
        documents.push(&[], |_| true).unwrap();
        documents.push(&[1, 2, 3, 4, 5], |i| i == 4).unwrap();
        documents.push(&[8, 9], |_| true).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents.ids(0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(documents.targets(0).collect::<Vec<_>>(), [2, IGNORE, 4]);
        assert_eq!(documents.targets(1).collect::<Vec<_>>(), [9]);
        assert_eq!(documents.counts, Counts { truncated: 2, dropped: 3, ..Counts::default() });
        assert_eq!((documents.tokens(), documents.target_tokens()), (4, 3));
        let other = |marked: usize, second: &[u32]| {
            let mut documents = Documents::new(10, 3);
            documents.push(&[1, 2, 3], |i| i != marked).unwrap();
            documents.push(second, |_| true).unwrap();
            documents.sha256()
        };
        assert_eq!(other(9, &[4, 5]), other(9, &[4, 5]));
        assert!(other(9, &[4, 5]) != other(2, &[4, 5]) && other(9, &[4, 5]) != other(9, &[4, 6]));
        let error = documents.push(&[1, 10], |_| true).unwrap_err().to_string();
        assert!(error.contains("token id 10 is outside"), "{error}");
    }
}
