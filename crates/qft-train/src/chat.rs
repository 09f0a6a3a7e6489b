//! Conversations as text: Jinja chat templates, rendered as `transformers` renders them.

mod builtin;
mod fuel;
mod guard;
mod marks;
mod methods;
mod python;
mod value;

use crate::error::{Context, Error, Result, bail, ensure};
use crate::options::BuiltIn;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

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
    template: Arc<Template>,
    /// Built-in templates are known to end soon.
    built_in: bool,
}

#[derive(Debug)]
struct Template {
    env: Environment<'static>,
    name: String,
    special: SpecialTexts,
    marked: bool,
    calls_tools: bool,
}

const TEMPLATE: &str = "chat";

/// The longest source that is read: ten times that of any template in use.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Stack for each byte of a source that is compiled: more than twice what `{{ -----1 }}` takes.
const STACK_PER_SOURCE_BYTE: usize = 1 << 10;

impl ChatTemplate {
    /// Compiles `source`; `name` is what errors call it. `now` is the time for `strftime_now`, in seconds since
    /// 1970; see [`TRAINING_DATE`].
    ///
    /// Errors: the source is not a valid template.
    pub fn new(name: &str, source: &str, special: SpecialTexts, now: u64) -> Result<Self> {
        ensure!(
            source.len() <= MAX_SOURCE_BYTES,
            "chat template {name}: has {} bytes, at most {MAX_SOURCE_BYTES} are read; choose another with --template",
            source.len()
        );
        let (source, marked) = marks::with_marks(source);
        let calls_tools = source.contains("tool_calls");
        let job = (name.to_string(), source);
        // Each character may be a level of the parser's recursion.
        let stack = job.1.len() * STACK_PER_SOURCE_BYTE;
        let env = fuel::run(name, stack, move || compile(&job.0, job.1, now))?;
        let template = Template { env, name: name.to_string(), special, marked, calls_tools };
        Ok(Self { template: Arc::new(template), built_in: false })
    }

    /// One of the templates that are built in.
    ///
    /// Errors: none that a built-in template should cause.
    pub fn built_in(template: BuiltIn, special: SpecialTexts) -> Result<Self> {
        let source = builtin::source(template);
        let template = Self::new(template.name(), source, special, TRAINING_DATE)?;
        Ok(Self { built_in: true, ..template })
    }

    /// Whether the template knows of calls to tools.
    pub fn calls_tools(&self) -> bool {
        self.template.calls_tools
    }

    /// The conversation as text; with `add_generation_prompt`, up to where the assistant speaks next.
    ///
    /// Errors: the template refuses the conversation, fails, or takes more than a conversation of this length may.
    pub fn render(&self, talk: &Conversation, add_generation_prompt: bool) -> Result<String> {
        self.run(talk, move |template, env, talk| {
            let tools = talk.tools.as_ref();
            let text = template.raw(env, &talk.messages, tools, add_generation_prompt)?;
            Ok(marks::take_marks(&text).0)
        })
    }

    /// The conversation as text, and where the assistant speaks in it.
    ///
    /// A template with `{% generation %}` blocks says so itself. With others the conversation is rendered up to
    /// before and up to after each of the assistant's turns, and these texts must be beginnings of the whole.
    ///
    /// Errors: those of [`ChatTemplate::render`]; a template that writes earlier turns differently when later ones
    /// follow.
    pub fn render_spans(&self, talk: &Conversation) -> Result<Rendered> {
        self.run(talk, Template::spans)
    }

    /// Does `work` with what renderings of a conversation need.
    fn run<T: Send + 'static>(
        &self,
        talk: &Conversation,
        work: impl FnOnce(&Template, &Environment<'_>, &Conversation) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let fuel = fuel::of(talk);
        let template = &self.template;
        if self.built_in {
            return work(template, &fuel::fill(&template.env, fuel), talk);
        }
        let (template, talk) = (Arc::clone(template), talk.clone());
        fuel::run(&self.template.name, fuel::stack(fuel), move || {
            work(&template, &fuel::fill(&template.env, fuel), &talk)
        })
    }
}

impl Template {
    fn spans(&self, env: &Environment<'_>, talk: &Conversation) -> Result<Rendered> {
        let messages = &talk.messages;
        let tools = talk.tools.as_ref();
        let whole = self.raw(env, messages, tools, false)?;
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
                _ => self.raw(env, &messages[..i], tools, false)?,
            };
            let prompt = match self.raw(env, &messages[..i], tools, true) {
                // Most templates cannot render a conversation without any turn.
                Err(_) if i == 0 => String::new(),
                prompt => prompt?,
            };
            let after = self.raw(env, &messages[..=i], tools, false)?;
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

    fn raw(
        &self,
        env: &Environment<'_>,
        messages: &[Value],
        tools: Option<&Value>,
        prompt: bool,
    ) -> Result<String> {
        let template = env.get_template(TEMPLATE)?;
        let messages: Vec<_> = messages.iter().map(value::from_json).collect();
        let eos = self.special.ends.first().cloned().unwrap_or_default();
        let rendered = template.render(context! {
            messages,
            tools => tools.map(value::from_json),
            documents => (),
            add_generation_prompt => prompt,
            bos_token => self.special.bos.clone(),
            eos_token => eos,
        });
        rendered.map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel => fuel::too_long(&self.name, Some(error)),
            _ => Error::from(error)
                .context(format!("chat template {}: cannot render the conversation", self.name)),
        })
    }
}

