//! What control groups leave this process: its own, and all around it that can be seen.
//!
//! A group's limit holds for everything below it, so the least over the groups from the process's own up to the root of
//! the hierarchy counts. Both versions of the interface are read, since both may be mounted at once.

use super::{Bound, FreeMemory, add, number, parsed, text};
use std::path::{Path, PathBuf};

/// From here on a limit is none: version 1 writes the greatest number of pages there is.
const UNLIMITED: u64 = 1 << 60;

/// A version of the interface: the names of its files, and how it is found.
struct Version {
    /// The file system's type.
    fs_type: &'static str,
    /// The controller that a mount and a line of `/proc/self/cgroup` name, if they do.
    controller: Option<&'static str>,
    /// Limits, each with what it limits.
    limits: &'static [(&'static str, &'static str)],
    /// A limit that `memory.stat` tells, of groups that cannot be seen among others.
    inherited: Option<(&'static str, &'static str)>,
    /// Memory in use that the kernel takes back before it refuses any, as `memory.stat` names it: the pages of files,
    /// which those of shared memory are not among, and what the kernel itself caches. Written pages must reach the disk
    /// first, but do.
    reclaimable: &'static [&'static str],
}

const VERSIONS: [Version; 2] = [
    Version {
        fs_type: "cgroup2",
        controller: None,
        // Above `memory.high` a process is not killed but slowed down until it seems to hang.
        limits: &[("memory.max", "memory.current"), ("memory.high", "memory.current")],
        inherited: None,
        reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
    },
    Version {
        fs_type: "cgroup",
        controller: Some("memory"),
        limits: &[
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
        ],
        inherited: Some(("hierarchical_memory_limit", "memory.usage_in_bytes")),
        reclaimable: &["total_inactive_file", "total_active_file"],
    },
];

/// What each group with a limit leaves.
pub(super) fn free(root: &Path) -> Vec<FreeMemory> {
    let groups = text(root, "proc/self/cgroup").unwrap_or_default();
    let mounts = Mount::all(&text(root, "proc/self/mountinfo").unwrap_or_default());
    let mut found = Vec::new();
    for version in &VERSIONS {
        let Some(own) = version.own_path(&groups) else { continue };
        for (dir, name) in version.levels(root, &own, &mounts) {
            if let Some(bytes) = version.free_of(root, &dir) {
                found.push(FreeMemory { bytes, bound_by: Bound::ControlGroup(name) });
            }
        }
    }
    found
}

