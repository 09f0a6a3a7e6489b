//! Records of instruction data: what the formats in use call their fields.

use super::binary;
use super::roles::Role;
use crate::chat::{Conversation, with_object};
use crate::error::{Context, Result, bail, ensure};
use crate::options::{DataFormat, FieldName};
use serde_json::{Map, Value, json};

/// A record, whatever its format was.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A text, learned as a whole.
    Text(String),
    /// A text and how it goes on.
    Completion {
        /// What is said before it to the model, and the tools that this may call: for chat templates alone.
        before: Conversation,
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// A conversation.
    Chat(Conversation),
}

/// The format that a record shows by its fields.
///
/// Errors: it shows none.
pub fn detect(value: &Value) -> Result<DataFormat> {
    let Value::Object(map) = value else {
        bail!("expected an object, found {}", kind(value));
    };
    // A field without a value is one that other records have.
    let held = |field: &str| map.get(field).is_some_and(|value| !value.is_null());
    let named = |field: &str| map.contains_key(field);
    if let Some(format) = format_by(&held).or_else(|| format_by(&named)) {
        return Ok(format);
    }
    let fields: Vec<&str> = map.keys().map(String::as_str).take(8).collect();
    bail!(
        "cannot tell the format of a record with the fields [{}]; known are `text`, `prompt` and `completion`, `instruction` \
         and `output`, `conversations`, and `messages`; a field of another name is given as --field output=response",
        fields.join(", ")
    )
}

/// The format of a record that has these fields.
fn format_by(has: &dyn Fn(&str) -> bool) -> Option<DataFormat> {
    if has("messages") {
        Some(DataFormat::Messages)
    } else if has("conversations") {
        Some(DataFormat::Sharegpt)
    } else if has("instruction") && has("output") {
        Some(DataFormat::Alpaca)
    } else if has("prompt") && has("completion") {
        Some(DataFormat::PromptCompletion)
    } else {
        has("text").then_some(DataFormat::JsonlText)
    }
}

/// Gives the columns of a record the names of the fields that they are to be read as.
///
/// Errors: there is no such column, and another one would be read in its place.
pub fn rename(value: &mut Value, fields: &[FieldName]) -> Result<()> {
    let Value::Object(map) = value else { return Ok(()) };
    for FieldName { field, column } in fields {
        if let Some(value) = map.shift_remove(column) {
            map.insert(field.clone(), value);
        } else if map.contains_key(field) && field != column {
            let columns: Vec<_> = map.keys().map(String::as_str).take(8).collect();
            bail!(
                "--field {field}={column}: there is no `{column}` here, but [{}]",
                columns.join(", ")
            );
        }
    }
    Ok(())
}

/// Makes one conversation of a record whose `prompt` and `completion` are lists of messages; what the assistant says in the first is
/// not learned.
pub fn join_conversation(value: &mut Value) {
    let Value::Object(map) = value else { return };
    let [Some(Value::Array(_)), Some(Value::Array(_))] = [map.get("prompt"), map.get("completion")]
    else {
        return;
    };
    let [Some(Value::Array(mut messages)), Some(Value::Array(answers))] =
        ["prompt", "completion"].map(|field| map.shift_remove(field))
    else {
        return;
    };
    for given in messages.iter_mut().filter_map(Value::as_object_mut) {
        given.insert("train".into(), false.into());
    }
    messages.extend(answers);
    map.insert("messages".into(), messages.into());
}

