//! The values that instructions compute: exact for integers, which decide the way of a thread and the addresses it uses.

use super::opcode::{Arithmetic, Comparison, Type};

/// The result of an instruction of type `of` for three operands, of which the last may be absent.
pub(super) fn compute(arithmetic: Arithmetic, of: Type, operands: [u64; 4]) -> u64 {
    match of {
        _ if arithmetic == Arithmetic::PackBf16 => {
            let [high, low, ..] = operands.map(|bits| bits >> 16 & 0xFFFF);
            high << 16 | low
        }
        _ if let Arithmetic::Convert(from, down) = arithmetic => {
            convert(from, of, down, operands[0])
        }
        _ if arithmetic == Arithmetic::Move => operands[0],
        _ if arithmetic == Arithmetic::Select => {
            let [yes, no, chosen, _] = operands;
            if chosen != 0 { yes } else { no }
        }
        Type::F32 => {
            let [a, b, c, _] = operands.map(|bits| f64::from(f32::from_bits(bits as u32)));
            match float(arithmetic, [a, b, c]) {
                Outcome::Value(value) => u64::from((value as f32).to_bits()),
                Outcome::Truth(truth) => truth.into(),
            }
        }
        Type::F64 => {
            let [a, b, c, _] = operands.map(f64::from_bits);
            match float(arithmetic, [a, b, c]) {
                Outcome::Value(value) => value.to_bits(),
                Outcome::Truth(truth) => truth.into(),
            }
        }
        Type::Predicate => integer(arithmetic, 1, false, operands) & 1,
        Type::Unsigned(bits) => integer(arithmetic, bits, false, operands),
        Type::Signed(bits) => integer(arithmetic, bits, true, operands),
    }
}

enum Outcome {
    Value(f64),
    Truth(bool),
}

fn float(arithmetic: Arithmetic, [a, b, c]: [f64; 3]) -> Outcome {
    use Arithmetic as A;
    if let A::Compare(comparison) = arithmetic {
        let unordered = a.is_nan() || b.is_nan();
        return Outcome::Truth(match comparison {
            Comparison::Equal => a == b,
            Comparison::NotEqual => a != b && !unordered,
            Comparison::Less => a < b,
            Comparison::LessOrEqual => a <= b,
            Comparison::Greater => a > b,
            Comparison::GreaterOrEqual => a >= b,
            Comparison::LessUnordered => unordered || a < b,
            Comparison::LessOrEqualUnordered => unordered || a <= b,
            Comparison::GreaterOrEqualUnordered => unordered || a >= b,
            Comparison::Number => !unordered,
            Comparison::NotANumber => unordered,
        });
    }
    Outcome::Value(match arithmetic {
        A::Add => a + b,
        A::Subtract => a - b,
        A::Multiply => a * b,
        A::MultiplyAdd => a * b + c,
        A::Divide => a / b,
        A::Minimum => a.min(b),
        A::Maximum => a.max(b),
        A::Negate => -a,
        A::Absolute => a.abs(),
        A::Exponential => a.exp2(),
        A::SquareRoot => a.sqrt(),
        A::InverseSquareRoot => a.sqrt().recip(),
        A::Inverse => a.recip(),
        // What floats do not have.
        _ => 0.0,
    })
}

/// The lowest `bits` bits, with the sign spread if they have one.
fn value(bits: u32, signed: bool, x: u64) -> i128 {
    let kept = i128::from(x) & ((1 << bits) - 1);
    if signed && kept >> (bits - 1) & 1 == 1 { kept - (1 << bits) } else { kept }
}

fn integer(arithmetic: Arithmetic, bits: u32, signed: bool, operands: [u64; 4]) -> u64 {
    use Arithmetic as A;
    let [a, b, c, _] = operands.map(|x| value(bits, signed, x));
    let amount = (operands[1] as u32).min(64);
    let result: i128 = match arithmetic {
        A::Add => a + b,
        A::Subtract => a - b,
        A::Multiply | A::MultiplyWide => a.wrapping_mul(b),
        A::MultiplyHigh => a.wrapping_mul(b) >> bits,
        A::MultiplyAdd => a.wrapping_mul(b).wrapping_add(c),
        A::DotProduct => c + dot_product(operands[0], operands[1]),
        A::Divide => a.checked_div(b).unwrap_or(-1),
        A::Remainder => a.checked_rem(b).unwrap_or(0),
        A::Minimum => a.min(b),
        A::Maximum => a.max(b),
        A::And => a & b,
        A::Or => a | b,
        A::Xor => a ^ b,
        A::Not => !a,
        A::Negate => -a,
        A::Absolute => a.abs(),
        A::ShiftLeft => a << amount,
        A::ShiftRight => a >> amount,
        A::Insert => {
            let [part, whole, start, count] = operands;
            let mask = ((1_u128 << count.min(64)) - 1) as u64;
            let (start, mask) = (start.min(63), mask << start.min(63));
            i128::from(whole & !mask | part << start & mask)
        }
        A::Permute => i128::from(permute(operands)),
        A::CountOnes => i128::from((operands[0] & mask(bits)).count_ones()),
        A::CountZeros => i128::from((operands[0] & mask(bits)).leading_zeros() + bits).max(64) - 64,
        A::Compare(comparison) => i128::from(match comparison {
            Comparison::Equal => a == b,
            Comparison::NotEqual => a != b,
            Comparison::Less | Comparison::LessUnordered => a < b,
            Comparison::LessOrEqual | Comparison::LessOrEqualUnordered => a <= b,
            Comparison::Greater => a > b,
            Comparison::GreaterOrEqual | Comparison::GreaterOrEqualUnordered => a >= b,
            Comparison::Number => true,
            Comparison::NotANumber => false,
        }),
        // What integers do not have.
        _ => 0,
    };
    let kept = if arithmetic == A::MultiplyWide { 2 * bits } else { bits };
    result as u64 & mask(kept)
}

fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn dot_product(a: u64, b: u64) -> i128 {
    let byte = |x: u64, i: u32| value(8, true, x >> (8 * i));
    (0..4).map(|i| byte(a, i) * byte(b, i)).sum()
}

/// Four bytes of eight, by the lowest three bits of each digit; the fourth spreads the sign.
fn permute([low, high, selector, _]: [u64; 4]) -> u64 {
    let bytes = low & 0xFFFF_FFFF | high << 32;
    (0..4).fold(0, |word, i| {
        let digit = selector >> (4 * i) & 0xF;
        let byte = bytes >> (8 * (digit & 7)) & 0xFF;
        let byte = if digit & 8 == 0 { byte } else { (byte >> 7) * 0xFF };
        word | byte << (8 * i)
    })
}

fn convert(from: Type, to: Type, down: Option<bool>, x: u64) -> u64 {
    let real = match from {
        Type::F32 => f64::from(f32::from_bits(x as u32)),
        Type::F64 => f64::from_bits(x),
        Type::Unsigned(bits) => value(bits, false, x) as f64,
        Type::Signed(bits) => value(bits, true, x) as f64,
        Type::Predicate => 0.0,
    };
    let rounded = match down {
        Some(true) => real.floor(),
        Some(false) => real.trunc(),
        None => real.round_ties_even(),
    };
    match (from, to) {
        (Type::F32 | Type::F64, Type::Signed(bits) | Type::Unsigned(bits)) => {
            rounded as i64 as u64 & mask(bits)
        }
        (Type::F32, Type::F32) => u64::from((rounded as f32).to_bits()),
        (Type::F64, Type::F64) => rounded.to_bits(),
        (_, Type::F32) => u64::from((real as f32).to_bits()),
        (_, Type::F64) => real.to_bits(),
        (Type::Signed(bits), Type::Signed(to) | Type::Unsigned(to)) => {
            value(bits, true, x) as u64 & mask(to)
        }
        (Type::Unsigned(bits), Type::Signed(to) | Type::Unsigned(to)) => {
            value(bits, false, x) as u64 & mask(to)
        }
        _ => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Arithmetic as A;

    #[test]
    fn integers_wrap_and_shift_as_ptx_says() {
        let (s32, u32) = (Type::Signed(32), Type::Unsigned(32));
        for (arithmetic, of, operands, expected) in [
            (A::Subtract, u32, [1, 2, 0, 0], 0xFFFF_FFFF),
            (A::MultiplyWide, u32, [0xFFFF_FFFF, 2, 0, 0], 0x1_FFFF_FFFE),
            (A::MultiplyWide, s32, [0xFFFF_FFFF, 2, 0, 0], u64::MAX - 1),
            (A::MultiplyHigh, u32, [1 << 31, 4, 0, 0], 2),
            (A::ShiftRight, s32, [0x8000_0000, 4, 0, 0], 0xF800_0000),
            (A::ShiftLeft, u32, [1, 40, 0, 0], 0),
            (A::Insert, u32, [5, 0xFFFF_FFFF, 4, 3], 0xFFFF_FFDF),
            (A::Permute, u32, [0x0403_0281, 0x0807_0605, 0x8740, 0], 0xFF08_0581),
            (A::DotProduct, s32, [0x0102_03FF, 0x0101_0102, 10, 0], 14),
            (A::CountZeros, u32, [1, 0, 0, 0], 31),
            (A::Compare(Comparison::Less), s32, [0xFFFF_FFFF, 0, 0, 0], 1),
            (A::Compare(Comparison::Less), u32, [0xFFFF_FFFF, 0, 0, 0], 0),
        ] {
            assert_eq!(compute(arithmetic, of, operands), expected, "{arithmetic:?} {operands:?}");
        }
    }

    #[test]
    fn floats_are_computed_converted_and_packed() {
        let f = |x: f32| u64::from(x.to_bits());
        assert_eq!(compute(A::MultiplyAdd, Type::F32, [f(2.0), f(3.0), f(1.0), 0]), f(7.0));
        let to_integer = A::Convert(Type::F32, None);
        assert_eq!(compute(to_integer, Type::Signed(32), [f(-2.5), 0, 0, 0]), 0xFFFF_FFFE);
        let to_float = A::Convert(Type::Signed(8), None);
        assert_eq!(compute(to_float, Type::F32, [0xFF, 0, 0, 0]), f(-1.0));
        assert_eq!(compute(A::PackBf16, Type::F32, [f(1.0), f(2.0), 0, 0]), 0x3F80_4000);
        let no_number = A::Compare(Comparison::GreaterOrEqualUnordered);
        assert_eq!(compute(no_number, Type::F32, [f(f32::NAN), f(1.0), 0, 0]), 1);
    }
}
