//! Calls to tools, and the tools themselves, in all forms that data has them in.

use super::kind;
use crate::chat::{Conversation, with_object};
use crate::data::binary;
use crate::error::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// The field that keeps a call as it was written, beside what templates read.
pub(super) const CALL_TEXT: &str = "call_text";

/// Writes calls to tools into the content of their messages, for templates that know no calls.
pub(in crate::data) fn write_calls(talk: &mut Conversation) {
    for message in talk.messages.iter_mut().filter_map(Value::as_object_mut) {
        let Some(Value::Array(calls)) = message.get("tool_calls") else { continue };
        let said = message.get("content").and_then(Value::as_str).filter(|said| !said.is_empty());
        let calls = match message.get(CALL_TEXT).and_then(Value::as_str) {
            Some(text) => vec![text.to_owned()],
            None => {
                let calls = calls.iter().map(|call| call.get("function").unwrap_or(call));
                calls.map(|call| with_object(call.clone()).to_string()).collect()
            }
        };
        let lines: Vec<_> = said.map(str::to_owned).into_iter().chain(calls).collect();
        message.insert("content".into(), lines.join("\n").into());
    }
}

/// Brings calls to tools into the form that templates know: `tool_calls` may be the JSON text of a list, each of them the JSON
/// text of a call, and `function_call` is an older name for one of them.
pub(super) fn read_calls(message: &mut Map<String, Value>) -> Result<()> {
    if let Some(calls) = message.get_mut("tool_calls") {
        *calls = match decoded(calls.take(), "tool_calls")? {
            Value::Null => Value::Null,
            Value::Array(calls) => {
                let calls = calls.into_iter().map(|call| match decoded(call, "tool_calls")? {
                    call @ Value::Object(_) => Ok(call),
                    other => {
                        bail!(
                            "`tool_calls`: expected an object for each call, found {}",
                            kind(&other)
                        )
                    }
                });
                Value::Array(calls.collect::<Result<_>>()?)
            }
            other => bail!("`tool_calls`: expected a list, found {}", kind(&other)),
        };
    }
    let calls = message.get("tool_calls").and_then(Value::as_array).is_some_and(|c| !c.is_empty());
    let Some(call) = message.shift_remove("function_call").filter(|_| !calls) else {
        return Ok(());
    };
    match decoded(call, "function_call")? {
        Value::Null => {}
        call @ Value::Object(_) => {
            message.insert("tool_calls".into(), json!([{ "type": "function", "function": call }]));
        }
        other => bail!("`function_call`: expected an object, found {}", kind(&other)),
    }
    Ok(())
}

/// What the JSON text of a field stands for; an empty one for nothing.
fn decoded(value: Value, field: &str) -> Result<Value> {
    match value {
        Value::String(text) if text.trim().is_empty() => Ok(Value::Null),
        Value::String(text) => {
            serde_json::from_str(&text).with_context(|| format!("`{field}` is not valid JSON"))
        }
        value => Ok(value),
    }
}

/// The calls as `tool_calls` has them that a turn of calls is: the JSON text of one, or of a list of some.
///
/// Errors: it is something else, which would be learned as words.
pub(super) fn calls(content: &str) -> Result<Vec<Value>> {
    let expected = "expected a call to a tool as a JSON object with `name`, or a list of such";
    let calls = match serde_json::from_str(content).context(expected)? {
        Value::Array(calls) if !calls.is_empty() => calls,
        call => vec![call],
    };
    let call = |call: Value| match decoded(call, "content")? {
        call @ Value::Object(_) if call.get("name").is_some() => {
            Ok(json!({ "type": "function", "function": call }))
        }
        other => bail!("{expected}, found {}", kind(&other)),
    };
    calls.into_iter().map(call).collect()
}

/// `tools`, or `functions` as an older name: a list, or the JSON text of one, of objects or the JSON texts of such; each in the form
/// that templates expect.
pub(super) fn tools(map: &mut Map<String, Value>) -> Result<Option<Value>> {
    let older = map.remove("functions").unwrap_or_default();
    let tools = map.remove("tools").unwrap_or_default();
    let (name, tools) = if tools.is_null() { ("functions", older) } else { ("tools", tools) };
    ensure!(!binary::is_within(&tools), "`{name}`: {}", binary::NOT_TEXT);
    let tools = match decoded(tools, name)? {
        Value::Null => return Ok(None),
        Value::Array(tools) => tools,
        other => bail!("`{name}`: expected a list, found {}", kind(&other)),
    };
    let wrapped = tools.into_iter().map(|tool| match decoded(tool, name)? {
        tool @ Value::Object(_) if tool.get("function").is_some() => Ok(tool),
        tool @ Value::Object(_) => Ok(json!({ "type": "function", "function": tool })),
        other => bail!("`{name}`: expected an object for each tool, found {}", kind(&other)),
    });
    let tools: Vec<Value> = wrapped.collect::<Result<_>>()?;
    Ok((!tools.is_empty()).then_some(Value::Array(tools)))
}
