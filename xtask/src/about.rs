//! What a measurement must say of itself to be worth keeping: commit, command, machine, load.

use crate::repository::repository;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// The circumstances of a measurement; absent is what this machine does not tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// What was built, if git knows.
    pub(crate) commit: Option<String>,
    /// Whether the sources are those of the commit.
    pub(crate) clean: Option<bool>,
    pub(crate) command: String,
    pub(crate) processor: Option<String>,
    pub(crate) cores: Option<usize>,
    pub(crate) memory_bytes: Option<u64>,
    /// Processes that were running, as a mean over the last minute. Other work makes times longer.
    pub(crate) load: Option<f64>,
    pub(crate) rustc: Option<String>,
    /// When, in seconds since 1970.
    unix_seconds: Option<u64>,
}

impl About {
    /// Of a measurement that begins now.
    pub(crate) fn now() -> Self {
        let changes = said("git", &["status", "--porcelain", "--untracked-files=no"]);
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            commit: said("git", &["rev-parse", "HEAD"]),
            clean: changes.map(|changes| changes.is_empty()),
            command: format!("cargo xtask {}", arguments.join(" ")),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal").as_deref().and_then(kib),
            load: std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| load(&text)),
            rustc: said("rustc", &["--version"]),
            unix_seconds: since.ok().map(|time| time.as_secs()),
        }
    }
}

/// A name of what results depend on in the sources: the crates and the versions of their dependencies, uncommitted
/// changes included. Absent where git does not tell.
pub(crate) fn sources() -> Option<String> {
    const OF: [&str; 3] = ["--", "crates", "Cargo.lock"];
    let committed = said("git", &[&["ls-tree", "HEAD"][..], &OF].concat())?;
    let changes = said("git", &[&["diff", "HEAD"][..], &OF].concat())?;
    let mut hash = Command::new("git")
        .args(["hash-object", "--stdin"])
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    hash.stdin.take()?.write_all(format!("{committed}\n{changes}").as_bytes()).ok()?;
    let name = String::from_utf8(hash.wait_with_output().ok()?.stdout).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// What a program writes, if it succeeds.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(repository()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The first value of that name in a file of the kernel.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}

fn kib(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn load(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(kib("2048 kB"), Some(2 << 20));
        assert_eq!(kib("2048"), None);
        assert_eq!(load("0.52 0.58 0.59 1/389 12\n"), Some(0.52));
        assert_eq!(field("/no/such/file", "a"), None);
    }

    #[test]
    fn sources_have_one_name() {
        assert_eq!(sources(), sources());
        assert!(sources().is_none_or(|name| name.len() >= 40), "{:?}", sources());
    }
}
