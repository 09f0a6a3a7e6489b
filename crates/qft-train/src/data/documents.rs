//! Tokenized documents, in compact form: in memory, or in a file of the cache.

mod stored;
mod tokens;
mod writer;

pub(super) use stored::open;
pub use writer::DocumentWriter;

use super::weight::Weight;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tokens::Tokens;

/// Set on a token that counts in the loss. Vocabularies are far below.
const TRAINED: u32 = 1 << 31;

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Conversations with thoughts that the template does not write.
    pub thoughts_unseen: usize,
    /// Records, or turns of conversations, with something to learn.
    pub samples: usize,
    /// Of these, such that no token is learned by which generation stops.
    pub endless: usize,
    /// Answers that say nothing.
    pub empty: usize,
    /// Answers that begin within a token, which stands for what is before them as well.
    pub merged: usize,
    /// Tokens of these that are learned and stand for what the tokenizer cannot spell.
    pub unknown: usize,
}

/// Why a record was left out, or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It cannot be read.
    Bad,
    /// It is longer than a sequence.
    TooLong,
    /// It was cut at the length of a sequence.
    Cut,
    /// None of its tokens counts in the loss.
    NothingToLearn,
}

/// A record that was left out, or cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub reason: Reason,
    /// Its place, and what more there is to say.
    pub what: String,
}

/// The places that are told of records which cannot be read.
const MAX_TOLD: usize = 3;

/// With more learned tokens than one in this many unknown to the tokenizer, it is told.
const UNKNOWN_SHARE: usize = 50;

/// Documents as token ids with a mark on those that count in the loss; 4 bytes a token.
#[derive(Debug, Clone)]
pub struct Documents {
    tokens: Arc<Tokens>,
    /// Where documents begin among the tokens, and where the last one ends.
    starts: Arc<[u64]>,
    about: About,
}

/// What is known of documents as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    counts: Counts,
    left_out: Vec<LeftOut>,
    templates: Vec<String>,
    learned: usize,
    sha256: String,
    seq_len: usize,
    parts: Vec<Part>,
}

/// Documents that are taken equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// How many they are; those of the next part follow.
    pub documents: usize,
    /// How often they are taken in a pass.
    pub weight: Weight,
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    tokens: Vec<u32>,
    /// Whether it may go on: it is as long as a sequence.
    full: bool,
}

impl Document {
    /// The ids at its positions: all but the last.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        let count = self.tokens.len().saturating_sub(1);
        self.tokens[..count].iter().map(|token| token & !TRAINED)
    }

    /// The target of each position, or [`qft_llama::IGNORE`].
    pub fn targets(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().skip(1).map(|token| match token & TRAINED {
            0 => qft_llama::IGNORE,
            _ => token & !TRAINED,
        })
    }

    /// All its ids, and of each whether it is learned.
    pub fn marked(&self) -> impl Iterator<Item = (u32, bool)> {
        let learned = |(i, token): (usize, &u32)| (token & !TRAINED, i > 0 && token & TRAINED != 0);
        self.tokens.iter().enumerate().map(learned)
    }

    /// The tokens before the first that is learned, and how many are learned in a row from there on: a
    /// question and the length of its answer. None where nothing comes before, or the answer was cut.
    pub fn question(&self) -> Option<(Vec<u32>, usize)> {
        let learned = |token: &u32| token & TRAINED != 0;
        let start = self.tokens.iter().position(learned).filter(|&start| start > 0)?;
        let answer = self.tokens[start..].iter().take_while(|token| learned(token)).count();
        let cut = start + answer == self.tokens.len() && self.full;
        (!cut).then(|| (self.tokens[..start].to_vec(), answer))
    }
}

impl Documents {
    /// Number of documents.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A document.
    ///
    /// Panics if there is no such document.
    ///
    /// Errors: the file of the cache that it is in cannot be read any more.
    pub fn get(&self, document: usize) -> Result<Document> {
        let tokens = self.tokens.read(self.range(document))?;
        let full = tokens.len() > self.about.seq_len;
        Ok(Document { tokens, full })
    }

    fn range(&self, document: usize) -> Range<u64> {
        self.starts[document]..self.starts[document + 1]
    }

    /// Positions of a document: each predicts the next token.
    pub fn positions(&self, document: usize) -> usize {
        let Range { start, end } = self.range(document);
        (end - start) as usize - 1
    }