impl Record {
    /// From a record of `format`.
    ///
    /// Errors: a field is missing or of another type; each with its name.
    pub fn from_json(value: Value, format: DataFormat) -> Result<Self> {
        let Value::Object(mut map) = value else {
            bail!("expected an object, found {}", kind(&value));
        };
        let fits = match format {
            DataFormat::Messages => map.contains_key("messages"),
            DataFormat::Sharegpt => map.contains_key("conversations"),
            DataFormat::Alpaca => map.contains_key("instruction") && map.contains_key("output"),
            DataFormat::PromptCompletion => {
                map.contains_key("prompt") && map.contains_key("completion")
            }
            DataFormat::JsonlText | DataFormat::Auto | DataFormat::Text => map.contains_key("text"),
        };
        if !fits {
            let other = match detect(&Value::Object(map)) {
                Ok(other) => format!("looks like {}", other),
                Err(error) => error.to_string(),
            };
            bail!(
                "is not a record of the format {format} like the others in the file: it {other}; \
                 keep records of different formats in different files"
            );
        }
        let is_text = matches!(format, DataFormat::JsonlText | DataFormat::Auto | DataFormat::Text);
        if !is_text {
            check_beside(&map)?;
        }
        match format {
            DataFormat::Messages => chat(&mut map, "messages"),
            DataFormat::Sharegpt => chat(&mut map, "conversations"),
            DataFormat::Alpaca => alpaca(&mut map),
            DataFormat::PromptCompletion => Ok(Self::Completion {
                before: instructions(&mut map)?,
                prompt: text(&map, "prompt")?.to_string(),
                completion: text(&map, "completion")?.to_string(),
            }),
            DataFormat::JsonlText | DataFormat::Auto | DataFormat::Text => {
                Ok(Self::Text(text(&map, "text")?.to_string()))
            }
        }
    }
}

/// Fields of whole records that say whether an answer is good.
const VERDICTS: [&str; 2] = ["label", "kto_tag"];

/// Fields of whole records with what is not text.
const MEDIA: [&str; 6] = ["image", "images", "video", "videos", "audio", "audios"];

/// Checks what stands beside an answer, and changes its meaning.
///
/// Errors: it says that the answer is a bad one, or has pictures or sounds.
fn check_beside(map: &Map<String, Value>) -> Result<()> {
    for field in VERDICTS {
        ensure!(
            map.get(field) != Some(&Value::Bool(false)),
            "`{field}` is false: the answer is marked as a bad one, and would be learned; keep the good ones only"
        );
    }
    for field in MEDIA {
        let empty = match map.get(field) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::String(path)) => path.is_empty(),
            Some(_) => false,
        };
        ensure!(empty, "`{field}`: is not text; only text can be learned");
    }
    Ok(())
}

/// The `system` message and the `tools` beside what is said.
fn instructions(map: &mut Map<String, Value>) -> Result<Conversation> {
    let system = optional(map, "system")?;
    let system = system.map(|system| json!({ "role": "system", "content": system }));
    Ok(Conversation { messages: system.into_iter().collect(), tools: tools(map)? })
}

/// The field that keeps a call as it was written, beside what templates read.
const CALL_TEXT: &str = "call_text";

