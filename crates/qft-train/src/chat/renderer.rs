//! One conversation in one template: its renderings, and what the assistant says in them.

use super::jinja::{Fault, Value};
use super::spans::{Turns, common_prefix, common_suffix};
use super::{Conversation, Rendered, Template, fuel, is_assistant, is_learned, marks, message};
use crate::error::{Context, Error, Result, ensure};
use crate::options::TrainOn;
use std::cell::Cell;
use std::ops::Range;

/// Variables by which templates are told not to let the model think first.
const THOUGHTS: [&str; 2] = ["enable_thinking", "thinking"];

/// The longest text between what is said before and a turn, in bytes.
const MAX_HEADER: usize = 100;

/// Renders the beginnings of a conversation.
pub(super) struct Renderer<'a> {
    template: &'a Template,
    /// What a rendering may cost.
    fuel: u64,
    /// What all further ones may.
    left: Cell<u64>,
    messages: Vec<Value>,
    tools: Option<Value>,
    /// The turns of the assistant that are learned.
    learned: Vec<usize>,
    /// The turns of the assistant that are not.
    given: Vec<usize>,
}

impl<'a> Renderer<'a> {
    /// Errors: values of the conversation are nested too deeply; it holds a character by which marks of the template are
    /// known.
    pub(super) fn new(template: &'a Template, fuel: u64, talk: &Conversation) -> Result<Self> {
        ensure!(
            !template.marked || !talk.messages.iter().chain(&talk.tools).any(marks::has_mark),
            "the conversation holds U+FDD0 or U+FDD1, which stand for no character and mark the assistant's words here; take \
             them out"
        );
        let messages = talk.messages.iter().map(message::normalized);
        let messages: Vec<Value> = messages.collect::<Result<_, Fault>>()?;
        let spoken = (0..messages.len()).filter(|&i| is_assistant(&messages[i]));
        let (learned, given) = spoken.partition(|&i| is_learned(&talk.messages[i]));
        let tools = talk.tools.as_ref().map(Value::from_json).transpose()?;
        let left = Cell::new(fuel::OF_ALL);
        Ok(Self { template, fuel, left, messages, tools, learned, given })
    }

    pub(super) fn name(&self) -> &str {
        &self.template.name
    }

    pub(super) fn bos(&self) -> &str {
        &self.template.special.bos
    }

    pub(super) fn end_tokens(&self) -> impl Iterator<Item = &str> {
        let ends = self.template.special.ends.iter().map(String::as_str);
        ends.filter(|end| !end.is_empty())
    }

    /// The whole conversation.
    pub(super) fn whole(&self, prompt: bool) -> Result<String> {
        self.render(&self.messages, prompt)
    }

    /// These messages; with `prompt`, up to where the assistant speaks next.
    pub(super) fn render(&self, messages: &[Value], prompt: bool) -> Result<String> {
        let text = self.render_with(messages, prompt, Vec::new())?;
        Ok(if self.template.marked { marks::take_marks(&text).0 } else { text })
    }

    /// These messages, and what the template marks of them.
    fn marked(&self, messages: &[Value]) -> Result<(String, Vec<Range<usize>>)> {
        let text = self.render_with(messages, false, Vec::new())?;
        Ok(if self.template.marked { marks::take_marks(&text) } else { (text, Vec::new()) })
    }

    /// These messages with a prompt that skips over thoughts; none where the template knows no such prompt, or fails.
    pub(super) fn render_without_thoughts(&self, messages: &[Value]) -> Option<String> {
        let known = THOUGHTS.into_iter().filter(|name| self.template.read.contains(*name));
        let off: Vec<_> = known.map(|name| (name, Value::Bool(false))).collect();
        if off.is_empty() {
            return None;
        }
        self.render_with(messages, true, off).ok()
    }

    fn render_with(
        &self,
        messages: &[Value],
        prompt: bool,
        more: Vec<(&str, Value)>,
    ) -> Result<String> {
        let special = &self.template.special;
        let eos = special.ends.first().map_or("", String::as_str);
        let mut variables = vec![
            ("messages", Value::list(messages.to_vec())?),
            ("tools", self.tools.clone().unwrap_or(Value::None)),
            ("documents", Value::None),
            ("add_generation_prompt", Value::Bool(prompt)),
            ("bos_token", Value::text(special.bos.as_str())),
            ("eos_token", Value::text(eos)),
        ];
        // Undefined where there is none.
        let others = [("pad_token", &special.padding), ("unk_token", &special.unknown)];
        let others = others.into_iter().filter(|(_, text)| !text.is_empty());
        variables.extend(others.map(|(name, text)| (name, Value::text(text.as_str()))));
        variables.extend(more);
        let fuel = self.fuel.min(self.left.get());
        let (rendered, left) = self.template.program.render(variables, fuel);
        self.left.set(self.left.get() - (fuel - left));
        rendered.map_err(|fault| match fault {
            Fault::OutOfFuel => fuel::too_long(self.name()),
            fault => Error::from(fault)
                .context(format!("chat template {}: cannot render the conversation", self.name())),
        })
    }

    /// Whether a turn ends with a token that generation stops at.
    pub(super) fn ends(&self, turn: &str) -> bool {
        let said = turn.trim_end();
        self.end_tokens().any(|end| said.ends_with(end))
    }

