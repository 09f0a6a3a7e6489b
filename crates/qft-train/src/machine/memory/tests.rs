//! Simulated files of kernels, containers and batch systems.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use std::path::PathBuf;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A root of a file system with some files.
struct Root(TempDir);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| root.write(path, text));
        root
    }

    /// One with 1000 MiB of memory, 900 of them free, and the process in `groups` under `mounts`.
    fn grouped(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Self {
        let root = Self::new(files);
        root.write("proc/meminfo", meminfo(&[("MemTotal", 1000), ("MemAvailable", 900)]));
        root.write("proc/self/cgroup", groups);
        root.write("proc/self/mountinfo", mounts);
        root
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path: PathBuf = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The free MiB and what they end at.
    fn free(&self) -> Option<(u64, String)> {
        let free = FreeMemory::read(self.0.path())?;
        assert_eq!(free.bytes % MIB, 0, "{free:?}");
        Some((free.bytes / MIB, free.bound_by.to_string()))
    }

    #[track_caller]
    fn check(&self, mib: u64, bound_by: &str) {
        assert_eq!(self.free(), Some((mib, bound_by.to_owned())));
    }
}

fn meminfo(fields: &[(&str, u64)]) -> String {
    fields.iter().map(|(name, mib)| format!("{name}:    {} kB\n", mib * 1024)).collect()
}

/// A number of MiB as control groups write it.
fn mib(mib: u64) -> String {
    format!("{}\n", mib * MIB)
}

fn stat(fields: &[(&str, u64)]) -> String {
    fields.iter().map(|(name, mib)| format!("{name} {}\n", mib * MIB)).collect()
}

const MACHINE: &str = "memory of the machine";
const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn the_machine_has_what_it_says_is_available() {
    let fields = [("MemTotal", 1000), ("MemFree", 100), ("MemAvailable", 700), ("Cached", 650)];
    Root::new(&[("proc/meminfo", &meminfo(&fields))]).check(700, MACHINE);
    // Never more than there is.
    let fields = [("MemTotal", 1000), ("MemAvailable", 5000)];
    Root::new(&[("proc/meminfo", &meminfo(&fields))]).check(1000, MACHINE);
}

#[test]
fn old_kernels_do_not_say_what_is_available() {
    let fields = [
        ("MemTotal", 1000),
        ("MemFree", 100),
        ("Buffers", 20),
        ("Cached", 300),
        ("SwapCached", 9),
        ("Shmem", 50),
        ("SReclaimable", 30),
        ("SwapFree", 4000),
    ];
    Root::new(&[("proc/meminfo", &meminfo(&fields))]).check(400, MACHINE);
    Root::new(&[("proc/meminfo", &meminfo(&fields[..2]))]).check(100, MACHINE);
    assert_eq!(Root::new(&[("proc/meminfo", &meminfo(&fields[..1]))]).free(), None);
}

#[test]
fn a_kernel_that_does_not_overcommit_has_promised_memory() {
    let fields =
        [("MemTotal", 1000), ("MemAvailable", 900), ("CommitLimit", 500), ("Committed_AS", 300)];
    let root = Root::new(&[("proc/meminfo", &meminfo(&fields))]);
    for (mode, expected) in [("0\n", 900), ("1\n", 900), ("2\n", 200)] {
        root.write("proc/sys/vm/overcommit_memory", mode);
        assert_eq!(root.free().unwrap().0, expected, "mode {mode}");
    }
    assert!(root.free().unwrap().1.contains("vm.overcommit_memory"));
}

#[test]
fn the_limit_of_a_group_around_the_own_one_counts() {
    let step = "sys/fs/cgroup/slurm/job_7/step_0";
    let root = Root::grouped(
        "0::/slurm/job_7/step_0\n",
        V2,
        &[
            ("sys/fs/cgroup/slurm/job_7/memory.max", &mib(400)),
            ("sys/fs/cgroup/slurm/job_7/memory.high", "max\n"),
            ("sys/fs/cgroup/slurm/job_7/memory.current", &mib(150)),
            (&format!("{step}/memory.max"), "max\n"),
            (&format!("{step}/memory.current"), &mib(100)),
            ("sys/fs/cgroup/slurm/memory.max", &mib(5000)),
            ("sys/fs/cgroup/slurm/memory.current", &mib(4000)),
        ],
    );
    root.check(250, "limit of the control group /slurm/job_7");
    // The least of all: the own one, then one far out, then the machine.
    root.write(&format!("{step}/memory.max"), mib(300));
    root.check(200, "limit of the control group /slurm/job_7/step_0");
    root.write("sys/fs/cgroup/slurm/memory.current", mib(4900));
    root.check(100, "limit of the control group /slurm");
    root.write("proc/meminfo", meminfo(&[("MemTotal", 1000), ("MemAvailable", 90)]));
    root.check(90, MACHINE);
}

#[test]
fn caches_of_a_group_are_free_but_shared_memory_is_not() {
    // Of 390 MiB in use 250 are pages of files on a disk, 30 those of a temporary file system, which `file` counts too.
    let fields = [
        ("anon", 90),
        ("file", 280),
        ("shmem", 30),
        ("inactive_anon", 120),
        ("inactive_file", 200),
        ("active_file", 50),
        ("unevictable", 0),
        ("slab_reclaimable", 10),
        ("slab_unreclaimable", 10),
    ];
    let root = Root::grouped(
        "0::/job\n",
        V2,
        &[
            ("sys/fs/cgroup/job/memory.max", &mib(400)),
            ("sys/fs/cgroup/job/memory.current", &mib(390)),
            ("sys/fs/cgroup/job/memory.stat", &stat(&fields)),
        ],
    );
    root.check(270, "limit of the control group /job");
    // A group cannot give back more than it uses.
    root.write("sys/fs/cgroup/job/memory.current", mib(40));
    root.check(400, "limit of the control group /job");
}

#[test]
fn a_group_is_slowed_down_before_its_limit() {
    let root = Root::grouped(
        "0::/job\n",
        V2,
        &[
            ("sys/fs/cgroup/job/memory.max", &mib(600)),
            ("sys/fs/cgroup/job/memory.high", &mib(500)),
            ("sys/fs/cgroup/job/memory.current", &mib(200)),
        ],
    );
    root.check(300, "limit of the control group /job");
    // Above it nothing is free.
    root.write("sys/fs/cgroup/job/memory.current", mib(550));
    root.check(0, "limit of the control group /job");
}

#[test]
fn a_container_with_a_namespace_of_its_own_is_at_the_root() {
    let root = Root::grouped(
        "0::/\n",
        V2,
        &[("sys/fs/cgroup/memory.max", &mib(500)), ("sys/fs/cgroup/memory.current", &mib(200))],
    );
    root.check(300, "limit of the control group /");
}

#[test]
fn a_container_without_a_namespace_sees_its_own_group_mounted() {
    // As Docker mounts it under version 1, and Kubernetes, with a pod's limit out of sight but told.
    let mounts = "\
        700 600 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        701 700 0:30 /docker/4f1a /sys/fs/cgroup/cpu ro master:9 - cgroup cgroup rw,cpu,cpuacct\n\
        702 700 0:31 /docker/4f1a /sys/fs/cgroup/memory ro master:11 - cgroup cgroup rw,memory\n";
    let groups = "5:cpu,cpuacct:/docker/4f1a\n4:memory:/docker/4f1a\n";
    let root = Root::grouped(
        groups,
        mounts,
        &[
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", &mib(500)),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", &mib(200)),
            ("sys/fs/cgroup/cpu/memory.limit_in_bytes", &mib(1)),
        ],
    );
    root.check(300, "limit of the control group /docker/4f1a");
    root.write("sys/fs/cgroup/memory/memory.stat", stat(&[("hierarchical_memory_limit", 450)]));
    root.check(250, "limit of the control group /docker/4f1a");
    // A group that was made in the container lies below.
    root.write("proc/self/cgroup", "4:memory:/docker/4f1a/inner\n");
    root.write("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", mib(100));
    root.write("sys/fs/cgroup/memory/inner/memory.usage_in_bytes", mib(30));
    root.check(70, "limit of the control group /docker/4f1a/inner");
}

