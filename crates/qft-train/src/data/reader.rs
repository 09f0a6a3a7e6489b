//! From files to documents: templates, tokens, and which of them count in the loss.

use super::documents::Documents;
use super::encoder::TextEncoder;
use super::records::{Record, write_calls};
use super::source::{Content, Source};
use crate::chat::{ChatTemplate, Conversation, SpecialTexts, TRAINING_DATE};
use crate::error::{Context, Result, bail, ensure};
use crate::options::ReadingOptions;
use crate::options::{BuiltIn, TemplateChoice};
use crate::options::{DataFormat, TrainOn};
use std::ops::Range;
use std::path::PathBuf;

/// Reads data for one model.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The model's tokenizer.
    pub encoder: &'a dyn TextEncoder,
    /// The model's own chat template.
    pub chat_template: Option<&'a str>,
    /// How data is read.
    pub options: &'a ReadingOptions,
    /// Positions of a document at most.
    pub seq_len: usize,
    /// Size of the model's vocabulary.
    pub vocab_size: usize,
}

/// Cuts the tokens of a long text into documents of `seq_len` positions, the last one shorter.
///
/// With a BOS token each begins with it and predicts the `seq_len` tokens that follow. Without one, each begins with
/// the last token that the one before predicted.
pub fn windows(ids: &[u32], bos: Option<u32>, seq_len: usize) -> impl Iterator<Item = Vec<u32>> {
    let seq_len = seq_len.max(1);
    let (head, overlap) = match bos {
        Some(bos) => (Some(bos), 0),
        None => (None, 1),
    };
    let positions = ids.len().saturating_sub(overlap);
    (0..positions.div_ceil(seq_len)).map(move |i| {
        let end = ids.len().min((i + 1) * seq_len + overlap);
        head.into_iter().chain(ids[i * seq_len..end].iter().copied()).collect()
    })
}

