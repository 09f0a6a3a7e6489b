//! Built-in and small templates, and where the assistant speaks in them.

use super::*;
use serde_json::json;

fn special() -> SpecialTexts {
    SpecialTexts { bos: "<s>".into(), ends: vec!["</s>".into()], ..SpecialTexts::default() }
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

fn samples(template: &ChatTemplate, talk: &Conversation, train_on: TrainOn) -> Vec<Vec<String>> {
    let samples = template.samples(talk, train_on).unwrap();
    let learned = |Rendered { text, learned }: Rendered| {
        learned.into_iter().map(|range| text[range].to_string()).collect()
    };
    samples.into_iter().map(learned).collect()
}

fn spans(template: &ChatTemplate) -> Vec<String> {
    samples(template, &talk(), TrainOn::Completion).concat()
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
fn an_assistant_that_begins_says_its_own_words() {
    let source = "{% if messages[0].role != 'system' %}[system]Be good.[end]{% endif %}\
                  {% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}\
                  {% if add_generation_prompt %}[assistant]{% endif %}";
    let messages = [("assistant", "Welcome"), ("user", "Hi"), ("assistant", "Hello")];
    let messages = messages.map(|(role, content)| json!({"role": role, "content": content})).into();
    let talk = Conversation { messages, tools: None };
    // And one that cannot be asked before anything was said.
    let strict = source.replace(
        "{% if messages[0]",
        "{% if not messages %}{{ raise_exception('nothing') }}{% endif %}{% if messages[0]",
    );
    for source in [source, &strict] {
        let template = ChatTemplate::new("t.jinja", source, special(), 0).unwrap();
        let said = samples(&template, &talk, TrainOn::Completion).concat();
        assert_eq!(said, ["Welcome</s>", "Hello</s>"]);
        let said = samples(&template, &talk, TrainOn::Turns).concat();
        assert_eq!(said, ["Welcome</s>", "Hello</s>"]);
    }
}

#[test]
fn llama2_leaves_no_system_message_out() {
    let template = ChatTemplate::built_in(BuiltIn::Llama2, special()).unwrap();
    let talk = |said: &[(&str, &str)]| {
        let message = |&(role, content): &(&str, &str)| json!({"role": role, "content": content});
        Conversation { messages: said.iter().map(message).collect(), tools: None }
    };
    let both = talk(&[("system", "A"), ("system", "B"), ("user", "Hi")]);
    let text = template.render(&both, false).unwrap();
    assert_eq!(text, "[INST] <<SYS>>\nA\n\nB\n<</SYS>>\n\nHi [/INST]");
    let late = talk(&[("user", "Hi"), ("assistant", "a"), ("system", "B"), ("assistant", "b")]);
    let told = format!("{:#}", template.render(&late, false).unwrap_err());
    assert!(told.contains("before a turn of the user"), "{told}");
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
    let error = template.samples(&talk(), TrainOn::Completion).unwrap_err().to_string();
    assert!(error.contains("--train-on turns") && error.contains("{% generation %}"), "{error}");
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
        format!("{list}{{{{ '{{}}'.format(ns.x) }}}}"),
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
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new("t.jinja", endless, special(), 0).unwrap();
    let error = template.render(&talk(), false).unwrap_err().to_string();
    assert!(error.contains("takes too long") && error.contains("--template"), "{error}");
}

/// Does `work` on a thread that renders elsewhere, and on one that has the stack for it.
fn on_both_threads(work: impl Fn() + Sync) {
    work();
    std::thread::scope(|scope| spawn(scope, &work).unwrap().join().unwrap());
}

#[test]
fn values_that_a_template_nests_deeply_are_no_danger() {
    on_both_threads(nest_deeply);
}

fn nest_deeply() {
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
    for part in ["[", "(", "-", "not ", "1+", "a.", "a if b else ", "{% if true %}", "{% elif a %}"]
    {
        for source in ["{{ ", "{% if a %}"].map(|start| start.to_string() + &part.repeat(5000)) {
            let _ = ChatTemplate::new("t.jinja", &source, special(), 0);
            let _ = ChatTemplate::new("t.jinja", &format!("{source}a }}}}"), special(), 0);
        }
    }
}

#[test]
fn comparing_lists_that_hold_themselves_twice_ends() {
    let source = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}\
                  {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}";
    let template = ChatTemplate::new("t.jinja", source, special(), 0).unwrap();
    let error = template.render(&talk(), false).unwrap_err().to_string();
    assert!(error.contains("t.jinja: takes too long"), "{error}");
}

#[test]
fn renderings_of_many_turns_end() {
    let source =
        "{% for i in range(90000) %}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new("t.jinja", source, special(), 0).unwrap();
    let turn = |i: usize| {
        let role = ["user", "assistant"][i % 2];
        json!({"role": role, "content": "x"})
    };
    let talk = Conversation { messages: (0..10_000).map(turn).collect(), tools: None };
    on_both_threads(|| {
        let error = template.samples(&talk, TrainOn::Completion).unwrap_err().to_string();
        assert!(error.contains("t.jinja: takes too long"), "{error}");
    });
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

/// A template of turns as `<role>content</s>`, with `end` after all of them.
fn turns(end: &str) -> ChatTemplate {
    let source = format!(
        "{{%- for m in messages %}}{{{{- '<' + m.role + '>' + m.content + '</s>\\n' }}}}{{%- endfor %}}{end}"
    );
    ChatTemplate::new("t", &source, special(), 0).unwrap()
}

#[test]
fn what_follows_every_conversation_is_no_part_of_a_turn() {
    for end in [
        "{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}",
        // An end of the whole, which asks for no prompt.
        "{%- if add_generation_prompt %}{{- '<assistant>' }}{%- else %}{{- eos_token }}{%- endif %}",
        // The prompt all the same, or the first part of it.
        "{{- '<assistant>' }}",
        "{{- '<assistant>' }}{%- if add_generation_prompt %}{{- '<thought>' }}{%- endif %}",
    ] {
        let template = turns(end);
        let said = samples(&template, &talk(), TrainOn::Turns);
        let all = spans(&template);
        assert_eq!((all.len(), said.len()), (2, 2), "{end}");
        for (turn, said) in
            [("Hello</s>", 0), ("Me</s>", 1)].map(|(turn, i)| (turn, [&all[i], &said[i][0]]))
        {
            for said in said {
                assert_eq!(said.trim_end(), turn, "{end}");
            }
        }
    }
    // Without a token that ends the turns, the one at the end of the whole is learned.
    let source = "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}:{% else %}{{ eos_token }}{% endif %}";
    let template = ChatTemplate::new("t", source, special(), 0).unwrap();
    assert_eq!(spans(&template).last().unwrap(), "Me\n</s>");
}

/// As Qwen3's: thoughts before the last question are dropped, and the last turn always has one.
const FORGETFUL: &str = "{%- set ns = namespace(last=0) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
    {{- '<' + m.role + '>' }}
    {%- if m.role == 'assistant' and loop.index0 > ns.last %}{{- '<think>' + (m.reasoning_content or '') + '</think>' }}{%- endif %}
    {{- m.content + '</s>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<assistant>' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think></think>' }}{%- endif %}
{%- endif %}";

#[test]
fn forgetful_templates_are_learned_turn_by_turn() {
    let template = ChatTemplate::new("t", FORGETFUL, special(), 0).unwrap();
    let mut talk = talk();
    talk.messages[4]["thinking"] = "Hm".into();
    let rendered = template.samples(&talk, TrainOn::Turns).unwrap();
    for (sample, messages) in rendered.iter().zip([2, 4]) {
        let before = Conversation { messages: talk.messages[..messages].to_vec(), tools: None };
        let prompt = template.render(&before, true).unwrap();
        assert!(sample.text.starts_with(&prompt), "{prompt} in {}", sample.text);
    }
    // A thought that the prompt would have written is not learned, one that the assistant had is.
    let said = samples(&template, &talk, TrainOn::Turns);
    assert_eq!(said, [["Hello</s>"], ["<think>Hm</think>Me</s>"]]);
    assert_eq!(samples(&template, &talk, TrainOn::Last), said[1..]);
}

#[test]
fn what_inference_sees_is_written_where_a_template_moves_it() {
    // As Mistral's: the system's words go with the last question, as long as it is not answered.
    let source = "{% for m in messages %}{% if m.role == 'user' %}[INST]{% if loop.last %}{{ messages[0].content }} {% endif %}\
                  {{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}";
    let template = ChatTemplate::new("t", source, special(), 0).unwrap();
    template.samples(&talk(), TrainOn::Completion).unwrap_err();
    let samples = template.samples(&talk(), TrainOn::Turns).unwrap();
    assert_eq!(samples[0].text, "[INST]Be kind. Hi[/INST] Hello</s>");
    assert_eq!(samples[1].text, "[INST]Hi[/INST] Hello</s>[INST]Be kind. Who?[/INST] Me</s>");
    assert_eq!(samples[1].learned.len(), 1);
    assert_eq!(&samples[1].text[samples[1].learned[0].clone()], " Me</s>");
}

#[test]
fn turns_that_are_not_to_be_learned_are_not() {
    let mut talk = talk();
    talk.messages[2]["weight"] = 0.into();
    let marked = "{% for m in messages %}<{{ m.role }}>{% generation %}{{ m.content }}</s>{% endgeneration %}{% endfor %}";
    let marked =
        marked.replace("{% generation %}", "{% if m.role == 'assistant' %}{% generation %}");
    let marked = marked.replace("{% endgeneration %}", "{% endgeneration %}{% endif %}");
    let prompting = || turns("{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}");
    for template in [prompting(), ChatTemplate::new("t", &marked, special(), 0).unwrap()] {
        assert_eq!(samples(&template, &talk, TrainOn::Completion), [["Me</s>"]]);
        assert_eq!(samples(&template, &talk, TrainOn::Turns), [["Me</s>"]]);
    }
    talk.messages[4]["train"] = false.into();
    assert!(samples(&prompting(), &talk, TrainOn::Completion)[0].is_empty());
    assert!(samples(&prompting(), &talk, TrainOn::Last).is_empty());
}

#[test]
fn arguments_are_what_the_template_expects() {
    let call = |arguments: Value| json!({"type": "function", "function": {"name": "f", "arguments": arguments}});
    let talk = |arguments: Value| Conversation {
        messages: vec![
            json!({"role": "user", "content": "Hi"}),
            json!({"role": "assistant", "content": "", "tool_calls": [call(arguments)]}),
        ],
        tools: None,
    };
    let render = |write: &str, arguments: &Value| {
        let source = format!(
            "{{% for m in messages %}}{{% for c in m.tool_calls or [] %}}{{{{ {write} }}}}{{% endfor %}}{{% endfor %}}"
        );
        let template = ChatTemplate::new("t", &source, special(), 0).unwrap();
        template.render(&talk(arguments.clone()), false).unwrap()
    };
    let (object, text) = (json!({"city": "Köln"}), json!("{\"city\": \"Köln\"}"));
    // Those that write JSON or go through the arguments take both forms for the same.
    for write in [
        "c.function.arguments | tojson",
        "c.function | tojson",
        "c.function.arguments | items | list",
        "c.function.arguments.city",
    ] {
        assert_eq!(render(write, &text), render(write, &object), "{write}");
    }
    // However little they hold.
    for text in [json!("{}"), json!(""), json!(" {\"a\": 1} ")] {
        let object = if text == json!(" {\"a\": 1} ") { json!({"a": 1}) } else { json!({}) };
        assert_eq!(
            render("c.function | tojson", &text),
            render("c.function | tojson", &object),
            "{text}"
        );
    }
    // Those that join texts want a text.
    assert_eq!(render("'<' + c.function.arguments + '>'", &json!("{}")), "<{}>");
    assert_eq!(render("'<' + c.function.arguments + '>'", &text), "<{\"city\": \"Köln\"}>");
    // Those that know both get what there is.
    let both =
        "c.function.arguments if c.function.arguments is string else c.function.arguments | tojson";
    assert_eq!(render(both, &json!("{\"a\":1}")), "{\"a\":1}");
    assert_eq!(render("c.function.arguments", &json!("no JSON")), "no JSON");
}

#[test]
fn templates_may_write_all_special_tokens() {
    let special = SpecialTexts { padding: "<pad>".into(), unknown: "<unk>".into(), ..special() };
    let source = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new("t", source, special, 0).unwrap();
    let text = template.render(&Conversation::ask("x"), false).unwrap();
    assert_eq!(text, "<s></s><pad><unk>x");
}

/// Whoever reads the source of a built-in template need not know the special tokens.
#[test]
fn built_in_templates_bring_their_special_tokens() {
    let special = SpecialTexts {
        before: "<s \"quoted\">".into(),
        bos: "<s>".into(),
        ends: vec!["<\\/s>".into(), "<end>".into()],
        ..SpecialTexts::default()
    };
    let turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Who?")];
    let messages =
        turns.map(|(role, content)| serde_json::json!({"role": role, "content": content})).to_vec();
    let talk = Conversation { messages, tools: None };
    for built_in in BuiltIn::ALL {
        let template = ChatTemplate::built_in(built_in, special.clone()).unwrap();
        let text = template.render(&talk, true).unwrap();
        assert!(text.starts_with(&special.before) && !text.contains("<end>"), "{text}");
        let source = template.source();
        let read = ChatTemplate::new("read", source, SpecialTexts::default(), 0).unwrap();
        assert_eq!(read.render(&talk, true).unwrap(), text);
    }
}

#[test]
fn built_in_templates_write_tools_or_refuse_them() {
    let talk = Conversation {
        messages: vec![
            json!({"role": "system", "content": "Be kind."}),
            json!({"role": "user", "content": "Hi"}),
            json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": "a"}}}]}),
            json!({"role": "tool", "content": "21"}),
            json!({"role": "assistant", "content": "It is 21."}),
        ],
        tools: Some(json!([{"type": "function", "function": {"name": "f"}}])),
    };
    for (built_in, told) in [
        (
            BuiltIn::Chatml,
            [
                "<tools>\n{\"type\": \"function\"",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"a\"}}",
                "<tool_response>\n21\n",
            ],
        ),
        (
            BuiltIn::Llama3,
            [
                "{\"type\": \"function\"",
                "{\"name\": \"f\", \"parameters\": {\"x\": \"a\"}}<|eot_id|>",
                "ipython<|end_header_id|>\n\n21<",
            ],
        ),
    ] {
        let template = ChatTemplate::built_in(built_in, special()).unwrap();
        let text = template.render(&talk, false).unwrap();
        for told in told {
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(text.matches("Be kind.").count(), 1, "{text}");
        assert_eq!(samples(&template, &talk, TrainOn::Completion)[0].len(), 2);
    }
    for built_in in [BuiltIn::Alpaca, BuiltIn::Llama2, BuiltIn::None] {
        let template = ChatTemplate::built_in(built_in, special()).unwrap();
        let error = format!("{:#}", template.render(&talk, false).unwrap_err());
        assert!(error.contains("`tools`") && error.contains("--template chatml"), "{error}");
    }
}

#[test]
fn what_stands_behind_an_answer_is_found() {
    for (template, behind) in [
        (BuiltIn::Chatml, "<|im_end|>\n"),
        (BuiltIn::Llama3, "<|eot_id|>"),
        (BuiltIn::Llama2, "</s>"),
        (BuiltIn::Alpaca, "</s>\n\n"),
        (BuiltIn::None, "</s>"),
    ] {
        let template = ChatTemplate::built_in(template, special()).unwrap();
        let found = template.behind_answers();
        assert!(found.starts_with(behind), "{found:?}");
    }
    let refuses = ChatTemplate::new("t", "{{ raise_exception('no') }}", special(), 0).unwrap();
    assert_eq!(refuses.behind_answers(), "");
}

#[test]
fn thoughts_that_a_template_leaves_out_are_known() {
    let thinks = |field: &str| {
        let said = json!({"role": "assistant", "content": "a", field: "Hm."});
        Conversation { messages: vec![said], tools: None }
    };
    let template = |source: &str| ChatTemplate::new("t", source, special(), 0).unwrap();
    let plain = template("{% for m in messages %}{{ m.content }}{% endfor %}{{ enable_thinking }}");
    let open =
        template("{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% endfor %}");
    assert!(plain.writes_thoughts(&talk()));
    for field in ["reasoning_content", "reasoning", "thinking"] {
        assert!(!plain.writes_thoughts(&thinks(field)), "{field}");
    }
    assert!(open.writes_thoughts(&thinks("reasoning_content")));
    assert!(
        open.writes_thoughts(&thinks("reasoning")),
        "it is passed under the other name as well"
    );
}

#[test]
fn marks_in_what_is_said_are_no_marks() {
    let messages = vec![json!({"role": "assistant", "content": "a\u{fdd0}b\u{fdd1}c"})];
    let talk = Conversation { messages, tools: None };
    let plain = turns("");
    assert_eq!(plain.render(&talk, false).unwrap(), "<assistant>a\u{fdd0}b\u{fdd1}c</s>\n");
    let source =
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
    let marked = ChatTemplate::new("t", source, special(), 0).unwrap();
    let error = marked.samples(&talk, TrainOn::Completion).unwrap_err().to_string();
    assert!(error.contains("U+FDD0"), "{error}");
}

#[test]
fn turns_of_weight_zero_are_never_learned() {
    let say = |role: &str, text: &str| json!({"role": role, "content": text});
    let given = json!({"role": "assistant", "content": "no", "weight": 0});
    let messages = vec![say("user", "q"), given, say("user", "r"), say("assistant", "yes")];
    let talk = Conversation { messages, tools: None };
    let samples = turns("").samples(&talk, TrainOn::All).unwrap();
    let Rendered { text, learned } = &samples[0];
    let said: String = learned.iter().map(|span| &text[span.clone()]).collect();
    assert!(!said.contains("no") && said.contains("yes") && said.contains('q'), "{said}");
}
