//! Free memory, as the kernel would give it to this process, and which limit bounds it.

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(all(test, target_os = "linux"))]
mod tests;

#[cfg(target_os = "linux")]
use super::rss::kib_field;
use std::fmt;
#[cfg(target_os = "linux")]
use std::path::Path;

/// Bytes that this process can still take without swapping, being killed, or being refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeMemory {
    /// The bytes. Caches that the kernel would drop for them count as free, swap does not.
    pub bytes: u64,
    /// The limit that leaves the least.
    pub bound_by: Bound,
}

/// What memory ends at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The memory of the machine.
    Machine,
    /// What a kernel that does not overcommit promises to all processes together.
    Commitment,
    /// The limit of a control group, the process's own or one around it.
    ControlGroup(String),
    /// The process's limit of address space.
    AddressSpace,
    /// The process's limit of private writable memory.
    DataSize,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("memory of the machine"),
            Self::Commitment => {
                f.write_str("limit of committed memory, as vm.overcommit_memory is 2")
            }
            Self::ControlGroup(path) => write!(f, "limit of the control group {path}"),
            Self::AddressSpace => f.write_str("limit of the address space, ulimit -v"),
            Self::DataSize => f.write_str("limit of the data size, ulimit -d"),
        }
    }
}

impl FreeMemory {
    /// That of this process now, if the system says.
    #[cfg(target_os = "linux")]
    pub fn now() -> Option<Self> {
        Self::read(Path::new("/"))
    }

    /// That of this process now, if the system says.
    #[cfg(not(target_os = "linux"))]
    pub fn now() -> Option<Self> {
        let mut system = sysinfo::System::new().ok()?;
        system.refresh_memory();
        Some(Self { bytes: system.available_memory(), bound_by: Bound::Machine })
    }

    /// That of the process whose `/proc` and `/sys` lie below `root`.
    #[cfg(target_os = "linux")]
    fn read(root: &Path) -> Option<Self> {
        let mut found = machine(root);
        found.extend(cgroup::free(root));
        found.extend(own_limits(root));
        for Self { bytes, bound_by } in &found {
            tracing::debug!("{bytes} bytes are free: {bound_by}");
        }
        found.into_iter().min_by_key(|free| free.bytes)
    }
}

/// What the machine has free.
#[cfg(target_os = "linux")]
fn machine(root: &Path) -> Vec<FreeMemory> {
    let text = text(root, "proc/meminfo").unwrap_or_default();
    let field = |name: &str| kib_field(&text, name);
    let sum = |names: [&str; 3]| names.into_iter().filter_map(field).fold(0, add);
    let available = field("MemAvailable").or_else(|| {
        // Kernels before 3.14 and some sandboxes do not say. What lies in shared memory is counted in the cache, but
        // cannot be dropped.
        let cache = sum(["Buffers", "Cached", "SReclaimable"]);
        let shared = field("Shmem").unwrap_or(0);
        field("MemFree").map(|free| add(free, cache.saturating_sub(shared)))
    });
    let total = field("MemTotal").unwrap_or(u64::MAX);
    let machine = available
        .map(|available| FreeMemory { bytes: available.min(total), bound_by: Bound::Machine });
    let strict = number(root, "proc/sys/vm/overcommit_memory") == Some(2);
    let limit = field("CommitLimit").filter(|_| strict);
    let commitment = limit.map(|limit| FreeMemory {
        bytes: limit.saturating_sub(field("Committed_AS").unwrap_or(0)),
        bound_by: Bound::Commitment,
    });
    machine.into_iter().chain(commitment).collect()
}

/// What the limits of this process alone leave it.
#[cfg(target_os = "linux")]
fn own_limits(root: &Path) -> Vec<FreeMemory> {
    let limits = text(root, "proc/self/limits").unwrap_or_default();
    let status = text(root, "proc/self/status").unwrap_or_default();
    let kinds = [
        ("Max address space", "VmSize", Bound::AddressSpace),
        ("Max data size", "VmData", Bound::DataSize),
    ];
    let free = |(limit, used, bound_by)| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let soft = line.split_whitespace().next().filter(|&soft| soft != "unlimited")?;
        let used = kib_field(&status, used).unwrap_or(0);
        Some(FreeMemory { bytes: parsed(limit, soft)?.saturating_sub(used), bound_by })
    };
    kinds.into_iter().filter_map(free).collect()
}

/// A sum that ends at the greatest number.
#[cfg(target_os = "linux")]
fn add(a: u64, b: u64) -> u64 {
    a.saturating_add(b)
}

/// The text of a file below `root`, if there is one. Bytes that are no text are replaced.
#[cfg(target_os = "linux")]
fn text(root: &Path, path: impl AsRef<Path>) -> Option<String> {
    let path = root.join(path);
    match std::fs::read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::debug!("{}: {error}", path.display());
            }
            None
        }
    }
}

/// The number that a file below `root` holds. One that says `max` holds none.
#[cfg(target_os = "linux")]
fn number(root: &Path, path: impl AsRef<Path>) -> Option<u64> {
    let text = text(root, path.as_ref())?;
    let word = text.trim();
    if word == "max" { None } else { parsed(&path.as_ref().display().to_string(), word) }
}

/// `word` as a number.
#[cfg(target_os = "linux")]
fn parsed(what: &str, word: &str) -> Option<u64> {
    let number = word.parse().ok();
    if number.is_none() {
        tracing::debug!("{what}: not a number: {word:?}");
    }
    number
}
