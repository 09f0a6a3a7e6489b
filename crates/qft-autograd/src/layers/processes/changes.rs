//! Rows of INT8 weights on their way to processes that know them as they were before: what has changed of them.
//!
//! A step changes one weight in a hundred, or in five at a high rate. A row begins with the number of its bytes. Each
//! change is the number of weights that stay as they are before it, and the new weight; [`SKIP`] in place of that number
//! passes as many by without a change. Where that is not shorter than the row, the row itself is sent.

/// Passes as many weights, and no change follows.
const SKIP: u8 = u8::MAX;

/// In place of the number of bytes: the row itself follows.
const WHOLE: u32 = u32::MAX;

/// Appends what makes rows `new`, `cols` wide, of rows `old`.
pub(super) fn describe(old: &[u8], new: &[u8], cols: usize, out: &mut Vec<u8>) {
    for (old, new) in old.chunks_exact(cols).zip(new.chunks_exact(cols)) {
        let head = out.len();
        out.extend([0; size_of::<u32>()]);
        let body = out.len();
        describe_row(old, new, out);
        let mut len = (out.len() - body) as u32;
        if out.len() - body >= cols {
            out.truncate(body);
            out.extend(new);
            len = WHOLE;
        }
        out[head..body].copy_from_slice(&len.to_le_bytes());
    }
}

/// The most bytes that so many rows can take.
pub(super) fn most(rows: usize, cols: usize) -> usize {
    // While a row is described, it may become as long as twice itself.
    rows * (size_of::<u32>() + cols) + cols
}

fn describe_row(old: &[u8], new: &[u8], out: &mut Vec<u8>) {
    const LANES: usize = 32;
    let ((old, old_tail), (new, new_tail)) = (old.as_chunks::<LANES>(), new.as_chunks::<LANES>());
    let mut same = 0;
    for (old, new) in old.iter().zip(new) {
        same = if old == new { same + LANES } else { describe_each(old, new, same, out) };
    }
    describe_each(old_tail, new_tail, same, out);
}

/// After `same` weights that are as they were; how many there are at the end.
fn describe_each(old: &[u8], new: &[u8], mut same: usize, out: &mut Vec<u8>) -> usize {
    for (old, &new) in old.iter().zip(new) {
        if *old == new {
            same += 1;
            continue;
        }
        out.extend(std::iter::repeat_n(SKIP, same / usize::from(SKIP)));
        out.extend([(same % usize::from(SKIP)) as u8, new]);
        same = 0;
    }
    same
}

/// Makes rows `cols` wide of what [`describe`] says of them.
///
/// `None`: it is about other rows.
pub(super) fn apply(mut bytes: &[u8], rows: &mut [u8], cols: usize) -> Option<()> {
    for row in rows.chunks_exact_mut(cols) {
        let (len, behind) = bytes.split_first_chunk()?;
        let len = u32::from_le_bytes(*len);
        let (body, behind) = if len == WHOLE {
            let (body, behind) = behind.split_at_checked(cols)?;
            row.copy_from_slice(body);
            (&[][..], behind)
        } else {
            behind.split_at_checked(len as usize)?
        };
        apply_row(body, row)?;
        bytes = behind;
    }
    bytes.is_empty().then_some(())
}

fn apply_row(mut body: &[u8], row: &mut [u8]) -> Option<()> {
    let mut at = 0;
    loop {
        match *body {
            [] => return Some(()),
            [SKIP, ref rest @ ..] => (at, body) = (at + usize::from(SKIP), rest),
            [same, new, ref rest @ ..] => {
                at += usize::from(same);
                *row.get_mut(at)? = new;
                (at, body) = (at + 1, rest);
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows 700 wide, of which one in `rare` weights changes.
    fn rows(rare: usize) -> (Vec<u8>, Vec<u8>) {
        let old: Vec<u8> = (0..2100).map(|i| (i * 7 % 251) as u8).collect();
        let changes = |i: usize| u8::from((i * 2_654_435_761) % (1 << 20) % rare == rare - 1);
        let new = old.iter().enumerate().map(|(i, old)| old.wrapping_add(changes(i))).collect();
        (old, new)
    }

    #[test]
    fn rows_become_what_they_are_elsewhere() {
        for rare in [1, 2, 3, 10, 100, 600, 100_000] {
            let (mut old, new) = rows(rare);
            let mut bytes = Vec::new();
            describe(&old, &new, 700, &mut bytes);
            assert!(bytes.len() <= most(3, 700), "{rare}");
            if rare >= 100 {
                assert!(bytes.len() < 2100 / 20, "{rare}: {}", bytes.len());
            }
            apply(&bytes, &mut old, 700).unwrap();
            assert!(old == new, "{rare}");
        }
    }

    #[test]
    fn a_skip_ends_where_a_change_begins() {
        for place in [0, 254, 255, 256, 509, 510, 511, 699] {
            let (mut old, mut bytes) = (vec![3; 700], Vec::new());
            let mut new = old.clone();
            new[place] = 255;
            describe(&old, &new, 700, &mut bytes);
            apply(&bytes, &mut old, 700).unwrap();
            assert!(old == new, "{place}");
        }
    }

    #[test]
    fn what_is_about_other_rows_is_no_panic() {
        let (old, new) = rows(100);
        let mut bytes = Vec::new();
        describe(&old, &new, 700, &mut bytes);
        for other in [&bytes[..bytes.len() - 1], &[], &[1, 0, 0, 0, 7], &[2, 0, 0, 0, 254, 1]] {
            let mut few = old.clone();
            assert_eq!(apply(other, &mut few, 100), None);
        }
    }
}
