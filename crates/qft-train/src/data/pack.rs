//! First-fit packing: each document goes into the first sequence that has room for it.

/// The sequence of each document, by its length. Sequences hold at most `capacity`; a longer document has one alone.
pub(super) fn first_fit(
    lengths: impl ExactSizeIterator<Item = usize>,
    capacity: usize,
) -> Vec<u32> {
    // A complete binary tree of the room that is left in each sequence: a node holds the larger of its children, so the
    // first one with enough room is found from the root.
    let leaves = lengths.len().next_power_of_two().max(1);
    let mut room = vec![capacity; 2 * leaves];
    let mut sequences = Vec::with_capacity(lengths.len());
    for length in lengths {
        let need = length.min(capacity);
        let mut node = 1;
        while node < leaves {
            node *= 2;
            if room[node] < need {
                node += 1;
            }
        }
        sequences.push((node - leaves) as u32);
        room[node] -= need;
        while node > 1 {
            node /= 2;
            room[node] = room[2 * node].max(room[2 * node + 1]);
        }
    }
    sequences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_search_of_all_sequences() {
        let mut state = 7u64;
        for capacity in [1, 5, 64] {
            for count in [0, 1, 2, 33, 300] {
                let mut lengths = Vec::new();
                for _ in 0..count {
                    state =
                        state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    lengths.push(1 + (state >> 33) as usize % (capacity + 2));
                }
                let mut room: Vec<usize> = Vec::new();
                let slow = lengths.iter().map(|&length| {
                    let need = length.min(capacity);
                    let sequence =
                        room.iter().position(|&left| left >= need).unwrap_or_else(|| {
                            room.push(capacity);
                            room.len() - 1
                        });
                    room[sequence] -= need;
                    sequence as u32
                });
                let slow: Vec<u32> = slow.collect();
                assert_eq!(first_fit(lengths.iter().copied(), capacity), slow);
            }
        }
    }
}
