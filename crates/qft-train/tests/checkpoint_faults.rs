//! Checkpoints stopped at every system call of saving and pruning: the run goes on from the old or the new one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Windows, cpu, progress, setup, trainer};
use qft_files::Disk;
use qft_tensor::{Cpu, Device};
use qft_train::options::States;
use qft_train::step::Trainer;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::snapshot::Snapshot;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a checkpoint holds: where the run stands, and its states.
fn held(dir: &Path) -> (Progress, Vec<u8>) {
    let state = std::fs::read(dir.join("state.safetensors")).unwrap();
    (checkpoint::read_progress(dir).unwrap(), state)
}

/// Saves `progress` and prunes, on a disk that may stop.
fn save(
    disk: &Disk,
    cpu: &Cpu,
    trainer: &mut Trainer,
    progress: &Progress,
    root: &Path,
    copied: bool,
) -> qft_train::Result<()> {
    if copied {
        let mut copy = Snapshot::alloc(cpu.ledger(), trainer)?;
        copy.take(cpu, trainer)?;
        copy.save_on(disk, progress, root)?;
    } else {
        checkpoint::save_on(disk, cpu, trainer, progress, root)?;
    }
    checkpoint::prune_on(disk, root, progress.step, 1, &|_| true)
}

#[test]
fn stopped_anywhere_a_run_goes_on_from_the_old_or_the_new() {
    let cpu = cpu();
    let setup = setup(States::Compact);
    let [mut first, mut second, mut reader] = [(); 3].map(|()| trainer(&cpu, &setup));
    let batches = [Windows::shakespeare(16).batch(0, 1)];
    second.step(&cpu, &batches, 5e-4).unwrap();
    let at_step = |trainer: &Trainer, step, tokens| Progress { step, tokens, ..progress(trainer) };

    // Over a checkpoint of the same step, and after an older one, which is then pruned.
    for new_step in [2, 4] {
        let old_progress = at_step(&first, 2, 7);
        let new_progress = at_step(&second, new_step, 9);
        let whole = |trainer: &mut Trainer, progress: &Progress| {
            let root = tempfile::tempdir().unwrap();
            held(&checkpoint::save(&cpu, trainer, progress, root.path()).unwrap())
        };
        let old = whole(&mut first, &old_progress);
        let new = whole(&mut second, &new_progress);
        assert!(old.1 != new.1, "a step changes the states");
        for (crash, copied) in [(false, false), (true, false), (true, true)] {
            let mut found = [0, 0];
            for at in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let root = dir.path();
                checkpoint::save(&cpu, &mut first, &old_progress, root).unwrap();
                std::fs::write(root.join("notes.txt"), "mine").unwrap();
                let steps = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&steps);
                let disk = Disk::watched(move |_| {
                    let step = count.fetch_add(1, Ordering::Relaxed);
                    let stop = step == at || (crash && step > at);
                    if stop { Err(ErrorKind::Other.into()) } else { Ok(()) }
                });
                let result = save(&disk, &cpu, &mut second, &new_progress, root, copied);
                if steps.load(Ordering::Relaxed) <= at {
                    result.unwrap();
                    break;
                }
                let latest = checkpoint::latest(root).unwrap().unwrap();
                let seen = held(&latest);
                checkpoint::load(&cpu, &mut reader, &seen.0, &latest).unwrap();
                let number = usize::from(seen.0.tokens == 9);
                assert!(seen == *[&old, &new][number], "step {at}, crash {crash}: {result:?}");
                assert!(number == 1 || result.is_err(), "step {at}: the old one, and no error");
                found[number] += 1;
                // The next checkpoint goes through, and nothing is left of this.
                save(&Disk::default(), &cpu, &mut second, &new_progress, root, copied).unwrap();
                let names = std::fs::read_dir(root).unwrap();
                let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                assert_eq!(names, ["notes.txt", &*format!("step-{new_step:06}")]);
                assert_eq!(std::fs::read_to_string(root.join("notes.txt")).unwrap(), "mine");
            }
            assert!(found[0] > 5 && found[1] > 1, "{found:?}");
        }
    }
}

/// A checkpoint that is asked for by name, where a crash came between the two renames of its replacement.
#[test]
fn a_checkpoint_that_is_named_gets_its_name_back() {
    let cpu = cpu();
    let mut trainer = trainer(&cpu, &setup(States::Compact));
    let root = tempfile::tempdir().unwrap();
    let progress = Progress { step: 3, ..progress(&trainer) };
    let dir = checkpoint::save(&cpu, &mut trainer, &progress, root.path()).unwrap();
    std::fs::rename(&dir, root.path().join("step-000003.qft-replaced")).unwrap();
    assert_eq!(checkpoint::read_progress(&dir).unwrap(), progress);
    assert_eq!(checkpoint::latest(root.path()).unwrap(), Some(dir));
}

#[test]
fn a_checkpoint_that_was_cut_off_is_passed_over() {
    let cpu = cpu();
    let mut trainer = trainer(&cpu, &setup(States::Compact));
    let root = tempfile::tempdir().unwrap();
    let mut save = |step| {
        let progress = Progress { step, ..progress(&trainer) };
        checkpoint::save(&cpu, &mut trainer, &progress, root.path()).unwrap()
    };
    let (older, newer) = (save(3), save(6));
    assert_eq!(checkpoint::latest(root.path()).unwrap(), Some(newer.clone()));
    let states = std::fs::File::options().write(true).open(newer.join("state.safetensors"));
    states.unwrap().set_len(1000).unwrap();
    assert_eq!(checkpoint::latest(root.path()).unwrap(), Some(older));
}
