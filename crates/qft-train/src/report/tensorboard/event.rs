//! Events in the encoding of protocol buffers, as far as a run has any: `tensorflow.Event` with a version, a session that begins,
//! or a summary of scalars.

/// Kinds of fields on the wire.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// The first event of a file.
pub(super) fn version(time: f64) -> Vec<u8> {
    let mut event = head(time, 0);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// A session begins with `step`: what earlier ones wrote of it and of later steps is taken back.
pub(super) fn session(time: f64, step: u64) -> Vec<u8> {
    let mut start = Vec::new();
    key(&mut start, 1, VARINT);
    varint(&mut start, 1);
    let mut event = head(time, step);
    bytes(&mut event, 7, &start);
    event
}

/// The numbers of a step, by name.
pub(super) fn scalars(time: f64, step: u64, scalars: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, number) in scalars {
        let mut value = Vec::new();
        bytes(&mut value, 1, name.as_bytes());
        key(&mut value, 2, FIXED_32);
        value.extend(number.to_le_bytes());
        bytes(&mut summary, 1, &value);
    }
    let mut event = head(time, step);
    bytes(&mut event, 5, &summary);
    event
}

/// The fields of every event; a step of zero is left out, as any field is that has its default.
fn head(time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, FIXED_64);
    event.extend(time.to_le_bytes());
    if step > 0 {
        key(&mut event, 2, VARINT);
        varint(&mut event, step);
    }
    event
}

fn key(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits to a byte, the lowest first.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_encoded_field_by_field() {
        let time = 1.5f64.to_le_bytes();
        let head = |step: &[u8]| [&[0x09], &time[..], step].concat();
        assert_eq!(version(1.5), [&head(&[])[..], b"\x1a\x0dbrain.Event:2"].concat());
        assert_eq!(session(1.5, 1), [&head(b"\x10\x01")[..], b"\x3a\x02\x08\x01"].concat());
        let one = scalars(1.5, 300, &[("loss".into(), 2.5)]);
        let value = [&b"\x0a\x04loss\x15"[..], &2.5f32.to_le_bytes()].concat();
        let summary = [&[0x0a, value.len() as u8], &value[..]].concat();
        let step = b"\x10\xac\x02";
        assert_eq!(one, [&head(step)[..], &[0x2a, summary.len() as u8], &summary].concat());
    }
}