#[test]
fn version_1_has_limits_in_a_hierarchy() {
    let mounts = "36 31 0:31 / /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory\n";
    let memory = "sys/fs/cgroup/memory";
    let none = "9223372036854771712\n";
    let root = Root::grouped(
        "9:name=systemd:/x\n4:memory:/slurm/uid_5/job_7\n",
        mounts,
        &[
            (&format!("{memory}/memory.limit_in_bytes"), none),
            (&format!("{memory}/memory.usage_in_bytes"), &mib(100)),
            (&format!("{memory}/slurm/memory.limit_in_bytes"), none),
            (&format!("{memory}/slurm/memory.memsw.limit_in_bytes"), none),
            (&format!("{memory}/slurm/uid_5/memory.limit_in_bytes"), &mib(600)),
            (&format!("{memory}/slurm/uid_5/memory.usage_in_bytes"), &mib(500)),
            (
                // Those without a prefix are of the group alone, without the groups below.
                &format!("{memory}/slurm/uid_5/memory.stat"),
                &stat(&[
                    ("inactive_file", 9),
                    ("active_file", 9),
                    ("total_inactive_file", 100),
                    ("total_active_file", 50),
                    ("total_shmem", 70),
                ]),
            ),
            (&format!("{memory}/slurm/uid_5/job_7/memory.limit_in_bytes"), none),
            (&format!("{memory}/slurm/uid_5/job_7/memory.usage_in_bytes"), &mib(500)),
        ],
    );
    root.check(250, "limit of the control group /slurm/uid_5");
    // Memory and swap together, of which swap has taken its part.
    root.write(&format!("{memory}/slurm/uid_5/memory.memsw.limit_in_bytes"), mib(600));
    root.write(&format!("{memory}/slurm/uid_5/memory.memsw.usage_in_bytes"), mib(580));
    root.check(170, "limit of the control group /slurm/uid_5");
    // Unlimited at every level.
    root.write(&format!("{memory}/slurm/uid_5/memory.limit_in_bytes"), none);
    root.write(&format!("{memory}/slurm/uid_5/memory.memsw.limit_in_bytes"), none);
    root.check(900, MACHINE);
}

