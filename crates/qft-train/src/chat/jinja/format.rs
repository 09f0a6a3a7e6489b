//! `str.format`, and the fields of both kinds of formats.

use super::args::Args;
use super::attributes;
use super::fault::{Fault, Outcome};
use super::number_text;
use super::repr;
use super::run::Run;
use super::value::Value;

/// The widest field, and the most digits.
const MAX_WIDTH: usize = 9999;

/// How a field is laid out.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub(super) fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    pub(super) align: Option<char>,
    /// `+`, `-` or a blank.
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) width: usize,
    /// What groups of digits are separated by.
    pub(super) separator: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

/// A width or precision.
///
/// Errors: it is too large.
pub(super) fn small(digits: &str) -> Outcome<usize> {
    let number = digits.parse::<usize>().ok().filter(|&number| number <= MAX_WIDTH);
    number.ok_or_else(|| Fault::new("a number in the format is too large"))
}

/// `text.format(...)`.
pub(super) fn format(run: &mut Run<'_>, text: &str, args: &Args) -> Outcome<String> {
    let mut out = String::new();
    let mut next = Some(0);
    let mut rest = text;
    while let Some(place) = rest.find(['{', '}']) {
        out.push_str(&rest[..place]);
        let brace = &rest[place..=place];
        rest = &rest[place + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        let end = rest.find(['{', '}']).filter(|_| brace == "{");
        let end = end.ok_or_else(|| Fault::new("format: a single brace in the format"))?;
        if rest[end..].starts_with('{') {
            return Err(Fault::unsupported("format: a field within a field"));
        }
        let written = field(run, &rest[..end], args, &mut next)?;
        run.meter.bytes(written.len())?;
        out.push_str(&written);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    run.meter.bytes(out.len())?;
    Ok(out)
}

fn field(run: &mut Run<'_>, field: &str, args: &Args, next: &mut Option<usize>) -> Outcome<String> {
    let (name, spec) = field.split_once(':').unwrap_or((field, ""));
    let (name, conversion) = match name.split_once('!') {
        Some((name, conversion)) => (name, Some(conversion)),
        None => (name, None),
    };
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, path) = name.split_at(end);
    let mut value = argument(first, args, next)?;
    let mut path = path;
    while !path.is_empty() {
        let is_item = path.starts_with('[');
        let wrong = || Fault::new("format: a field's name is not valid");
        let (part, rest) = match is_item {
            true => path[1..].split_once(']').ok_or_else(wrong)?,
            false => {
                let end = path[1..].find(['.', '[']).map_or(path.len(), |end| end + 1);
                path[1..].split_at(end - 1)
            }
        };
        value = match (is_item, part.parse::<u32>()) {
            (true, Ok(index)) => attributes::item(run, &value, &Value::Int(index.into()))?,
            (true, Err(_)) => attributes::item(run, &value, &Value::text(part))?,
            (false, _) => attributes::attribute(run, &value, part)?,
        };
        path = rest;
    }
    let value = match conversion {
        None => value,
        Some("s") => Value::text(repr::text(&value, &run.meter)?),
        Some("r") => Value::text(repr::repr(&value, &run.meter)?),
        Some(other) => return Err(Fault::unsupported(format!("format: the conversion !{other}"))),
    };
    if spec.is_empty() {
        return repr::text(&value, &run.meter);
    }
    laid_out(&value, &specification(spec)?)
}

fn argument(name: &str, args: &Args, next: &mut Option<usize>) -> Outcome<Value> {
    let index = match (name.parse::<usize>(), &next) {
        (Ok(index), _) => {
            if next.is_some_and(|next| next > 0) {
                return Err(Fault::new("format: fields with and without numbers are mixed"));
            }
            *next = None;
            index
        }
        (Err(_), Some(index)) if name.is_empty() => {
            let index = *index;
            *next = Some(index + 1);
            index
        }
        (Err(_), None) if name.is_empty() => {
            return Err(Fault::new("format: fields with and without numbers are mixed"));
        }
        (Err(_), _) => {
            let found = args.named.iter().find(|(known, _)| **known == *name);
            let found = found.map(|(_, value)| value.clone());
            return found.ok_or_else(|| Fault::new(format!("format: no argument `{name}`")));
        }
    };
    let value = args.values.get(index).cloned();
    value.ok_or_else(|| Fault::new(format!("format: no argument of number {index}")))
}

/// `[[fill]align][sign][#][0][width][,][.precision][kind]`.
fn specification(spec: &str) -> Outcome<Field> {
    let mut field = Field::default();
    let mut chars = spec.chars().peekable();
    let is_align = |c: Option<char>| matches!(c, Some('<' | '>' | '^' | '='));
    if is_align(spec.chars().nth(1)) {
        field.fill = chars.next();
    }
    field.align = chars.next_if(|&c| is_align(Some(c)));
    field.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
    field.alternate = chars.next_if_eq(&'#').is_some();
    if chars.peek() == Some(&'0') {
        // Only where nothing else is asked for.
        field.fill = field.fill.or(Some('0'));
        field.align = field.align.or(Some('='));
    }
    let mut digits = String::new();
    digits.extend(std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)));
    if !digits.is_empty() {
        field.width = small(&digits)?;
    }
    field.separator = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        digits.clear();
        digits.extend(std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)));
        if digits.is_empty() {
            return Err(Fault::new("format: a precision is missing"));
        }
        field.precision = Some(small(&digits)?);
    }
    field.kind = chars.next();
    if chars.next().is_some() {
        return Err(Fault::new(format!("format: `{spec}` is not a valid format")));
    }
    Ok(field)
}

