//! The embedded kernels: one PTX module per kernel source, and what its entries take.

use crate::{Error, Parameter, Signature};
use std::collections::HashMap;
use std::sync::OnceLock;

/// `(name, PTX)` of every module, by name.
pub static MODULES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// One kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelEntry {
    /// The module that holds it, an index into [`MODULES`].
    pub module: usize,
    /// What it takes.
    pub signature: Signature,
}

/// All kernels, by name.
pub fn entries() -> &'static HashMap<&'static str, KernelEntry> {
    static ENTRIES: OnceLock<HashMap<&'static str, KernelEntry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let modules = MODULES.iter().enumerate();
        modules
            .flat_map(|(module, (_, text))| {
                parse(text).map(move |(name, signature)| (name, KernelEntry { module, signature }))
            })
            .collect()
    })
}

/// The kernel of that name.
///
/// Errors: [`Error::UnknownKernel`].
pub fn entry(kernel: &str) -> Result<&'static KernelEntry, Error> {
    entries().get(kernel).ok_or_else(|| Error::UnknownKernel { kernel: kernel.to_owned() })
}

/// Name and signature of each `.entry` in a PTX text.
fn parse(text: &str) -> impl Iterator<Item = (&str, Signature)> {
    text.split(".entry ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (list, rest) = rest.split_once(')')?;
        let parameters = list.split(',').filter_map(parameter).collect();
        let (directives, body) = rest.split_once('{')?;
        let max_threads = directives.split_once(".maxntid ").map_or(1024, |(_, sizes)| {
            let line = sizes.lines().next().unwrap_or_default();
            line.split(',').filter_map(|n| n.trim().parse::<u32>().ok()).product()
        });
        let static_shared_bytes = static_shared_bytes(body);
        Some((name.trim(), Signature { parameters, max_threads, static_shared_bytes }))
    })
}

/// Bytes of the shared arrays and variables that a kernel declares: `.shared .align 8 .b8 name[64];`.
fn static_shared_bytes(body: &str) -> u32 {
    body.lines()
        .filter_map(|line| {
            let mut words = line.trim().strip_prefix(".shared .align ")?.split_whitespace();
            let align: u32 = words.next()?.parse().ok()?;
            let element = words.next()?.trim_start_matches(|c: char| !c.is_ascii_digit());
            let count = words.next()?.split_once('[').and_then(|(_, rest)| rest.split(']').next());
            let bits = element.parse::<u32>().ok()? * count.map_or(Some(1), |n| n.parse().ok())?;
            Some((align, bits / 8))
        })
        .fold(0, |end: u32, (align, bytes)| end.next_multiple_of(align) + bytes)
}

/// The kind of one `.param .u64 ...`; what is none of the three kinds reads as a 32-bit word, which no launch of such
/// a kernel would match in the emulator's test of all signatures.
fn parameter(text: &str) -> Option<Parameter> {
    let kind = text.split_whitespace().nth(1)?;
    Some(match kind {
        ".u64" | ".s64" | ".b64" => Parameter::B64,
        ".f32" => Parameter::F32,
        _ => Parameter::B32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_bounds_are_read() {
        let text = ".visible .entry one(\n\t.param .u64 .ptr .align 1 one_param_0,\n\t.param .f32 one_param_1,\n\t\
                    .param .u32 one_param_2\n)\n.maxntid 128, 2, 1\n{\n\t.shared .align 4 .b8 a[30];\n\
                    \t.shared .align 8 .f32 b;\n ret;\n}\n.visible .entry two()\n{\n}\n";
        let found: Vec<_> = parse(text).collect();
        let one = vec![Parameter::B64, Parameter::F32, Parameter::B32];
        assert_eq!(
            found[0],
            ("one", Signature { parameters: one, max_threads: 256, static_shared_bytes: 36 })
        );
        assert_eq!(
            found[1],
            ("two", Signature { parameters: vec![], max_threads: 1024, static_shared_bytes: 0 })
        );
    }
}