#[test]
fn both_versions_may_be_mounted() {
    let mounts = "\
        36 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let root = Root::grouped(
        "4:memory:/job\n0::/user.slice\n",
        mounts,
        &[
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", &mib(400)),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", &mib(100)),
            ("sys/fs/cgroup/unified/user.slice/cgroup.procs", "1\n"),
            // Another's.
            ("sys/fs/cgroup/unified/job/memory.max", &mib(1)),
        ],
    );
    root.check(300, "limit of the control group /job");
}

#[test]
fn paths_may_lead_out_of_the_namespace() {
    // The process was put above the namespace's root, and so was the mount.
    let above = V2.replace(" / /sys", " /../.. /sys");
    let root = Root::grouped(
        "0::/../../system/job\n",
        &above,
        &[
            ("sys/fs/cgroup/system/job/memory.max", &mib(300)),
            ("sys/fs/cgroup/system/job/memory.current", &mib(100)),
        ],
    );
    root.check(200, "limit of the control group /../../system/job");

    // Seen from the root of the namespace nobody says where below the mount that is: its root must do.
    let root = Root::grouped(
        "0::/\n",
        &above,
        &[("sys/fs/cgroup/memory.max", &mib(300)), ("sys/fs/cgroup/memory.current", &mib(150))],
    );
    root.check(150, "limit of the control group /sys/fs/cgroup");

    // A path from another view of the tree than the mount's: its end is found.
    let root = Root::grouped(
        "0::/../pods/pod_3/inner\n",
        V2,
        &[
            ("sys/fs/cgroup/inner/memory.max", &mib(300)),
            ("sys/fs/cgroup/inner/memory.current", &mib(180)),
            ("sys/fs/memory.max", &mib(1)),
            ("sys/pods/pod_3/inner/memory.max", &mib(1)),
        ],
    );
    root.check(120, "limit of the control group /sys/fs/cgroup/inner");

    // A group that is gone, below one that is not.
    let root = Root::grouped(
        "0::/job/gone (deleted)\n",
        V2,
        &[
            ("sys/fs/cgroup/job/memory.max", &mib(300)),
            ("sys/fs/cgroup/job/memory.current", &mib(190)),
        ],
    );
    root.check(110, "limit of the control group /job");
}

#[test]
fn mounts_with_blanks_and_mounts_that_cover_others() {
    let mounts = "\
        29 23 0:26 /wrong /my\\040groups\\134 rw - cgroup2 cgroup2 rw\n\
        30 23 0:26 / /my\\040groups\\134 rw - cgroup2 cgroup2 rw\n\
        31 23 0:26 /other /elsewhere rw - cgroup2 cgroup2 rw\n";
    let root = Root::grouped(
        "0::/wrong/job\n",
        mounts,
        &[
            ("my groups\\/wrong/job/memory.max", &mib(300)),
            ("my groups\\/job/memory.max", &mib(1)),
            ("elsewhere/memory.max", &mib(2)),
        ],
    );
    root.check(300, "limit of the control group /wrong/job");
}

