//! Every writer, stopped at every step, by an error and by a crash: afterwards the old or the new is there whole,
//! other files are untouched, and the next use leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_files::atomic::{
    clean_folders, finish_install, remove_folder, restore_folder, restore_folders,
};
use qft_files::lock::LOCK_FILE;
use qft_files::{AtomicFile, AtomicFolder, Disk, Error, FileRules, FolderLock, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const RULES: FileRules = FileRules { ours, together };

fn ours(name: &str) -> bool {
    together(name) || matches!(name, "config.json" | "tokenizer.json")
}

fn together(name: &str) -> bool {
    name.starts_with("model-") || name.starts_with("model.safetensors")
}

fn is_checkpoint(name: &str) -> bool {
    name.strip_prefix("step-").is_some_and(|step| step.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A disk that fails at step `at`, once or from then on, and the number of steps so far.
fn failing(at: usize, crash: bool) -> (Disk, Arc<AtomicUsize>) {
    let steps = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&steps);
    let disk = Disk::watched(move |_| {
        let step = count.fetch_add(1, Ordering::Relaxed);
        let stop = if crash { step >= at } else { step == at };
        if stop { Err(io::Error::other("stopped by the test")) } else { Ok(()) }
    });
    (disk, steps)
}

/// Contents of all files below a folder, by relative path; a folder has none.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn tree(dir: &Path) -> Tree {
    fn add(root: &Path, dir: &Path, found: &mut Tree) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let content = path.is_file().then(|| fs::read(&path).unwrap());
            if content.is_none() {
                add(root, &path, found);
            }
            found.insert(path.strip_prefix(root).unwrap().into(), content);
        }
    }
    let mut found = Tree::new();
    add(dir, dir, &mut found);
    found
}

/// What readers look at: nothing that is on its way.
fn visible(dir: &Path) -> Tree {
    let suffixes =
        [".partial", ".qft-committed", ".qft-installing", ".qft-replaced", ".qft-removed"];
    let hidden = |path: &Path| {
        path.iter().any(|part| suffixes.iter().any(|end| part.to_str().unwrap().contains(end)))
    };
    tree(dir).into_iter().filter(|(path, _)| !hidden(path)).collect()
}

fn write_model(out: &mut AtomicFolder, names: &[&str], tag: &str) -> Result<(), Error> {
    for name in names {
        out.write_file(name, format!("{tag} {name}").as_bytes())?;
    }
    Ok(())
}

/// Something that is written, and how a program that comes after a crash sees it.
struct Scenario {
    name: &'static str,
    setup: fn(&Path),
    act: fn(&Disk, &Path) -> Result<(), Error>,
    recover: fn(&Path),
    /// Looks at what is there before recovery.
    meanwhile: fn(&Path, &Tree, &Tree),
}

const THREE: [&str; 4] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
    "model.safetensors.index.json",
];
const TWO: [&str; 4] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "config.json",
];

