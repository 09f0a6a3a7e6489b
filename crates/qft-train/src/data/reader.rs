//! From files to documents: templates, tokens, and which of them count in the loss.

use super::documents::Documents;
use super::encoder::{TextEncoder, at_start};
use super::parallel::in_order;
use super::records::Record;
use super::sample::Sample;
use super::source::{Content, Source, expand, weighted};
use super::template::{ModelTemplates, Template};
use crate::chat::{Conversation, Rendered, SpecialTexts};
use crate::error::{Context, Result, bail};
use crate::options::{DataFormat, OnBadRecord, ReadingOptions, TooLong, TrainOn};
use std::path::PathBuf;

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

/// Cuts the tokens of a long text into documents of `seq_len` positions, the last one shorter.
///
/// With `before`, the tokens that begin a text, each begins with them and predicts the tokens that follow. Without any,
/// each begins with the last token that the one before predicted.
pub fn windows(ids: &[u32], before: &[u32], seq_len: usize) -> impl Iterator<Item = Vec<u32>> {
    let room = (seq_len + 1).saturating_sub(before.len().max(1)).max(1);
    let overlap = usize::from(before.is_empty());
    let positions = ids.len().saturating_sub(overlap);
    (0..positions.div_ceil(room)).map(move |i| {
        let end = ids.len().min((i + 1) * room + overlap);
        before.iter().chain(&ids[i * room..end]).copied().collect()
    })
}

