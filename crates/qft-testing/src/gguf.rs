//! A reader of GGUF files, written from the format's description (`docs/gguf.md` of ggml) alone.

use std::collections::BTreeMap;
use std::path::Path;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any number, or yes (1) or no (0).
    Number(f64),
    /// A text.
    Text(String),
    /// A list of numbers.
    Numbers(Vec<f64>),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Shape, as PyTorch gives it: the other way round than in the file.
    pub shape: Vec<usize>,
    /// The number of its type: 0 F32, 1 F16, 8 Q8_0, 30 BF16.
    pub kind: u32,
    /// Its elements, as the type holds them.
    pub values: Vec<f32>,
}

/// All that a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// The metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors.
    pub tensors: BTreeMap<String, Tensor>,
}

/// The bytes that were not read yet.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_first_chunk().unwrap_or_else(|| panic!("the file ends"));
        self.0 = tail;
        *head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn text(&mut self) -> String {
        let length = self.u64() as usize;
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        String::from_utf8(head.to_vec()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn number(&mut self, kind: u32) -> f64 {
        match kind {
            4 => f64::from(self.u32()),
            5 => f64::from(i32::from_le_bytes(self.take())),
            6 => f64::from(f32::from_le_bytes(self.take())),
            7 => f64::from(u8::from_le_bytes(self.take())),
            _ => panic!("type {kind} of a number"),
        }
    }

    fn value(&mut self) -> Value {
        match self.u32() {
            8 => Value::Text(self.text()),
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                match kind {
                    8 => Value::Texts((0..count).map(|_| self.text()).collect()),
                    _ => Value::Numbers((0..count).map(|_| self.number(kind)).collect()),
                }
            }
            kind => Value::Number(self.number(kind)),
        }
    }
}

/// Reads a whole file.
///
/// # Panics
///
/// If the file is not as the format wants it: magic number and version, names that occur once, data at multiples of 32
/// bytes, and nothing after the last tensor but what fills it up to one.
pub fn read(path: &Path) -> Contents {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cursor = Cursor(&bytes);
    assert_eq!((&cursor.take::<4>(), cursor.u32()), (b"GGUF", 3));
    let (tensors, entries) = (cursor.u64(), cursor.u64());
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = cursor.text();
        let value = cursor.value();
        assert!(metadata.insert(key.clone(), value).is_none(), "{key} occurs twice");
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = cursor.text();
        let dimensions = cursor.u32();
        let mut shape: Vec<_> = (0..dimensions).map(|_| cursor.u64() as usize).collect();
        shape.reverse();
        let (kind, offset) = (cursor.u32(), cursor.u64() as usize);
        assert!(offset.is_multiple_of(32), "{name} at {offset}");
        places.push((name, shape, kind, offset));
    }
    let begin = (bytes.len() - cursor.0.len()).next_multiple_of(32);
    let mut end = 0;
    let mut tensors = BTreeMap::new();
    for (name, shape, kind, offset) in places {
        let count: usize = shape.iter().product();
        let length = match kind {
            0 => 4 * count,
            1 | 30 => 2 * count,
            8 => count / 32 * 34,
            _ => panic!("{name}: type {kind}"),
        };
        assert_eq!(offset, end, "{name}: a gap or an overlap");
        end = (offset + length).next_multiple_of(32);
        let data = &bytes[begin + offset..][..length];
        let values = values(kind, data);
        assert_eq!(values.len(), count, "{name}");
        assert!(tensors.insert(name.clone(), Tensor { shape, kind, values }).is_none(), "{name}");
    }
    assert_eq!(begin + end, bytes.len(), "the length of the file");
    Contents { metadata, tensors }
}

/// Elements of a type, from their bytes.
fn values(kind: u32, data: &[u8]) -> Vec<f32> {
    let pair = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    match kind {
        0 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        1 => data.chunks_exact(2).map(|bytes| half(pair(bytes))).collect(),
        8 => data
            .chunks_exact(34)
            .flat_map(|block| {
                let scale = half(pair(block));
                block[2..].iter().map(move |&code| scale * f32::from(code as i8))
            })
            .collect(),
        _ => data.chunks_exact(2).map(|b| f32::from_bits(u32::from(pair(b)) << 16)).collect(),
    }
}

/// The number that a float16 is.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 => panic!("not a number, or infinite"),
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}