    /// Positions of all documents.
    pub fn tokens(&self) -> usize {
        self.starts.last().map_or(0, |&end| end as usize) - self.len()
    }

    /// Positions that count in the loss.
    pub fn target_tokens(&self) -> usize {
        self.about.learned
    }

    /// What became of the data.
    pub fn counts(&self) -> Counts {
        self.about.counts
    }

    /// The first records that were left out or cut, for each reason.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.about.left_out
    }

    /// The documents by how often they are taken, in their order.
    pub fn parts(&self) -> &[Part] {
        &self.about.parts
    }

    /// The sources of the chat templates that they were written with, each once.
    pub fn templates(&self) -> &[String] {
        &self.about.templates
    }

    /// A SHA-256 of all that training sees of the documents, as hexadecimal digits: ids, which of them are learned, and
    /// where documents begin.
    pub fn sha256(&self) -> &str {
        &self.about.sha256
    }
}

/// Equal in all that training sees, and in what became of the data.
impl PartialEq for Documents {
    fn eq(&self, other: &Self) -> bool {
        let seen = |documents: &Self| {
            let About { counts, learned, sha256, seq_len, parts, .. } = &documents.about;
            (*counts, *learned, sha256.clone(), *seq_len, parts.clone())
        };
        seen(self) == seen(other)
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let About { counts, left_out, learned, seq_len, .. } = &self.about;
        let Counts { truncated, dropped, too_long, bad, .. } = *counts;
        write!(f, "{} documents, {} tokens, {learned} of them learned", self.len(), self.tokens())?;
        if truncated > 0 {
            write!(f, "; {truncated} cut at {seq_len} tokens")?;
        }
        if too_long > 0 {
            write!(f, "; {too_long} left out, of more than {seq_len} tokens (--too-long)")?;
        }
        if dropped > 0 {
            write!(f, "; {dropped} left out, having nothing to learn")?;
        }
        if bad > 0 {
            let told = left_out.iter().filter(|left_out| left_out.reason == Reason::Bad);
            let told: Vec<&str> =
                told.map(|left_out| left_out.what.as_str()).take(MAX_TOLD).collect();
            let more = if bad > told.len() { " ..." } else { "" };
            write!(f, "; {bad} left out that cannot be read ({}{more})", told.join(" | "))?;
        }
        self.write_unseen(f)?;
        self.write_ends(f)?;
        self.write_answers(f)?;
        self.write_unknown(f)
    }
}

impl Documents {
    fn write_unseen(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { tools_unseen, thoughts_unseen, .. } = self.about.counts;
        if tools_unseen > 0 {
            write!(
                f,
                "; {tools_unseen} with tools that the chat template does not write: the model learns to call what it \
                 cannot see (give another --template, such as chatml)"
            )?;
        }
        if thoughts_unseen > 0 {
            write!(
                f,
                "; {thoughts_unseen} with thoughts that the chat template does not write: the model does not learn them \
                 (put them into `content`, in the tags in which the model thinks, or give another --template)"
            )?;
        }
        Ok(())
    }

    fn write_ends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { samples, endless, .. } = self.about.counts;
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

