//! Conversations in templates that are in use.

use super::template::check_template;
use super::{RENDERING, Target};
use qft_train::chat::{ChatTemplate, Conversation, SpecialTexts, TRAINING_DATE};
use qft_train::data::Record;
use qft_train::data::records::detect;
use qft_train::options::BuiltIn;
use std::sync::OnceLock;

/// A record, rendered by all built-in templates and by one that reads all that a message may hold.
pub const CONVERSATION: Target =
    Target { name: "conversation", run: render, base_bytes: RENDERING };

/// In the manner of LLaMA 3.1's own.
const WITH_TOOLS: &str = "{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- date_string + system_message }}
{%- if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}{% endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{ raise_exception('one call at a time') }}{% endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{\"name\": \"' + tool_call.name + '\", \"parameters\": ' + (tool_call.arguments | tojson) + '}' }}
    {%- elif message.role == 'tool' or message.role == 'ipython' %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- else %}
        {{- '<|' + message['role'] + '|>' + message['content'].strip().split('</think>')[-1] + '<|eot|>' }}
    {%- endif %}
{%- endfor %}";

fn templates() -> &'static [ChatTemplate] {
    static TEMPLATES: OnceLock<Vec<ChatTemplate>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let special = SpecialTexts {
            before: "<s>".into(),
            bos: "<s>".into(),
            ends: vec!["</s>".into()],
            ..SpecialTexts::default()
        };
        let built_in = |template| ChatTemplate::built_in(template, special.clone());
        let with_tools =
            ChatTemplate::new("with tools", WITH_TOOLS, special.clone(), TRAINING_DATE);
        let all = BuiltIn::ALL.into_iter().map(built_in).chain([with_tools]);
        all.collect::<Result<_, _>>().expect("templates that are in use")
    })
}

fn render(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let Ok(format) = detect(&value) else { return };
    let Ok(Record::Chat(talk)) = Record::from_json(value, format) else { return };
    let Conversation { messages, .. } = &talk;
    assert!(!messages.is_empty(), "a conversation has turns");
    for template in templates() {
        check_template(template, &talk);
    }
}
