//! Chat templates.

use super::{RENDERING, Target};
use qft_train::chat::{ChatTemplate, Conversation, Rendered, SpecialTexts, TRAINING_DATE};
use qft_train::options::TrainOn;
use serde_json::json;

/// The source of a template, rendered for a fixed conversation.
pub const TEMPLATE: Target = Target { name: "template", run: render, base_bytes: RENDERING };

fn render(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let messages = vec![
        json!({"role": "system", "content": "Be kind.\n"}),
        json!({"role": "user", "content": "Hi <é> 你好 "}),
        json!({"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}},
        ]}),
        json!({"role": "tool", "content": "42", "name": "f"}),
        json!({"role": "assistant", "content": "So be it."}),
    ];
    let tools = json!([{"type": "function", "function": {"name": "f", "description": "g"}}]);
    check(source, &Conversation { messages, tools: Some(tools) });
}

/// Renders with every special text there may be; what is said to be the assistant's must lie in the text.
pub(super) fn check(source: &str, talk: &Conversation) {
    let special = SpecialTexts {
        before: "<s>".into(),
        bos: "<s>".into(),
        ends: vec!["</s>".into()],
        ..SpecialTexts::default()
    };
    let Ok(template) = ChatTemplate::new("fuzzed", source, special, TRAINING_DATE) else { return };
    check_template(&template, talk);
}

pub(super) fn check_template(template: &ChatTemplate, talk: &Conversation) {
    let prompt = template.render(talk, true);
    drop(prompt);
    for train_on in [TrainOn::Completion, TrainOn::Turns, TrainOn::Last] {
        for Rendered { text, learned } in template.samples(talk, train_on).into_iter().flatten() {
            let mut last = 0;
            for range in learned {
                assert!(last <= range.start && range.start < range.end, "rising ranges: {range:?}");
                assert!(text.get(range.clone()).is_some(), "{range:?} of {} bytes", text.len());
                last = range.end;
            }
        }
    }
}
