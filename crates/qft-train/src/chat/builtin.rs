//! Chat templates for models that bring none. The token that begins a sequence is put before them by the reader.

use crate::options::BuiltIn;

/// The Jinja source of a built-in template.
pub(super) fn source(template: BuiltIn) -> &'static str {
    match template {
        BuiltIn::Alpaca => ALPACA,
        BuiltIn::Chatml => CHATML,
        BuiltIn::Llama2 => LLAMA2,
        BuiltIn::Llama3 => LLAMA3,
        BuiltIn::None => NONE,
    }
}

/// The prompt of Stanford Alpaca; further turns follow under the same headings. A message may hold `instruction` and
/// `input` apart from `content`.
const ALPACA: &str = r#"
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- message.content + '\n\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '### Response:\n' + message.content + eos_token + '\n\n' }}
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

const CHATML: &str = r#"
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"#;

/// A system message stands within the first user's turn.
const LLAMA2: &str = r#"
{%- set ns = namespace(system='', first=true) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = '<<SYS>>\n' + message.content + '\n<</SYS>>\n\n' %}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content.strip() + ' ' + eos_token }}
    {%- else %}
        {%- if not ns.first %}
            {{- bos_token }}
        {%- endif %}
        {{- '[INST] ' + ns.system + message.content.strip() + ' [/INST]' }}
        {%- set ns.system = '' %}
        {%- set ns.first = false %}
    {%- endif %}
{%- endfor %}"#;

const LLAMA3: &str = r#"
{%- for message in messages %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + message.content.strip() + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"#;

const NONE: &str = r#"
{%- for message in messages %}
    {{- message.content + (eos_token if message.role == 'assistant' else '\n') }}
{%- endfor %}"#;
