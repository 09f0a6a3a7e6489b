//! Kernels as lists of instructions, read from their PTX.

use super::opcode::{Opcode, opcode};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;

/// Where shared memory begins among generic addresses.
pub(super) const SHARED_WINDOW: u64 = 1 << 56;

/// One kernel.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) instructions: Vec<Instruction>,
    /// Registers of a thread.
    pub(super) registers: usize,
    /// Shared memory that the kernel declares; what its launch asks for lies behind it.
    pub(super) static_shared_bytes: u64,
}

/// One instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    /// The predicate, and the value that lets the instruction happen.
    pub(super) guard: Option<(usize, bool)>,
    pub(super) opcode: Opcode,
    pub(super) operands: Vec<Operand>,
}

/// What an instruction works with.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Register(usize),
    Immediate(u64),
    Special(Special),
    Parameter(usize),
    Memory {
        base: Box<Operand>,
        offset: u64,
    },
    Vector(Vec<Operand>),
    Label(usize),
    /// `_`, or a second result that nobody reads.
    Nothing,
}

/// What a thread knows of its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Special {
    Thread,
    Threads,
    Block(usize),
    Blocks(usize),
}

/// Reads the kernel of that name from the PTX of its module.
pub(super) fn program(ptx: &str, kernel: &str) -> Result<Program> {
    let mut parts = ptx.split(".entry ");
    let head = parts.next().unwrap_or_default();
    let text = parts
        .find(|part| part.split('(').next().map(str::trim) == Some(kernel))
        .with_context(|| format!("no kernel {kernel}"))?;
    let (_, rest) = text.split_once(')').context("parameters")?;
    let (_, body) = rest.split_once('{').context("a body")?;
    let body = body.split("\n}").next().unwrap_or_default();
    let mut reader = Reader::default();
    // Arrays that a function declares stand before the first kernel that has it.
    let before = ptx.split(&format!(".entry {kernel}(")).next().unwrap_or(head);
    for line in before.lines().filter(|line| !line.starts_with(['\t', ' '])) {
        reader.declare(line.trim().trim_end_matches(';'));
    }
    for statement in statements(body) {
        reader.statement(&statement).with_context(|| format!("{kernel}: {statement}"))?;
    }
    reader.finish()
}

/// Statements without comments, cut at their semicolons; braces of scopes and labels stand before one.
fn statements(body: &str) -> impl Iterator<Item = String> {
    let lines = body.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    let text: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let all = text.join(" ");
    let cut: Vec<_> = all.split(';').map(|s| s.trim().to_owned()).collect();
    cut.into_iter().filter(|statement| !statement.is_empty())
}

#[derive(Default)]
struct Reader {
    program: Program,
    registers: HashMap<String, usize>,
    labels: HashMap<String, usize>,
    /// Places of labels, by their numbers.
    targets: Vec<Option<usize>>,
    /// Addresses of arrays in shared memory; of the one whose size a launch gives, none yet.
    shared: HashMap<String, u64>,
    dynamic: Vec<String>,
}

impl Reader {
    fn declare(&mut self, text: &str) {
        let Some((_, text)) = text.split_once(".shared .align ") else { return };
        let words: Vec<_> = text.split_whitespace().collect();
        let [align, element, array] = words[..] else { return };
        let (name, count) = array.split_once('[').unwrap_or((array, "1]"));
        let bits = element.trim_start_matches(|c: char| !c.is_ascii_digit());
        let (Ok(align), Ok(bits)) = (align.parse::<u64>(), bits.parse::<u64>()) else { return };
        let Ok(count) = count.trim_end_matches(']').parse::<u64>() else {
            self.dynamic.push(name.to_owned());
            return;
        };
        if self.shared.contains_key(name) {
            return;
        }
        let start = self.program.static_shared_bytes.next_multiple_of(align);
        self.shared.insert(name.to_owned(), start);
        self.program.static_shared_bytes = start + bits / 8 * count;
    }

