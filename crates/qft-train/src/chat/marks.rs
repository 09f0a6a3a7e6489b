//! `{% generation %}` blocks, by which a template says which text is the assistant's.
//!
//! The engine does not know the tag, so it is rewritten into blocks that it knows, around characters that no text
//! holds (U+FDD0 and U+FDD1 are reserved as non-characters); they are taken out again after rendering.

use std::ops::Range;

const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

/// `source` with its generation blocks rewritten, and whether it has any.
pub(super) fn with_marks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut marked = false;
    while let Some(start) = rest.find("{%") {
        // Behind the beginning: `{%}` is not a whole tag.
        let Some(len) = rest[start + 2..].find("%}") else { break };
        let (tag, after) = (&rest[start + 2..start + 2 + len], start + 2 + len + 2);
        let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let (open, mark) = match name {
            "generation" => ("if true", BEGIN),
            "endgeneration" => ("endif", END),
            _ => {
                out.push_str(&rest[..after]);
                rest = &rest[after..];
                continue;
            }
        };
        let control = |c: Option<char>| match c {
            Some('-') => "-",
            Some('+') => "+",
            _ => "",
        };
        let (left, right) = (control(tag.chars().next()), control(tag.chars().next_back()));
        out.push_str(&rest[..start]);
        // The outer blocks take over the tag's rules for white space on either side.
        out.push_str(&format!("{{%{left} {open} %}}{{{{ '{mark}' }}}}{{% {open} {right}%}}"));
        rest = &rest[after..];
        marked = true;
    }
    out.push_str(rest);
    (out, marked)
}

/// `text` without marks, and what stood between them.
pub(super) fn take_marks(text: &str) -> (String, Vec<Range<usize>>) {
    if !text.contains([BEGIN, END]) {
        return (text.to_string(), Vec::new());
    }
    let mut out = String::with_capacity(text.len());
    let mut spans = Vec::new();
    let mut open = None;
    for c in text.chars() {
        match c {
            BEGIN => open = Some(out.len()),
            END => {
                if let Some(start) = open.take().filter(|&start| start < out.len()) {
                    spans.push(start..out.len());
                }
            }
            c => out.push(c),
        }
    }
    (out, spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tags_are_rewritten() {
        for source in
            ["", "{%", "{%}", "{%%}", "{%}%}", "a{%}{ b }}{% if c %}", "{% generation", "é{%é"]
        {
            assert_eq!(with_marks(source), (source.to_string(), false), "{source}");
        }
        let (text, marked) = with_marks("{%}%}{% generation %}a{%- endgeneration +%}");
        assert!(marked && text.contains(BEGIN), "{text}");
    }
}
