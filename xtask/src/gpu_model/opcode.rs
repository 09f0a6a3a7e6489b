//! What an instruction of PTX does, and what of a multiprocessor it takes.

use super::resources::Resource;
use anyhow::{Context, Result, bail};

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Predicate,
    Unsigned(u32),
    Signed(u32),
    F32,
    F64,
}

impl Type {
    /// Bytes in memory.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Predicate => 1,
            Self::Unsigned(bits) | Self::Signed(bits) => u64::from(bits / 8),
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "pred" => Self::Predicate,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "u8" | "b8" => Self::Unsigned(8),
            "u16" | "b16" => Self::Unsigned(16),
            "u32" | "b32" => Self::Unsigned(32),
            "u64" | "b64" => Self::Unsigned(64),
            "s8" => Self::Signed(8),
            "s16" => Self::Signed(16),
            "s32" => Self::Signed(32),
            "s64" => Self::Signed(64),
            _ => return None,
        })
    }
}

/// Memory that an address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
    /// The address tells.
    Generic,
}

/// A comparison; those of floats with a `u` hold for what is not a number, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    LessUnordered,
    LessOrEqualUnordered,
    GreaterOrEqualUnordered,
    Number,
    NotANumber,
}

/// What an instruction computes from the values of its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Move,
    Add,
    Subtract,
    Multiply,
    MultiplyHigh,
    MultiplyWide,
    MultiplyAdd,
    /// Of four signed bytes each, added to the third operand.
    DotProduct,
    Divide,
    Remainder,
    Minimum,
    Maximum,
    And,
    Or,
    Xor,
    Not,
    Negate,
    Absolute,
    ShiftLeft,
    ShiftRight,
    Insert,
    Permute,
    CountOnes,
    CountZeros,
    Compare(Comparison),
    Select,
    /// From this type to that of the instruction; `Some(true)` rounds down, `Some(false)` towards zero, `None` to nearest.
    Convert(Type, Option<bool>),
    /// Two floats to two bf16.
    PackBf16,
    Exponential,
    SquareRoot,
    InverseSquareRoot,
    Inverse,
}

/// What an instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Compute(Arithmetic),
    Parameter,
    Load(Space),
    Store(Space),
    Atomic(Space),
    CopyAsync,
    LoadMatrix,
    /// Multiplications and additions of a warp, on what, and bytes of shared memory that it reads by itself.
    Product {
        count: u64,
        on: Resource,
        shared_bytes: u64,
    },
    ShuffleXor,
    ShuffleFrom,
    ShuffleUp,
    Ballot,
    ReduceMax,
    Barrier,
    Branch,
    Return,
    /// Orders others.
    Nothing,
}

/// An instruction without its operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Opcode {
    pub(super) action: Action,
    pub(super) of: Type,
    /// Instructions of the machine that it becomes, as [`slots`] estimates.
    pub(super) slots: f32,
    /// What they take of another unit.
    pub(super) unit: Option<(Resource, f32)>,
}

/// What the name of an instruction says.
///
/// Errors: one that is not known.
pub(super) fn opcode(name: &str) -> Result<Opcode> {
    let words: Vec<&str> = name.split('.').collect();
    let of = words.iter().rev().find_map(|word| Type::of(word)).unwrap_or(Type::Unsigned(32));
    let action = action(name, &words, of).with_context(|| format!("instruction {name}"))?;
    let of = match action {
        // The first of two types is that of the result.
        Action::Compute(Arithmetic::Convert(..)) => {
            words.iter().find_map(|word| Type::of(word)).unwrap_or(of)
        }
        _ => of,
    };
    let (slots, unit) = slots(action, of);
    Ok(Opcode { action, of, slots, unit })
}

fn action(name: &str, words: &[&str], of: Type) -> Result<Action> {
    let has = |word: &str| words.contains(&word);
    let space = if has("global") {
        Space::Global
    } else if has("shared") {
        Space::Shared
    } else {
        Space::Generic
    };
    let product = |count, on, shared_bytes| Action::Product { count, on, shared_bytes };
    Ok(match words[0] {
        "ld" if has("param") => Action::Parameter,
        "ld" => Action::Load(space),
        "st" => Action::Store(space),
        "atom" => Action::Atomic(space),
        "cp" if has("cg") || has("ca") => Action::CopyAsync,
        "ldmatrix" => Action::LoadMatrix,
        "mma" if has("m16n8k32") => product(16 * 8 * 32, Resource::Int8, 0),
        "mma" if has("m16n8k16") => product(16 * 8 * 16, Resource::Bf16, 0),
        // A quarter of a warpgroup's product, and of the 256 rows of 32 bytes that it reads.
        "wgmma" if has("m64n256k32") => {
            product(64 * 256 * 32 / 4, Resource::Warpgroup, 256 * 32 / 4)
        }
        "shfl" if has("bfly") => Action::ShuffleXor,
        "shfl" if has("idx") => Action::ShuffleFrom,
        "shfl" if has("up") => Action::ShuffleUp,
        "vote" => Action::Ballot,
        "redux" => Action::ReduceMax,
        "bar" if has("warp") => Action::Nothing,
        "bar" => Action::Barrier,
        "bra" => Action::Branch,
        "ret" => Action::Return,
        "cp" | "fence" | "wgmma" => Action::Nothing,
        _ => match arithmetic(words, of) {
            Some(arithmetic) => Action::Compute(arithmetic),
            None => bail!("{name} is not known"),
        },
    })
}