/// A value in a field of `format`.
fn laid_out(value: &Value, field: &Field) -> Outcome<String> {
    let kind = field.kind;
    match value {
        Value::Text(text) if matches!(kind, None | Some('s')) => {
            if field.sign.is_some() || field.alternate || field.separator.is_some() {
                return Err(Fault::new("format: a sign or separator is not allowed for texts"));
            }
            let zeros = field.align == Some('=');
            if zeros && field.fill != Some('0') {
                return Err(Fault::new("format: `=` is not allowed for texts"));
            }
            let mut field = field.clone();
            // A text that is filled up with zeros: they go behind it.
            field.align = if zeros { Some('<') } else { field.align.or(Some('<')) };
            let cut = field.precision.unwrap_or(usize::MAX);
            let cut: String = text.text.chars().take(cut).collect();
            Ok(padded("", &cut, &field))
        }
        Value::Bool(_) if kind.is_none() => {
            Err(Fault::unsupported("format: a truth value in a field with a format"))
        }
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => number(value, field),
        other => Err(Fault::new(format!("format: unsupported format for {}", other.kind()))),
    }
}

/// A number in a field, of either kind of format.
pub(super) fn number(value: &Value, field: &Field) -> Outcome<String> {
    let kind = field.kind;
    let unknown = || {
        let kind = kind.map_or(String::new(), String::from);
        Err(Fault::unsupported(format!("a format of `{kind}` for {}", value.kind())))
    };
    let (negative, prefix, digits) = match (value.as_int(), kind) {
        (Some(int), None | Some('d' | 'x' | 'X' | 'o' | 'b')) => {
            if field.precision.is_some() {
                return Err(Fault::new("format: precision is not allowed for integers"));
            }
            let size = int.unsigned_abs();
            let (prefix, digits) = match kind {
                Some('x') => ("0x", format!("{size:x}")),
                Some('X') => ("0X", format!("{size:X}")),
                Some('o') => ("0o", format!("{size:o}")),
                Some('b') => ("0b", format!("{size:b}")),
                _ => ("", size.to_string()),
            };
            (int < 0, if field.alternate { prefix } else { "" }, digits)
        }
        (int, kind) => {
            let float = match (value, int) {
                (Value::Float(value), _) => *value,
                (_, Some(int)) if kind.is_some() => int as f64,
                _ => return unknown(),
            };
            let Some(digits) = float_digits(float.abs(), field) else { return unknown() };
            (float.is_sign_negative() && !float.is_nan(), "", digits)
        }
    };
    let digits = separated(digits, field)?;
    let sign = match (negative, field.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    let mut field = field.clone();
    field.align = field.align.or(Some('>'));
    if field.align == Some('=') && field.separator.is_some() && field.fill == Some('0') {
        return Err(Fault::unsupported("format: groups of digits behind zeros"));
    }
    Ok(padded(&format!("{sign}{prefix}"), &digits, &field))
}

fn separated(digits: String, field: &Field) -> Outcome<String> {
    let Some(separator) = field.separator else { return Ok(digits) };
    let size = if matches!(field.kind, Some('x' | 'X' | 'o' | 'b')) { 4 } else { 3 };
    if size == 4 && separator == ',' {
        return Err(Fault::new("format: `,` is not allowed here"));
    }
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    Ok(number_text::grouped(whole, separator, size) + rest)
}

/// The digits of a float that is not negative; none where its kind is not known.
fn float_digits(value: f64, field: &Field) -> Option<String> {
    let precision = field.precision.unwrap_or(6);
    if !value.is_finite() {
        let text = number_text::float(value);
        return Some(match field.kind {
            Some('F' | 'E' | 'G') => text.to_uppercase(),
            Some('%') => text + "%",
            _ => text,
        });
    }
    let text = match field.kind? {
        // Without a decimal the point is only kept where that is asked for.
        'f' | 'F' => format!("{value:.precision$}"),
        'e' | 'E' => number_text::exponent(&format!("{value:.precision$e}")),
        'g' | 'G' => number_text::general(value, precision, field.alternate),
        '%' => format!("{:.precision$}%", value * 100.0),
        _ => return None,
    };
    if field.alternate && precision == 0 {
        return None;
    }
    Some(if matches!(field.kind, Some('E' | 'G')) { text.to_uppercase() } else { text })
}

/// Fills a field up to its width.
pub(super) fn padded(before: &str, text: &str, field: &Field) -> String {
    let missing = field.width.saturating_sub(before.len() + text.chars().count());
    let fill = field.fill.unwrap_or(' ');
    let fill = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    match field.align {
        Some('<') => format!("{before}{text}{}", fill(missing)),
        Some('=') => format!("{before}{}{text}", fill(missing)),
        Some('^') => {
            format!("{}{before}{text}{}", fill(missing / 2), fill(missing - missing / 2))
        }
        _ => format!("{}{before}{text}", fill(missing)),
    }
}
