//! `{% generation %}` blocks, by which a template says which text is the assistant's.
//!
//! The engine does not know the tag, so it is rewritten into blocks that it knows, around characters that no text
//! holds (U+FDD0 and U+FDD1 are reserved as non-characters); they are taken out again after rendering.

use serde_json::Value;
use std::ops::Range;

const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

/// `source` with its generation blocks rewritten, and whether it has any.
pub(super) fn with_marks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut marked = false;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (tag, after) = tag.split_at(len_of(tag));
        let blocks = rewritten(tag);
        marked |= blocks.is_some();
        let raw = if blocks.is_none() { raw_with_line_end(tag) } else { None };
        out.push_str(blocks.or(raw).as_deref().unwrap_or(tag));
        rest = after;
    }
    out.push_str(rest);
    (out, marked)
}

/// A raw block with a sign that keeps the line end behind its first tag, which Jinja2 keeps and the parser does not.
fn raw_with_line_end(block: &str) -> Option<String> {
    let (tag, inner) = block.split_once("%}")?;
    let tag = tag.strip_prefix("{%")?;
    let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
    let plain = name == "raw" && !tag.ends_with(['-', '+']);
    plain.then(|| format!("{{%{tag}+%}}{inner}"))
}

/// Bytes of what begins with a brace: a comment, an expression, a tag, a raw block with what it holds, or a brace.
fn len_of(text: &str) -> usize {
    let up_to = |end: Option<usize>| end.map_or(text.len(), |end| end + 2);
    match text.as_bytes().get(1) {
        Some(b'#') => up_to(text.find("#}")),
        Some(b'{') => up_to(unquoted(text, "}}")),
        Some(b'%') => {
            let tag = up_to(unquoted(text, "%}"));
            if name_of(&text[..tag]) == "raw" { tag + end_of_raw(&text[tag..]) } else { tag }
        }
        _ => 1,
    }
}

/// Where `end` stands outside texts in quotes, after the first two bytes.
fn unquoted(text: &str, end: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(2) {
        match quote {
            _ if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if text[i..].starts_with(end) => return Some(i),
            None if c == '"' || c == '\'' => quote = Some(c),
            None => {}
        }
    }
    None
}

/// Bytes up to the tag that ends a raw block.
fn end_of_raw(text: &str) -> usize {
    let tags = text.match_indices("{%").map(|(i, _)| i);
    let mut ends = tags.filter(|&i| {
        let name = text[i + 2..].trim_start_matches(['-', '+']).trim_start();
        name.starts_with("endraw")
    });
    ends.next().unwrap_or(text.len())
}

/// The text of a tag between its ends.
fn name_of(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}"));
    inner.unwrap_or_default().trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+')
}

/// Blocks that the engine knows in the place of a tag that begins or ends a marked one.
fn rewritten(tag: &str) -> Option<String> {
    // Names that are set within stay within, as in Jinja2.
    let (block, mark) = match name_of(tag) {
        "generation" => ("with", BEGIN),
        "endgeneration" => ("endwith", END),
        _ => return None,
    };
    let control = |c: Option<char>| match c {
        Some('-') => "-",
        Some('+') => "+",
        _ => "",
    };
    let inner = &tag[2..tag.len() - 2];
    let (left, right) = (control(inner.chars().next()), control(inner.chars().next_back()));
    // The outer blocks take over the tag's rules for white space on either side.
    let write = format!("{{{{ '{mark}' }}}}");
    Some(match block {
        "with" => format!("{{%{left} with %}}{write}{{% if true {right}%}}"),
        _ => format!("{{%{left} endif %}}{write}{{% endwith {right}%}}"),
    })
}

/// Whether a value holds a mark in any of its texts.
pub(super) fn has_mark(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains([BEGIN, END]),
        Value::Array(list) => list.iter().any(has_mark),
        Value::Object(map) => {
            map.iter().any(|(name, value)| name.contains([BEGIN, END]) || has_mark(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
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
        let raw = "{% raw %}\n{% generation %}{%- endraw %}";
        assert_eq!(with_marks(raw), (raw.replace("raw %}\n", "raw +%}\n"), false));
        for source in [
            "{{ '{% generation %}' }}",
            "{# {% generation %} #}",
            "{% raw -%}{% generation %}{%- endraw %}",
            "{%- raw +%}{% generation %}{%- endraw %}",
        ] {
            assert_eq!(with_marks(source), (source.to_string(), false), "{source}");
        }
        let (text, marked) = with_marks("{%}%}{% generation %}a{%- endgeneration +%}");
        assert!(marked && text.contains(BEGIN), "{text}");
    }
}
