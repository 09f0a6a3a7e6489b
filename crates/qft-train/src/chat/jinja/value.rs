//! Python's values.

use super::fault::{Fault, Outcome};
use super::loops::Loop;
use serde_json::{Map, Value as Json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Lists, tuples and dictionaries within each other.
const MAX_DEPTH: u32 = 200;

/// What a namespace holds, by name.
pub(super) type Attributes = Vec<(Arc<str>, Value)>;

/// A value, as Python has it.
#[derive(Debug, Clone)]
pub(in super::super) enum Value {
    /// What nothing is defined for; the text says what.
    Undefined(Arc<str>),
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer. Python's have no end; those beyond 128 bits are errors.
    Int(i128),
    /// A float.
    Float(f64),
    /// A text.
    Text(Text),
    /// A list.
    List(Arc<Items>),
    /// A tuple.
    Tuple(Arc<Items>),
    /// A tuple `(grouper, list)` of the filter `groupby`.
    Group(Arc<Items>),
    /// A dictionary.
    Dict(Arc<Dict>),
    /// `range(start, stop, step)`.
    Range(Arc<Range>),
    /// `dict.keys()`, `dict.values()` or `dict.items()`.
    View(View, Arc<Dict>),
    /// What can be gone through once.
    Iterator(Arc<Once>),
    /// `namespace(...)`.
    Namespace(Arc<Mutex<Attributes>>),
    /// A function that every template knows.
    Function(Function),
    /// A method of a value.
    Method(Arc<(Value, &'static str)>),
    /// A macro, by its number and the frame that it was defined in.
    Macro(usize, usize),
    /// The variable `loop`.
    Loop(Arc<Loop>),
}

/// A text, and whether it is marked as escaped.
#[derive(Debug, Clone)]
pub(in super::super) struct Text {
    /// What it says.
    pub(super) text: Arc<str>,
    /// Whether it is `Markup`.
    pub(super) markup: bool,
}

/// The elements of a list or tuple.
#[derive(Debug)]
pub(in super::super) struct Items {
    /// The elements.
    pub(super) items: Vec<Value>,
    depth: u32,
}

/// Keys and values, in order.
#[derive(Debug)]
pub(in super::super) struct Dict {
    /// The entries; no key is there twice.
    pub(super) entries: Vec<(Value, Value)>,
    depth: u32,
}

/// A range of integers.
#[derive(Debug)]
pub(in super::super) struct Range {
    /// The first.
    pub(super) start: i128,
    /// Where it ends, exclusive.
    pub(super) stop: i128,
    /// From one to the next.
    pub(super) step: i128,
}

impl Range {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let span = if self.step > 0 { self.stop - self.start } else { self.start - self.stop };
        if span <= 0 { 0 } else { ((span - 1) / self.step.abs() + 1) as usize }
    }

    /// The one of a number.
    pub(super) fn get(&self, index: usize) -> Value {
        Value::Int(self.start + self.step * index as i128)
    }
}

/// What a view shows of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum View {
    Keys,
    Values,
    Items,
}

/// What can be gone through once.
#[derive(Debug)]
pub(in super::super) struct Once {
    /// What Python calls it.
    pub(super) kind: &'static str,
    /// What is left.
    pub(super) left: Mutex<VecDeque<Value>>,
}

/// A function that every template knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    StrftimeNow,
}

