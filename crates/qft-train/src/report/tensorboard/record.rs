//! TFRecord, the container of event files: each record between its length and a checksum.

use crc::{CRC_32_ISCSI, Crc};

/// CRC-32C.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A record as it stands in a file: u64 length, u32 checksum of it, `data`, u32 checksum of that; all little-endian.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// A checksum, changed so that one of bytes that hold a checksum is another.
fn masked(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The records of a file.
    pub(crate) fn unframed(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
            let data = &rest[4..][..u64::from_le_bytes(*length) as usize];
            assert_eq!(&rest[..4], masked(length).to_le_bytes());
            assert_eq!(&rest[4 + data.len()..][..4], masked(data).to_le_bytes());
            records.push(data.to_vec());
            bytes = &rest[8 + data.len()..];
        }
        records
    }

    #[test]
    fn a_record_has_the_bytes_that_tensorflow_writes() {
        // The first record of every event file since 2015, its time set to zero.
        let data = b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2";
        let bytes = framed(data);
        assert_eq!(bytes[..8], 24u64.to_le_bytes());
        // The length 24 stands at the head of each of these files, and its checksum behind it.
        assert_eq!(bytes[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(unframed(&bytes), [data]);
    }
}
