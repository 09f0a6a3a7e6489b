//! Files of users in small, damaged in many ways: none causes a panic, a hang, or more memory than it may take. The
//! same targets are fuzzed at length by `xtask/fuzz`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../xtask/fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, reason = "shared with a crate of its own")]
mod targets;

use cap::Cap;
use qft_testing::material;
use std::alloc::System;
use std::path::Path;
use std::time::{Duration, Instant};
use targets::Target;

/// An input that asks for more than its share ends the process.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Damaged versions of each seed.
const MUTATIONS: usize = 300;

/// For one input, on a busy machine.
const MOST_TIME: Duration = Duration::from_secs(10);

/// Numbers that have broken readers.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1000000000000",
];

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }

    /// One of the ways in which files are damaged.
    fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let len = bytes.len();
        match self.below(7) {
            0 if len > 0 => bytes[self.below(len)] ^= 1 << self.below(8),
            1 => bytes.truncate(self.below(len)),
            2 if len > 0 => {
                let start = self.below(len);
                bytes.drain(start..len.min(start + 1 + self.below(16)));
            }
            3 if len > 0 => {
                let start = self.below(len);
                let part = bytes[start..len.min(start + 1 + self.below(64))].to_vec();
                let at = self.below(len);
                bytes.splice(at..at, part.repeat(1 + self.below(8)));
            }
            4 if !other.is_empty() => {
                let start = self.below(other.len());
                let end = other.len().min(start + 1 + self.below(128));
                let at = self.below(len);
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            5 => self.replace_number(bytes),
            _ if len > 0 => {
                let tokens: [&[u8]; 8] = [b"[", b"{", b"\"", b"null", b"\xff", b"\0", b"{{", b"%}"];
                let at = self.below(len);
                bytes.splice(at..at, tokens[self.below(tokens.len())].iter().copied());
            }
            _ => {}
        }
    }

    fn replace_number(&mut self, bytes: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..bytes.len())
            .filter(|&i| bytes[i].is_ascii_digit() && (i == 0 || !bytes[i - 1].is_ascii_digit()))
            .collect();
        if starts.is_empty() {
            return;
        }
        let start = starts[self.below(starts.len())];
        let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = NUMBERS[self.below(NUMBERS.len())];
        bytes.splice(start..start + digits, number.bytes());
    }
}

fn run(target: &Target, input: &[u8], what: &str) {
    let begun = Instant::now();
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + target.memory(input.len())).unwrap();
    (target.run)(input);
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    assert!(begun.elapsed() < MOST_TIME, "{}: {what} takes {:?}", target.name, begun.elapsed());
}

fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = material::repository().join("xtask/fuzz/seeds").join(target.name);
    let read = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    let mut seeds: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| read(&entry.unwrap().path())).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{}", folder.display());
    seeds
}

/// One test, since the limit of memory is one for all threads.
#[test]
fn damaged_files_end_in_errors() {
    // What fails says which input it was.
    for target in targets::ALL {
        let seeds = seeds(target);
        for (index, (name, seed)) in seeds.iter().enumerate() {
            run(target, seed, name);
            let other = &seeds[(index + 1) % seeds.len()].1;
            // A whole tokenizer is large, and takes long to read.
            let count = if seed.len() > 10_000 { MUTATIONS / 4 } else { MUTATIONS };
            for round in 0..count {
                let mut dice = Dice((index * MUTATIONS + round) as u64);
                let mut bytes = seed.clone();
                for _ in 0..1 + dice.below(4) {
                    dice.damage(&mut bytes, other);
                }
                let what = format!("{name}, damaged by {round}");
                let result = std::panic::catch_unwind(|| run(target, &bytes, &what));
                if let Err(panic) = result {
                    eprintln!("{}: {what}: {}", target.name, String::from_utf8_lossy(&bytes));
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

#[test]
fn the_seed_of_states_is_a_checkpoint_of_today() {
    let seed = material::repository().join("xtask/fuzz/seeds/state/small_model");
    if std::env::var_os("QFT_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(seed.parent().unwrap()).unwrap();
        std::fs::write(&seed, targets::state_file()).unwrap();
    }
    let same = std::fs::read(&seed).unwrap() == targets::state_file();
    assert!(same, "write it anew, with QFT_WRITE_SEEDS=1");
}

#[test]
fn the_seed_of_a_checkpoint_has_a_whole_recipe() {
    use qft_train::{run::Recipe, step::checkpoint};
    let dir = tempfile::tempdir().unwrap();
    let seed = material::repository().join("xtask/fuzz/seeds/progress/trainer");
    std::fs::copy(seed, dir.path().join("trainer.json")).unwrap();
    let progress = checkpoint::read_progress(dir.path()).unwrap();
    Recipe::from_json(&progress.recipe, dir.path()).unwrap();
}
