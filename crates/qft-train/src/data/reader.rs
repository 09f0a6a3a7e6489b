//! From files to documents: templates, tokens, and which of them count in the loss.

mod records;
mod texts;

use super::documents::{DocumentWriter, Documents, Reason};
use super::encoder::TextEncoder;
use super::progress::{Progress, Tally};
use super::records::Record;
use super::sample::Sample;
use super::source::{DataFile, Piece, Source, expanded};
use super::template::{ModelTemplates, Template};
use super::windows::windows;
use crate::chat::{Conversation, Rendered, SpecialTexts};
use crate::error::{Context, Result, bail, ensure};
use crate::options::{DataFormat, ReadingOptions, TemplateChoice, TooLong, TrainOn};
use records::Records;
use std::path::{Path, PathBuf};
use texts::Texts;

/// Reads data for one model.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The model's tokenizer.
    pub encoder: &'a dyn TextEncoder,
    /// The model's own chat templates.
    pub templates: ModelTemplates<'a>,
    /// How data is read.
    pub options: &'a ReadingOptions,
    /// Positions of a document at most.
    pub seq_len: usize,
    /// Size of the model's vocabulary.
    pub vocab_size: usize,
}

/// Where documents go: to train on, and held out.
pub(super) struct Parts {
    pub(super) train: DocumentWriter,
    pub(super) held_out: Option<HeldOut>,
}

/// Documents that are held out, and the last fraction of each file that they are made of.
pub(super) struct HeldOut {
    pub(super) fraction: f64,
    pub(super) documents: DocumentWriter,
}

impl Parts {
    /// Where documents go that are trained on, or are not.
    fn documents(&mut self, train: bool) -> &mut DocumentWriter {
        match &mut self.held_out {
            Some(held_out) if !train => &mut held_out.documents,
            _ => &mut self.train,
        }
    }
}