fn put(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn old_folder(root: &Path) {
    put(root.join("step-000004/config.json"), "old");
    put(root.join("step-000004/model.safetensors"), "old");
    put(root.join("step-000002/config.json"), "older");
    put(root.join("notes.txt"), "mine");
}

/// A folder that has its final name is whole.
fn whole_if_there(root: &Path, old: &Tree, new: &Tree) {
    let seen = visible(root);
    let part = |tree: &Tree| -> Tree {
        let below = tree.iter().filter(|(path, _)| path.starts_with("step-000004"));
        below.map(|(path, content)| (path.clone(), content.clone())).collect()
    };
    let seen = part(&seen);
    assert!(seen.is_empty() || seen == part(old) || seen == part(new), "half a folder: {seen:?}");
}

fn recover_checkpoints(root: &Path) {
    restore_folders(&Disk::default(), root, is_checkpoint).unwrap();
}

fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "a file over an old one",
            setup: |root| {
                put(root.join("summary.json"), "old");
                put(root.join("other"), "mine");
            },
            act: |disk, root| AtomicFile::write_whole(disk, &root.join("summary.json"), b"new"),
            recover: |_| {},
            meanwhile: |root, old, new| {
                assert!(visible(root) == *old || visible(root) == *new);
            },
        },
        Scenario {
            name: "a new folder",
            setup: |root| put(root.join("notes.txt"), "mine"),
            act: |disk, root| {
                let target = root.join("step-000004");
                if target.exists() {
                    return Ok(()); // After a crash behind the last step.
                }
                let mut out = AtomicFolder::new(disk, &target, RULES)?;
                write_model(&mut out, &TWO, "new")?;
                out.commit()
            },
            recover: |_| {},
            meanwhile: whole_if_there,
        },
        Scenario {
            name: "a folder in place of another",
            setup: old_folder,
            act: |disk, root| {
                clean_folders(disk, root, is_checkpoint, RULES);
                let target = root.join("step-000004");
                let mut out = AtomicFolder::replacing(disk, &target, RULES)?;
                write_model(&mut out, &TWO, "new")?;
                out.commit()
            },
            recover: recover_checkpoints,
            meanwhile: whole_if_there,
        },
        Scenario {
            name: "a folder removed",
            setup: old_folder,
            act: |disk, root| {
                clean_folders(disk, root, is_checkpoint, RULES);
                let target = root.join("step-000004");
                if !target.exists() {
                    return Ok(());
                }
                remove_folder(disk, &target, RULES)
            },
            recover: recover_checkpoints,
            meanwhile: whole_if_there,
        },
        Scenario {
            name: "files into a folder that has a model of other sharding",
            setup: |root| {
                for name in THREE.iter().chain(&["config.json", "tokenizer.json"]) {
                    put(root.join(name), &format!("old {name}"));
                }
                put(root.join("metrics.jsonl"), "mine");
                put(root.join("checkpoints/step-000002/config.json"), "mine");
            },
            act: |disk, root| {
                let mut out = AtomicFolder::into_existing(disk, root, "model", RULES)?;
                write_model(&mut out, &TWO, "new")?;
                out.commit()
            },
            recover: |root| finish_install(&Disk::default(), root, "model", RULES).unwrap(),
            meanwhile: |root, old, new| {
                let seen = visible(root);
                let of = |tree: &Tree| {
                    let mut weights =
                        seen.iter().filter(|(path, _)| together(path.to_str().unwrap()));
                    weights.all(|(path, content)| tree.get(path) == Some(content))
                };
                assert!(of(old) || of(new), "old and new weights together: {seen:?}");
                let index = Path::new("model.safetensors.index.json");
                if seen.get(index).is_some_and(|text| new.get(index) == Some(text)) {
                    assert_eq!(&seen, new, "the index makes the model loadable, so it comes last");
                }
            },
        },
    ]
}

/// A folder for thousands of runs: in memory where that is possible, as a disk takes its time to sync.
fn prepared(scenario: &Scenario) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    (scenario.setup)(dir.path());
    dir
}

#[test]
fn stopped_anywhere_the_old_or_the_new_is_there() {
    for scenario in scenarios() {
        let name = scenario.name;
        let dir = prepared(&scenario);
        let old = tree(dir.path());
        (scenario.act)(&Disk::default(), dir.path()).unwrap();
        let new = tree(dir.path());
        assert_ne!(old, new, "{name}");
        assert_eq!(new, visible(dir.path()), "{name}: leftovers");

        for crash in [false, true] {
            let (mut found_old, mut found_new) = (0, 0);
            for at in 0.. {
                let dir = prepared(&scenario);
                let (disk, steps) = failing(at, crash);
                let result = (scenario.act)(&disk, dir.path());
                drop(disk);
                if steps.load(Ordering::Relaxed) <= at {
                    result.unwrap();
                    assert!(at > 4, "{name}: {at} steps");
                    break;
                }
                let place = format!("{name}, crash {crash}, step {at}: {result:?}");
                (scenario.meanwhile)(dir.path(), &old, &new);
                (scenario.recover)(dir.path());
                let seen = visible(dir.path());
                match &seen {
                    seen if *seen == new => found_new += 1,
                    seen if *seen == old && result.is_err() => found_old += 1,
                    seen => panic!("{place}: neither old nor new: {seen:?}"),
                }
                // The next use goes through and cleans up.
                (scenario.act)(&Disk::default(), dir.path()).unwrap();
                assert_eq!(tree(dir.path()), new, "{place}");
            }
            assert!(found_old > 0 && found_new > 0, "{name}: {found_old} and {found_new}");
        }
    }
}