    /// The end of a turn: after the token that ends it, if only white space and more such tokens follow.
    pub(super) fn end_of_turn(&self, text: &str, turn: Range<usize>) -> usize {
        let mut end = turn.end;
        let mut said = text.get(turn.clone()).unwrap_or_default().trim_end();
        while let Some(before) = self.end_tokens().find_map(|end| said.strip_suffix(end)) {
            end = turn.start + said.len();
            said = before.trim_end();
        }
        end
    }

    /// The samples that a conversation becomes, each with what is learned of it.
    pub(super) fn samples(&self, train_on: TrainOn) -> Result<Vec<Rendered>> {
        match train_on {
            TrainOn::All => {
                let text = self.whole(false)?;
                let all = 0..text.len();
                let learned = self.without_given(&text, vec![all])?;
                Ok(vec![Rendered { text, learned }])
            }
            TrainOn::Completion => Ok(vec![self.all_turns()?]),
            TrainOn::Turns => self.learned.iter().map(|&turn| self.one_turn(turn)).collect(),
            TrainOn::Last => {
                self.learned.last().map(|&turn| self.one_turn(turn)).into_iter().collect()
            }
        }
    }

    /// The whole conversation, of which all turns are learned that are to be.
    fn all_turns(&self) -> Result<Rendered> {
        let (text, mut learned) = self.marked(&self.messages)?;
        let turns = Turns { renderer: self, messages: &self.messages, text: &text };
        if self.template.marked {
            learned = self.without_given(&text, learned)?;
        } else {
            let span = |&turn: &usize| turns.of(turn)?.with_context(|| self.forgets(turn));
            learned = self.learned.iter().map(span).collect::<Result<_>>()?;
            let mut last = 0;
            for span in &mut learned {
                // A template may write turns in another order than they were spoken in.
                span.start = span.start.max(last);
                last = last.max(span.end);
            }
            learned.retain(|span| !span.is_empty());
        }
        Ok(Rendered { text, learned })
    }

    /// Of `spans` of the whole conversation, which is `text`, what is outside the turns that are not to be learned.
    fn without_given(&self, text: &str, mut spans: Vec<Range<usize>>) -> Result<Vec<Range<usize>>> {
        let turns = Turns { renderer: self, messages: &self.messages, text };
        for &turn in &self.given {
            let given = turns.of(turn)?.with_context(|| self.forgets(turn))?;
            let around = |span: Range<usize>| {
                [span.start..span.end.min(given.start), span.start.max(given.end)..span.end]
            };
            spans = spans.into_iter().flat_map(around).filter(|span| !span.is_empty()).collect();
        }
        Ok(spans)
    }

    /// The conversation up to a turn, of which that turn is learned.
    fn one_turn(&self, turn: usize) -> Result<Rendered> {
        let messages = &self.messages[..=turn];
        let (text, mut learned) = self.marked(messages)?;
        if self.template.marked {
            let prompt = self.render(&self.messages[..turn], true).unwrap_or_default();
            let start = common_prefix(&prompt, &text);
            learned.retain(|span| span.end > start);
        } else {
            let Some(span) = Turns { renderer: self, messages, text: &text }.of(turn)? else {
                return self.composed(turn, &text);
            };
            learned = Vec::from_iter((!span.is_empty()).then_some(span));
        }
        Ok(Rendered { text, learned })
    }

    /// The prompt for a turn and the turn as `text` has it, where a template writes what comes before otherwise once
    /// the assistant has spoken: inference will see the prompt.
    fn composed(&self, turn: usize, text: &str) -> Result<Rendered> {
        let before = &self.messages[..turn];
        let prompt = self.render(before, true)?;
        let other = message::said("assistant", "\u{b6}")?;
        let other: Vec<_> = before.iter().cloned().chain([other]).collect();
        // Up to here the text does not depend on what is said.
        let header = common_prefix(text, &self.render(&other, false)?);
        let places =
            (header.saturating_sub(MAX_HEADER)..=header).filter(|&i| text.is_char_boundary(i));
        let overlap = |&place: &usize| common_suffix(&prompt, &text[..place]);
        let best = places.max_by_key(overlap).filter(|place| overlap(place) > 0);
        // Nothing else that the text says may be taken for the turn.
        let place = best.filter(|&place| text[place..header].trim().is_empty());
        let place = place.with_context(|| {
            format!(
                "chat template {}: cannot tell where turn {} begins; choose another with --template, or mark the \
                 assistant's words in it with {{% generation %}}",
                self.name(),
                turn + 1
            )
        })?;
        let start = prompt.len();
        let text = prompt + &text[place..];
        let end = self.end_of_turn(&text, start..text.len());
        Ok(Rendered { text, learned: Vec::from_iter((start < end).then_some(start..end)) })
    }

    /// That a turn cannot be found in a conversation that goes on.
    fn forgets(&self, turn: usize) -> String {
        format!(
            "chat template {}: it writes turn {} differently when more turns follow, as templates do that drop old \
             thoughts; give --train-on turns (each turn a sample of its own, with the prompt that the model will see) \
             or --train-on last, choose another template with --template, or mark the assistant's words in it with \
             {{% generation %}}",
            self.name(),
            turn + 1
        )
    }
}