#[test]
fn limits_of_the_process_itself() {
    let line = |name: &str, soft: &str| format!("{name:<26}{soft:<21}unlimited            bytes\n");
    let limits = |space: &str, data: &str| {
        let header = "Limit                     Soft Limit           Hard Limit           Units\n";
        header.to_owned() + &line("Max data size", data) + &line("Max address space", space)
    };
    let root = Root::new(&[
        ("proc/meminfo", &meminfo(&[("MemTotal", 1000), ("MemAvailable", 900)])),
        ("proc/self/limits", &limits("unlimited", "unlimited")),
        ("proc/self/status", &meminfo(&[("VmPeak", 999), ("VmSize", 200), ("VmData", 50)])),
    ]);
    root.check(900, MACHINE);
    root.write("proc/self/limits", limits(mib(700).trim(), "unlimited"));
    root.check(500, "limit of the address space, ulimit -v");
    root.write("proc/self/limits", limits(mib(700).trim(), mib(450).trim()));
    root.check(400, "limit of the data size, ulimit -d");
    root.write("proc/self/limits", limits(mib(100).trim(), "unlimited"));
    root.check(0, "limit of the address space, ulimit -v");
}

/// Files of which each may be spoiled.
fn whole() -> Vec<(&'static str, String)> {
    let mounts =
        format!("{V2}36 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory,cpu\n");
    let limits = "Max data size  734003200  unlimited  bytes\nMax address space  734003200  1 b\n";
    vec![
        ("proc/meminfo", meminfo(&[("MemTotal", 1000), ("MemAvailable", 900)])),
        ("proc/sys/vm/overcommit_memory", "0\n".into()),
        ("proc/self/cgroup", "4:cpu,memory:/a\n0::/a\n".into()),
        ("proc/self/mountinfo", mounts),
        ("proc/self/limits", limits.into()),
        ("proc/self/status", meminfo(&[("VmSize", 10), ("VmData", 10)])),
        ("sys/fs/cgroup/a/memory.max", mib(300)),
        ("sys/fs/cgroup/a/memory.high", mib(280)),
        ("sys/fs/cgroup/a/memory.current", mib(200)),
        ("sys/fs/cgroup/a/memory.stat", stat(&[("inactive_file", 30)])),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", mib(310)),
        ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", mib(190)),
        ("sys/fs/cgroup/memory/a/memory.stat", stat(&[("total_inactive_file", 20)])),
    ]
}

#[test]
fn what_is_no_number_is_absent() {
    let garbage: [&[u8]; 12] = [
        b"",
        b"\n",
        b"\0\xff\xfe",
        b"-1\n",
        b"99999999999999999999999\n",
        b"MemAvailable: 99999999999999999 kB\nMemTotal: 18446744073709551615 kB\n",
        b"MemAvailable: -5 kB\nMemAvailable:\nMemTotal: 7\nVmSize: x kB\nVmData",
        b":::::\n0\n0:\n0::\n::/\n",
        b" - \n - - -\na b c d e - cgroup2\n1 2 3 / relative rw - cgroup2 x rw\n",
        b"Max address space\nMax data size  -3  unlimited  bytes\n",
        b"inactive_file\ninactive_file x\ntotal_inactive_file -1\nhierarchical_memory_limit ?\n",
        b"inactive_file 18446744073709551615\nactive_file 18446744073709551615\n",
    ];
    let files = whole();
    let of = |files: &[(&'static str, String)]| {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, &text[..])).collect();
        Root::new(&files)
    };
    of(&files).check(110, "limit of the control group /a");
    for (path, text) in &files {
        // Spoiling one file leaves the bounds of the others, whether it is garbage, cut, or a folder.
        let root = of(&files);
        let cuts = (0..text.len()).map(|length| &text.as_bytes()[..length]);
        for spoiled in garbage.into_iter().chain(cuts) {
            root.write(path, spoiled);
            let free = FreeMemory::read(root.0.path()).unwrap();
            assert!(free.bytes <= 690 * MIB, "{path}: {spoiled:?}: {free:?}");
        }
        std::fs::remove_file(root.0.path().join(path)).unwrap();
        std::fs::create_dir(root.0.path().join(path)).unwrap();
        assert!(FreeMemory::read(root.0.path()).unwrap().bytes <= 690 * MIB, "{path}");
    }
    // All of them at once: no memory out of nothing.
    for garbage in garbage {
        let root = of(&files);
        files.iter().for_each(|(path, _)| root.write(path, garbage));
        let free = FreeMemory::read(root.0.path());
        assert!(free.is_none(), "{garbage:?}: {free:?}");
    }
    assert_eq!(Root::new(&[]).free(), None);
}

#[test]
fn this_process_has_some() {
    let free = FreeMemory::now().unwrap();
    assert!(free.bytes > 0, "{free:?}");
}
