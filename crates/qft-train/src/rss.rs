//! What the operating system says of this process's memory.

/// A field of `/proc/self/status` in bytes, where there is such a file.
fn status_bytes(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Resident bytes now.
pub fn current() -> Option<u64> {
    status_bytes("VmRSS")
}

/// The most resident bytes this process ever had.
pub fn peak() -> Option<u64> {
    status_bytes("VmHWM")
}

/// Bytes of memory that the machine can still give out, if it says.
pub fn available() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let free = system.available_memory();
    Some(system.cgroup_limits().map_or(free, |limits| limits.free_memory.min(free)))
}
