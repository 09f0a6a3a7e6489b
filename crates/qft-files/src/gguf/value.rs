//! Metadata of GGUF files.

/// The value of a metadata entry.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Whole numbers, which may be negative.
    I32s(Vec<i32>),
    /// Numbers.
    F32s(Vec<f32>),
    /// Answers.
    Bools(Vec<bool>),
    /// Texts.
    Texts(Vec<String>),
}

/// The number that says a list follows.
const LIST: u32 = 9;

impl GgufValue {
    /// Appends type and value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(value) => typed(out, 4, &value.to_le_bytes()),
            Self::F32(value) => typed(out, 6, &value.to_le_bytes()),
            Self::Bool(value) => typed(out, 7, &[u8::from(*value)]),
            Self::Text(value) => {
                out.extend(8u32.to_le_bytes());
                write_text(out, value);
            }
            Self::I32s(list) => {
                begin_list(out, 5, list.len());
                list.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::F32s(list) => {
                begin_list(out, 6, list.len());
                list.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::Bools(list) => {
                begin_list(out, 7, list.len());
                out.extend(list.iter().map(|&value| u8::from(value)));
            }
            Self::Texts(list) => {
                begin_list(out, 8, list.len());
                list.iter().for_each(|value| write_text(out, value));
            }
        }
    }
}

fn typed(out: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend(bytes);
}

fn begin_list(out: &mut Vec<u8>, kind: u32, len: usize) {
    out.extend(LIST.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}

/// Appends a text behind its length in bytes.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
