//! Constants that documents quote: the text of each document must hold the number that the code has.

use super::{Problems, Repository};
use std::collections::BTreeMap;

/// How a document writes a number.
#[derive(Clone, Copy)]
enum Written {
    /// As it is: 4096.
    Plain,
    /// With commas: 131,071.
    Commas,
    /// With spaces: 131 071.
    Spaces,
    /// Bytes, as mebibytes.
    Mib,
    /// Bytes, as kibibytes.
    Kib,
    /// Elements of f32, as mebibytes.
    FloatsMib,
    /// The exponent of a power of two.
    Log2,
}

/// A number in a document: where, the words around `{}`, how it is written, and the constant in its file.
struct Fact(&'static str, &'static str, Written, &'static str, &'static str);

const LINEAR: &str = "crates/qft-autograd/src/layers/linear.rs";
const LOSS_HEAD: &str = "crates/qft-autograd/src/layers/loss_head.rs";
const BLOCKS: &str = "crates/qft-tensor/src/simd/gemm_i8/blocks.rs";
const GEMM: &str = "crates/qft-tensor/src/gemm.rs";
const PURPOSE: &str = "crates/qft-tensor/src/purpose.rs";
const MOMENT: &str = "crates/qft-optim/src/moment.rs";
const PROTECTED: &str = "crates/qft-quant/src/protected.rs";
const ENCODE: &str = "crates/qft-quant/src/encode.rs";
const SCRATCH: &str = "crates/qft-cuda/src/scratch.rs";
const CHECKPOINT: &str = "crates/qft-train/src/step/checkpoint.rs";

const ALGORITHM: &str = "docs/ALGORITHM.md";
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const DECISIONS: &str = "docs/DECISIONS.md";
const TENSOR_README: &str = "crates/qft-tensor/README.md";
const TENSOR_GEMM: &str = "crates/qft-tensor/src/simd/gemm_i8.rs";

#[rustfmt::skip]
const FACTS: [Fact; 20] = [
    Fact(ALGORITHM, "at most {} MiB of gradient exist", Written::FloatsMib, LINEAR, "BLOCK_ELEMENTS"),
    Fact("crates/qft-train/tests/states.rs", "at most {} MiB, and the INT8", Written::FloatsMib, LINEAR, "BLOCK_ELEMENTS"),
    Fact(ALGORITHM, "at most 2^{} elements", Written::Log2, LOSS_HEAD, "KEPT_ELEMENTS"),
    Fact(DECISIONS, "Up to {} MiB they are kept", Written::FloatsMib, LOSS_HEAD, "KEPT_ELEMENTS"),
    Fact(ALGORITHM, "up to {} terms cannot overflow", Written::Commas, GEMM, "MAX_K"),
    Fact(TENSOR_README, "`MAX_K` = {} terms", Written::Spaces, GEMM, "MAX_K"),
    Fact(ALGORITHM, "at most {} micro-batches", Written::Plain, PURPOSE, "MAX_MICRO_BATCHES"),
    Fact(ARCHITECTURE, "at most {} of them", Written::Plain, PURPOSE, "MAX_MICRO_BATCHES"),
    Fact(ALGORITHM, "maximum per block of {}. A value", Written::Plain, MOMENT, "BLOCK"),
    Fact("crates/qft-optim/README.md", "scale per block of {} |", Written::Plain, MOMENT, "BLOCK"),
    Fact("crates/qft-quant/README.md", "1 per {} columns of a row", Written::Plain, PROTECTED, "BLOCK_COLS"),
    Fact("crates/qft-quant/README.md", "in blocks of {} MiB", Written::FloatsMib, ENCODE, "BLOCK_FLOATS"),
    Fact(ARCHITECTURE, "`max_scratch_bytes`: {} MiB", Written::Mib, BLOCKS, "SHARED_BYTES"),
    Fact(ARCHITECTURE, "MiB and {} KiB per thread", Written::Kib, BLOCKS, "LEAF_BYTES"),
    Fact(TENSOR_README, "at most {} MiB and", Written::Mib, BLOCKS, "SHARED_BYTES"),
    Fact(TENSOR_README, "MiB and {} KiB per thread", Written::Kib, BLOCKS, "LEAF_BYTES"),
    Fact(TENSOR_GEMM, "{} MiB for the second operand", Written::Mib, BLOCKS, "SHARED_BYTES"),
    Fact(TENSOR_GEMM, "{} KiB per thread", Written::Kib, BLOCKS, "LEAF_BYTES"),
    Fact("docs/KERNELS.md", "Scratch is {} MiB on Hopper", Written::Mib, SCRATCH, "HOPPER_SCRATCH_BYTES"),
    Fact("CHANGELOG.md", "Checkpoints have version {}", Written::Plain, CHECKPOINT, "VERSION"),
];

