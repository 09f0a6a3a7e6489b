//! Numbers as Python writes them.

/// A float as `repr` writes it: the shortest digits that read back the same, with an exponent if it is very large or
/// small.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let text = shortest(value);
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    match power.parse::<i32>() {
        Ok(power @ -4..16) => {
            let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len() as i32);
            format!("{value:.*}", (decimals - power).max(1) as usize)
        }
        _ => exponent(&text),
    }
}

/// The shortest digits that read back the same, with an exponent. Of two that are equally near, Python takes the even
/// one, and Rust another.
fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let digits = text.split_once('e').map_or(&*text, |(digits, _)| digits);
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let even = format!("{value:.decimals$e}");
    if even.parse() == Ok(value) { even } else { text }
}

/// Rust's `1.5e7` as C's `1.5e+07`.
pub(super) fn exponent(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_string() };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A float as `%g` writes it, without its sign; with `alternate`, trailing zeros are kept.
pub(super) fn general(value: f64, precision: usize, alternate: bool) -> String {
    let precision = precision.max(1);
    let scientific = format!("{value:.*e}", precision - 1);
    let power: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let strip = |text: &str| match text.contains('.') && !alternate {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if power < -4 || power >= precision as i32 {
        let (digits, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        return exponent(&format!("{}e{power}", strip(digits)));
    }
    let decimals = (precision as i32 - 1 - power).max(0) as usize;
    strip(&format!("{value:.decimals$}"))
}

/// Groups of three digits, or four, from the right.
pub(super) fn grouped(digits: &str, separator: char, size: usize) -> String {
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(size) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}