    fn write_answers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { empty, merged, .. } = self.about.counts;
        if empty > 0 {
            write!(f, "; {empty} answers are empty: the model learns to say nothing")?;
        }
        if merged > 0 {
            write!(
                f,
                "; {merged} answers begin within a token, which has the end of their prompt as well: a model that is asked sees \
                 other tokens than it was trained with (a blank between the two belongs to the answer)"
            )?;
        }
        Ok(())
    }

    fn write_unknown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = self.about.counts.unknown;
        if unknown.saturating_mul(UNKNOWN_SHARE) <= self.about.learned {
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

    fn writer(seq_len: usize) -> DocumentWriter {
        DocumentWriter::in_memory(10, seq_len)
    }

    #[test]
    fn a_question_is_what_comes_before_the_first_answer() {
        let mut documents = writer(5);
        documents.push(&[1, 2, 3, 4, 5], |i| i == 2 || i == 3).unwrap();
        documents.push(&[6, 7, 8], |_| true).unwrap();
        documents.push(&[1, 2, 3, 4, 5, 6, 7], |i| i >= 3).unwrap();
        documents.push(&[4, 5, 6], |i| i >= 1).unwrap();
        let documents = documents.finish().unwrap();
        let questions: Vec<_> =
            (0..4).map(|document| documents.get(document).unwrap().question()).collect();
        let (two, one) = ((vec![1, 2], 2), (vec![4], 2));
        assert_eq!(questions, [Some(two), None, None, Some(one)]);
    }

    #[test]
    fn what_became_of_the_data_is_told() {
        let mut documents = writer(5);
        documents.push(&[1, 2, 3], |_| true).unwrap();
        for line in 1..5 {
            documents.counts.bad += 1;
            documents.leave_out(Reason::Bad, || format!("f.jsonl:{line}: no"));
        }
        documents.counts = Counts {
            too_long: 2,
            tools_unseen: 3,
            thoughts_unseen: 2,
            samples: 4,
            endless: 4,
            empty: 3,
            merged: 2,
            unknown: 1,
            ..documents.counts
        };
        let text = documents.finish().unwrap().to_string();
        for told in [
            "2 left out, of more than 5",
            "4 left out that cannot be read (f.jsonl:1: no | ",
            " ...)",
            "3 with tools",
            "2 with thoughts",
            "3 answers are empty",
            "2 answers begin within a token",
        ] {
            assert!(text.contains(told), "{text}");
        }
        assert!(text.contains("does not learn to stop") && text.contains("cannot spell"), "{text}");
    }

    #[test]
    fn documents_are_cut_masked_and_left_out() {
        let mut documents = writer(3);
        documents.push(&[1, 2, 3, 4, 5], |i| i != 2).unwrap();
        documents.push(&[7], |_| true).unwrap();
        documents.push(&[], |_| true).unwrap();
        documents.push(&[1, 2, 3, 4, 5], |i| i == 4).unwrap();
        documents.push(&[8, 9], |_| true).unwrap();
        let error = documents.push(&[1, 10], |_| true).unwrap_err().to_string();
        assert!(error.contains("token id 10 is outside"), "{error}");
        let documents = documents.finish().unwrap();
        assert_eq!(documents.len(), 2);
        let (first, second) = (documents.get(0).unwrap(), documents.get(1).unwrap());
        assert_eq!(first.ids().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(first.targets().collect::<Vec<_>>(), [2, IGNORE, 4]);
        assert_eq!(second.targets().collect::<Vec<_>>(), [9]);
        assert_eq!(documents.counts(), Counts { truncated: 2, dropped: 3, ..Counts::default() });
        assert_eq!((documents.tokens(), documents.target_tokens()), (4, 3));
        let other = |marked: usize, second: &[u32]| {
            let mut documents = writer(3);
            documents.push(&[1, 2, 3], |i| i != marked).unwrap();
            documents.push(second, |_| true).unwrap();
            documents.finish().unwrap().sha256().to_string()
        };
        assert_eq!(other(9, &[4, 5]), other(9, &[4, 5]));
        assert!(other(9, &[4, 5]) != other(2, &[4, 5]) && other(9, &[4, 5]) != other(9, &[4, 6]));
    }

    #[test]
    fn documents_in_a_file_are_those_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.documents");
        let fill = |mut documents: DocumentWriter| {
            documents.push(&[1, 2, 3, 4, 5], |i| i > 2).unwrap();
            documents.push(&[6, 7], |_| true).unwrap();
            documents.leave_out(Reason::Cut, || "a:1".into());
            documents.add_template("x");
            documents.part(Weight::of(2.0).unwrap());
            documents.push(&[8, 9, 1], |i| i == 2).unwrap();
            documents.part(Weight::of(0.5).unwrap());
            documents.finish().unwrap()
        };
        let memory = fill(writer(3));
        let file = fill(DocumentWriter::in_file(10, 3, &path).unwrap());
        let again = open(&path).unwrap();
        for other in [&file, &again] {
            assert_eq!(other, &memory);
            for i in 0..memory.len() {
                assert_eq!(other.get(i).unwrap(), memory.get(i).unwrap());
            }
        }
        assert_eq!(
            memory.parts(),
            [(2, 2.0), (1, 0.5)]
                .map(|(documents, times)| Part { documents, weight: Weight::of(times).unwrap() })
        );
        // Damaged at any place, it is refused or has the same number of tokens, and nothing panics.
        let whole = std::fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[i] ^= 0x55;
            for bytes in [&damaged[..], &whole[..i]] {
                std::fs::write(&path, bytes).unwrap();
                if let Ok(read) = open(&path) {
                    assert!((0..read.len()).all(|i| read.get(i).is_ok()));
                }
            }
        }
    }
}