pub(super) fn constants(repository: &Repository) -> Problems {
    FACTS.iter().filter_map(|fact| check(repository, fact).err()).collect()
}

fn check(repository: &Repository, fact: &Fact) -> Result<(), String> {
    let Fact(document, words, written, file, name) = *fact;
    let value = constant(repository.text(file)?, name)
        .ok_or_else(|| format!("{file}: no constant {name} that a rule could read"))?;
    let expected = words.replace("{}", &write(value, written));
    if plain(repository.text(document)?).contains(&expected) {
        return Ok(());
    }
    Err(format!("{document}: does not say \"{expected}\", as `{name}` in {file} has it"))
}

/// A text on one line, without the marks of comments.
fn plain(text: &str) -> String {
    let marks = |line: &str| line.trim_start().trim_start_matches('/').to_owned();
    let lines: Vec<_> = text.lines().map(marks).collect();
    lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn write(value: u64, written: Written) -> String {
    match written {
        Written::Plain => value.to_string(),
        Written::Commas => grouped(value, ','),
        Written::Spaces => grouped(value, ' '),
        Written::Mib => (value >> 20).to_string(),
        Written::Kib => (value >> 10).to_string(),
        Written::FloatsMib => ((value * 4) >> 20).to_string(),
        Written::Log2 => value.ilog2().to_string(),
    }
}

fn grouped(value: u64, separator: char) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// The value of `const NAME: TYPE = …;`: integers and other constants of the file, with `<<` and `*`.
fn constant(source: &str, name: &str) -> Option<u64> {
    let constants: BTreeMap<_, _> = source.lines().filter_map(declaration).collect();
    value(constants.get(name)?, &constants, 0)
}

fn declaration(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.trim_start().split_once("const ")?;
    let (name, rest) = rest.split_once(':')?;
    let (_, value) = rest.split_once('=')?;
    Some((name, value.trim().strip_suffix(';')?))
}

fn value(text: &str, constants: &BTreeMap<&str, &str>, depth: u8) -> Option<u64> {
    if depth > 8 {
        return None;
    }
    let value_of = |text: &str| value(text.trim(), constants, depth + 1);
    if let Some((a, b)) = text.split_once("<<") {
        return value_of(a)?.checked_shl(u32::try_from(value_of(b)?).ok()?);
    }
    if let Some((a, b)) = text.split_once('*') {
        return value_of(a)?.checked_mul(value_of(b)?);
    }
    match text.replace('_', "").parse() {
        Ok(number) => Some(number),
        Err(_) => value_of(constants.get(text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_read() {
        let source = "pub const A: usize = 9 << 20;\n    pub(super) const B: u32 = 131_071;\nconst C: usize = 2 * A;\n\
                      const D: usize = 1 << BITS;\nconst BITS: u32 = 12;\nconst E: f32 = f();\n";
        let read = |name| constant(source, name);
        assert_eq!((read("A"), read("B")), (Some(9 << 20), Some(131_071)));
        assert_eq!((read("C"), read("D")), (Some(18 << 20), Some(4096)));
        assert_eq!((read("E"), read("F")), (None, None));
    }

    #[test]
    fn numbers_are_written_as_documents_write_them() {
        for (value, written, text) in [
            (131_071, Written::Commas, "131,071"),
            (131_071, Written::Spaces, "131 071"),
            (9 << 20, Written::FloatsMib, "36"),
            (585 << 10, Written::Kib, "585"),
            (32 << 20, Written::Log2, "25"),
        ] {
            assert_eq!(write(value, written), text);
        }
    }

    #[test]
    fn another_number_is_told() {
        let fact = Fact("a.md", "at most {} rows", Written::Plain, "a.rs", "ROWS");
        let repository = |number: &str| {
            let document = format!("at\nmost {number}\n  rows");
            Repository::of(&[("a.md", &document), ("a.rs", "const ROWS: usize = 1 << 3;\n")])
        };
        assert_eq!(check(&repository("8"), &fact), Ok(()));
        let told = check(&repository("16"), &fact).unwrap_err();
        assert!(told.contains("\"at most 8 rows\"") && told.contains("ROWS"), "{told}");
    }
}