fn compile(name: &str, source: String, now: u64) -> Result<Environment<'static>> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    guard::install(&mut env);
    env.set_unknown_method_callback(methods::call);
    env.add_filter("tojson", python::to_json);
    env.add_function("raise_exception", python::raise_exception);
    env.add_function("strftime_now", move |format: &str| python::strftime(now, format));
    env.set_fuel(Some(fuel::of(&Conversation::default())));
    env.add_template_owned(TEMPLATE, source)
        .with_context(|| format!("chat template {name}: is not valid Jinja"))?;
    Ok(env)
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
            assert_eq!(spans(&template), said, "{}", template.template.name);
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
            (&" ".repeat(300_000), "has 300000 bytes"),
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{{ nothing.field.deeper }}", "cannot render"),
        ] {
            let result = ChatTemplate::new("t", source, special(), 0)
                .and_then(|template| template.render(&talk(), false));
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(told), "{error}");
        }
    }
    #[test]
    fn templates_that_never_end_or_fill_the_memory_are_refused() {
        let nested = "{% for a in r %}{% for b in r %}{% for c in r %}{{ a }}{% endfor %}{% endfor %}{% endfor %}";
        let list = "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
        for source in [
            format!("{{% set r = range(100000) %}}{nested}"),
            "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}\
             {% endfor %}{{ ns.x }}"
                .into(),
            "{{ 'x' * 100000000000 }}".into(),
            "{{ 'a\nb'|indent(100000000000) }}".into(),
            "{{ '%1000000000000d'|format(1) }}".into(),
            "{{ '{:>1000000000000}'.format(1) }}".into(),
            "{{ ([0] * 1000000000000)|list }}".into(),
            "{{ ([0] * 1000000000000)|tojson }}".into(),
            "{{ ([0] * 1000000000000)|join(',') }}".into(),
            format!("{list}{{{{ ns.x|tojson }}}}"),
            format!("{list}{{{{ ns.x }}}}"),
            "{{ ''.join([0] * 1000000000000) }}".into(),
            "{{ ([0] * 1000000000000).count(1) }}".into(),
            format!("{list}{{{{ '{{{{}}}}'.format(ns.x) }}}}"),
            format!("{list}{{{{ ''.join(ns.x) }}}}"),
            format!("{list}{{{{ ns.x ~ 'a' }}}}"),
            format!("{list}{{{{ ns.x|string }}}}"),
            format!("{list}{{{{ ns.x|join }}}}"),
            format!("{list}{{{{ ns.x|pprint }}}}"),
            format!("{list}{{{{ ns.x|urlencode }}}}"),
            format!("{list}{{{{ raise_exception(ns.x|string) }}}}"),
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}".into(),
        ] {
            let template = ChatTemplate::new("t.jinja", &source, special(), 0).unwrap();
            let error = template.render(&talk(), false).map(|text| text.len()).expect_err(&source);
            let error = format!("{error:#}");
            assert!(error.starts_with("chat template t.jinja: "), "{source}: {error}");
        }
        let endless =
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let template = ChatTemplate::new("t.jinja", endless, special(), 0).unwrap();
        let error = template.render(&talk(), false).unwrap_err().to_string();
        assert!(error.contains("takes too long") && error.contains("--template"), "{error}");
    }

    #[test]
    fn values_that_a_template_nests_deeply_are_no_danger() {
        for (start, step, end) in [
            ("[]", "[ns.x]", ""),
            ("[]", "[ns.x]", "{{ ns.x }}"),
            ("[]", "[ns.x]", "{{ ns.x|tojson }}"),
            ("[]", "[ns.x]", "{{ ns.x == [ns.x] }}"),
            ("[]", "{'a': ns.x}", ""),
            ("[]", "(ns.x, 1)", ""),
            ("[]", "namespace(x=ns.x)", ""),
            ("[1]", "ns.x|reverse", "{{ ns.x|list }}"),
            ("[1]", "ns.x|batch(1)", "{{ ns.x|list }}"),
            ("[1]", "ns.x * 1", "{{ ns.x|list }}"),
            ("{'a': 1}", "ns.x.items()", ""),
        ] {
            let source = format!(
                "{{% set ns = namespace(x={start}) %}}{{% for i in range(99999) %}}{{% set ns.x = {step} %}}\
                 {{% endfor %}}{end}"
            );
            let template = ChatTemplate::new("t.jinja", &source, special(), 0).unwrap();
            // The process still lives.
            let _ = template.render(&talk(), false);
        }
        for part in
            ["[", "(", "-", "not ", "1+", "a.", "a if b else ", "{% if true %}", "{% elif a %}"]
        {
            for source in ["{{ ", "{% if a %}"].map(|start| start.to_string() + &part.repeat(5000))
            {
                let _ = ChatTemplate::new("t.jinja", &source, special(), 0);
                let _ = ChatTemplate::new("t.jinja", &format!("{source}a }}}}"), special(), 0);
            }
        }
    }

    #[test]
    fn a_single_step_that_never_ends_ends_by_the_clock() {
        let source = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}\
                      {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}";
        let template = ChatTemplate::new("t.jinja", source, special(), 0).unwrap();
        let error = template.render(&talk(), false).unwrap_err().to_string();
        assert!(error.contains("t.jinja: takes too long"), "{error}");
    }

    #[test]
    fn long_conversations_are_rendered() {
        let turn = |i: usize| {
            let role = if i.is_multiple_of(2) { "user" } else { "assistant" };
            json!({"role": role, "content": if i == 0 { "x".repeat(3 << 20) } else { "Yes".into() }})
        };
        for count in [1, 20_000] {
            let talk = Conversation { messages: (0..count).map(turn).collect(), tools: None };
            for template in BuiltIn::ALL {
                let template = ChatTemplate::built_in(template, special()).unwrap();
                assert!(template.render(&talk, false).unwrap().len() > 3 << 20);
            }
        }
    }
}
