//! What Python knows of characters, and Rust otherwise or not at all.

use super::fault::{Fault, Outcome};

/// Whether it is white space to Python.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Whether a line ends with it.
pub(super) fn is_line_end(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether `repr` writes it as it is.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Behind another one, a character that joins it is no reason to escape.
    let mut text = String::from("a");
    text.push(c);
    text.escape_debug().nth(1) == Some(c)
}

/// A character as an escape.
pub(super) fn escape(c: char) -> String {
    match c as u32 {
        code @ ..0x100 => format!("\\x{code:02x}"),
        code @ ..0x1_0000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// Whether a character is a letter, to Python.
///
/// Errors: it is of a script whose marks Rust takes for letters.
pub(super) fn is_letter(c: char) -> Outcome<bool> {
    if c.is_ascii() {
        return Ok(c.is_ascii_alphabetic());
    }
    if !c.is_alphabetic() || c.is_numeric() {
        return Ok(false);
    }
    let plain = matches!(c,
        '\u{aa}'..='\u{2c1}' | '\u{370}'..='\u{482}' | '\u{48a}'..='\u{588}' | '\u{10d0}'..='\u{10ff}'
        | '\u{1100}'..='\u{11ff}' | '\u{1e00}'..='\u{1fff}' | '\u{3041}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{20000}'..='\u{3ffff}');
    if plain { Ok(true) } else { Err(unknown(c)) }
}

/// Whether a character is a digit of some kind.
///
/// Errors: it is none of ASCII.
pub(super) fn is_digit(c: char) -> Outcome<bool> {
    match c {
        c if c.is_ascii() => Ok(c.is_ascii_digit()),
        c if c.is_numeric() => Err(unknown(c)),
        // Ideographs that stand for numbers are numeric to Python.
        c if ('\u{3400}'..='\u{9fff}').contains(&c) => Err(unknown(c)),
        _ => Ok(false),
    }
}

/// Whether a character is a letter, a number, or an underscore.
pub(super) fn is_word(c: char) -> Outcome<bool> {
    Ok(c == '_' || c.is_ascii_digit() || is_letter(c)? || (!c.is_ascii() && c.is_numeric()))
}

fn unknown(c: char) -> Fault {
    Fault::unsupported(format!("the kind of the character {c:?}"))
}

/// A first letter as titles have it.
///
/// Errors: it has a form of its own there.
pub(super) fn titled(c: char, out: &mut String) -> Outcome<()> {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(first), None) if !matches!(c, '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}') => {
            out.push(first);
            Ok(())
        }
        // The first of several: `Ss`.
        (Some('S'), Some('S')) if c == 'ß' => {
            out.push_str("Ss");
            Ok(())
        }
        _ => Err(Fault::unsupported(format!("the character {c:?} at the beginning of a title"))),
    }
}

/// A text with HTML's marks escaped.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('>', "&gt;")
        .replace('<', "&lt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;")
}