/// Recovery itself may crash, at any step, after a crash at any step.
#[test]
fn recovery_can_be_interrupted() {
    for scenario in scenarios() {
        let dir = prepared(&scenario);
        let old = tree(dir.path());
        (scenario.act)(&Disk::default(), dir.path()).unwrap();
        let new = tree(dir.path());
        for first in 0.. {
            let (disk, steps) = failing(first, true);
            let ended = (scenario.act)(&disk, prepared(&scenario).path()).is_ok();
            if ended && steps.load(Ordering::Relaxed) <= first {
                break;
            }
            for second in 0.. {
                let dir = prepared(&scenario);
                let _ = (scenario.act)(&failing(first, true).0, dir.path());
                let (disk, steps) = failing(second, true);
                let _ = restore_folders(&disk, dir.path(), is_checkpoint);
                let _ = finish_install(&disk, dir.path(), "model", RULES);
                clean_folders(&disk, dir.path(), is_checkpoint, RULES);
                (scenario.meanwhile)(dir.path(), &old, &new);
                (scenario.recover)(dir.path());
                let seen = visible(dir.path());
                assert!(seen == old || seen == new, "{}, {first}, {second}", scenario.name);
                if steps.load(Ordering::Relaxed) <= second {
                    break;
                }
            }
        }
    }
}

/// What a step does, without the folder that the test is in.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Changed(PathBuf),
    Synced(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

/// A power cut keeps only what was synced: data before the rename that makes it valid, and the rename before
/// anything that it replaces is removed.
#[test]
fn all_is_on_the_disk_before_it_counts() {
    for scenario in scenarios() {
        let dir = prepared(&scenario);
        let log = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::clone(&log);
        let disk = Disk::watched(move |step| {
            let parent = |path: &Path| path.parent().unwrap().to_owned();
            let mut events = events.lock().unwrap();
            match step {
                Step::Create(path) | Step::MakeFolder(path) => {
                    events.push(Event::Changed(path.into()));
                    events.push(Event::Changed(parent(path)));
                }
                Step::Write(path) => events.push(Event::Changed(path.into())),
                Step::Sync(path) | Step::SyncFolder(path) => {
                    events.push(Event::Synced(path.into()))
                }
                Step::Rename(from, to) => events.push(Event::Renamed(from.into(), to.into())),
                Step::RemoveFile(path) | Step::RemoveFolder(path) => {
                    events.push(Event::Removed(path.into()));
                }
            }
            Ok(())
        });
        (scenario.act)(&disk, dir.path()).unwrap();
        let (mut unsynced, mut renamed) = (BTreeSet::new(), BTreeSet::new());
        for event in log.lock().unwrap().iter() {
            match event {
                Event::Changed(path) => drop(unsynced.insert(path.clone())),
                Event::Synced(path) => {
                    unsynced.remove(path);
                    renamed.remove(path);
                }
                Event::Renamed(from, to) => {
                    let open = unsynced.iter().find(|path| path.starts_with(from));
                    assert_eq!(open, None, "{}: {event:?}", scenario.name);
                    renamed.insert(to.parent().unwrap().to_owned());
                }
                Event::Removed(path) => {
                    assert!(renamed.is_empty(), "{}: {event:?} before {renamed:?}", scenario.name);
                    unsynced.remove(path);
                }
            }
        }
        assert!(renamed.is_empty(), "{}: {renamed:?} at the end", scenario.name);
    }
}

#[test]
fn what_is_not_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (root, disk) = (dir.path(), Disk::default());
    old_folder(root);
    put(root.join("step-000004/thesis.tex"), "mine");
    put(root.join("step-000002.partial/thesis.tex"), "mine");
    put(root.join("photos.partial/config.json"), "mine");
    put(root.join("photos.qft-removed/config.json"), "mine");
    // A folder with a name of ours, and nothing that could have come from us.
    put(root.join("model.qft-committed/thesis.tex"), "mine");
    put(root.join("model.safetensors"), "mine");
    clean_folders(&disk, root, is_checkpoint, RULES);
    finish_install(&disk, root, "model", RULES).unwrap();
    finish_install(&disk, root, "model", RULES).unwrap();
    let kept =
        |path: &str| assert_eq!(fs::read_to_string(root.join(path)).unwrap(), "mine", "{path}");
    kept("step-000002.partial/thesis.tex");
    kept("photos.partial/config.json");
    kept("photos.qft-removed/config.json");
    kept("model.safetensors");

    // Twice, as the first leaves a folder with the user's file under the name that the second would use.
    for _ in 0..2 {
        put(root.join("step-000004/thesis.tex"), "mine");
        put(root.join("step-000004/config.json"), "old");
        remove_folder(&disk, &root.join("step-000004"), RULES).unwrap();
        assert!(!root.join("step-000004").exists());
    }
    kept("step-000004.qft-removed/thesis.tex");
    kept("step-000004.qft-removed-1/thesis.tex");
    assert!(!root.join("step-000004.qft-removed/config.json").exists());

    let refused = |result: Result<AtomicFolder, Error>, part: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(AtomicFolder::replacing(&disk, &root.join("step-000002"), RULES), "thesis.tex");
    refused(AtomicFolder::replacing(&disk, &root.join("notes.txt"), RULES), "is a file");
    refused(AtomicFolder::into_existing(&disk, &root.join("notes.txt"), "m", RULES), "is a file");
    refused(AtomicFolder::new(&disk, root, RULES), "exists");
    refused(AtomicFolder::replacing(&disk, &root.join(".."), RULES), "has no name");
    kept("step-000002.partial/thesis.tex");

    // A folder where a file belongs is seen before anything is changed.
    fs::create_dir(root.join("model-9")).unwrap();
    let mut out = AtomicFolder::into_existing(&disk, root, "model", RULES).unwrap();
    write_model(&mut out, &TWO, "new").unwrap();
    let error = out.commit().unwrap_err();
    assert!(error.to_string().contains("model-9: is a folder"), "{error}");
    kept("model.safetensors");
    assert!(!root.join("model.partial").exists());
}