impl Version {
    /// The path of the process's own group, from `/proc/self/cgroup`: lines of `number:controllers:path`.
    fn own_path(&self, groups: &str) -> Option<Vec<String>> {
        let path = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = match self.controller {
                None => controllers.is_empty(),
                Some(name) => controllers.split(',').any(|controller| controller == name),
            };
            ours.then_some(path)
        });
        if path.is_none() {
            tracing::debug!("/proc/self/cgroup has no group of {}", self.fs_type);
        }
        path.map(components)
    }

    /// The folders of the groups that hold the process, below the root of the file system, with names for people; from
    /// its own outwards.
    fn levels(&self, root: &Path, own: &[String], mounts: &[Mount]) -> Vec<(PathBuf, String)> {
        let ours = |mount: &&Mount| {
            mount.fs_type == self.fs_type
                && self.controller.is_none_or(|name| mount.options.iter().any(|o| o == name))
        };
        let mounts: Vec<_> = mounts.iter().filter(ours).collect();
        let mut levels = Vec::new();
        for mount in &mounts {
            if let Some(below) = mount.below(own) {
                for depth in (0..=below.len()).rev() {
                    let dir = below[..depth].iter().fold(mount.point.clone(), |dir, c| dir.join(c));
                    let shown = &own[..own.len() - below.len() + depth];
                    levels.push((dir, format!("/{}", shown.join("/"))));
                }
            }
        }
        if !levels.is_empty() {
            return levels;
        }
        // What is mounted lies elsewhere than the process says it is, as with another container's or the host's view of
        // the tree. Where the end of its path is found there, that is taken for it; the mounted root in any case. That
        // may be a limit too many, not one too few.
        for mount in mounts {
            tracing::debug!("{}: the root is not around /{}", mount.point.display(), own.join("/"));
            let ends = (0..own.len()).map(|skipped| &own[skipped..]);
            let end = ends
                .filter(|end| end.iter().all(|component| component != ".."))
                .find(|end| root.join(&mount.point).join(end.join("/")).is_dir())
                .unwrap_or_default();
            for depth in (0..=end.len()).rev() {
                let dir = end[..depth].iter().fold(mount.point.clone(), |dir, c| dir.join(c));
                let name = format!("/{}", dir.display());
                levels.push((dir, name));
            }
        }
        levels
    }

    /// What the group in `dir` leaves, if it has a limit.
    fn free_of(&self, root: &Path, dir: &Path) -> Option<u64> {
        let stat = text(root, dir.join("memory.stat")).unwrap_or_default();
        let statistic = |name: &str| {
            let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
            parsed(name, stat.lines().find_map(value)?.trim())
        };
        let reclaimable = self.reclaimable.iter().filter_map(|name| statistic(name)).fold(0, add);
        // Of a limit without a usage the whole may be free: less than without the limit.
        let left = |limit: u64, usage: &str| {
            let used = || number(root, dir.join(usage)).unwrap_or(0).saturating_sub(reclaimable);
            (limit < UNLIMITED).then(|| limit.saturating_sub(used()))
        };
        let limits = self
            .limits
            .iter()
            .filter_map(|(limit, usage)| left(number(root, dir.join(limit))?, usage));
        let inherited = self.inherited.and_then(|(limit, usage)| left(statistic(limit)?, usage));
        limits.chain(inherited).min()
    }
}

/// A line of `/proc/self/mountinfo`.
struct Mount {
    fs_type: String,
    /// Where it is mounted, relative to the root of the file system.
    point: PathBuf,
    /// The part of the file system that is mounted.
    root: Vec<String>,
    /// The options of the file system; its controllers are among them.
    options: Vec<String>,
}

impl Mount {
    /// All that can be seen: of those at the same place, the last.
    fn all(text: &str) -> Vec<Self> {
        let mut mounts: Vec<Self> = Vec::new();
        for line in text.lines() {
            let Some(mount) = Self::parse(line) else {
                tracing::debug!("/proc/self/mountinfo: not a mount: {line:?}");
                continue;
            };
            mounts.retain(|earlier| earlier.point != mount.point);
            mounts.push(mount);
        }
        mounts
    }

    /// From `id parent major:minor root point options [fields…] - type source options`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        Some(Self {
            fs_type: file_system.next()?.to_owned(),
            point: unescaped(point).strip_prefix('/')?.into(),
            root: components(&unescaped(root)),
            options: file_system.nth(1)?.split(',').map(str::to_owned).collect(),
        })
    }

    /// Where in this mount the group `own` is, if it is.
    fn below<'a>(&self, own: &'a [String]) -> Option<&'a [String]> {
        let below = own.strip_prefix(&self.root[..])?;
        below.iter().all(|component| component != "..").then_some(below)
    }
}

/// The components of a path. Those that lead above its root, as paths outside of the namespace of control groups do, are
/// kept at its beginning.
fn components(path: &str) -> Vec<String> {
    let mut components: Vec<String> = Vec::new();
    for component in path.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if component == ".." && components.last().is_some_and(|last| last != "..") {
            components.pop();
        } else {
            components.push(component.to_owned());
        }
    }
    components
}

/// A field of `mountinfo`, in which blanks and backslashes are octal numbers.
fn unescaped(field: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(field.to_owned(), |text, (code, char)| text.replace(code, char))
}
