//! What random numbers are drawn for: every purpose in the workspace, each with its number.
//!
//! A purpose is a word of the key of a stream ([`crate::RngKey`]). Those of a training step leave its lower 24 bits to
//! the micro-batch and to the part of a tensor, 12 bits each; so the upper byte alone tells purposes apart.

/// Micro-batches of a step whose random numbers differ.
pub const MAX_MICRO_BATCHES: usize = 1 << PART_BITS;

/// Parts of a tensor whose random numbers differ.
pub const MAX_PARTS: usize = 1 << PART_BITS;

pub(crate) const PART_BITS: u32 = 12;

/// What random numbers are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// The update of weights and momentum.
    Update = 1 << 24,
    /// Rows whose scale grows in an update: see [`crate::RngKey::rescaling`].
    Rescale = RESCALING | 1 << 24,
    /// Gradient of an output, on the way to the gradient of the input.
    InputGradient = 2 << 24,
    /// Gradient of an output, on the way to the gradient of the weight.
    WeightGradient = 3 << 24,
    /// A gradient that is kept on the gradient stack.
    StoredGradient = 4 << 24,
    /// Numbers that decide between the codes of a moment.
    MomentDither = 5 << 24,
    /// The order of training data in a pass.
    DataOrder = u32::from_be_bytes(*b"data"),
    /// Weights of an untrained model.
    InitialWeights = u32::from_be_bytes(*b"init"),
    /// The choice of the next token.
    NextToken = u32::from_be_bytes(*b"pick"),
    /// Trained weights, on the way to a file of fewer bits.
    SavedWeights = u32::from_be_bytes(*b"save"),
    /// Known answers that a device must give.
    SelfTest = u32::from_be_bytes(*b"test"),
}

/// Makes the purpose of an update that of its rescaled rows.
pub const RESCALING: u32 = 1 << 31;

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Update,
        Self::Rescale,
        Self::InputGradient,
        Self::WeightGradient,
        Self::StoredGradient,
        Self::MomentDither,
        Self::DataOrder,
        Self::InitialWeights,
        Self::NextToken,
        Self::SavedWeights,
        Self::SelfTest,
    ];

    /// Its number.
    pub const fn word(self) -> u32 {
        self as u32
    }

    /// Whether micro-batches and parts of tensors have streams of their own.
    pub const fn has_parts(self) -> bool {
        self.word().trailing_zeros() >= 2 * PART_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_purposes_share_a_stream() {
        let words = |purpose: Purpose| {
            let span = if purpose.has_parts() { 1u64 << (2 * PART_BITS) } else { 1 };
            u64::from(purpose.word())..u64::from(purpose.word()) + span
        };
        for (i, &one) in Purpose::ALL.iter().enumerate() {
            for &other in &Purpose::ALL[i + 1..] {
                let (a, b) = (words(one), words(other));
                assert!(a.end <= b.start || b.end <= a.start, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn purposes_keep_their_numbers() {
        let words = Purpose::ALL.map(Purpose::word);
        let want = [
            0x0100_0000,
            0x8100_0000,
            0x0200_0000,
            0x0300_0000,
            0x0400_0000,
            0x0500_0000,
            0x6461_7461,
            0x696E_6974,
            0x7069_636B,
            0x7361_7665,
            0x7465_7374,
        ];
        assert_eq!(words, want, "a resumed run and a seed's model need the same bits");
    }
}
