//! Conversations as text: Jinja chat templates, rendered as `transformers` renders them.

mod builtin;
mod marks;
mod python;
mod value;

use crate::error::{Context, Result, bail};
use crate::options::BuiltIn;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};
use serde_json::Value;
use std::ops::Range;

/// The date that `strftime_now` gives to templates in training, in seconds since 1970: 26 July 2024, which LLaMA 3's
/// own template falls back on. A run must not depend on the day on which it is resumed.
pub const TRAINING_DATE: u64 = 1_721_952_000;

/// The texts of special tokens that templates may write.
#[derive(Debug, Clone, Default)]
pub struct SpecialTexts {
    /// Begins a sequence; empty if the model has none.
    pub bos: String,
    /// End a turn or a sequence; templates get the first.
    pub ends: Vec<String>,
}

/// Turns of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// Objects with `role` and `content`, and whatever else a template may read.
    pub messages: Vec<Value>,
    /// Tools that the assistant may call, a list.
    pub tools: Option<Value>,
}

impl Conversation {
    /// The turn of a user, alone.
    pub fn ask(text: &str) -> Self {
        let message = serde_json::json!({ "role": "user", "content": text });
        Self { messages: vec![message], tools: None }
    }
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What the assistant says, with the token that ends each turn: byte ranges of the text, rising.
    pub assistant: Vec<Range<usize>>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    name: String,
    special: SpecialTexts,
    marked: bool,
    calls_tools: bool,
}

const TEMPLATE: &str = "chat";

impl ChatTemplate {
    /// Compiles `source`; `name` is what errors call it. `now` is the time for `strftime_now`, in seconds since
    /// 1970; see [`TRAINING_DATE`].
    ///
    /// Errors: the source is not a valid template.
    pub fn new(name: &str, source: &str, special: SpecialTexts, now: u64) -> Result<Self> {
        let mut env = Environment::new();
        env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_filter("tojson", python::to_json);
        env.add_function("raise_exception", python::raise_exception);
        env.add_function("strftime_now", move |format: &str| python::strftime(now, format));
        let (source, marked) = marks::with_marks(source);
        let calls_tools = source.contains("tool_calls");
        env.add_template_owned(TEMPLATE, source)
            .with_context(|| format!("chat template {name}: is not valid Jinja"))?;
        Ok(Self { env, name: name.to_string(), special, marked, calls_tools })
    }

    /// One of the templates that are built in.
    ///
    /// Errors: none that a built-in template should cause.
    pub fn built_in(template: BuiltIn, special: SpecialTexts) -> Result<Self> {
        Self::new(template.name(), builtin::source(template), special, TRAINING_DATE)
    }

    /// Whether the template knows of calls to tools.
    pub fn calls_tools(&self) -> bool {
        self.calls_tools
    }

    /// The conversation as text; with `add_generation_prompt`, up to where the assistant speaks next.
    ///
    /// Errors: the template refuses the conversation, or fails.
    pub fn render(&self, talk: &Conversation, add_generation_prompt: bool) -> Result<String> {
        let text = self.raw(&talk.messages, talk.tools.as_ref(), add_generation_prompt)?;
        Ok(marks::take_marks(&text).0)
    }

    /// The conversation as text, and where the assistant speaks in it.
    ///
    /// A template with `{% generation %}` blocks says so itself. With others the conversation is rendered up to
    /// before and up to after each of the assistant's turns, and these texts must be beginnings of the whole.
    ///
    /// Errors: those of [`ChatTemplate::render`]; a template that writes earlier turns differently when later ones
    /// follow.
    pub fn render_spans(&self, talk: &Conversation) -> Result<Rendered> {
        let messages = &talk.messages;
        let tools = talk.tools.as_ref();
        let whole = self.raw(messages, tools, false)?;
        if self.marked {
            let (text, assistant) = marks::take_marks(&whole);
            return Ok(Rendered { text, assistant });
        }
        let mut assistant = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if message.get("role").and_then(Value::as_str) != Some("assistant") {
                continue;
            }
            let before = match i {
                0 => String::new(),
                _ => self.raw(&messages[..i], tools, false)?,
            };
            let prompt = match self.raw(&messages[..i], tools, true) {
                // Most templates cannot render a conversation without any turn.
                Err(_) if i == 0 => String::new(),
                prompt => prompt?,
            };
            let after = self.raw(&messages[..=i], tools, false)?;
            if !(whole.starts_with(&before) && whole.starts_with(&after)) {
                bail!(
                    "chat template {}: it writes turn {} differently when more turns follow, so the assistant's \
                     words cannot be told from the rest; choose another with --template (such as chatml), mark \
                     them in the template with {{% generation %}}, or give --train-on all",
                    self.name,
                    i + 1
                );
            }
            // A turn may begin otherwise than the prompt for one, as where the prompt skips over thoughts.
            let start = common_prefix(&prompt, &whole).max(before.len());
            let end = self.end_of_turn(&whole, start..after.len());
            if start < end {
                assistant.push(start..end);
            }
        }
        Ok(Rendered { text: whole, assistant })
    }

    /// The end of a turn: after the token that ends it, if only white space follows that.
    fn end_of_turn(&self, text: &str, turn: Range<usize>) -> usize {
        let said = text.get(turn.clone()).unwrap_or_default().trim_end();
        let ended = self.special.ends.iter().any(|end| !end.is_empty() && said.ends_with(end));
        if ended { turn.start + said.len() } else { turn.end }
    }

    fn raw(&self, messages: &[Value], tools: Option<&Value>, prompt: bool) -> Result<String> {
        let template = self.env.get_template(TEMPLATE)?;
        let messages: Vec<_> = messages.iter().map(value::from_json).collect();
        let eos = self.special.ends.first().cloned().unwrap_or_default();
        template
            .render(context! {
                messages,
                tools => tools.map(value::from_json),
                documents => (),
                add_generation_prompt => prompt,
                bos_token => self.special.bos.clone(),
                eos_token => eos,
            })
            .with_context(|| format!("chat template {}: cannot render the conversation", self.name))
    }
}