impl Reader<'_> {
    /// Reads all files.
    ///
    /// Errors: those of [`Source::read`]; a record that cannot be rendered or tokenized, with its place, unless such
    /// are left out.
    pub fn read(&self, files: &[PathBuf]) -> Result<Documents> {
        let mut documents = self.documents();
        for (file, times) in expanded(files)? {
            let before = documents.len();
            self.add(&Source::read(&file, self.options)?, &mut documents)?;
            documents.repeat(before, times);
        }
        Ok(documents)
    }

    /// Reads all files, and parts the last `fraction` of each off as held-out data.
    ///
    /// Errors: those of [`Reader::read`]; a fraction that leaves nothing on one side.
    pub fn read_split(&self, files: &[PathBuf], fraction: f64) -> Result<(Documents, Documents)> {
        let (mut train, mut held_out) = (self.documents(), self.documents());
        for (file, times) in expanded(files)? {
            let (head, tail) = Source::read(&file, self.options)?.split(fraction)?;
            let before = train.len();
            self.add(&head, &mut train)?;
            train.repeat(before, times);
            self.add(&tail, &mut held_out)?;
        }
        Ok((train, held_out))
    }

    fn documents(&self) -> Documents {
        Documents::new(self.vocab_size, self.seq_len)
    }

    /// Adds the documents of a source.
    ///
    /// Errors: a record that cannot be rendered or tokenized, with its place, unless such are left out.
    pub fn add(&self, source: &Source, documents: &mut Documents) -> Result<()> {
        for problem in &source.bad {
            documents.counts.read += 1;
            documents.bad(problem.clone());
        }
        match &source.content {
            Content::Text(text) => {
                documents.counts.read += 1;
                let place = || source.path.display().to_string();
                let mut sample = Sample::whole(self.encoder, text).with_context(place)?;
                if !sample.ids.ends_with(self.encoder.after_text()) {
                    self.encoder.after_text().iter().for_each(|&id| sample.end(id));
                }
                self.add_windows(&sample.ids, documents).with_context(place)
            }
            Content::Records { format, records } => {
                let template = self.template(*format)?;
                if let Some(template) = &template {
                    documents.add_template(&template.source);
                }
                let template = template.as_ref();
                in_order(
                    records,
                    |(_, record)| self.samples(record, template),
                    |(place, record), samples| {
                        documents.counts.read += 1;
                        let named = || place.name(&source.path);
                        let samples = self.read_or_skip(samples.with_context(named), documents)?;
                        self.add_samples(&samples, record, template, documents).with_context(named)
                    },
                )
            }
        }
    }

    /// The samples of a record; none of one that cannot be read and is left out.
    fn read_or_skip(
        &self,
        samples: Result<Vec<Sample>>,
        documents: &mut Documents,
    ) -> Result<Option<Vec<Sample>>> {
        match samples {
            Err(error) if self.options.on_bad_record == OnBadRecord::Skip => {
                documents.bad(format!("{error:#}"));
                Ok(None)
            }
            samples => samples.map(Some),
        }
    }

    /// Adds what a record became.
    fn add_samples(
        &self,
        samples: &Option<Vec<Sample>>,
        record: &Record,
        template: Option<&Template>,
        documents: &mut Documents,
    ) -> Result<()> {
        let Some(samples) = samples else { return Ok(()) };
        if let (Record::Chat(talk), Some(template)) = (record, template) {
            documents.counts.tools_unseen += usize::from(!template.shows_tools(talk));
        }
        if samples.is_empty() {
            documents.counts.dropped += 1;
        }
        let is_text = matches!(record, Record::Text(_));
        samples.iter().try_for_each(|sample| self.lay(sample, is_text, documents))
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

    /// The tokens of `talk` up to where the assistant speaks next.
    ///
    /// Errors: the template refuses the conversation; the text cannot be tokenized.
    pub fn prompt(&self, template: &Template, talk: &Conversation) -> Result<Vec<u32>> {
        let text = template.prompt(talk)?;
        if template.needs_begin {
            return at_start(self.encoder, &text);
        }
        self.encoder.encode(&text)
    }

    fn special_texts(&self) -> SpecialTexts {
        let text = |id: u32| self.encoder.token(id);
        SpecialTexts {
            bos: self.encoder.bos().and_then(text).unwrap_or_default(),
            ends: self.encoder.eos().iter().filter_map(|&id| text(id)).collect(),
        }
    }

    /// Adds a sample, or what becomes of one that is too long.
    fn lay(&self, sample: &Sample, is_text: bool, documents: &mut Documents) -> Result<()> {
        if sample.targets().next().is_some() {
            let (eos, unknown) = (self.encoder.eos(), self.encoder.unknown());
            let counts = &mut documents.counts;
            counts.samples += 1;
            counts.endless += usize::from(!sample.targets().any(|id| eos.contains(&id)));
            counts.unknown += sample.targets().filter(|&id| Some(id) == unknown).count();
        }
        let default = if is_text { TooLong::Split } else { TooLong::Drop };
        match self.options.too_long.unwrap_or(default) {
            TooLong::Drop if sample.positions() > self.seq_len => documents.counts.too_long += 1,
            TooLong::Drop | TooLong::Cut => documents.push(&sample.ids, |i| sample.learned[i])?,
            TooLong::Split if is_text => return self.add_windows(&sample.ids, documents),
            TooLong::Split => {
                for start in (0..sample.positions().max(1)).step_by(self.seq_len.max(1)) {
                    let end = sample.ids.len().min(start + self.seq_len + 1);
                    let part = sample.part(start..end);
                    documents.push(&part.ids, |i| part.learned[i])?;
                }
            }
        }
        Ok(())
    }

    fn add_windows(&self, ids: &[u32], documents: &mut Documents) -> Result<()> {
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
            (Record::Completion { prompt, completion }, None) => {
                let text = format!("{prompt}{completion}");
                let all = self.options.train_on == TrainOn::All;
                let start = if all { 0 } else { prompt.len() };
                let learned = Vec::from_iter(std::iter::once(start..text.len()));
                Ok(vec![self.sample(&Rendered { text, learned }, true)?])
            }
            (Record::Completion { prompt, completion }, Some(template)) => {
                let mut talk = Conversation::ask(prompt);
                let answer = serde_json::json!({ "role": "assistant", "content": completion });
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
        rendered.iter().map(|rendered| self.sample(rendered, template.needs_begin)).collect()
    }

    /// A rendered record as tokens. The last word that is learned is followed by an end, which generation stops at.
    fn sample(&self, rendered: &Rendered, needs_begin: bool) -> Result<Sample> {
        let Rendered { text, learned } = rendered;
        let mut sample = Sample::of_spans(self.encoder, text, learned)?;
        let open = sample.learned.last() == Some(&true) && !self.has_ended(text);
        if let Some(&eos) = self.encoder.eos().first().filter(|_| open) {
            sample.end(eos);
        }
        if needs_begin {
            sample.begin(self.encoder);
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

/// The files that are named, folders and patterns resolved, and how often each is taken.
fn expanded(given: &[PathBuf]) -> Result<Vec<(PathBuf, usize)>> {
    let mut files = Vec::new();
    for given in given {
        let (given, times) = weighted(given)?;
        files.extend(expand(&given)?.into_iter().map(|file| (file, times)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
