//! Methods of Python's texts that the engine's companion does not know.

use minijinja::value::Tuple;
use minijinja::{Error, ErrorKind, Value};

/// The widest that a method may fill a text up to.
const MAX_WIDTH: usize = 9999;

/// Calls a method; none where it is not one of these.
pub(super) fn call(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let first = || args.first().and_then(Value::as_str);
    let result = match method {
        "rsplit" => rsplit(text, args).map(Value::from),
        "partition" => parts(text, first(), str::split_once, false),
        "rpartition" => parts(text, first(), str::rsplit_once, true),
        "removeprefix" => needed(first()).map(|p| text.strip_prefix(p).unwrap_or(text).into()),
        "removesuffix" => needed(first()).map(|s| text.strip_suffix(s).unwrap_or(text).into()),
        "index" => needed(first()).and_then(|part| place(text, text.find(part))),
        "rindex" => needed(first()).and_then(|part| place(text, text.rfind(part))),
        "zfill" => width(args).map(|width| zfill(text, width).into()),
        "swapcase" => Ok(text.chars().map(swap_case).collect::<String>().into()),
        "casefold" => Ok(text.to_lowercase().replace('ß', "ss").into()),
        "center" => filled(text, args, |n, width| n / 2 + (n & width & 1)),
        "ljust" => filled(text, args, |_, _| 0),
        "rjust" => filled(text, args, |n, _| n),
        "expandtabs" => expand_tabs(text, args).map(Value::from),
        "istitle" => Ok(is_title(text).into()),
        "isidentifier" => Ok(is_identifier(text).into()),
        "isdecimal" => Ok((!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into()),
        _ => return None,
    };
    Some(result)
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.to_string())
}

fn needed(text: Option<&str>) -> Result<&str, Error> {
    text.ok_or_else(|| refuse("a method of a text takes a text"))
}

/// The number of characters before a byte.
fn place(text: &str, byte: Option<usize>) -> Result<Value, Error> {
    let byte = byte.ok_or_else(|| refuse("substring not found"))?;
    Ok(text[..byte].chars().count().into())
}

/// Three parts: before a separator, the separator, and after it.
fn parts<'a>(
    text: &'a str,
    separator: Option<&'a str>,
    split: fn(&'a str, &'a str) -> Option<(&'a str, &'a str)>,
    whole_is_last: bool,
) -> Result<Value, Error> {
    let separator = needed(separator).ok().filter(|separator| !separator.is_empty());
    let separator = separator.ok_or_else(|| refuse("partition: takes a separator"))?;
    let parts = match split(text, separator) {
        Some((before, after)) => [before, separator, after],
        None if whole_is_last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn rsplit(text: &str, args: &[Value]) -> Result<Vec<String>, Error> {
    let most = args.get(1).and_then(Value::as_i64).and_then(|most| usize::try_from(most).ok());
    let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<String> = match args.first().and_then(Value::as_str) {
        Some("") => return Err(refuse("rsplit: empty separator")),
        Some(separator) => text.rsplitn(most, separator).map(str::to_string).collect(),
        None => words_from_the_end(text, most),
    };
    parts.reverse();
    Ok(parts)
}

fn words_from_the_end(text: &str, most: usize) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        let start = rest.rfind(char::is_whitespace).filter(|_| words.len() + 1 < most);
        let Some(space) = start else {
            // Without a limit there is no space left in front.
            words.push(if words.len() + 1 == most { rest } else { rest.trim_start() }.to_string());
            break;
        };
        let word = rest[space..].trim_start();
        words.push(word.to_string());
        rest = rest[..space].trim_end();
    }
    words
}

fn width(args: &[Value]) -> Result<usize, Error> {
    let width = args.first().and_then(Value::as_i64).ok_or_else(|| refuse("takes a width"))?;
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(refuse("a width is too large"));
    }
    Ok(width)
}

fn zfill(text: &str, width: usize) -> String {
    let zeros = "0".repeat(width.saturating_sub(text.chars().count()));
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
    format!("{sign}{zeros}{digits}")
}

/// Fills up to a width; `before` says how many of the missing characters come first.
fn filled(text: &str, args: &[Value], before: fn(usize, usize) -> usize) -> Result<Value, Error> {
    let width = width(args)?;
    let with = args.get(1).and_then(Value::as_str).unwrap_or(" ");
    let missing = width.saturating_sub(text.chars().count());
    let before = before(missing, width);
    let (left, right) = (with.repeat(before), with.repeat(missing - before));
    Ok(format!("{left}{text}{right}").into())
}

fn swap_case(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn expand_tabs(text: &str, args: &[Value]) -> Result<String, Error> {
    let size = if args.is_empty() { 8 } else { width(args)? };
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let blanks = size - column % size;
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}

fn is_title(text: &str) -> bool {
    let (mut any, mut in_word) = (false, false);
    for c in text.chars() {
        let cased = c.is_uppercase() || c.is_lowercase();
        if (c.is_uppercase() && in_word) || (c.is_lowercase() && !in_word) {
            return false;
        }
        any |= cased;
        in_word = cased;
    }
    any
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    first && chars.all(|c| c.is_alphanumeric() || c == '_')
}