/// Bytes that both begin with, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn special() -> SpecialTexts {
        SpecialTexts { bos: "<s>".into(), ends: vec!["</s>".into()] }
    }

    fn talk() -> Conversation {
        let messages = vec![
            json!({"role": "system", "content": "Be kind."}),
            json!({"role": "user", "content": "Hi"}),
            json!({"role": "assistant", "content": "Hello"}),
            json!({"role": "user", "content": "Who?"}),
            json!({"role": "assistant", "content": "Me"}),
        ];
        Conversation { messages, tools: None }
    }

    fn spans(template: &ChatTemplate) -> Vec<String> {
        let Rendered { text, assistant } = template.render_spans(&talk()).unwrap();
        assistant.into_iter().map(|range| text[range].to_string()).collect()
    }

    #[test]
    fn built_in_templates_render_and_tell_the_assistant() {
        for (template, text, said) in [
            (
                BuiltIn::Alpaca,
                "Be kind.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n\
                 ### Instruction:\nWho?\n\n### Response:\nMe</s>\n\n",
                ["Hello</s>", "Me</s>"],
            ),
            (
                BuiltIn::Chatml,
                "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
                 <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n\
                 <|im_start|>assistant\nMe<|im_end|>\n",
                ["Hello<|im_end|>\n", "Me<|im_end|>\n"],
            ),
            (
                BuiltIn::Llama2,
                "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s>\
                 <s>[INST] Who? [/INST] Me </s>",
                [" Hello </s>", " Me </s>"],
            ),
            (
                BuiltIn::Llama3,
                "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nMe<|eot_id|>",
                ["Hello<|eot_id|>", "Me<|eot_id|>"],
            ),
            (BuiltIn::None, "Be kind.\nHi\nHello</s>Who?\nMe</s>", ["Hello</s>", "Me</s>"]),
        ] {
            let template = ChatTemplate::built_in(template, special()).unwrap();
            assert_eq!(template.render(&talk(), false).unwrap(), text);
            assert_eq!(spans(&template), said, "{}", template.name);
        }
    }

    #[test]
    fn alpaca_keeps_instruction_and_input_apart() {
        let messages = vec![
            json!({"role": "user", "content": "Add\n1 2", "instruction": "Add", "input": "1 2"}),
            json!({"role": "assistant", "content": "3"}),
        ];
        let template = ChatTemplate::built_in(BuiltIn::Alpaca, special()).unwrap();
        let text = template.render(&Conversation { messages, tools: None }, false).unwrap();
        assert_eq!(
            text,
            "Below is an instruction that describes a task, paired with an input that provides further context. \
             Write a response that appropriately completes the request.\n\n### Instruction:\nAdd\n\n\
             ### Input:\n1 2\n\n### Response:\n3</s>\n\n"
        );
    }

    #[test]
    fn generation_blocks_mark_the_assistant() {
        let source = "{%- for m in messages %}\n{%- if m.role == 'assistant' %}\n  {% generation %}\n\
                      {{- m.content }}!{% endgeneration %}\n{%- else %}\n{{- '[' + m.content + ']' }}\n\
                      {%- endif %}\n{%- endfor %}";
        let template = ChatTemplate::new("t", source, special(), 0).unwrap();
        assert_eq!(spans(&template), ["Hello!", "Me!"]);
        assert_eq!(template.render(&talk(), false).unwrap(), "[Be kind.][Hi]Hello![Who?]Me!");
    }

    #[test]
    fn templates_that_forget_are_refused() {
        let source =
            "{% for m in messages %}{% if loop.last %}LAST {% endif %}{{ m.content }}{% endfor %}";
        let template = ChatTemplate::new("t", source, special(), 0).unwrap();
        let error = template.render_spans(&talk()).unwrap_err().to_string();
        assert!(error.contains("--train-on all") && error.contains("{% generation %}"), "{error}");
    }

    #[test]
    fn wrong_templates_end_in_errors() {
        for (source, told) in [
            ("{% if %}", "not valid Jinja"),
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{{ nothing.field.deeper }}", "cannot render"),
        ] {
            let result = ChatTemplate::new("t", source, special(), 0)
                .and_then(|template| template.render(&talk(), false));
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(told), "{error}");
        }
    }
}
