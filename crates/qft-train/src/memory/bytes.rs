//! Sizes for human readers: in units of a thousand, a million and a billion, everywhere.

/// A number of bytes with three digits, or two behind the point from 10 GB on.
pub fn gb(bytes: u64) -> String {
    if bytes < 10_000_000 {
        return format!("{:.2} MB", bytes as f64 / 1e6);
    }
    if bytes < 1_000_000_000 {
        return format!("{:.0} MB", bytes as f64 / 1e6);
    }
    format!("{:.2} GB", bytes as f64 / 1e9)
}