    fn statement(&mut self, text: &str) -> Result<()> {
        let mut text = text.trim();
        loop {
            if let Some(rest) = text.strip_prefix(['{', '}']) {
                text = rest.trim();
            } else if text.starts_with("$L")
                && let Some((label, rest)) = text.split_once(':')
            {
                let label = self.label(label);
                self.targets[label] = Some(self.program.instructions.len());
                text = rest.trim();
            } else {
                break;
            }
        }
        if text.starts_with(".shared") {
            self.declare(text);
        }
        if text.is_empty() || text.starts_with('.') {
            return Ok(());
        }
        let (guard, text) = match text.strip_prefix('@') {
            None => (None, text),
            Some(guarded) => {
                let (name, rest) = guarded.split_once(char::is_whitespace).context("a guard")?;
                let value = !name.starts_with('!');
                (Some((self.register(name.trim_start_matches('!')), value)), rest.trim())
            }
        };
        let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let opcode = opcode(name)?;
        let operands =
            parts(operands).into_iter().map(|part| self.operand(part)).collect::<Result<_>>()?;
        self.program.instructions.push(Instruction { guard, opcode, operands });
        Ok(())
    }

    fn register(&mut self, name: &str) -> usize {
        let next = self.registers.len();
        *self.registers.entry(name.to_owned()).or_insert(next)
    }

    fn label(&mut self, name: &str) -> usize {
        let targets = &mut self.targets;
        *self.labels.entry(name.to_owned()).or_insert_with(|| {
            targets.push(None);
            targets.len() - 1
        })
    }

    fn operand(&mut self, text: &str) -> Result<Operand> {
        if let Some(inner) = text.strip_prefix('{') {
            let inner = parts(inner.trim_end_matches('}'));
            let operands = inner.into_iter().map(|part| self.operand(part)).collect::<Result<_>>();
            return Ok(Operand::Vector(operands?));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.trim_end_matches(']');
            let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
            let base = self.operand(base.trim())?;
            let offset = offset.trim().parse::<i64>()? as u64;
            return Ok(match base {
                Operand::Parameter(_) => base,
                base => Operand::Memory { base: Box::new(base), offset },
            });
        }
        if let Some((first, _)) = text.split_once('|') {
            return self.operand(first);
        }
        if text == "_" {
            return Ok(Operand::Nothing);
        }
        if text.starts_with("$L") {
            return Ok(Operand::Label(self.label(text)));
        }
        if let Some(special) = special(text) {
            return Ok(Operand::Special(special));
        }
        if let Some(value) = immediate(text) {
            return Ok(Operand::Immediate(value));
        }
        if let Some((_, number)) = text.rsplit_once("_param_")
            && let Ok(number) = number.parse()
        {
            return Ok(Operand::Parameter(number));
        }
        if let Some(&start) = self.shared.get(text) {
            return Ok(Operand::Immediate(start));
        }
        if self.dynamic.iter().any(|name| name == text) {
            // All arrays have been declared before the first instruction that names one.
            return Ok(Operand::Immediate(self.program.static_shared_bytes.next_multiple_of(16)));
        }
        ensure!(
            text.chars().all(|c| c.is_ascii_alphanumeric() || c == '%' || c == '_'),
            "operand {text}"
        );
        Ok(Operand::Register(self.register(text)))
    }

    fn finish(mut self) -> Result<Program> {
        self.program.registers = self.registers.len();
        for instruction in &mut self.program.instructions {
            for operand in &mut instruction.operands {
                if let Operand::Label(label) = operand {
                    let Some(place) = self.targets[*label] else { bail!("a label is nowhere") };
                    *label = place;
                }
            }
        }
        Ok(self.program)
    }
}

fn special(text: &str) -> Option<Special> {
    Some(match text {
        "%tid.x" => Special::Thread,
        "%ntid.x" => Special::Threads,
        "%ctaid.x" => Special::Block(0),
        "%ctaid.y" => Special::Block(1),
        "%nctaid.x" => Special::Blocks(0),
        "%nctaid.y" => Special::Blocks(1),
        _ => return None,
    })
}

fn immediate(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0f").filter(|digits| digits.len() == 8) {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0d").filter(|digits| digits.len() == 16) {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    text.parse::<i64>().map(|value| value as u64).ok().or_else(|| text.parse().ok())
}

/// A list cut at its commas outside of brackets.
fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (i, c) in list.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(list[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(list[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}
