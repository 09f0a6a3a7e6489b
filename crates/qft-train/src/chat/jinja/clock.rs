//! `strftime_now`: the date that a template is told.

use super::fault::{Fault, Outcome};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Codes of numbers, from which a `-` takes the zeros and blanks that fill them up.
const NUMBERS: &str = "deHIkljmMSUWyC";

/// `strftime` in UTC of `seconds` since 1970, as the C library of Linux has it. What is no code stays as it is.
///
/// Errors: a code or a flag that is not supported.
pub(super) fn strftime(seconds: u64, format: &str) -> Outcome<String> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (flag, code) = match chars.next() {
            Some('-') => ("-", chars.next()),
            code => ("", code),
        };
        let Some(code) = code else {
            out.push('%');
            out.push_str(flag);
            break;
        };
        if "EGgOV_^#+0123456789".contains(code) {
            return Err(Fault::unsupported(format!("strftime_now: %{flag}{code}")));
        }
        match dated(seconds, code) {
            Some(text) if flag == "-" && NUMBERS.contains(code) => {
                let bare = text.trim_start_matches(['0', ' ']);
                out.push_str(if bare.is_empty() { "0" } else { bare });
            }
            Some(text) => out.push_str(&text),
            None => {
                out.push('%');
                out.push_str(flag);
                out.push(code);
            }
        }
    }
    Ok(out)
}

/// What a code of `strftime` stands for.
fn dated(seconds: u64, code: char) -> Option<String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    // From 1, and from Sunday.
    let (day_of_year, weekday) = (1 + day_of_year(year, month, day), (days + 4) % 7);
    Some(match code {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year % 100),
        'm' => format!("{month:02}"),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'B' => month_name.into(),
        'b' | 'h' => month_name[..3].into(),
        'A' => day_name.into(),
        'a' => day_name[..3].into(),
        'j' => format!("{day_of_year:03}"),
        'w' => weekday.to_string(),
        'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
        'U' => format!("{:02}", (day_of_year + 6 - weekday) / 7),
        'W' => format!("{:02}", (day_of_year + 6 - (weekday + 6) % 7) / 7),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{:02}", second % 60),
        'p' => (if hour < 12 { "AM" } else { "PM" }).into(),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'T' | 'X' => format!("{hour:02}:{minute:02}:{:02}", second % 60),
        'R' => format!("{hour:02}:{minute:02}"),
        'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year % 100),
        'C' => format!("{:02}", year / 100),
        'k' => format!("{hour:2}"),
        'l' => format!("{:2}", (hour + 11) % 12 + 1),
        'P' => (if hour < 12 { "am" } else { "pm" }).into(),
        'n' => "\n".into(),
        't' => "\t".into(),
        's' => seconds.to_string(),
        'f' => "000000".into(),
        'z' | 'Z' => String::new(),
        'c' => return composed(seconds, "%a %b %e %T %Y"),
        'r' => return composed(seconds, "%I:%M:%S %p"),
        '%' => "%".into(),
        _ => return None,
    })
}

fn composed(seconds: u64, format: &str) -> Option<String> {
    strftime(seconds, format).ok()
}

/// Days of a year before a date.
fn day_of_year(year: u64, month: u64, day: u64) -> u64 {
    let lengths = month_lengths(year);
    lengths.iter().take(month as usize - 1).sum::<u64>() + day - 1
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_lengths(year: u64) -> [u64; 12] {
    [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Year, month and day of a day since 1970, by whole years and months.
fn civil(mut days: u64) -> (u64, u64, u64) {
    // 400 years of the calendar repeat.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in month_lengths(year) {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, format: &str) -> String {
        strftime(seconds, format).unwrap()
    }

    #[test]
    fn dates() {
        for (seconds, written) in [
            (0, "Thu 01 Jan 1970 00:00:00 AM"),
            (crate::chat::TRAINING_DATE, "Fri 26 Jul 2024 00:00:00 AM"),
            (951_827_696, "Tue 29 Feb 2000 12:34:56 PM"),
            (4_107_542_399, "Sun 28 Feb 2100 23:59:59 PM"),
        ] {
            assert_eq!(text(seconds, "%a %d %b %Y %H:%M:%S %p"), written);
        }
        assert_eq!(text(0, "%Q%%%-Q%"), "%Q%%-Q%");
        assert_eq!(text(951_827_696, "%j %U %W %w %u %-d %-m %-I"), "060 09 09 2 2 29 2 12");
        assert_eq!(text(0, "%-H %-S"), "0 0");
        assert_eq!(text(0, "%c|%-F|%P|%-l|%"), "Thu Jan  1 00:00:00 1970|1970-01-01|am|12|%");
        for refused in ["%V", "%_d", "%5d"] {
            assert!(
                strftime(0, refused).unwrap_err().to_string().contains(refused.get(..2).unwrap())
            );
        }
        assert!(!text(u64::MAX, "%F").is_empty());
    }
}
