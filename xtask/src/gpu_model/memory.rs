//! What threads find in memory: what the host has sent, and elsewhere values such as training has.

/// Bytes that the host has sent, and where they lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) address: u64,
    pub(super) bytes: std::sync::Arc<[u8]>,
}

impl Known {
    fn read(&self, address: u64, bytes: u64) -> Option<u64> {
        let start = usize::try_from(address.checked_sub(self.address)?).ok()?;
        let part = self.bytes.get(start..start + bytes as usize)?;
        Some(part.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}

/// The value at an address, of a type: floats between -1 and 1, small bytes of either sign, bf16 about 0.7.
pub(super) fn read(known: &[Known], address: u64, is_float: bool, bytes: u64) -> u64 {
    if let Some(value) = known.iter().find_map(|known| known.read(address, bytes)) {
        return value;
    }
    let mixed = (address / bytes).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = mixed ^ mixed >> 29;
    let real = (mixed & 0xFFFF) as f32 / 32768.0 - 0.999;
    match (is_float, bytes) {
        (true, 4) => u64::from(real.to_bits()),
        (true, _) => f64::from(real).to_bits(),
        (false, 2) => 0x3F00 | mixed & 0x7F,
        // Up to 100, so that no weight is at the end of its range.
        (false, _) => (0..bytes).fold(0, |value, i| {
            let byte = ((mixed >> (8 * (i % 8)) & 0xFF) % 201) as i16 - 100;
            value | u64::from(byte as u8) << (8 * i)
        }),
    }
}
