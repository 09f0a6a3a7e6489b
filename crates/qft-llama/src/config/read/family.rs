//! Which family a configuration is of, and where in it the text model's part stands.

use super::object::Object;
use crate::Error;
use crate::config::Family;
use serde_json::Value;

/// Where multimodal wrappers keep the text model's configuration.
const TEXT: &str = "text_config";

/// The family, and the text model's part if it is not the whole.
pub(super) fn family<'a>(root: &Object<'a>) -> Result<(Family, Option<Object<'a>>), Error> {
    let named = root.text("model_type")?.and_then(Family::of_model_type);
    if named.is_none()
        && let Some(text) = root.object(TEXT)?
    {
        return Ok((of(&text)?, Some(text)));
    }
    Ok((of(root)?, None))
}

/// `model_type` decides; without one, `architectures` does. Two that contradict each other are refused, as other
/// programs go by the other.
fn of(object: &Object<'_>) -> Result<Family, Error> {
    let named = match object.text("model_type")? {
        None => None,
        Some(name) => match Family::of_model_type(name) {
            Some(family) => Some(family),
            None => return Err(object.unsupported("model_type", one_of(), name)),
        },
    };
    let mut found = named;
    for name in architectures(object) {
        let Some(family) = name.as_str().and_then(Family::of_architecture) else {
            let expected = named.map_or_else(one_of_architectures, |f| f.architecture().into());
            return Err(object.unsupported("architectures", expected, name));
        };
        match found {
            Some(other) if !alike(other, family) => {
                return Err(object.unsupported("architectures", other.architecture(), name));
            }
            Some(_) => {}
            None => found = Some(family),
        }
    }
    found.ok_or_else(|| object.unsupported("model_type", one_of(), "nothing"))
}

/// The same arithmetic, so that it does not matter which of two names a program goes by.
fn alike(a: Family, b: Family) -> bool {
    let plain = |family| matches!(family, Family::Llama | Family::Mistral);
    a == b || (plain(a) && plain(b))
}

fn architectures<'a>(object: &Object<'a>) -> &'a [Value] {
    match object.get("architectures") {
        None => &[],
        Some(Value::Array(names)) => names,
        Some(name) => std::slice::from_ref(name),
    }
}

fn one_of() -> String {
    format!("one of {}", Family::known())
}

fn one_of_architectures() -> String {
    format!("one of {}", Family::ALL.map(Family::architecture).join(", "))
}
