//! Filters of texts.

use super::super::args::{Args, integer, needed};
use super::super::expressions::as_text;
use super::super::fault::{Fault, Outcome};
use super::super::iterate;
use super::super::percent;
use super::super::repr;
use super::super::run::Run;
use super::super::text_methods;
use super::super::unicode;
use super::super::value::{Text, Value};

pub(super) fn apply(run: &mut Run<'_>, name: &str, of: &Value, args: &Args) -> Outcome<Value> {
    match name {
        "capitalize" | "lower" | "upper" => {
            let [] = args.of(name, [])?;
            let method = match name {
                "capitalize" => "capitalize",
                "lower" => "lower",
                _ => "upper",
            };
            let text = as_text(run, of)?;
            text_methods::call(run, &text, method, &Args::default())
        }
        "center" => {
            let [width] = args.of(name, ["width"])?;
            let width = width.cloned().unwrap_or(Value::Int(80));
            let text = as_text(run, of)?;
            let args = Args { values: vec![width], named: Vec::new() };
            text_methods::call(run, &text, "center", &args)
        }
        "trim" => {
            let [chars] = args.of(name, ["chars"])?;
            let text = as_text(run, of)?;
            let args = Args { values: chars.cloned().into_iter().collect(), named: Vec::new() };
            text_methods::call(run, &text, "strip", &args)
        }
        "title" => {
            let [] = args.of(name, [])?;
            let text = as_text(run, of)?;
            run.meter.bytes(text.text.len())?;
            Ok(Value::text(title(&text.text)))
        }
        "replace" => replace(run, of, args),
        "format" => format(run, of, args),
        "indent" => indent(run, of, args),
        "truncate" => truncate(run, of, args),
        "urlencode" => {
            let [] = args.of(name, [])?;
            urlencode(run, of)
        }
        "striptags" => {
            let [] = args.of(name, [])?;
            striptags(run, repr::text(of, &run.meter)?)
        }
        _ => {
            let [] = args.of(name, [])?;
            let text = as_text(run, of)?;
            run.meter.bytes(text.text.len())?;
            words(&text.text)
        }
    }
}

fn replace(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [old, new, count] = args.of("replace", ["old", "new", "count"])?;
    let old = repr::text(needed(old, "replace")?, &run.meter)?;
    let new = repr::text(needed(new, "replace")?, &run.meter)?;
    let count = match count {
        None | Some(Value::None) => -1,
        Some(count) => integer(count, "replace")?,
    };
    let text = repr::text(of, &run.meter)?;
    Ok(Value::text(text_methods::replaced(&text, &old, &new, count, &run.meter)?))
}

fn format(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let text = as_text(run, of)?;
    let values = match (&args.values[..], &args.named[..]) {
        (values, []) => Value::tuple(values.to_vec())?,
        ([], named) => {
            let named = named.iter();
            let entries = named.map(|(name, value)| (Value::text(name.clone()), value.clone()));
            Value::dict(entries.collect())?
        }
        _ => {
            return Err(Fault::new(
                "can't handle positional and keyword arguments at the same time",
            ));
        }
    };
    percent::format(&text, &values, &run.meter)
}

/// Each word with a capital and small letters.
fn title(text: &str) -> String {
    let is_border = |c: char| unicode::is_space(c) || "-({[<".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_border).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let mut chars = word.chars();
        if let Some(first) = chars.next() {
            out.extend(first.to_uppercase());
            out.push_str(&chars.as_str().to_lowercase());
        }
        let end = after.find(|c| !is_border(c)).unwrap_or(after.len());
        out.push_str(&after[..end]);
        rest = &after[end..];
    }
    out
}

fn words(text: &str) -> Outcome<Value> {
    let (mut count, mut in_word) = (0, false);
    for c in text.chars() {
        let is_word = unicode::is_word(c)?;
        count += usize::from(is_word && !in_word);
        in_word = is_word;
    }
    Ok(Value::count(count))
}