fn arithmetic(words: &[&str], of: Type) -> Option<Arithmetic> {
    use Arithmetic as A;
    let has = |word: &str| words.contains(&word);
    Some(match words[0] {
        "mov" | "cvta" => A::Move,
        "add" => A::Add,
        "sub" => A::Subtract,
        "mul" if has("wide") => A::MultiplyWide,
        "mul" if has("hi") => A::MultiplyHigh,
        "mul" => A::Multiply,
        "mad" | "fma" if !has("wide") && !has("hi") => A::MultiplyAdd,
        "dp4a" => A::DotProduct,
        "div" => A::Divide,
        "rem" => A::Remainder,
        "min" => A::Minimum,
        "max" => A::Maximum,
        "and" => A::And,
        "or" => A::Or,
        "xor" => A::Xor,
        "not" => A::Not,
        "neg" => A::Negate,
        "abs" => A::Absolute,
        "shl" => A::ShiftLeft,
        "shr" => A::ShiftRight,
        "bfi" => A::Insert,
        "prmt" => A::Permute,
        "popc" => A::CountOnes,
        "clz" => A::CountZeros,
        "selp" => A::Select,
        "ex2" => A::Exponential,
        "sqrt" => A::SquareRoot,
        "rsqrt" => A::InverseSquareRoot,
        "rcp" => A::Inverse,
        "setp" => A::Compare(comparison(words[1])?),
        "cvt" if has("bf16x2") => A::PackBf16,
        "cvt" => {
            let down = has("rmi").then_some(true).or_else(|| has("rzi").then_some(false));
            A::Convert(of, down)
        }
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "eq" => Comparison::Equal,
        "ne" => Comparison::NotEqual,
        "lt" => Comparison::Less,
        "le" => Comparison::LessOrEqual,
        "gt" => Comparison::Greater,
        "ge" => Comparison::GreaterOrEqual,
        "ltu" => Comparison::LessUnordered,
        "leu" => Comparison::LessOrEqualUnordered,
        "geu" => Comparison::GreaterOrEqualUnordered,
        "num" => Comparison::Number,
        "nan" => Comparison::NotANumber,
        _ => return None,
    })
}

/// Instructions of the machine that become of one of PTX, and the unit that takes them beside the scheduler.
///
/// Estimates, by what the assembler makes of it: copies and the narrowing of registers become none, signs of floats are part of
/// their reader, 64-bit integers take two, divisions and roots that round correctly a short sequence each. Units of which no kernel
/// asks for more than its share of the slots are left out: those for integers and comparisons do half as many as there are slots,
/// and fewer than half of any kernel's instructions are theirs.
fn slots(action: Action, of: Type) -> (f32, Option<(Resource, f32)>) {
    use Arithmetic as A;
    let wide = if of.bytes() == 8 { 2.0 } else { 1.0 };
    let special = |slots| (slots, Some((Resource::Special, 1.0)));
    let double = (1.0, Some((Resource::Double, 1.0)));
    match action {
        Action::Parameter | Action::Nothing => (0.0, None),
        Action::Compute(arithmetic) => match arithmetic {
            A::Move => (0.0, None),
            A::Negate | A::Absolute if of.is_float() => (0.0, None),
            A::Divide if of == Type::F32 => special(10.0),
            A::Divide | A::Remainder if !of.is_float() => special(16.0),
            A::SquareRoot | A::Inverse => special(7.0),
            A::Exponential | A::InverseSquareRoot | A::CountOnes | A::CountZeros => special(1.0),
            A::Convert(from, _) if !from.is_float() && !of.is_float() => (0.0, None),
            A::Convert(Type::F64, _) => double,
            A::MultiplyHigh | A::MultiplyWide => (1.0, None),
            A::Multiply | A::MultiplyAdd if !of.is_float() => (wide * wide, None),
            _ if of == Type::F64 => double,
            _ if of.is_float() => (1.0, None),
            _ => (wide, None),
        },
        _ => (1.0, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_instructions_do() {
        for (name, action, of) in [
            ("add.rn.f32", Action::Compute(Arithmetic::Add), Type::F32),
            ("ld.global.nc.v4.f32", Action::Load(Space::Global), Type::F32),
            ("st.shared.v2.u32", Action::Store(Space::Shared), Type::Unsigned(32)),
            (
                "cvt.rn.f32.s32",
                Action::Compute(Arithmetic::Convert(Type::Signed(32), None)),
                Type::F32,
            ),
            ("bar.warp.sync", Action::Nothing, Type::Unsigned(32)),
        ] {
            let found = opcode(name).unwrap();
            assert_eq!((found.action, found.of), (action, of), "{name}");
        }
        assert!(opcode("tcgen05.mma").is_err());
    }
}