/// Writes calls to tools into the content of their messages, for templates that know no calls.
pub(super) fn write_calls(talk: &mut Conversation) {
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

/// `instruction`, `input` and `output`, with a `system` message and a `history` of earlier exchanges if there are any.
fn alpaca(map: &mut Map<String, Value>) -> Result<Record> {
    let Conversation { mut messages, tools } = instructions(map)?;
    if map.get("history").is_some_and(|history| !history.is_null() && history != "") {
        for (i, exchange) in list(map, "history")?.into_iter().enumerate() {
            let Some([Value::String(asked), Value::String(answered)]) =
                exchange.as_array().map(Vec::as_slice)
            else {
                bail!("`history[{i}]`: expected two texts, found {}", kind(&exchange));
            };
            messages.push(json!({ "role": "user", "content": asked }));
            messages.push(json!({ "role": "assistant", "content": answered }));
        }
    }
    let instruction = text(map, "instruction")?;
    messages.push(match optional(map, "input")? {
        Some(input) => json!({
            "role": "user",
            "content": format!("{instruction}\n{input}"),
            "instruction": instruction,
            "input": input,
        }),
        None => json!({ "role": "user", "content": instruction }),
    });
    messages.push(json!({ "role": "assistant", "content": text(map, "output")? }));
    Ok(Record::Chat(Conversation { messages, tools }))
}

/// `conversations` or `messages`, with `tools` and a `system` message beside them if there are any.
fn chat(map: &mut Map<String, Value>, field: &str) -> Result<Record> {
    let Conversation { mut messages, tools } = instructions(map)?;
    let said = list(map, field)?;
    ensure!(!said.is_empty(), "`{field}` is empty; remove the record");
    for (i, said) in said.into_iter().enumerate() {
        messages.push(message(said).with_context(|| format!("`{field}[{i}]`"))?);
    }
    Ok(Record::Chat(Conversation { messages, tools }))
}

/// A message of `role` and `content`, or of `from` and `value`. What else it holds is kept for templates.
fn message(value: Value) -> Result<Value> {
    let Value::Object(mut message) = value else {
        bail!("expected an object, found {}", kind(&value));
    };
    for (other, name) in [("from", "role"), ("value", "content")] {
        match message.shift_remove(other) {
            Some(value) if message.get(name).is_none_or(Value::is_null) => {
                message.insert(name.into(), value);
            }
            Some(value) => {
                message.insert(other.into(), value);
            }
            None => {}
        }
    }
    let role = Role::read(text(&message, "role")?).context("`role`")?;
    read_calls(&mut message)?;
    let content = content(&message)?;
    message.insert("role".into(), role.name().into());
    match content {
        Some(content) => {
            let call = if role == Role::Call { call(&content) } else { None };
            if let Some(call) = call {
                message.insert("tool_calls".into(), json!([call]));
                message.insert(CALL_TEXT.into(), content.into());
                message.insert("content".into(), "".into());
            } else {
                message.insert("content".into(), content.into());
            }
        }
        // As `transformers` has it: no key that holds nothing.
        None => drop(message.shift_remove("content")),
    }
    read_switches(&mut message)?;
    if let Some((field, _)) = message.iter().find(|(_, value)| binary::is_within(value)) {
        bail!("`{field}`: {}", binary::NOT_TEXT);
    }
    Ok(Value::Object(message))
}

/// Brings calls to tools into the form that templates know: `tool_calls` may be the JSON text of a list, each of them the JSON
/// text of a call, and `function_call` is an older name for one of them.
fn read_calls(message: &mut Map<String, Value>) -> Result<()> {
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

/// The text of a message; none where calls to tools, or thoughts, come without words.
fn content(message: &Map<String, Value>) -> Result<Option<String>> {
    match message.get("content") {
        Some(Value::Array(parts)) => {
            let parts = parts.iter().enumerate().map(|(p, part)| {
                let text = part.as_str().or_else(|| part.get("text").and_then(Value::as_str));
                text.with_context(|| {
                    format!("`content[{p}]`: is not text; only text can be learned")
                })
            });
            Ok(Some(parts.collect::<Result<String>>()?))
        }
        None | Some(Value::Null) if message.get("tool_calls").is_some_and(Value::is_array) => {
            Ok(None)
        }
        _ => Ok(Some(text(message, "content")?.to_string())),
    }
}

/// Fields that say whether a message is learned by true or false, or 0 or 1.
const SWITCHES: [&str; 4] = ["weight", "train", "training", "loss"];

/// Reads the fields that say whether a message is learned, of all names, into `train`, which is there if it is not.
fn read_switches(message: &mut Map<String, Value>) -> Result<()> {
    if let Some(field) = ["train_detail", "training_detail"].into_iter().find(|&field| {
        message.get(field).is_some_and(|detail| !detail.is_null() && *detail != json!([]))
    }) {
        bail!(
            "`{field}`: parts of a message cannot be left out of what is learned; give `train` for all of it"
        );
    }
    for field in SWITCHES {
        let off = match message.get(field) {
            None | Some(Value::Null | Value::Bool(true)) => false,
            Some(Value::Bool(false)) => true,
            Some(number) if number.as_f64() == Some(1.0) => false,
            Some(number) if number.as_f64() == Some(0.0) => true,
            Some(Value::Number(weight)) => {
                bail!("`{field}`: expected 0 or 1, found {weight}; other weights are not supported")
            }
            Some(other) => bail!("`{field}`: expected true or false, found {}", kind(other)),
        };
        if off {
            message.insert("train".into(), false.into());
        }
    }
    Ok(())
}

/// A call as `tool_calls` has it, if the text is one.
fn call(content: &str) -> Option<Value> {
    let call: Value = serde_json::from_str(content).ok()?;
    call.get("name")?;
    Some(json!({ "type": "function", "function": call }))
}

/// `tools`, or `functions` as an older name: a list, or the JSON text of one, of objects or the JSON texts of such; each in the form
/// that templates expect.
fn tools(map: &mut Map<String, Value>) -> Result<Option<Value>> {
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

fn list(map: &mut Map<String, Value>, field: &str) -> Result<Vec<Value>> {
    match map.remove(field) {
        Some(Value::Array(list)) => Ok(list),
        // As CSV has it.
        Some(Value::String(text)) => serde_json::from_str(&text).with_context(|| {
            format!("`{field}`: expected a list, found a text that is not the JSON of one")
        }),
        Some(other) if binary::is(&other) => bail!("`{field}`: {}", binary::NOT_TEXT),
        other => bail!("`{field}`: expected a list, found {}", kind(&other.unwrap_or_default())),
    }
}

fn text<'a>(map: &'a Map<String, Value>, field: &str) -> Result<&'a str> {
    match map.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) if binary::is(other) => bail!("`{field}`: {}", binary::NOT_TEXT),
        Some(other) => bail!("`{field}`: expected a text, found {}", kind(other)),
        None => bail!("`{field}` is missing"),
    }
}

