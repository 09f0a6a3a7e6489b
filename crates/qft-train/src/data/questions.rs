//! Questions with short answers among documents: asked to see whether a model still ends its answers.

use super::documents::Documents;
use crate::error::{Result, bail};

/// Tokens that an answer may have; one that has not ended by then is counted as not ending.
pub const MAX_ANSWER_TOKENS: usize = 256;

/// A question, as the tokens up to where the answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Tokens that its answer may have.
    pub most: usize,
}

/// At most `count` questions, from all over the documents: those whose own answer has half of the tokens that an
/// answer may have, or fewer.
///
/// Errors: there is none.
pub fn choose(documents: &Documents, count: usize, positions: usize) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    let asked = if count > 0 { documents.len() } else { 0 };
    for document in 0..asked {
        let Some((ids, answer)) = documents.get(document)?.question() else { continue };
        let most = positions.saturating_sub(ids.len()).min(MAX_ANSWER_TOKENS);
        if 2 * answer <= most {
            all.push(Question { ids, most });
        }
    }
    if all.is_empty() && count > 0 {
        bail!(
            "--answers: the held-out data has no questions whose answers have at most {} tokens; give conversations, or \
             prompts and completions, with --train-on completion, or leave it out",
            MAX_ANSWER_TOKENS / 2
        );
    }
    let count = count.min(all.len());
    Ok((0..count).map(|i| all[i * all.len() / count].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DocumentWriter;

    #[test]
    fn questions_come_from_all_over_and_have_short_answers() {
        let mut documents = DocumentWriter::in_memory(1000, 900);
        for first in 0..10 {
            documents.push(&[first, 1, 2, 3], |i| i > 1).unwrap();
        }
        let long: Vec<u32> = (0..200).collect();
        documents.push(&long, |i| i > 1).unwrap();
        let documents = documents.finish().unwrap();
        let firsts = |count| -> Vec<u32> {
            choose(&documents, count, 2048).unwrap().iter().map(|q| q.ids[0]).collect()
        };
        assert!(firsts(0).is_empty());
        assert_eq!(firsts(3), [0, 3, 6]);
        assert_eq!(firsts(99), (0..10).collect::<Vec<_>>());
        assert_eq!(choose(&documents, 1, 2048).unwrap()[0].most, MAX_ANSWER_TOKENS);
        assert_eq!(choose(&documents, 1, 7).unwrap()[0].most, 5);
        let error = choose(&documents, 1, 5).unwrap_err().to_string();
        assert!(error.contains("--answers") && error.contains("128 tokens"), "{error}");
    }
}
