//! Methods of texts.

use super::args::{Args, integer, needed, text};
use super::fault::{Fault, Meter, Outcome};
use super::format;
use super::iterate;
use super::run::Run;
use super::unicode;
use super::value::{Text, Value};

/// Methods that a marked text has as any other, and whose results are marked.
const OF_MARKED: [&str; 20] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "expandtabs",
    "zfill",
    "endswith",
    "find",
    "index",
    "lower",
    "lstrip",
    "rstrip",
    "rsplit",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
];

/// Calls a method.
pub(super) fn call(
    run: &mut Run<'_>,
    of: &Text,
    name: &'static str,
    args: &Args,
) -> Outcome<Value> {
    if of.markup && !name.starts_with("is") && !OF_MARKED.contains(&name) {
        return Err(Fault::unsupported(format!("the method {name} of a marked text")));
    }
    run.meter.bytes(of.text.len())?;
    if name == "format" {
        return Ok(Value::text(format::format(run, &of.text, args)?));
    }
    let call = Call { of, name, args, meter: &run.meter };
    if name.starts_with("is") {
        let [] = args.up_to(name)?;
        return call.is().map(Value::Bool);
    }
    call.result()
}

struct Call<'a> {
    of: &'a Text,
    name: &'static str,
    args: &'a Args,
    meter: &'a Meter,
}

