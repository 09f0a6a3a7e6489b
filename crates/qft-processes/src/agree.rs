//! Whether all processes of a job have the same.

use qft_tensor::{Communicator, Error};
use std::ops::Range;

/// Compares named values, such as versions, options and hashes, over all processes: all must call it. Where values differ, all
/// get the same error, which names the first and the two processes that differ.
///
/// ```
/// let version = ("version", "0.1.0".to_owned());
/// assert_eq!(qft_processes::agree(&qft_tensor::Alone, &[version]), Ok(()));
/// ```
///
/// Errors: what differs, or why it could not be compared, in words.
pub fn agree(processes: &dyn Communicator, what: &[(&str, String)]) -> Result<(), String> {
    let all = gather(processes, &encode(what)).map_err(|error| error.to_string())?;
    for (rank, theirs) in all.iter().enumerate() {
        let strange =
            || format!("process {rank} runs another program than process 0, or another version");
        let (first, theirs) = (decode(&all[0]), decode(theirs));
        let (first, theirs) = first.zip(theirs).ok_or_else(strange)?;
        if first.len() != theirs.len() {
            return Err(strange());
        }
        for ((name, value), (other_name, other)) in first.iter().zip(&theirs) {
            if name != other_name {
                return Err(strange());
            }
            if value != other {
                return Err(format!(
                    "{name} differs: `{value}` for process 0, `{other}` for process {rank}; all need the same"
                ));
            }
        }
    }
    Ok(())
}

/// The bytes of every process.
fn gather(processes: &dyn Communicator, mine: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    const LENGTH: usize = size_of::<u64>();
    let (rank, size) = (processes.rank(), processes.size());
    let parts: Vec<_> = (0..size).map(|r| r * LENGTH..(r + 1) * LENGTH).collect();
    let mut lengths = vec![0; size * LENGTH];
    lengths[parts[rank].clone()].copy_from_slice(&(mine.len() as u64).to_le_bytes());
    processes.gather(&mut lengths, &parts)?;
    let mut parts: Vec<Range<usize>> = Vec::with_capacity(size);
    for length in lengths.as_chunks().0 {
        let start = parts.last().map_or(0, |part| part.end);
        parts.push(start..start + u64::from_le_bytes(*length) as usize);
    }
    let mut bytes = vec![0; parts.last().map_or(0, |part| part.end)];
    bytes[parts[rank].clone()].copy_from_slice(mine);
    processes.gather(&mut bytes, &parts)?;
    Ok(parts.into_iter().map(|part| bytes[part].to_vec()).collect())
}

/// Names and values, each behind its length.
fn encode(what: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in what.iter().flat_map(|(name, value)| [*name, value]) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// What was encoded, if it was.
fn decode(mut bytes: &[u8]) -> Option<Vec<(&str, &str)>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (text, rest) =
            rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        texts.push(str::from_utf8(text).ok()?);
        bytes = rest;
    }
    let (pairs, rest) = texts.as_chunks::<2>();
    let whole = bytes.is_empty() && rest.is_empty();
    whole.then(|| pairs.iter().map(|[name, value]| (*name, *value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Process 0 of a job, whose other processes say these.
    #[derive(Debug)]
    struct Others(Vec<Vec<u8>>);

    impl Communicator for Others {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            self.0.len() + 1
        }

        fn max(&self, _values: &mut [u32]) -> Result<(), Error> {
            unreachable!("nothing is compared by size")
        }

        fn gather(&self, bytes: &mut [u8], parts: &[Range<usize>]) -> Result<(), Error> {
            for (said, part) in self.0.iter().zip(&parts[1..]) {
                let lengths = bytes.len() == 8 * self.size() && part.len() == 8;
                let length = (said.len() as u64).to_le_bytes();
                bytes[part.clone()].copy_from_slice(if lengths { &length } else { said });
            }
            Ok(())
        }

        fn exchange(
            &self,
            _send: &[u8],
            _send_parts: &[Range<usize>],
            _receive: &mut [u8],
            _receive_parts: &[Range<usize>],
        ) -> Result<(), Error> {
            unreachable!("everything is for all")
        }

        fn abort(&self) -> ! {
            unreachable!("the caller decides")
        }
    }

    fn values(values: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let mine = values(&[("version", "0.1.0"), ("--lr", "1e-5"), ("--steps", "300")]);
        let same = encode(&mine);
        let theirs = encode(&values(&[("version", "0.1.0"), ("--lr", "2e-5"), ("--steps", "3")]));
        assert_eq!(agree(&Others(vec![same.clone(), same.clone()]), &mine), Ok(()));
        let error = agree(&Others(vec![same, theirs]), &mine).unwrap_err();
        let expected =
            "--lr differs: `1e-5` for process 0, `2e-5` for process 2; all need the same";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_another_program_says_is_no_panic() {
        let mine = values(&[("version", "0.1.0")]);
        let more = encode(&values(&[("version", "0.1.0"), ("a", "b")]));
        let renamed = encode(&values(&[("hash", "0.1.0")]));
        for theirs in [vec![], vec![1, 2, 3], vec![255; 16], more, renamed] {
            let error = agree(&Others(vec![theirs]), &mine).unwrap_err();
            assert!(error.contains("process 1 runs another program"), "{error}");
        }
    }

    #[test]
    fn texts_survive() {
        let what = values(&[("a", ""), ("", "ü"), ("c", "d")]);
        let encoded = encode(&what);
        assert_eq!(decode(&encoded).unwrap(), [("a", ""), ("", "ü"), ("c", "d")]);
        assert_eq!(decode(&encoded[..encoded.len() - 1]), None);
    }
}