impl Value {
    /// A text.
    pub(in super::super) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Text { text: text.into(), markup: false })
    }

    /// A text, marked as escaped or not.
    pub(super) fn marked(text: impl Into<Arc<str>>, markup: bool) -> Self {
        Self::Text(Text { text: text.into(), markup })
    }

    /// Nothing; `what` is not there.
    pub(super) fn undefined(what: impl Into<Arc<str>>) -> Self {
        Self::Undefined(what.into())
    }

    /// An integer.
    pub(super) fn count(count: usize) -> Self {
        Self::Int(count as i128)
    }

    /// A list.
    ///
    /// Errors: its elements are nested too deeply, or cannot be in a list here.
    pub(in super::super) fn list(items: Vec<Value>) -> Outcome<Self> {
        Ok(Self::List(Arc::new(Items::new(items)?)))
    }

    /// A tuple; errors as of a list.
    pub(super) fn tuple(items: Vec<Value>) -> Outcome<Self> {
        Ok(Self::Tuple(Arc::new(Items::new(items)?)))
    }

    /// A dictionary of entries that have different keys; errors as of a list.
    pub(in super::super) fn dict(entries: Vec<(Value, Value)>) -> Outcome<Self> {
        let depth = depth(entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Self::Dict(Arc::new(Dict { entries, depth })))
    }

    /// What can be gone through once.
    pub(super) fn once(kind: &'static str, items: impl IntoIterator<Item = Value>) -> Self {
        Self::Iterator(Arc::new(Once { kind, left: Mutex::new(items.into_iter().collect()) }))
    }

    /// A JSON value.
    ///
    /// Errors: it is nested too deeply.
    pub(in super::super) fn from_json(json: &Json) -> Outcome<Self> {
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value.into()),
                (_, Some(value)) => Self::Int(value.into()),
                _ => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(text.as_str()),
            Json::Array(list) => {
                Self::list(list.iter().map(Self::from_json).collect::<Outcome<_>>()?)?
            }
            Json::Object(map) => Self::from_map(map)?,
        })
    }

    /// A JSON object, with the order of its fields.
    ///
    /// Errors: it is nested too deeply.
    pub(in super::super) fn from_map(map: &Map<String, Json>) -> Outcome<Self> {
        let entry = |(key, value): (&String, &Json)| {
            Ok((Self::text(key.as_str()), Self::from_json(value)?))
        };
        Self::dict(map.iter().map(entry).collect::<Outcome<_>>()?)
    }

    /// The text, if it is one.
    pub(in super::super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(&text.text),
            _ => None,
        }
    }

    /// The value of a key of a dictionary.
    pub(in super::super) fn field(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Dict(dict) => dict.text(key),
            _ => None,
        }
    }

    /// An integer or truth value as a number.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// Whether it counts as true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.text.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Group(items) => !items.items.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => !dict.entries.is_empty(),
            Self::Range(range) => range.len() > 0,
            Self::Iterator(_)
            | Self::Namespace(_)
            | Self::Function(_)
            | Self::Method(_)
            | Self::Macro(..)
            | Self::Loop(_) => true,
        }
    }

    /// What Python calls its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(text) => ["str", "Markup"][usize::from(text.markup)],
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Group(_) => "_GroupTuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Iterator(once) => once.kind,
            Self::Namespace(_) => "Namespace",
            Self::Function(_) => "function",
            Self::Method(_) => "method",
            Self::Macro(..) => "Macro",
            Self::Loop(_) => "LoopContext",
        }
    }
}

impl Items {
    fn new(items: Vec<Value>) -> Outcome<Self> {
        let depth = depth(&items)?;
        Ok(Self { items, depth })
    }

    /// The elements of a group.
    pub(super) fn group(grouper: Value, list: Vec<Value>) -> Outcome<Value> {
        Ok(Value::Group(Arc::new(Self::new(vec![grouper, Value::list(list)?])?)))
    }
}

impl Dict {
    /// The value of a key that is a text.
    pub(super) fn text(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
    }
}

/// How deeply values are nested that hold these.
fn depth<'a>(inner: impl IntoIterator<Item = &'a Value>) -> Outcome<u32> {
    let mut depth = 1;
    for value in inner {
        let below = match value {
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => items.depth,
            Value::Dict(dict) | Value::View(_, dict) => dict.depth,
            Value::Method(method) => self::depth([&method.0])?,
            Value::Iterator(_) => return Err(Fault::unsupported("an iterator within a value")),
            // Frames end before values do, and namespaces could hold themselves.
            Value::Macro(..) | Value::Loop(_) | Value::Namespace(_) => {
                return Err(Fault::unsupported(format!("a {} within a value", value.kind())));
            }
            _ => 0,
        };
        depth = depth.max(below + 1);
    }
    if depth > MAX_DEPTH {
        return Err(Fault::new("a value is nested too deeply"));
    }
    Ok(depth)
}

/// Checks that a value may be in a namespace, which lives as long as any frame.
pub(super) fn check_stored(value: &Value) -> Outcome<()> {
    match value {
        Value::Iterator(_) => Ok(()),
        _ => depth([value]).map(drop),
    }
}
