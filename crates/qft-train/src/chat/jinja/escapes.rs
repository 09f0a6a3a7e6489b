//! Texts in quotes, as Python reads them.

use super::fault::{Fault, Outcome};
use std::str::Chars;

/// The text of one or several literals, one after the other.
///
/// Errors: an escape that is not valid, or names a character.
pub(super) fn literals(source: &str) -> Outcome<String> {
    let mut text = String::new();
    let mut chars = source.chars();
    while let Some(quote) = chars.find(|&c| c == '"' || c == '\'') {
        literal(&mut chars, quote, &mut text)?;
    }
    Ok(text)
}

fn literal(chars: &mut Chars<'_>, quote: char, text: &mut String) -> Outcome<()> {
    // The first half of a character of two.
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        let code = match c {
            c if c == quote => break,
            '\\' => match escape(chars)? {
                Escape::Code(code) => code,
                Escape::Nothing => continue,
                Escape::Kept(c) => {
                    whole(high.take())?;
                    text.push('\\');
                    text.push(c);
                    continue;
                }
            },
            c => c as u32,
        };
        match (high.take(), code) {
            (None, 0xd800..0xdc00) => high = Some(code),
            // Python has no way to write it either.
            (Some(_), _) => return Err(lone()),
            (None, code) => text.push(char::from_u32(code).ok_or_else(lone)?),
        }
    }
    whole(high)
}

/// What a backslash stands for.
enum Escape {
    Code(u32),
    /// A line that goes on.
    Nothing,
    /// No escape: the backslash is kept.
    Kept(char),
}

fn escape(chars: &mut Chars<'_>) -> Outcome<Escape> {
    let Some(c) = chars.next() else { return Ok(Escape::Nothing) };
    Ok(Escape::Code(match c {
        '\n' => return Ok(Escape::Nothing),
        '\\' | '\'' | '"' => c as u32,
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        'x' => hexadecimal(chars, 2)?,
        'u' => hexadecimal(chars, 4)?,
        'U' => hexadecimal(chars, 8)?,
        'N' => return Err(Fault::unsupported("a character by its name, \\N{...},")),
        '0'..='7' => {
            let mut code = c as u32 - '0' as u32;
            for _ in 0..2 {
                let next = chars.as_str().chars().next().and_then(|c| c.to_digit(8));
                let Some(digit) = next else { break };
                code = code * 8 + digit;
                chars.next();
            }
            code
        }
        c => return Ok(Escape::Kept(c)),
    }))
}

fn hexadecimal(chars: &mut Chars<'_>, digits: usize) -> Outcome<u32> {
    let mut code: u32 = 0;
    for _ in 0..digits {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        let digit = digit.ok_or_else(|| Fault::new("an escape in a text lacks digits"))?;
        code = code << 4 | digit;
    }
    Ok(code)
}

fn whole(high: Option<u32>) -> Outcome<()> {
    if high.is_some() { Err(lone()) } else { Ok(()) }
}

fn lone() -> Fault {
    Fault::unsupported("an escape that is half a character (a surrogate)")
}