/// A text that may be absent, null or empty.
fn optional<'a>(map: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(None),
        _ => Ok(Some(text(map, field)?).filter(|text| !text.is_empty())),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) if binary::is(value) => "bytes that are no text",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Record> {
        let format = detect(&value)?;
        Record::from_json(value, format)
    }

    fn chat(value: Value) -> Conversation {
        match read(value).unwrap() {
            Record::Chat(talk) => talk,
            other => panic!("expected a conversation, found {other:?}"),
        }
    }

    fn completion(prompt: &str, completion: &str) -> Record {
        let (prompt, completion) = (prompt.into(), completion.into());
        Record::Completion { before: Conversation::default(), prompt, completion }
    }

    #[test]
    fn every_format_is_read() {
        let text = json!({"text": "a", "label": false, "image": "a.png"});
        assert_eq!(read(text).unwrap(), Record::Text("a".into()));
        let record = read(json!({"prompt": "a", "completion": "b"})).unwrap();
        assert_eq!(record, completion("a", "b"));
        let talk = chat(json!({
            "instruction": "i", "input": "x", "output": "o", "text": "all", "system": "s",
            "history": [["q", "a"]],
        }));
        let contents: Vec<_> =
            talk.messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(contents, ["s", "q", "a", "i\nx", "o"]);
        assert_eq!(talk.messages[3]["input"], "x");
        let talk = chat(json!({"conversations": [
            {"from": "human", "value": "h"},
            {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "g"},
        ], "tools": "[{\"name\": \"f\"}]"}));
        let roles: Vec<_> = talk.messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
        assert_eq!(talk.messages[1]["tool_calls"][0]["function"]["name"], "f");
        assert_eq!(talk.tools.unwrap()[0]["function"]["name"], "f");
        let talk = chat(json!({"messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": []},
        ]}));
        assert_eq!(talk.messages[0]["content"], "ab");
        assert_eq!(talk.messages[1].get("content"), None);
    }

    #[test]
    fn roles_come_in_all_spellings() {
        let messages: Vec<_> = ["Human", "GPT", "model", "developer", "function", " Assistant"]
            .map(|role| json!({"role": role, "content": "x"}))
            .into();
        let talk = chat(json!({"messages": messages}));
        let roles: Vec<_> = talk.messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "assistant", "system", "tool", "assistant"]);
        // Both formats' names of the fields in both.
        let mixed = chat(json!({"messages": [{"from": "human", "value": "x", "weight": 1}]}));
        assert_eq!(mixed.messages, [json!({"role": "user", "content": "x", "weight": 1})]);
    }

    #[test]
    fn columns_of_other_names() {
        let mut value = json!({"question": "a", "reply": "b", "prompt": "c"});
        let fields = ["prompt=question", "completion=reply"].map(|name| name.parse().unwrap());
        rename(&mut value, &fields).unwrap();
        assert_eq!(read(value).unwrap(), completion("a", "b"));
        // Nothing else is read in the place of a column that is not there; what may be absent may be.
        let mut value = json!({"prompt": "a", "completion": "b"});
        let told = rename(&mut value, &["prompt=question".parse().unwrap()]).unwrap_err();
        assert!(
            told.to_string().contains("no `question` here, but [prompt, completion]"),
            "{told}"
        );
        rename(&mut value, &["system=rules".parse().unwrap()]).unwrap();
    }

    #[test]
    fn calls_are_read_in_all_forms() {
        let call = json!({"name": "f", "arguments": {"a": 1}});
        let list = json!([{"type": "function", "function": call}]);
        for message in [
            json!({"role": "assistant", "content": "", "tool_calls": list.to_string()}),
            json!({"role": "assistant", "content": null, "function_call": call}),
            json!({"role": "assistant", "tool_calls": list}),
        ] {
            let mut talk = chat(json!({"messages": [message]}));
            assert_eq!(talk.messages[0]["tool_calls"], list, "{message}");
            write_calls(&mut talk);
            assert_eq!(talk.messages[0]["content"], call.to_string());
        }
        // What is said beside them stays.
        let message = json!({"role": "assistant", "content": "Wait.", "tool_calls": list});
        let mut talk = chat(json!({"messages": [message]}));
        write_calls(&mut talk);
        assert_eq!(talk.messages[0]["content"], format!("Wait.\n{call}"));
        let broken =
            json!({"messages": [{"role": "assistant", "content": "", "tool_calls": "[{"}]});
        assert!(read(broken).unwrap_err().to_string().contains("`messages[0]`"));
    }

    #[test]
    fn calls_and_tools_may_be_texts_all_the_way_down() {
        let call = json!({"name": "f", "arguments": {"a": 1}});
        let listed = json!({"type": "function", "function": call});
        for message in [
            json!({"role": "assistant", "content": "", "function_call": call.to_string()}),
            json!({"role": "assistant", "content": "", "tool_calls": [listed.to_string()]}),
            json!({"role": "assistant", "content": "", "function_call": call, "tool_calls": []}),
        ] {
            let talk = chat(json!({"messages": [message]}));
            assert_eq!(talk.messages[0]["tool_calls"], json!([listed]), "{message}");
        }
        // Templates that know no calls see the same, whatever their arguments came as.
        let said = |arguments: Value| {
            let call = json!({"function": {"name": "f", "arguments": arguments}});
            let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
            let mut talk = chat(json!({"messages": [message]}));
            write_calls(&mut talk);
            talk.messages[0]["content"].clone()
        };
        assert_eq!(said(json!("{\"a\": 1}")), said(json!({"a": 1})));
        let tool = json!({"name": "f", "parameters": {}});
        let expected = json!([{"type": "function", "function": tool}]);
        let messages = json!([{"role": "user", "content": "x"}]);
        for (field, tools) in [
            ("tools", json!([tool.to_string()])),
            ("functions", json!([tool])),
            ("functions", json!([tool]).to_string().into()),
            ("tools", expected.clone()),
        ] {
            let talk = chat(json!({"messages": messages, field: tools}));
            assert_eq!(talk.tools.as_ref(), Some(&expected), "{field}");
        }
    }

    #[test]
    fn what_is_not_to_be_learned_is_said_in_many_ways() {
        for (field, value) in [
            ("weight", json!(0)),
            ("train", json!(false)),
            ("training", json!(false)),
            ("loss", json!(false)),
            ("loss", json!(0.0)),
        ] {
            let message = json!({"role": "assistant", "content": "x", field: value});
            let talk = chat(json!({"messages": [message]}));
            assert_eq!(talk.messages[0]["train"], json!(false), "{field}");
        }
        for (field, value) in [("weight", json!(1)), ("loss", json!(true)), ("train", json!(null))]
        {
            let message = json!({"role": "assistant", "content": "x", field: value});
            let talk = chat(json!({"messages": [message]}));
            assert_ne!(talk.messages[0].get("train"), Some(&json!(false)), "{field}");
        }
    }

    #[test]
    fn instructions_stand_beside_what_is_said() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let record = json!({"prompt": "a", "completion": "b", "system": "s", "tools": tools});
        let Record::Completion { before, .. } = read(record).unwrap() else { panic!() };
        assert_eq!(before.messages[0]["content"], "s");
        assert_eq!(before.tools, Some(tools.clone()));
        let talk = chat(json!({"instruction": "i", "output": "o", "tools": tools}));
        assert_eq!(talk.tools, Some(tools));
    }

    #[test]
    fn prompts_and_completions_may_be_messages() {
        let mut value = json!({
            "prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                       {"role": "user", "content": "c"}],
            "completion": [{"role": "assistant", "content": "d"}],
        });
        join_conversation(&mut value);
        let talk = chat(value);
        let learned: Vec<_> =
            talk.messages.iter().map(|message| message.get("train").is_none()).collect();
        assert_eq!(learned, [false, false, false, true]);
        let mut text = json!({"prompt": "a", "completion": "b"});
        join_conversation(&mut text);
        assert_eq!(read(text).unwrap(), completion("a", "b"));
    }

    #[test]
    fn fields_without_a_value_are_not_there() {
        let said = json!([{"from": "human", "value": "x", "role": null, "content": null}]);
        let talk = chat(json!({"messages": null, "conversations": said}));
        assert_eq!(talk.messages[0]["content"], "x");
    }

    #[test]
    fn wrong_fields_are_named() {
        for (value, told) in [
            (json!({"messages": [{"role": "user", "content": 3}]}), "`messages[0]`: `content`"),
            (
                json!({"messages": [{"role": "dog", "content": "x"}]}),
                "`messages[0]`: `role`: `dog`",
            ),
            (json!({"messages": [{"role": "user", "content": null}]}), "found nothing"),
            (json!({"messages": [{"role": "user", "content": "x", "weight": 0.5}]}), "`weight`"),
            (json!({"messages": [{"role": "user", "content": "x", "train": "no"}]}), "`train`"),
            (
                json!({"messages": [{"role": "user", "content": "x", "train_detail": [{}]}]}),
                "`train_detail`",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "", "tool_calls": {"name": "f"}}]}),
                "`tool_calls`",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "", "tool_calls": [3]}]}),
                "each call",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "", "function_call": 3}]}),
                "`function_call`",
            ),
            (json!({"messages": [{"role": "user", "content": "x"}], "tools": [3]}), "each tool"),
            (
                json!({"messages": [{"role": "user", "content": "x"}], "images": ["a.png"]}),
                "`images`",
            ),
            (json!({"prompt": "a", "completion": "b", "label": false}), "`label` is false"),
            (
                json!({"messages": [{"role": "user", "content": "x"}], "kto_tag": false}),
                "`kto_tag`",
            ),
            (json!({"messages": [{"content": "x"}]}), "`role` is missing"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}), "content[0]"),
            (json!({"messages": []}), "empty"),
            (json!({"messages": "x"}), "expected a list"),
            (json!({"conversations": [{"from": "dog", "value": "x"}]}), "`dog`"),
            (json!({"conversations": [{"from": "human", "value": 1}]}), "a number"),
            (json!({"conversations": [3]}), "conversations[0]"),
            (json!({"conversations": [], "tools": "{"}), "`tools`"),
            (json!({"instruction": "a", "output": 1}), "`output`"),
            (json!({"instruction": "a", "output": "b", "history": [["x"]]}), "history[0]"),
            (json!({"prompt": ["a"], "completion": "b"}), "`prompt`"),
            (json!({"text": null}), "`text`"),
            (json!([1]), "expected an object"),
            (json!({"text": binary::no_text()}), "`text`: is not UTF-8"),
            (json!({"messages": binary::no_text()}), "`messages`: is not UTF-8"),
            (
                json!({"messages": [{"role": "user", "content": binary::no_text()}]}),
                "`messages[0]`: `content`: is not UTF-8",
            ),
            (
                json!({"messages": [{"role": "user", "content": "x", "a": [binary::no_text()]}]}),
                "`messages[0]`: `a`: is not UTF-8",
            ),
            (
                json!({"messages": [], "tools": [{"name": binary::no_text()}]}),
                "`tools`: is not UTF-8",
            ),
            (
                json!({"instruction": "a", "output": "b", "history": [["x", binary::no_text()]]}),
                "history[0]",
            ),
        ] {
            let error = format!("{:#}", read(value).expect_err(told));
            assert!(error.contains(told), "{told:?} in {error:?}");
        }
        let error = Record::from_json(json!({"text": "a"}), DataFormat::Alpaca).unwrap_err();
        assert!(error.to_string().contains("looks like jsonl-text"), "{error}");
    }
}
