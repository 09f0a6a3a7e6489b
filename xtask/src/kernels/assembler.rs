//! `ptxas`: what it makes of PTX for a target, and what it says of that.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What one kernel uses on one target.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usage {
    kernel: String,
    target: String,
    registers: u32,
    shared_bytes: u32,
    spilled_bytes: u32,
}

/// Reads what `ptxas -v` says.
fn usage(target: &str, said: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    // The number before `unit` in a comma-separated line.
    let before = |line: &str, unit: &str| {
        line.split([',', ':']).find_map(|part| {
            part.trim().strip_suffix(unit)?.split_whitespace().last()?.parse::<u32>().ok()
        })
    };
    for line in said.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            let (registers, shared_bytes, spilled_bytes) = (0, 0, 0);
            let target = target.to_owned();
            found.push(Usage { kernel, target, registers, shared_bytes, spilled_bytes });
        } else if let Some(last) = found.last_mut() {
            last.registers = before(line, "registers").unwrap_or(last.registers);
            last.shared_bytes = before(line, "bytes smem").unwrap_or(last.shared_bytes);
            last.spilled_bytes += before(line, "bytes spill stores").unwrap_or(0);
        }
    }
    found
}

/// Assembles a file for a target; what its kernels use there.
///
/// Errors: it is not accepted; warpgroup products wait for each other, since the assembler could not see that they need not.
pub(super) fn assemble(ptxas: &Path, file: &Path, target: &str) -> Result<Vec<Usage>> {
    let name = file.file_stem().unwrap_or_default().display();
    let output = Command::new(ptxas)
        .args(["-v", "-arch", target, "-o", "/dev/null"])
        .arg(file)
        .output()
        .with_context(|| ptxas.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} for {target}: {said}");
    ensure!(!said.contains("are serialized"), "{name} for {target}: {said}");
    Ok(usage(target, &said))
}

/// What may be spilled.
pub(super) enum Spills<'a> {
    /// Any number of bytes by kernels that are named.
    Named(&'a BTreeMap<String, String>),
    /// So many bytes by a kernel, besides those.
    Most(&'a BTreeMap<String, String>, &'a BTreeMap<String, u32>),
}

impl Spills<'_> {
    fn allows(&self, usage: &Usage) -> bool {
        match self {
            Self::Named(named) => named.contains_key(&usage.kernel),
            Self::Most(named, most) => {
                let most = most.get(&usage.kernel);
                named.contains_key(&usage.kernel)
                    || most.is_some_and(|most| usage.spilled_bytes <= *most)
            }
        }
    }
}

/// Prints the head of the table.
pub(super) fn table_head() {
    println!("{:32} {:8} {:>5} {:>7} {:>7}", "kernel", "target", "regs", "shared", "spilled");
}

/// Prints the lines of one source; the spills that are not allowed.
pub(super) fn report(usages: &[Usage], spills: &Spills<'_>) -> Vec<String> {
    for Usage { kernel, target, registers, shared_bytes, spilled_bytes } in usages {
        println!("{kernel:32} {target:8} {registers:5} {shared_bytes:7} {spilled_bytes:7}");
    }
    problems(usages, spills)
}

/// The spills that are not allowed.
pub(super) fn problems(usages: &[Usage], spills: &Spills<'_>) -> Vec<String> {
    let spilled = usages.iter().filter(|usage| usage.spilled_bytes > 0);
    let problem = |Usage { kernel, target, spilled_bytes, .. }: &Usage| {
        format!("{kernel} spills {spilled_bytes} bytes on {target}")
    };
    spilled.filter(|usage| !spills.allows(usage)).map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_the_assembler_is_read() {
        let said = "ptxas info    : 0 bytes gmem\n\
                    ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
                    ptxas info    : Function properties for one\n    \
                    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
                    ptxas info    : Used 24 registers, used 1 barriers, 4096 bytes smem, 376 bytes cmem[0]\n\
                    ptxas info    : Compiling entry function 'two' for 'sm_80'\n\
                    ptxas info    : Used 26 registers, used 0 barriers\n";
        let found = usage("sm_80", said);
        let expected = |kernel: &str, registers, shared_bytes, spilled_bytes| Usage {
            kernel: kernel.to_owned(),
            target: "sm_80".to_owned(),
            registers,
            shared_bytes,
            spilled_bytes,
        };
        assert_eq!(found, [expected("one", 24, 4096, 12), expected("two", 26, 0, 0)]);
    }
}
