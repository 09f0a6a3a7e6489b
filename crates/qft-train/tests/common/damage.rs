//! Data files that are damaged by chance, the same for the same seed.

use serde_json::{Map, Value, json};
use std::io::Write;

/// A file.
pub(crate) struct Damaged {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) bytes: Vec<u8>,
}

/// Numbers by chance.
pub(crate) struct Chance(u64);

/// Names of files, and what they hold.
const FILES: [(&str, Layout); 6] = [
    ("a.jsonl", Layout::Lines),
    ("a.json", Layout::Array),
    ("a.csv", Layout::Csv),
    ("a.jsonl.gz", Layout::Lines),
    ("a.json.gz", Layout::Array),
    ("a.csv.gz", Layout::Csv),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Lines,
    Array,
    Csv,
}

impl Chance {
    /// Other numbers for another seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A file that is damaged at one place or several.
    pub(crate) fn damaged(&mut self) -> Damaged {
        let &(name, layout) = self.of(&FILES);
        let format = self.below(6);
        let mut records: Vec<Value> = (0..1 + self.below(4)).map(|i| record(format, i)).collect();
        let in_values = self.below(3) > 0;
        if in_values {
            for _ in 0..1 + self.below(2) {
                let place = self.below(records.len());
                self.damage_value(&mut records[place], 0);
            }
        }
        let mut bytes = written(&records, layout);
        if !in_values || self.below(4) == 0 {
            for _ in 0..1 + self.below(3) {
                self.damage_bytes(&mut bytes);
            }
        }
        if name.ends_with(".gz") {
            bytes = packed(&bytes);
            if self.below(8) == 0 {
                self.damage_bytes(&mut bytes);
            }
        }
        Damaged { name, bytes }
    }

    /// Damages a value or one within.
    fn damage_value(&mut self, value: &mut Value, depth: usize) {
        let deeper = depth < 6 && self.below(3) > 0;
        match value {
            Value::Object(map) if !map.is_empty() => {
                let keys: Vec<String> = map.keys().cloned().collect();
                let key = self.of(&keys).clone();
                if deeper {
                    return self.damage_value(&mut map[&key], depth + 1);
                }
                self.damage_entry(map, &key);
            }
            Value::Array(list) if deeper && !list.is_empty() => {
                let place = self.below(list.len());
                self.damage_value(&mut list[place], depth + 1);
            }
            Value::Array(list) if self.below(2) == 0 => match self.below(3) {
                0 => list.clear(),
                1 => drop(list.pop()),
                _ => list.push(self.other()),
            },
            value => *value = self.other(),
        }
    }

    fn damage_entry(&mut self, map: &mut Map<String, Value>, key: &str) {
        let value = map.shift_remove(key).unwrap_or_default();
        match self.below(5) {
            0 => {}
            1 => drop(map.insert(format!("{key}s"), value)),
            2 => drop(map.insert(key.to_uppercase(), value)),
            3 => drop(map.insert(key.into(), json!([value]))),
            _ => drop(map.insert(key.into(), self.other())),
        }
    }

    /// A value of some type.
    fn other(&mut self) -> Value {
        match self.below(14) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.next()),
            3 => json!(-1.5e300),
            4 => json!(""),
            5 => json!("\u{0}\u{feff}\u{2028}\r\n\t\"\\"),
            6 => json!("{\"name\": \"f\", \"arguments\": {}}"),
            7 => json!("[{\"role\": \"user\", \"content\": \"x\"}]"),
            8 => json!([]),
            9 => json!({}),
            10 => json!([[["x"]], {"role": "user"}]),
            11 => json!({"role": "assistant", "content": [{"type": "text", "text": "t"}, 3]}),
            12 => {
                let depth = self.below(120);
                (0..depth).fold(json!(0), |inner, i| {
                    if i % 2 == 0 { json!([inner]) } else { json!({"x": inner}) }
                })
            }
            _ => json!("</s><|im_end|>{{ x }}{% endfor %}"),
        }
    }

    fn damage_bytes(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len() + 1);
        let insert = |bytes: &mut Vec<u8>, what: &[u8]| {
            drop(bytes.splice(place..place, what.iter().copied()))
        };
        match self.below(12) {
            0 if place < bytes.len() => bytes[place] ^= 1 << self.below(8),
            0 | 1 => bytes.truncate(place),
            2 => insert(bytes, &[0]),
            3 => insert(bytes, "\u{feff}".as_bytes()),
            4 => insert(bytes, b"\\ud800"),
            5 => insert(bytes, &[0xff, 0xfe]),
            6 => {
                let text = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
                *bytes = text.into_bytes();
            }
            7 => insert(bytes, b"\n"),
            8 => insert(bytes, "9".repeat(400).as_bytes()),
            9 => insert(bytes, "[".repeat(1 + self.below(3000)).as_bytes()),
            10 => {
                let end = (place + self.below(40)).min(bytes.len());
                let again = bytes[place..end].to_vec();
                insert(bytes, &again);
            }
            _ => {
                let end = (place + self.below(20)).min(bytes.len());
                bytes.drain(place..end);
            }
        }
    }
}

/// A record of a format that is right.
fn record(format: usize, number: usize) -> Value {
    match format {
        0 => {
            json!({"instruction": "Add the numbers.", "input": "1 2 ä", "output": format!("It is {number}."), "history": [["Hi", "Hello"]]})
        }
        1 => json!({"conversations": [
            {"from": "human", "value": "What is the weather?"},
            {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}"},
            {"from": "observation", "value": "{\"degrees\": 21.5}"},
            {"from": "gpt", "value": format!("It is warm. {number}")},
        ], "tools": "[{\"name\": \"weather\"}]", "system": "Be kind."}),
        2 => json!({"messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": " now? 😀"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
            {"role": "assistant", "content": format!("So it is. {number}"), "weight": 1, "reasoning_content": "Hm."},
        ], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}),
        3 => {
            json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": format!("Hello {number}!")}]})
        }
        4 => json!({"prompt": "Once upon", "completion": format!(" a time, {number}\r\n")}),
        _ => json!({"text": format!("A text, \"quoted\"; \\ and\nlines {number}"), "id": number}),
    }
}

fn written(records: &[Value], layout: Layout) -> Vec<u8> {
    match layout {
        Layout::Lines => {
            records.iter().flat_map(|record| format!("{record}\n").into_bytes()).collect()
        }
        Layout::Array => Value::from(records.to_vec()).to_string().into_bytes(),
        Layout::Csv => {
            let mut out = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            let columns: Vec<&String> =
                records[0].as_object().map(|map| map.keys().collect()).unwrap_or_default();
            let _ = out.write_record(&columns);
            for record in records {
                let cells = record.as_object().into_iter().flatten();
                let cell = |(_, value): (&String, &Value)| match value {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                let _ = out.write_record(cells.map(cell));
            }
            out.into_inner().unwrap_or_default()
        }
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let _ = gzip.write_all(bytes);
    gzip.finish().unwrap_or_default()
}