impl Reader<'_> {
    /// Reads all files into memory.
    ///
    /// Errors: a file that cannot be read, is empty, is not UTF-8, or is not valid; a record that is not of the format,
    /// or cannot be rendered or tokenized, with its place, unless such are left out.
    pub fn read(&self, files: &[PathBuf]) -> Result<Documents> {
        let mut parts = Parts { train: self.in_memory(), held_out: None };
        self.fill(&expanded(files)?, &mut parts, &|_| Ok(()))?;
        parts.train.finish()
    }

    /// Reads all files into memory, and parts the last `fraction` of each off as held-out data.
    ///
    /// Errors: those of [`Reader::read`]; a fraction that leaves nothing on one side.
    pub fn read_split(&self, files: &[PathBuf], fraction: f64) -> Result<(Documents, Documents)> {
        let held_out = HeldOut { fraction, documents: self.in_memory() };
        let mut parts = Parts { train: self.in_memory(), held_out: Some(held_out) };
        self.fill(&expanded(files)?, &mut parts, &|_| Ok(()))?;
        let Some(held_out) = parts.held_out else { unreachable!("it was put there") };
        Ok((parts.train.finish()?, held_out.documents.finish()?))
    }

    fn in_memory(&self) -> DocumentWriter {
        DocumentWriter::in_memory(self.vocab_size, self.seq_len)
    }

    /// Reads all files; `told` hears how far it is.
    ///
    /// Errors: those of [`Reader::read_split`] and `told`.
    pub(super) fn fill(
        &self,
        files: &[DataFile],
        parts: &mut Parts,
        told: &dyn Fn(Progress) -> Result<()>,
    ) -> Result<()> {
        let passes = if parts.held_out.is_some() { 2 } else { 1 };
        let size = |file: &DataFile| file.path.metadata().map_or(0, |metadata| metadata.len());
        let tally = Tally::new(passes * files.iter().map(size).sum::<u64>(), told);
        for DataFile { path, weight } in files {
            let kept = match &parts.held_out {
                Some(held_out) => self.kept(path, held_out.fraction, &tally)?,
                None => u64::MAX,
            };
            self.add(path, kept, parts, &tally)?;
            parts.train.part(*weight);
        }
        Ok(())
    }

    /// How many of the first characters or records of a file are not held out.
    fn kept(&self, path: &Path, fraction: f64, tally: &Tally<'_>) -> Result<u64> {
        let source = Source::open(path, self.options, tally)?;
        let parts = if source.is_text() { "characters" } else { "records" };
        let mut count = 0;
        source.pieces(&mut |piece| {
            count += match piece {
                Piece::Text(text) => text.chars().count() as u64,
                Piece::Record(_) => 1,
            };
            tally.tell()
        })?;
        let kept = count - ((count as f64 * fraction).round() as u64).min(count);
        ensure!(
            kept > 0 && kept < count || count == 0,
            "--val-split: {fraction} of the {count} {parts} of {} leaves nothing on one side; \
             give another fraction, or --eval-data",
            path.display()
        );
        Ok(kept)
    }

    /// Adds the documents of a file, of which the first `kept` characters or records are trained on.
    fn add(&self, path: &Path, kept: u64, parts: &mut Parts, tally: &Tally<'_>) -> Result<()> {
        let source = Source::open(path, self.options, tally)?;
        if source.is_text() {
            let mut texts = Texts::new(*self, kept);
            let read = source.pieces(&mut |piece| match piece {
                Piece::Text(text) => {
                    texts.push(&text, parts)?;
                    tally.tell()
                }
                Piece::Record(_) => unreachable!("a text has no records"),
            });
            return read
                .and_then(|()| texts.finish(parts))
                .with_context(|| path.display().to_string());
        }
        let mut records = Records::new(*self, path, kept);
        source.pieces(&mut |piece| match piece {
            Piece::Record(row) => records.push(row, parts, tally),
            Piece::Text(_) => unreachable!("records are no text"),
        })?;
        records.finish(parts)
    }

    /// The template for conversations, or for prompts and completions of `format`; none where they are put together
    /// as they are.
    ///
    /// Errors: a template that does not exist or is not valid.
    pub fn template(&self, format: DataFormat) -> Result<Option<Template>> {
        let is_token = |text: &str| Ok(self.encoder.encode(text)?.len() == 1);
        let choice = &self.options.template;
        Template::choose(choice, format, self.templates, self.special_texts(), is_token)
    }

    /// The token by which the assistant's turns end in conversations; none where there is no template for them, or where it
    /// writes none.
    ///
    /// Errors: the file of `--template` cannot be read or is not valid.
    pub fn end_of_turn(&self) -> Result<Option<u32>> {
        let template = match self.template(DataFormat::Messages) {
            Ok(template) => template,
            Err(error) if matches!(self.options.template, TemplateChoice::File(_)) => {
                return Err(error);
            }
            // A model's own template is its data's concern: texts need none.
            Err(_) => None,
        };
        let behind = template.map(|template| template.behind_answers()).unwrap_or_default();
        let first = self.encoder.encode(&behind)?.first().copied();
        Ok(first.filter(|&id| self.encoder.is_added(id) && self.encoder.bos() != Some(id)))
    }

    /// The tokens of `talk` up to where the assistant speaks next.
    ///
    /// Errors: the template refuses the conversation; the text cannot be tokenized.
    pub fn prompt(&self, template: &Template, talk: &Conversation) -> Result<Vec<u32>> {
        self.encoder.encode(&template.prompt(talk)?)
    }

    fn special_texts(&self) -> SpecialTexts {
        let text = |id: u32| self.encoder.token(id);
        SpecialTexts {
            before: self.encoder.before_text().iter().filter_map(|&id| text(id)).collect(),
            bos: self.encoder.bos().and_then(text).unwrap_or_default(),
            ends: self.encoder.eos().iter().filter_map(|&id| text(id)).collect(),
            padding: self.encoder.padding().and_then(text).unwrap_or_default(),
            unknown: self.encoder.unknown().and_then(text).unwrap_or_default(),
        }
    }

    /// Adds a sample, or what becomes of one that is too long. `place` says where it is from.
    fn lay(
        &self,
        sample: &Sample,
        is_text: bool,
        place: &dyn Fn() -> String,
        documents: &mut DocumentWriter,
    ) -> Result<()> {
        if sample.targets().next().is_some() {
            let (eos, unknown) = (self.encoder.eos(), self.encoder.unknown());
            let counts = &mut documents.counts;
            counts.samples += 1;
            counts.endless +=
                usize::from(sample.spans().any(|said| !said.iter().any(|id| eos.contains(id))));
            if !is_text {
                let empty = |said: &&[u32]| said.iter().all(|id| eos.contains(id));
                counts.empty += sample.spans().filter(empty).count();
                counts.merged += sample.merged;
            }
            counts.unknown += sample.targets().filter(|&id| Some(id) == unknown).count();
        }
        let default = if is_text { TooLong::Split } else { TooLong::Drop };
        let too_long = self.options.too_long.unwrap_or(default);
        let positions = sample.positions();
        let length = || format!("{}: {positions} tokens", place());
        match too_long {
            TooLong::Drop if positions > self.seq_len => {
                documents.counts.too_long += 1;
                documents.leave_out(Reason::TooLong, length);
            }
            TooLong::Drop | TooLong::Cut => {
                if positions > self.seq_len {
                    documents.leave_out(Reason::Cut, length);
                }
                documents.push(&sample.ids, |i| sample.learned[i])?;
            }
            TooLong::Split if is_text => return self.add_windows(&sample.ids, documents),
            TooLong::Split => {
                for start in (0..positions.max(1)).step_by(self.seq_len.max(1)) {
                    let end = sample.ids.len().min(start + self.seq_len + 1);
                    let part = sample.part(start..end);
                    documents.push(&part.ids, |i| part.learned[i])?;
                }
            }
        }
        Ok(())
    }

    fn add_windows(&self, ids: &[u32], documents: &mut DocumentWriter) -> Result<()> {
        let before = (documents.len(), documents.counts.dropped);
        let begin = self.encoder.before_text();
        let ids = ids.strip_prefix(begin).unwrap_or(ids);
        for window in windows(ids, begin, self.seq_len) {
            documents.push(&window, |_| true)?;
        }
        if before == (documents.len(), documents.counts.dropped) {
            documents.counts.dropped += 1;
        }
        Ok(())
    }

    /// The samples that a record becomes.
    fn samples(&self, record: &Record, template: Option<&Template>) -> Result<Vec<Sample>> {
        match (record, template) {
            (Record::Text(text), _) => {
                let mut sample = Sample::whole(self.encoder, text)?;
                if sample.ids.is_empty() {
                    return Ok(Vec::new());
                }
                if let Some(&eos) = self.encoder.eos().first().filter(|_| !self.has_ended(text)) {
                    sample.end(eos);
                }
                sample.begin(self.encoder);
                Ok(vec![sample])
            }
            (Record::Completion { before, prompt, completion }, None) => {
                ensure!(
                    before.messages.is_empty() && before.tools.is_none(),
                    "`system` and `tools` are for a chat template, and prompts and completions are put together as they are; give \
                     --template, or take them out of the records"
                );
                let text = format!("{prompt}{completion}");
                let all = self.options.train_on == TrainOn::All;
                let start = if all { 0 } else { prompt.len() };
                let learned = Vec::from_iter(std::iter::once(start..text.len()));
                let mut sample = self.sample(&Rendered { text, learned })?;
                sample.begin(self.encoder);
                Ok(vec![sample])
            }
            (Record::Completion { before, prompt, completion }, Some(template)) => {
                let answer = serde_json::json!({ "role": "assistant", "content": completion });
                let mut talk = before.clone().then_ask(prompt);
                talk.messages.push(answer);
                self.chat_samples(&talk, template)
            }
            (Record::Chat(talk), Some(template)) => self.chat_samples(talk, template),
            (Record::Chat(_), None) => {
                bail!("a conversation needs a chat template; give --template")
            }
        }
    }

    fn chat_samples(&self, talk: &Conversation, template: &Template) -> Result<Vec<Sample>> {
        let rendered = template.samples(talk, self.options.train_on)?;
        rendered.iter().map(|rendered| self.sample(rendered)).collect()
    }

    /// A rendered record as tokens. The last word that is learned is followed by an end, which generation stops at.
    fn sample(&self, rendered: &Rendered) -> Result<Sample> {
        let Rendered { text, learned } = rendered;
        let mut sample = Sample::of_spans(self.encoder, text, learned)?;
        let open = sample.learned.last() == Some(&true) && !self.has_ended(text);
        if let Some(&eos) = self.encoder.eos().first().filter(|_| open) {
            sample.end(eos);
        }
        Ok(sample)
    }

    /// Whether a text ends in an end token, white space aside.
    fn has_ended(&self, text: &str) -> bool {
        let text = text.trim_end();
        let ends = self.encoder.eos().iter().filter_map(|&id| self.encoder.token(id));
        ends.filter(|end| !end.is_empty()).any(|end| text.ends_with(&end))
    }
}

#[cfg(test)]
mod tests;
