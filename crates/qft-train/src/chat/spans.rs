//! Where the assistant speaks, in templates that do not say so themselves.
//!
//! A turn begins where the prompt for it ends, and it ends where the conversation ends that is cut off after it. What
//! a template appends to every text that asks for no prompt (an end token, or the prompt all the same) is no part of a
//! turn.

use super::jinja::Value;
use super::{Renderer, is_assistant, message};
use crate::error::Result;
use std::ops::Range;

/// A rendered conversation whose turns are looked for.
pub(super) struct Turns<'a> {
    pub(super) renderer: &'a Renderer<'a>,
    /// The messages that `text` was rendered from.
    pub(super) messages: &'a [Value],
    pub(super) text: &'a str,
}

impl Turns<'_> {
    /// Where the assistant speaks in message `turn`; empty where it says nothing. None if the text holds the turn, or
    /// what comes before it, otherwise than a conversation does that ends there.
    ///
    /// Errors: the template fails.
    pub(super) fn of(&self, turn: usize) -> Result<Option<Range<usize>>> {
        let (Some(start), Some(end)) = (self.start(turn)?, self.end(turn)?) else {
            return Ok(None);
        };
        Ok(Some(start..self.renderer.end_of_turn(self.text, start..end.max(start))))
    }

    /// The longest of the prompts for a turn that the text begins with: a prompt may open a thought, or skip it.
    fn start(&self, turn: usize) -> Result<Option<usize>> {
        let before = &self.messages[..turn];
        let prompt = match self.renderer.render(before, true) {
            // Most templates cannot render a conversation without any turn.
            Err(_) if turn == 0 => return self.opening().map(Some),
            prompt => prompt?,
        };
        let silent = self.renderer.render_without_thoughts(before);
        let prompts =
            silent.iter().chain([&prompt]).filter(|prompt| self.text.starts_with(*prompt));
        if let Some(longest) = prompts.map(String::len).max() {
            return Ok(Some(longest));
        }
        // The turn begins otherwise than the prompt for it.
        if turn == 0 {
            return self.opening().map(Some);
        }
        let kept = self.body(turn, &self.renderer.render(before, false)?, self.text)?;
        Ok(kept.map(|kept| common_prefix(&prompt, self.text).max(kept)))
    }

    /// Where the words of a first turn begin, for which there is no prompt: what is before them does not depend on them.
    fn opening(&self) -> Result<usize> {
        let other = self.renderer.render(&[message::said("assistant", "\u{b6}")?], false);
        Ok(other.map_or(0, |other| common_prefix(&other, self.text)))
    }

    fn end(&self, turn: usize) -> Result<Option<usize>> {
        let until = self.renderer.render(&self.messages[..=turn], false)?;
        if turn + 1 < self.messages.len() {
            return self.body(turn + 1, &until, self.text);
        }
        let next = message::said("user", "?")?;
        let probe: Vec<_> = self.messages.iter().cloned().chain([next]).collect();
        let Ok(next) = self.renderer.render(&probe, false) else { return Ok(Some(until.len())) };
        let body = self.body(turn + 1, &until, &next)?.unwrap_or(until.len());
        // An end token that is appended to the whole text counts where the turn has none of its own.
        let ended = self.renderer.ends(&until[..body]);
        Ok(Some(if ended || self.prompts_always(turn + 1, &until)? { body } else { until.len() }))
    }

    /// Whether a prompt follows `until`, the rendering of the first `count` messages, or parts of it end that.
    fn prompts_always(&self, count: usize, until: &str) -> Result<bool> {
        Ok(self.renderer.render(&self.messages[..count], true)?.starts_with(until))
    }

    /// Bytes of `until`, the rendering of the first `count` messages, that `next` begins with, whose messages go on;
    /// none where it goes on otherwise.
    fn body(&self, count: usize, until: &str, next: &str) -> Result<Option<usize>> {
        if next.starts_with(until) {
            return Ok(Some(until.len()));
        }
        let ended = until.trim_end();
        for end in self.renderer.end_tokens() {
            let body = ended.strip_suffix(end).filter(|body| next.starts_with(body));
            if let Some(body) = body {
                return Ok(Some(body.len()));
            }
        }
        if !self.prompts_always(count, until)? {
            return Ok(None);
        }
        self.before_prompt(count, until, next)
    }

    /// Where the prompt begins in `until`, by a template that writes one after every conversation.
    fn before_prompt(&self, count: usize, until: &str, next: &str) -> Result<Option<usize>> {
        let Some(asked) = (1..count).rev().find(|&i| is_assistant(&self.messages[i])) else {
            return Ok(None);
        };
        // Both end in the prompt, and perhaps in what ends any turn.
        let prompt = self.renderer.render(&self.messages[..asked], false)?;
        let first = until.len() - common_suffix(&prompt, until);
        // The next turn may begin as the prompt does.
        let last = common_prefix(until, next);
        if first > last {
            return Ok(None);
        }
        let ended = self
            .renderer
            .end_tokens()
            .filter_map(|end| Some(until[..last].rfind(end)? + end.len()));
        let ended = ended.max().filter(|&end| end >= first || until[end..first].trim().is_empty());
        if ended.is_some() {
            return Ok(ended);
        }
        // Turns begin as the text does.
        let opening = until.strip_prefix(self.renderer.bos()).unwrap_or(until).trim_start();
        let starts = (first..last).filter(|&i| until.is_char_boundary(i));
        let mut starts = starts.filter(|&i| opening.starts_with(&until[i..last]));
        Ok(Some(starts.next().unwrap_or(last)))
    }
}

/// Bytes that both begin with, in whole characters.
pub(super) fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// Bytes that both end in, in whole characters.
pub(super) fn common_suffix(a: &str, b: &str) -> usize {
    let same = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}