impl Reader<'_> {
    /// Reads all files.
    ///
    /// Errors: those of [`Source::read`]; a record that cannot be rendered or tokenized, with its place.
    pub fn read(&self, files: &[PathBuf]) -> Result<Documents> {
        let mut documents = Documents::new(self.vocab_size, self.seq_len);
        for file in files {
            self.add(&Source::read(file, self.options.format)?, &mut documents)?;
        }
        Ok(documents)
    }

    /// Reads all files, and parts the last `fraction` of each off as held-out data.
    ///
    /// Errors: those of [`Reader::read`]; a fraction that leaves nothing on one side.
    pub fn read_split(&self, files: &[PathBuf], fraction: f64) -> Result<(Documents, Documents)> {
        let mut train = Documents::new(self.vocab_size, self.seq_len);
        let mut held_out = train.clone();
        for file in files {
            let (head, tail) = Source::read(file, self.options.format)?.split(fraction)?;
            self.add(&head, &mut train)?;
            self.add(&tail, &mut held_out)?;
        }
        Ok((train, held_out))
    }

    /// Adds the documents of a source.
    ///
    /// Errors: a record that cannot be rendered or tokenized, with its place.
    pub fn add(&self, source: &Source, documents: &mut Documents) -> Result<()> {
        match &source.content {
            Content::Text(text) => {
                documents.counts.read += 1;
                let place = || source.path.display().to_string();
                let ids = self.encoder.encode(text).with_context(place)?;
                self.add_windows(&ids, documents).with_context(place)
            }
            Content::Records { format, records } => {
                let template = self.template(*format)?;
                if let Some(template) = &template {
                    documents.add_template(&template.source);
                }
                for (place, record) in records {
                    documents.counts.read += 1;
                    self.add_record(record, template.as_ref(), documents)
                        .with_context(|| place.name(&source.path))?;
                }
                Ok(())
            }
        }
    }

    /// The template for conversations, or for prompts and completions of `format`; none where they are put together
    /// as they are.
    ///
    /// Errors: a template that does not exist or is not valid.
    pub fn template(&self, format: DataFormat) -> Result<Option<Template>> {
        let raw = match format {
            DataFormat::JsonlText | DataFormat::Text => return Ok(None),
            format => format == DataFormat::PromptCompletion,
        };
        let special = self.special_texts();
        let choice = &self.options.template;
        let built_in = match choice {
            TemplateChoice::BuiltIn(BuiltIn::None) | TemplateChoice::Auto if raw => {
                return Ok(None);
            }
            TemplateChoice::BuiltIn(template) => *template,
            TemplateChoice::File(path) => {
                let source = std::fs::read_to_string(path).with_context(|| {
                    let names = BuiltIn::ALL.map(BuiltIn::name).join(", ");
                    format!(
                        "--template: `{}` cannot be read; give a Jinja file, or one of auto, model, {names}",
                        path.display()
                    )
                })?;
                let name = path.display().to_string();
                let chat = ChatTemplate::new(&name, &source, special, TRAINING_DATE)?;
                return Ok(Some(Template { chat, source, needs_bos: false }));
            }
            TemplateChoice::Auto | TemplateChoice::Model => match self.chat_template {
                Some(source) => {
                    let chat = ChatTemplate::new("of the model", source, special, TRAINING_DATE)?;
                    let source = source.to_owned();
                    return Ok(Some(Template { chat, source, needs_bos: false }));
                }
                None if *choice == TemplateChoice::Model => bail!(
                    "--template model: the model's folder has no chat template (no chat_template.jinja, and \
                     no chat_template in tokenizer_config.json); choose another, such as chatml"
                ),
                None if format == DataFormat::Alpaca => BuiltIn::Alpaca,
                None => BuiltIn::Chatml,
            },
        };
        let chat = ChatTemplate::built_in(built_in, special)?;
        Ok(Some(Template { chat, source: built_in.name().to_owned(), needs_bos: true }))
    }

    /// The tokens of `talk` up to where the assistant speaks next.
    ///
    /// Errors: the template refuses the conversation; the text cannot be tokenized.
    pub fn prompt(&self, template: &Template, talk: &Conversation) -> Result<Vec<u32>> {
        let mut talk = talk.clone();
        template.fit(&mut talk);
        let text = template.chat.render(&talk, true)?;
        Ok(self.with_bos(self.encoder.encode(&text)?, template.needs_bos))
    }

    fn special_texts(&self) -> SpecialTexts {
        let text = |id: u32| self.encoder.token(id);
        SpecialTexts {
            bos: self.encoder.bos().and_then(text).unwrap_or_default(),
            ends: self.encoder.eos().iter().filter_map(|&id| text(id)).collect(),
        }
    }

    fn with_bos(&self, mut ids: Vec<u32>, needed: bool) -> Vec<u32> {
        if let Some(bos) = self.encoder.bos().filter(|bos| needed && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    fn add_windows(&self, ids: &[u32], documents: &mut Documents) -> Result<()> {
        let before = (documents.len(), documents.counts.dropped);
        for window in windows(ids, self.encoder.bos(), self.seq_len) {
            documents.push(&window, |_| true)?;
        }
        if before == (documents.len(), documents.counts.dropped) {
            documents.counts.dropped += 1;
        }
        Ok(())
    }

    fn add_record(
        &self,
        record: &Record,
        template: Option<&Template>,
        documents: &mut Documents,
    ) -> Result<()> {
        match (record, template) {
            (Record::Text(text), _) => {
                let mut ids = self.encoder.encode(text)?;
                if !ids.is_empty() {
                    ids.extend(self.encoder.eos().first());
                }
                self.add_windows(&ids, documents)
            }
            (Record::Completion { prompt, completion }, None) => {
                let text = format!("{prompt}{completion}");
                let learned = prompt.len()..text.len();
                self.add_spans(&text, std::slice::from_ref(&learned), true, documents)
            }
            (Record::Completion { prompt, completion }, Some(template)) => {
                let mut talk = Conversation::ask(prompt);
                let answer = serde_json::json!({ "role": "assistant", "content": completion });
                talk.messages.push(answer);
                self.add_chat(&talk, template, documents)
            }
            (Record::Chat(talk), Some(template)) => self.add_chat(talk, template, documents),
            (Record::Chat(_), None) => {
                bail!("a conversation needs a chat template; give --template")
            }
        }
    }

    fn add_chat(
        &self,
        talk: &Conversation,
        template: &Template,
        documents: &mut Documents,
    ) -> Result<()> {
        let mut talk = talk.clone();
        template.fit(&mut talk);
        if self.options.train_on == TrainOn::All {
            let text = template.chat.render(&talk, false)?;
            return self.add_spans(&text, &[], template.needs_bos, documents);
        }
        let rendered = template.chat.render_spans(&talk)?;
        self.add_spans(&rendered.text, &rendered.assistant, template.needs_bos, documents)
    }

    /// Adds a text of which `spans` are learned, or all. A token that reaches into a span from before it belongs to
    /// the span: without it, the span's beginning would never be predicted.
    fn add_spans(
        &self,
        text: &str,
        spans: &[Range<usize>],
        needs_bos: bool,
        documents: &mut Documents,
    ) -> Result<()> {
        let ids = self.encoder.encode(text)?;
        let token_at = |byte: usize| -> Result<usize> {
            if byte >= text.len() {
                return Ok(ids.len());
            }
            let before = text.get(..byte).context("a span ends within a character")?;
            let prefix = self.encoder.encode(before)?;
            Ok(prefix.iter().zip(&ids).take_while(|(a, b)| a == b).count())
        };
        let mut learned = vec![self.options.train_on == TrainOn::All; ids.len()];
        for span in spans {
            let (start, end) = (token_at(span.start)?, token_at(span.end)?);
            ensure!(start <= end, "the tokenizer gives a longer text fewer tokens");
            learned[start..end].fill(true);
        }
        // The last word of the assistant is followed by an end, which generation stops at.
        let last_is_learned = learned.last() == Some(&true);
        let tail = ids.iter().rev().zip(learned.iter().rev()).take_while(|(_, learned)| **learned);
        let ended = match self.options.train_on {
            TrainOn::All => ids.iter().rev().take(4).any(|id| self.encoder.eos().contains(id)),
            TrainOn::Completion => tail.map(|(id, _)| id).any(|id| self.encoder.eos().contains(id)),
        };
        let mut ids = ids;
        if let Some(&eos) = self.encoder.eos().first().filter(|_| last_is_learned && !ended) {
            ids.push(eos);
            learned.push(true);
        }
        let shift = ids.len();
        let ids = self.with_bos(ids, needs_bos);
        let shift = ids.len() - shift;
        documents.push(&ids, |i| i >= shift && learned[i - shift])
    }
}

/// A chat template, and whether the reader puts the token that begins a sequence before it.
#[derive(Debug)]
pub struct Template {
    /// The template.
    pub chat: ChatTemplate,
    /// Its text, or the name of one that is built in.
    pub source: String,
    /// Built-in templates leave the first token to the reader; others write it themselves.
    pub needs_bos: bool,
}

impl Template {
    fn fit(&self, talk: &mut Conversation) {
        if !self.chat.calls_tools() {
            write_calls(talk);
        }
    }
}

#[cfg(test)]
mod tests;