impl Call<'_> {
    fn result(&self) -> Outcome<Value> {
        let text = &*self.of.text;
        match self.name {
            "split" | "rsplit" | "splitlines" => self.parts(),
            "partition" | "rpartition" => self.partition(),
            "join" => self.join(),
            "replace" => self.replace(),
            "startswith" | "endswith" => self.affix().map(Value::Bool),
            "count" | "find" | "index" | "rfind" | "rindex" => self.search(),
            "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => {
                self.widened().map(|text| self.marked(text))
            }
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = self.args.up_to(self.name)?;
                Ok(self.marked(strip(text, self.name, chars)?.to_string()))
            }
            "removeprefix" | "removesuffix" => {
                let [part] = self.args.up_to(self.name)?;
                let part = self::text(needed(part, self.name)?, self.name)?;
                let rest = match self.name {
                    "removeprefix" => text.strip_prefix(part),
                    _ => text.strip_suffix(part),
                };
                Ok(Value::text(rest.unwrap_or(text)))
            }
            "encode" | "format_map" | "maketrans" | "translate" => {
                Err(Fault::unsupported(format!("the method {} of a text", self.name)))
            }
            name => {
                let [] = self.args.up_to(name)?;
                Ok(self.marked(match name {
                    "lower" => text.to_lowercase(),
                    "upper" => text.to_uppercase(),
                    "capitalize" => capitalized(text)?,
                    "title" => titled(text)?,
                    "casefold" => folded(text)?,
                    "swapcase" => swapped(text)?,
                    name => return Err(Fault::unsupported(format!("the method {name} of a text"))),
                }))
            }
        }
    }

    fn marked(&self, text: String) -> Value {
        Value::marked(text, self.of.markup)
    }

    /// Splits at a separator, at white space, or at the ends of lines.
    fn parts(&self) -> Outcome<Value> {
        let text = &*self.of.text;
        // Each part takes more than its text.
        self.meter.bytes(32 * text.len())?;
        if self.name == "splitlines" {
            let [keep] = self.args.of("splitlines", ["keepends"])?;
            let lines = lines(text, keep.is_some_and(Value::is_true));
            return Value::list(lines.into_iter().map(|line| self.marked(line.into())).collect());
        }
        let [separator, most] = self.args.of(self.name, ["sep", "maxsplit"])?;
        let most = most.map_or(Ok(-1), |most| integer(most, self.name))?;
        let most = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1);
        let separator = match separator {
            None | Some(Value::None) => None,
            Some(separator) => Some(self::text(separator, self.name)?),
        };
        let mut parts: Vec<&str> = match (separator, self.name) {
            (Some(""), _) => return Err(Fault::new("empty separator")),
            (Some(separator), "split") => text.splitn(most, separator).collect(),
            (Some(separator), _) => text.rsplitn(most, separator).collect(),
            (None, "split") => words(text, most),
            (None, _) => words_from_the_end(text, most),
        };
        if self.name == "rsplit" {
            parts.reverse();
        }
        Value::list(parts.into_iter().map(|part| self.marked(part.into())).collect())
    }

    fn partition(&self) -> Outcome<Value> {
        let [separator] = self.args.up_to(self.name)?;
        let separator = text(needed(separator, self.name)?, self.name)?;
        if separator.is_empty() {
            return Err(Fault::new("empty separator"));
        }
        let whole = &*self.of.text;
        let parts = match self.name {
            "partition" => match whole.split_once(separator) {
                Some((before, after)) => [before, separator, after],
                None => [whole, "", ""],
            },
            _ => match whole.rsplit_once(separator) {
                Some((before, after)) => [before, separator, after],
                None => ["", "", whole],
            },
        };
        Value::tuple(parts.map(Value::text).to_vec())
    }

    fn join(&self) -> Outcome<Value> {
        let [items] = self.args.up_to("join")?;
        let items = iterate::elements(needed(items, "join")?, self.meter)?;
        self.meter.bytes(self.of.text.len().saturating_mul(items.len()))?;
        let mut parts = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let Value::Text(part) = item else {
                return Err(Fault::new(format!(
                    "sequence item {i}: expected str instance, {} found",
                    item.kind()
                )));
            };
            self.meter.bytes(part.text.len())?;
            parts.push(&*part.text);
        }
        Ok(Value::text(parts.join(&*self.of.text)))
    }

    fn replace(&self) -> Outcome<Value> {
        let [old, new, count] = self.args.up_to("replace")?;
        let (old, new) =
            (text(needed(old, "replace")?, "replace")?, text(needed(new, "replace")?, "replace")?);
        let count = count.map_or(Ok(-1), |count| integer(count, "replace"))?;
        Ok(Value::text(replaced(&self.of.text, old, new, count, self.meter)?))
    }

    /// The part that further arguments name by its bounds, in characters, and where it begins.
    fn window(
        &self,
        start: Option<&Value>,
        end: Option<&Value>,
    ) -> Outcome<Option<(String, usize)>> {
        let chars: Vec<char> = self.of.text.chars().collect();
        let len = chars.len() as i128;
        let bound = |given: Option<&Value>, default: i128| -> Outcome<i128> {
            match given {
                None | Some(Value::None) => Ok(default),
                Some(given) => {
                    let place = integer(given, self.name)?;
                    Ok(if place < 0 { place.saturating_add(len).max(0) } else { place })
                }
            }
        };
        let (start, end) = (bound(start, 0)?, bound(end, len)?.min(len));
        if start > end {
            return Ok(None);
        }
        let (start, end) = (start as usize, end as usize);
        Ok(Some((chars[start..end].iter().collect(), start)))
    }

    fn affix(&self) -> Outcome<bool> {
        let [part, start, end] = self.args.up_to(self.name)?;
        let parts = match needed(part, self.name)? {
            Value::Tuple(items) => items.items.clone(),
            part => vec![part.clone()],
        };
        let window = match (start, end) {
            (None, None) => Some((self.of.text.to_string(), 0)),
            (start, end) => self.window(start, end)?,
        };
        for part in &parts {
            let part = text(part, self.name)?;
            let Some((window, _)) = &window else { continue };
            let found = match self.name {
                "startswith" => window.starts_with(part),
                _ => window.ends_with(part),
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn search(&self) -> Outcome<Value> {
        let [part, start, end] = self.args.up_to(self.name)?;
        let part = text(needed(part, self.name)?, self.name)?;
        let window = self.window(start, end)?;
        if self.name == "count" {
            return Ok(Value::count(window.map_or(0, |(window, _)| window.matches(part).count())));
        }
        let found = window.and_then(|(window, start)| {
            let byte = match self.name {
                "find" | "index" => window.find(part),
                _ => window.rfind(part),
            };
            Some(start + window[..byte?].chars().count())
        });
        match found {
            Some(place) => Ok(Value::count(place)),
            None if self.name.ends_with("find") => Ok(Value::Int(-1)),
            None => Err(Fault::new("substring not found")),
        }
    }

    fn widened(&self) -> Outcome<String> {
        let whole = &*self.of.text;
        if self.name == "expandtabs" {
            let [size] = self.args.of("expandtabs", ["tabsize"])?;
            let size = size.map_or(Ok(8), |size| integer(size, self.name))?;
            return expanded(whole, usize::try_from(size).unwrap_or(0), self.meter);
        }
        let [width, fill] = self.args.up_to(self.name)?;
        let width = integer(needed(width, self.name)?, self.name)?;
        let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
        self.meter.bytes(width.saturating_mul(4))?;
        let missing = width.saturating_sub(whole.chars().count());
        if self.name == "zfill" {
            let (sign, digits) = whole.split_at(usize::from(whole.starts_with(['+', '-'])));
            return Ok(format!("{sign}{}{digits}", "0".repeat(missing)));
        }
        if self.of.markup && fill.is_some() {
            return Err(Fault::unsupported("a fill character of a marked text"));
        }
        let fill = fill.map_or(Ok(" "), |fill| text(fill, self.name))?;
        if fill.chars().count() != 1 {
            return Err(Fault::new("the fill character must be exactly one character long"));
        }
        let before = match self.name {
            "center" => missing / 2 + (missing & width & 1),
            "ljust" => 0,
            _ => missing,
        };
        Ok(format!("{}{whole}{}", fill.repeat(before), fill.repeat(missing - before)))
    }

    fn is(&self) -> Outcome<bool> {
        let text = &*self.of.text;
        let all = |holds: &dyn Fn(char) -> Outcome<bool>| -> Outcome<bool> {
            for c in text.chars() {
                if !holds(c)? {
                    return Ok(false);
                }
            }
            Ok(!text.is_empty())
        };
        match self.name {
            "isalpha" => all(&unicode::is_letter),
            "isalnum" => all(&|c| Ok(unicode::is_letter(c)? || unicode::is_digit(c)?)),
            "isdigit" | "isdecimal" | "isnumeric" => all(&unicode::is_digit),
            "isspace" => all(&|c| Ok(unicode::is_space(c))),
            "isascii" => Ok(text.is_ascii()),
            "isprintable" => Ok(text.chars().all(unicode::is_printable)),
            "islower" => Ok(cased(text, char::is_lowercase, char::is_uppercase)),
            "isupper" => Ok(cased(text, char::is_uppercase, char::is_lowercase)),
            "istitle" => Ok(is_title(text)),
            "isidentifier" => {
                let first = text.chars().next().is_none_or(|c| c.is_ascii_digit());
                Ok(!first && all(&unicode::is_word)?)
            }
            name => Err(Fault::unsupported(format!("the method {name} of a text"))),
        }
    }
}

/// Without white space, or these characters, at its ends.
pub(super) fn strip<'a>(whole: &'a str, method: &str, chars: Option<&Value>) -> Outcome<&'a str> {
    let given = match chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(text(chars, method)?),
    };
    let is_taken = |c: char| given.map_or_else(|| unicode::is_space(c), |chars| chars.contains(c));
    Ok(match method {
        "lstrip" => whole.trim_start_matches(is_taken),
        "rstrip" => whole.trim_end_matches(is_taken),
        _ => whole.trim_matches(is_taken),
    })
}

