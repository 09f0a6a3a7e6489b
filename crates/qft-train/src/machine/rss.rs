//! What the operating system says of this process's memory.

/// The bytes of a field of a file in `/proc`: a line such as `VmRSS:  12 kB`.
pub(crate) fn kib_field(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib = value.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok());
    let bytes = kib.and_then(|kib| kib.checked_mul(1024));
    if bytes.is_none() {
        tracing::debug!("{field}: not a number of kB: {value:?}");
    }
    bytes
}

/// A field of `/proc/self/status` in bytes, where there is such a file.
fn status_bytes(field: &str) -> Option<u64> {
    kib_field(&std::fs::read_to_string("/proc/self/status").ok()?, field)
}

/// Resident bytes now.
pub fn current() -> Option<u64> {
    status_bytes("VmRSS")
}

/// The most resident bytes this process ever had.
pub fn peak() -> Option<u64> {
    status_bytes("VmHWM")
}
