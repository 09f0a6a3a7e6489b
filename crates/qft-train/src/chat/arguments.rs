//! Arguments of calls that are given as the JSON text of an object, as OpenAI's interface writes them.
//!
//! Some templates expect the text, most an object, which they write as JSON themselves: the text would be encoded
//! twice. A template tells which it expects by what it does with a conversation.

use super::Conversation;
use crate::error::Result;
use serde_json::{Map, Value};

/// `talk` with all such arguments as objects; none if there are none.
fn decoded(talk: &Conversation) -> Option<Conversation> {
    let mut decoded = talk.clone();
    let mut any = false;
    for arguments in decoded.messages.iter_mut().flat_map(arguments) {
        if let Some(object) = object(arguments) {
            *arguments = Value::Object(object);
            any = true;
        }
    }
    any.then_some(decoded)
}

/// The object whose JSON text the arguments are; an empty text stands for none.
fn object(arguments: &Value) -> Option<Map<String, Value>> {
    match arguments.as_str()?.trim() {
        "" => Some(Map::new()),
        text => serde_json::from_str(text).ok(),
    }
}

/// What a call is, with arguments that are the JSON text of an object as that object.
pub(crate) fn with_object(mut call: Value) -> Value {
    if let Some(arguments) = call.get_mut("arguments")
        && let Some(object) = object(arguments)
    {
        *arguments = Value::Object(object);
    }
    call
}

/// The arguments of all calls of a message.
fn arguments(message: &mut Value) -> impl Iterator<Item = &mut Value> {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    calls.into_iter().flatten().filter_map(|call| match call.get("function") {
        Some(_) => call.get_mut("function")?.get_mut("arguments"),
        None => call.get_mut("arguments"),
    })
}

/// Whether a text holds the arguments of a call as the JSON text of a JSON text.
fn is_encoded_twice(text: &str, talk: &Conversation) -> bool {
    let mut talk = talk.clone();
    talk.messages.iter_mut().flat_map(arguments).any(|arguments| {
        let json = arguments.as_str().map(|_| arguments.to_string());
        json.is_some_and(|json| json.contains('\\') && text.contains(&json[1..json.len() - 1]))
    })
}

/// `talk` with other arguments in the place of each that is the text of an object: what becomes of them does not depend on whether
/// these hold anything.
fn probe(talk: &Conversation) -> Conversation {
    let mut probe = talk.clone();
    for arguments in probe.messages.iter_mut().flat_map(arguments) {
        if object(arguments).is_some() {
            *arguments = Value::String(PROBE.into());
        }
    }
    probe
}

/// Arguments whose text is another when it is encoded once more.
const PROBE: &str = r#"{"qft_probe": "qft_value"}"#;

/// `talk` with arguments as objects, if there are any as text and the template expects objects; `render` renders a
/// conversation.
pub(super) fn as_expected(
    talk: &Conversation,
    render: impl Fn(&Conversation) -> Result<String>,
) -> Option<Conversation> {
    let objects = decoded(talk)?;
    let expects_objects = |talk: &Conversation| {
        let as_object = render(&decoded(talk)?).ok()?;
        Some(match render(talk) {
            Ok(as_text) => is_encoded_twice(&as_text, talk) || is_lost(&as_text, &as_object, talk),
            Err(_) => true,
        })
    };
    // By what becomes of any arguments, or of these, of which a template may read some by name.
    let expects = expects_objects(&probe(talk)) == Some(true) || expects_objects(talk)?;
    expects.then_some(objects)
}

/// Whether parts of the arguments get lost that do not as an object.
fn is_lost(as_text: &str, as_object: &str, talk: &Conversation) -> bool {
    let mut talk = talk.clone();
    talk.messages.iter_mut().flat_map(arguments).any(|arguments| {
        let Some(object) = object(arguments) else { return false };
        let texts = object.iter().flat_map(|(key, value)| [Some(key.as_str()), value.as_str()]);
        texts.flatten().any(|part| !as_text.contains(part) && as_object.contains(part))
    })
}