/// With the first `count` of `old`, or all where that is negative, replaced.
pub(super) fn replaced(
    text: &str,
    old: &str,
    new: &str,
    count: i128,
    meter: &Meter,
) -> Outcome<String> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    meter.bytes(text.len())?;
    let times = text.matches(old).count().min(count);
    meter.bytes(times.saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, count))
}

/// The lines of a text, with their ends or without.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((place, end)) = rest.char_indices().find(|&(_, c)| unicode::is_line_end(c)) {
        let len = if rest[place..].starts_with("\r\n") { 2 } else { end.len_utf8() };
        lines.push(&rest[..if keep { place + len } else { place }]);
        rest = &rest[place + len..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn words(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(unicode::is_space);
    while !rest.is_empty() {
        let end = rest.find(unicode::is_space).filter(|_| words.len() + 1 < most);
        let Some(end) = end else {
            words.push(rest);
            break;
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(unicode::is_space);
    }
    words
}

fn words_from_the_end(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_end_matches(unicode::is_space);
    while !rest.is_empty() {
        let space = rest.char_indices().rev().find(|&(_, c)| unicode::is_space(c));
        let Some((place, space)) = space.filter(|_| words.len() + 1 < most) else {
            words.push(rest);
            break;
        };
        words.push(&rest[place + space.len_utf8()..]);
        rest = rest[..place].trim_end_matches(unicode::is_space);
    }
    words
}

fn capitalized(text: &str) -> Outcome<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        unicode::titled(first, &mut out)?;
        // The last letter of a word may have a form of its own, so all of it is looked at.
        let lower = text.to_lowercase();
        let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
        out.push_str(&lower[skipped..]);
    }
    Ok(out)
}

fn titled(text: &str) -> Outcome<String> {
    let mut out = String::new();
    let mut in_word = false;
    for c in text.chars() {
        let is_cased = c.is_lowercase() || c.is_uppercase();
        match (in_word, is_cased) {
            (false, true) => unicode::titled(c, &mut out)?,
            (true, _) if c == 'Σ' => {
                return Err(Fault::unsupported("the method title of a text with a capital sigma"));
            }
            (true, _) => out.extend(c.to_lowercase()),
            (false, false) => out.push(c),
        }
        in_word = is_cased;
    }
    Ok(out)
}

fn folded(text: &str) -> Outcome<String> {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            'ß' => out.push_str("ss"),
            'a'..='z' | 'A'..='Z' | 'À'..='Þ' | 'à'..='ÿ' => out.extend(c.to_lowercase()),
            c if !c.is_lowercase() && !c.is_uppercase() => out.push(c),
            c => {
                return Err(Fault::unsupported(format!("the method casefold of {c:?}")));
            }
        }
    }
    Ok(out)
}

fn swapped(text: &str) -> Outcome<String> {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            'Σ' => {
                return Err(Fault::unsupported(
                    "the method swapcase of a text with a capital sigma",
                ));
            }
            c if c.is_uppercase() => out.extend(c.to_lowercase()),
            c => out.extend(c.to_uppercase()),
        }
    }
    Ok(out)
}

fn expanded(text: &str, size: usize, meter: &Meter) -> Outcome<String> {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let blanks = size - column % size;
                meter.bytes(blanks)?;
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

/// Whether a text has letters of a case, and none of the other.
pub(super) fn cased(text: &str, is: fn(char) -> bool, is_other: fn(char) -> bool) -> bool {
    text.chars().any(is) && !text.chars().any(is_other)
}

fn is_title(text: &str) -> bool {
    let (mut any, mut in_word) = (false, false);
    for c in text.chars() {
        let is_cased = c.is_uppercase() || c.is_lowercase();
        if (c.is_uppercase() && in_word) || (c.is_lowercase() && !in_word) {
            return false;
        }
        any |= is_cased;
        in_word = is_cased;
    }
    any
}