fn indent(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [width, first, blank] = args.of("indent", ["width", "first", "blank"])?;
    let Value::Text(Text { text, markup }) = of else {
        return Err(Fault::new(format!("the filter indent takes a text, not {}", of.kind())));
    };
    let indention = match width {
        None => "    ".to_string(),
        Some(Value::Text(indention)) => indention.text.to_string(),
        Some(width) => {
            let width = usize::try_from(integer(width, "indent")?.max(0)).unwrap_or(usize::MAX);
            run.meter.bytes(width)?;
            " ".repeat(width)
        }
    };
    let (first, blank) = (first.is_some_and(Value::is_true), blank.is_some_and(Value::is_true));
    // A line end more, which only the last line loses again.
    let text = format!("{text}\n");
    let lines = text_methods::lines(&text, false);
    run.meter.bytes(text.len() + lines.len().saturating_mul(indention.len()))?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(Value::marked(out, *markup))
}

fn truncate(run: &mut Run<'_>, of: &Value, args: &Args) -> Outcome<Value> {
    let [length, killwords, end, leeway] =
        args.of("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| integer(length, "truncate"))?;
    let end = end.map_or_else(|| Ok("...".into()), |end| repr::text(end, &run.meter))?;
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => integer(leeway, "truncate")?,
    };
    let wanted = length - end.chars().count() as i128;
    if wanted < 0 || leeway < 0 {
        return Err(Fault::new("truncate: the length is shorter than the end"));
    }
    let count = iterate::length(of);
    let count =
        count.ok_or_else(|| Fault::new(format!("truncate: takes a text, not {}", of.kind())))?;
    run.meter.steps(count)?;
    if count as i128 <= length.saturating_add(leeway) {
        return Ok(of.clone());
    }
    let Value::Text(Text { text, markup: false }) = of else {
        return Err(Fault::unsupported(format!("the filter truncate of {}", of.kind())));
    };
    let kept: String = text.chars().take(usize::try_from(wanted).unwrap_or(usize::MAX)).collect();
    let kept = match killwords.is_some_and(Value::is_true) {
        true => &kept,
        false => kept.rsplit_once(' ').map_or(&*kept, |(kept, _)| kept),
    };
    Ok(Value::text(format!("{kept}{end}")))
}

/// Without comments and tags, and with single blanks for white space.
fn striptags(run: &mut Run<'_>, mut text: String) -> Outcome<Value> {
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        while let Some(start) = text.find(open) {
            let Some(end) = text[start..].find(close) else { break };
            run.meter.bytes(text.len())?;
            text.replace_range(start..start + end + close.len(), "");
        }
    }
    if text.contains('&') {
        return Err(Fault::unsupported("the filter striptags of a text with entities, as &amp;"));
    }
    let words: Vec<&str> = text.split(unicode::is_space).filter(|word| !word.is_empty()).collect();
    Ok(Value::text(words.join(" ")))
}

fn urlencode(run: &mut Run<'_>, of: &Value) -> Outcome<Value> {
    let pairs = match of {
        Value::Dict(dict) => {
            let pair =
                |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
            dict.entries.iter().map(pair).collect::<Outcome<Vec<_>>>()?
        }
        Value::List(_)
        | Value::Tuple(_)
        | Value::Range(_)
        | Value::Iterator(_)
        | Value::View(..) => iterate::elements(of, &run.meter)?,
        of => return Ok(Value::text(quoted(&repr::text(of, &run.meter)?, false))),
    };
    let mut parts = Vec::new();
    for pair in pairs {
        let [key, value] = &iterate::elements(&pair, &run.meter)?[..] else {
            return Err(Fault::new("urlencode: expected pairs"));
        };
        let part = |value: &Value| -> Outcome<String> {
            Ok(quoted(&repr::text(value, &run.meter)?, true))
        };
        parts.push(format!("{}={}", part(key)?, part(value)?));
    }
    Ok(Value::text(parts.join("&")))
}

fn quoted(text: &str, in_query: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(byte.into());
            }
            b'/' if !in_query => out.push('/'),
            b' ' if in_query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
