//! Chat templates for models that bring none.

use super::SpecialTexts;
use crate::options::BuiltIn;
use serde_json::json;

/// The Jinja source of a built-in template, which names the model's special tokens itself: programs that read it beside the
/// saved model may know them by other settings, or not at all.
pub(super) fn source(template: BuiltIn, special: &SpecialTexts) -> String {
    let body = match template {
        BuiltIn::Alpaca => ALPACA,
        BuiltIn::Chatml => CHATML,
        BuiltIn::Llama2 => LLAMA2,
        BuiltIn::Llama3 => LLAMA3,
        BuiltIn::None => NONE,
    };
    let mut source = String::new();
    let end = special.ends.first().map_or("", String::as_str);
    for (name, text) in [("bos_token", special.bos.as_str()), ("eos_token", end)] {
        if body.contains(name) {
            source += &format!("{{%- set {name} = {} %}}\n", json!(text));
        }
    }
    if !special.before.is_empty() {
        source += &format!("{{{{- {} }}}}", json!(special.before));
    }
    source + body
}

/// The prompt of Stanford Alpaca; further turns follow under the same headings. A message may hold `instruction` and
/// `input` apart from `content`.
const ALPACA: &str = r#"
{%- if tools %}
    {{- raise_exception('it has no place for `tools`; give --template chatml, or take them out of the records') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- message.content + '\n\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '### Response:\n' + (message.content or '') + eos_token + '\n\n' }}
    {%- elif message.role == 'tool' %}
        {{- raise_exception('it has no place for answers of tools; give --template chatml') }}
    {%- else %}
        {%- if loop.first %}
            {%- if message.input %}
                {{- 'Below is an instruction that describes a task, paired with an input that provides further context. ' }}
            {%- else %}
                {{- 'Below is an instruction that describes a task. ' }}
            {%- endif %}
            {{- 'Write a response that appropriately completes the request.\n\n' }}
        {%- endif %}
        {%- if message.input %}
            {{- '### Instruction:\n' + message.instruction + '\n\n### Input:\n' + message.input + '\n\n' }}
        {%- else %}
            {{- '### Instruction:\n' + message.content + '\n\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '### Response:\n' }}
{%- endif %}"#;

/// Tools stand in the system's turn, calls and answers in the tags that ChatML models use for them.
const CHATML: &str = r#"
{%- set start = '' %}
{%- if messages and messages[0].role == 'system' %}
    {%- set start = messages[0].content %}
{%- endif %}
{%- if tools %}
    {{- '<|im_start|>system\n' + start + ('\n\n' if start else '') }}
    {{- 'You can call the functions that are described between <tools> and </tools>:\n<tools>\n' }}
    {%- for tool in tools %}
        {{- tool | tojson + '\n' }}
    {%- endfor %}
    {{- '</tools>\nTo call one, write its name and its arguments as a JSON object:\n' }}
    {{- '<tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>tool\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- elif not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function or call %}
            {{- '\n' if message.content or not loop.first }}
            {{- '<tool_call>\n{"name": ' + function.name | tojson + ', "arguments": ' }}
            {{- function.arguments | tojson + '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"#;

/// A system message stands within the first user's turn.
const LLAMA2: &str = r#"
{%- if tools %}
    {{- raise_exception('it has no place for `tools`; give --template chatml, or take them out of the records') }}
{%- endif %}
{%- set ns = namespace(system='', first=true) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = ns.system + ('\n\n' if ns.system else '') + message.content %}
    {%- elif message.role == 'assistant' %}
        {%- if ns.system %}
            {{- raise_exception('a system message has to stand before a turn of the user; give --template chatml') }}
        {%- endif %}
        {{- ' ' + (message.content or '').strip() + ' ' + eos_token }}
    {%- elif message.role == 'tool' %}
        {{- raise_exception('it has no place for answers of tools; give --template chatml') }}
    {%- else %}
        {%- if not ns.first %}
            {{- bos_token }}
        {%- endif %}
        {%- if ns.system %}
            {%- set ns.system = '<<SYS>>\n' + ns.system + '\n<</SYS>>\n\n' %}
        {%- endif %}
        {{- '[INST] ' + ns.system + message.content.strip() + ' [/INST]' }}
        {%- set ns.system = '' %}
        {%- set ns.first = false %}
    {%- endif %}
{%- endfor %}"#;

/// Tools stand in the system's turn; a call is the JSON that LLaMA 3.1 writes.
const LLAMA3: &str = r#"
{%- set start = '' %}
{%- if messages and messages[0].role == 'system' %}
    {%- set start = messages[0].content.strip() %}
{%- endif %}
{%- if tools %}
    {{- '<|start_header_id|>system<|end_header_id|>\n\n' + start + ('\n\n' if start else '') }}
    {{- 'You can call these functions:\n\n' }}
    {%- for tool in tools %}
        {{- tool | tojson + '\n\n' }}
    {%- endfor %}
    {{- 'To call one, answer with {"name": NAME, "parameters": ARGUMENTS} and nothing else.<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {%- set role = 'ipython' if message.role == 'tool' else message.role %}
        {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + (message.content or '').strip() }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function or call %}
            {{- '\n' if message.content or not loop.first }}
            {{- '{"name": ' + function.name | tojson + ', "parameters": ' + function.arguments | tojson + '}' }}
        {%- endfor %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"#;

const NONE: &str = r#"
{%- if tools %}
    {{- raise_exception('it has no place for `tools`; give --template chatml, or take them out of the records') }}
{%- endif %}
{%- for message in messages %}
    {{- (message.content or '') + (eos_token if message.role == 'assistant' else '\n') }}
{%- endfor %}"#;
