//! The chat template that a file's conversations are written with.

use super::records::write_calls;
use crate::chat::{ChatTemplate, Conversation, Rendered, SpecialTexts, TRAINING_DATE};
use crate::error::{Context, Result, bail};
use crate::options::{BuiltIn, DataFormat, TemplateChoice, TrainOn};

/// The token by which a vocabulary shows that it knows ChatML.
const CHATML_MARK: &str = "<|im_end|>";

/// A chat template, and what belongs to it.
#[derive(Debug)]
pub struct Template {
    /// The template.
    chat: ChatTemplate,
    /// Another one for conversations with tools.
    with_tools: Option<ChatTemplate>,
}

/// A model's own templates.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelTemplates<'a> {
    /// For all conversations.
    pub default: Option<&'a str>,
    /// For those with tools, if that is another.
    pub with_tools: Option<&'a str>,
}

impl Template {
    /// The template that is asked for, for conversations or for prompts and completions of `format`; none where they
    /// are put together as they are. `is_token` says whether a text is one token.
    ///
    /// Errors: a template that does not exist or is not valid.
    pub(super) fn choose(
        choice: &TemplateChoice,
        format: DataFormat,
        own: ModelTemplates<'_>,
        special: SpecialTexts,
        is_token: impl Fn(&str) -> Result<bool>,
    ) -> Result<Option<Self>> {
        let raw = match format {
            DataFormat::JsonlText | DataFormat::Text => return Ok(None),
            format => format == DataFormat::PromptCompletion,
        };
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
                let own = ModelTemplates { default: Some(&source), with_tools: None };
                return Self::written(&path.display().to_string(), own, special);
            }
            TemplateChoice::Auto | TemplateChoice::Model if own.default.is_some() => {
                return Self::written("of the model", own, special);
            }
            TemplateChoice::Model => bail!(
                "--template model: the model's folder has no chat template (no chat_template.jinja, and \
                 no chat_template in tokenizer_config.json); choose another, such as chatml"
            ),
            TemplateChoice::Auto if format == DataFormat::Alpaca => BuiltIn::Alpaca,
            TemplateChoice::Auto if is_token(CHATML_MARK)? => BuiltIn::Chatml,
            // Its turns end in the model's own end token.
            TemplateChoice::Auto => BuiltIn::Alpaca,
        };
        let chat = ChatTemplate::built_in(built_in, special)?;
        Ok(Some(Self { chat, with_tools: None }))
    }

    fn written(name: &str, own: ModelTemplates<'_>, special: SpecialTexts) -> Result<Option<Self>> {
        let Some(source) = own.default else { return Ok(None) };
        let with_tools = own.with_tools.map(|source| {
            ChatTemplate::new(&format!("{name} for tools"), source, special.clone(), TRAINING_DATE)
        });
        Ok(Some(Self {
            with_tools: with_tools.transpose()?,
            chat: ChatTemplate::new(name, source, special, TRAINING_DATE)?,
        }))
    }

    /// Its Jinja source.
    pub fn source(&self) -> &str {
        self.chat.source()
    }

    /// What is written behind what the assistant says, as [`ChatTemplate::behind_answers`] has it.
    pub(super) fn behind_answers(&self) -> String {
        self.chat.behind_answers()
    }

    /// The samples that a conversation becomes.
    ///
    /// Errors: the template refuses it, or fails.
    pub(super) fn samples(&self, talk: &Conversation, train_on: TrainOn) -> Result<Vec<Rendered>> {
        let (chat, talk) = self.fit(talk);
        chat.samples(&talk, train_on)
    }

    /// The text of a conversation up to where the assistant speaks next.
    ///
    /// Errors: the template refuses it, or fails.
    pub(super) fn prompt(&self, talk: &Conversation) -> Result<String> {
        let (chat, talk) = self.fit(talk);
        chat.render(&talk, true)
    }

    /// Whether the tools of a conversation are written.
    pub(super) fn shows_tools(&self, talk: &Conversation) -> bool {
        talk.tools.is_none() || self.chat_for(talk).writes_tools()
    }

    /// Whether the thoughts of a conversation are written.
    pub(super) fn shows_thoughts(&self, talk: &Conversation) -> bool {
        self.chat_for(talk).writes_thoughts(talk)
    }

    fn chat_for(&self, talk: &Conversation) -> &ChatTemplate {
        self.with_tools.as_ref().filter(|_| talk.tools.is_some()).unwrap_or(&self.chat)
    }

    /// The template for a conversation, and the conversation as it can write it.
    fn fit(&self, talk: &Conversation) -> (&ChatTemplate, Conversation) {
        let chat = self.chat_for(talk);
        let mut talk = talk.clone();
        if !chat.calls_tools() {
            write_calls(&mut talk);
        }
        (chat, talk)
    }
}
