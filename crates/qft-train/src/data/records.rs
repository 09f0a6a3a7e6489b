//! Records of instruction data: what the formats in use call their fields.

mod calls;

pub(super) use calls::write_calls;

use super::binary;
use super::roles::Role;
use crate::chat::Conversation;
use crate::error::{Context, Result, bail, ensure};
use crate::options::{DataFormat, FieldName};
use calls::{CALL_TEXT, calls, read_calls, tools};
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

/// Fields of whole records with a better and a worse answer to a conversation.
const PREFERENCES: [&str; 2] = ["chosen", "rejected"];

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
    let asks = messages.last().is_some_and(|last| last["role"] == Role::User.name());
    for answer in PREFERENCES {
        ensure!(
            !asks || map.get(answer).is_none_or(Value::is_null),
            "`{answer}`: is one of two answers to choose between, and not the end of `{field}`, which would be learned; put the \
             good ones there"
        );
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
            if role == Role::Call {
                message.insert("tool_calls".into(), calls(&content)?.into());
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
mod tests;