#[test]
fn links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, disk) = (dir.path(), Disk::default());
    put(root.join("precious/config.json"), "mine");
    for link in ["step-000001", "step-000002.partial", "step-000003.qft-removed"] {
        std::os::unix::fs::symlink(root.join("precious"), root.join(link)).unwrap();
    }
    clean_folders(&disk, root, is_checkpoint, RULES);
    remove_folder(&disk, &root.join("step-000001"), RULES).unwrap();
    assert!(!root.join("step-000001").exists());
    assert_eq!(fs::read_to_string(root.join("precious/config.json")).unwrap(), "mine");
}

#[test]
fn a_folder_that_is_being_written_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (root, disk) = (dir.path(), Disk::default());
    let target = root.join("step-000004");
    let mut out = AtomicFolder::replacing(&disk, &target, RULES).unwrap();
    write_model(&mut out, &TWO, "new").unwrap();
    let error = AtomicFolder::replacing(&disk, &target, RULES).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    clean_folders(&disk, root, is_checkpoint, RULES);
    out.commit().unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), TWO.len());
    assert!(!target.join(LOCK_FILE).exists());

    // Nor is a set that another process is moving to its place moved a second time.
    let moving = root.join("model.qft-installing");
    put(moving.join("config.json"), "new");
    let lock = FolderLock::acquire(&moving).unwrap();
    let error = finish_install(&disk, root, "model", RULES).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(lock);
    finish_install(&disk, root, "model", RULES).unwrap();
    assert_eq!(fs::read_to_string(root.join("config.json")).unwrap(), "new");
    assert!(!moving.exists());
}

#[test]
fn a_dropped_writer_disappears() {
    let dir = tempfile::tempdir().unwrap();
    let (root, disk) = (dir.path(), Disk::default());
    put(root.join("a"), "old");
    drop(AtomicFile::create(&disk, &root.join("a")).unwrap());
    let mut out = AtomicFolder::new(&disk, &root.join("new/deep"), RULES).unwrap();
    write_model(&mut out, &TWO, "new").unwrap();
    assert!(out.create("thesis.tex").is_err(), "no name of ours");
    drop(out);
    assert_eq!(fs::read_dir(root.join("new")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "old");
    restore_folder(&disk, &root.join("a")).unwrap();
    assert_eq!(fs::read_dir(root).unwrap().count(), 2);
}

/// Files are readable by others as the umask allows, not by their owner alone as temporary files are.
#[test]
fn files_have_the_permissions_of_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
    fs::write(dir.path().join("plain"), "").unwrap();
    AtomicFile::write_whole(&Disk::default(), &dir.path().join("ours"), b"").unwrap();
    assert_eq!(mode("ours"), mode("plain"));
}
