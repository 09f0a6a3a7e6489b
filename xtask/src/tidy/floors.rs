//! Which crate may depend on which, and which module of the trainer may use which. A new arrow is a decision: it needs a
//! line here and a reason in docs/DECISIONS.md.

use super::source::shipped;
use super::{Problems, Repository};
use std::collections::BTreeSet;

/// Each crate with the crates of this workspace that it may depend on.
const CRATES: [(&str, &[&str]); 13] = [
    ("qft-testing", &[]),
    ("qft-files", &[]),
    ("qft-hub", &["qft-files"]),
    ("qft-tensor", &[]),
    ("qft-processes", &["qft-tensor"]),
    ("qft-quant", &["qft-tensor"]),
    ("qft-optim", &["qft-tensor", "qft-quant"]),
    ("qft-autograd", &["qft-tensor", "qft-quant"]),
    ("qft-llama", &["qft-tensor", "qft-quant", "qft-autograd", "qft-files"]),
    ("qft-cuda", &["qft-tensor", "qft-quant", "qft-optim", "qft-autograd"]),
    ("qft-emulator", &["qft-cuda", "qft-tensor"]),
    (
        "qft-train",
        &[
            "qft-tensor",
            "qft-quant",
            "qft-optim",
            "qft-autograd",
            "qft-files",
            "qft-hub",
            "qft-llama",
            "qft-processes",
            "qft-cuda",
        ],
    ),
    ("xtask", &["qft-tensor", "qft-llama", "qft-train", "qft-cuda"]),
];

/// What tests of a crate may use beyond that; `qft-testing` is open to all.
const TESTS: [(&str, &[&str]); 2] =
    [("qft-cuda", &["qft-emulator"]), ("qft-train", &["qft-emulator"])];

/// Dependencies from outside that belong to some crates alone, and why.
const OUTSIDE: [(&str, &[&str], &str); 5] = [
    ("anyhow", &["xtask"], "errors of the crates have types"),
    ("cudarc", &["qft-cuda"], "a driver is behind `Driver`"),
    ("tokenizers", &["qft-llama"], "text is behind `Tokenizer`"),
    ("ureq", &["qft-hub"], "nothing else speaks to a network"),
    (
        "clap",
        &["qft-train", "xtask", "qft-autograd", "qft-llama", "qft-optim"],
        "options are the trainer's",
    ),
];

/// The modules of qft-train from the top floor down; each uses lower floors only, and none beside it.
const TRAINER: [&[&str]; 9] = [
    &["commands"],
    &["report"],
    &["run"],
    &["memory", "data"],
    &["chat", "machine"],
    &["options"],
    &["step"],
    &["error"],
    &[],
];

/// What `crate::NAME` of qft-train re-exports.
const TRAINER_NAMES: [(&str, &str); 4] =
    [("TrainOps", "step"), ("Error", "error"), ("ErrorKind", "error"), ("Result", "error")];

pub(super) fn crates(repository: &Repository) -> Problems {
    let mut problems = Problems::new();
    for file in repository.ending("/Cargo.toml") {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        let name = folder.strip_prefix("crates/").unwrap_or(folder);
        if name.contains('/') {
            continue;
        }
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
            problems
                .push(format!("{}: {name} has no floor in xtask/src/tidy/floors.rs", file.path));
            continue;
        };
        match manifest(&file.text) {
            Ok(manifest) => problems.extend(
                manifest
                    .iter()
                    .filter_map(|used| refused(name, allowed, used))
                    .map(|why| format!("{}: {why}; see docs/ARCHITECTURE.md", file.path)),
            ),
            Err(error) => problems.push(format!("{}: {error}", file.path)),
        }
    }
    problems
}

/// A dependency, and whether tests alone have it.
type Dependency = (String, bool);

/// What a manifest depends on, on any system.
fn manifest(text: &str) -> Result<BTreeSet<Dependency>, toml::de::Error> {
    let manifest: toml::Table = toml::from_str(text)?;
    let mut tables = vec![&manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut found = BTreeSet::new();
    for table in tables {
        for (kind, of_tests) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            if let Some(listed) = table.get(kind).and_then(toml::Value::as_table) {
                found.extend(listed.keys().map(|name| (name.clone(), of_tests)));
            }
        }
    }
    Ok(found)
}

fn refused(name: &str, allowed: &[&str], (used, of_tests): &Dependency) -> Option<String> {
    let used = used.as_str();
    if let Some((_, users, why)) = OUTSIDE.iter().find(|(outside, ..)| *outside == used) {
        let wrong = !users.contains(&name) && !of_tests;
        return wrong.then(|| format!("{used} is for {users:?}: {why}"));
    }
    if !CRATES.iter().any(|(known, _)| *known == used) || allowed.contains(&used) {
        return None;
    }
    let more = TESTS.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, more)| more);
    let fine = *of_tests && (used == "qft-testing" || more.contains(&used));
    (!fine).then(|| format!("{name} must not depend on {used}"))
}

pub(super) fn trainer(repository: &Repository) -> Problems {
    let mut problems = Problems::new();
    for file in repository.ending(".rs") {
        let Some(path) = file.path.strip_prefix("crates/qft-train/src/") else { continue };
        let module = path.split(['/', '.']).next().unwrap_or_default();
        if matches!(module, "lib" | "main") || path.ends_with("/tests.rs") {
            continue;
        }
        let Some(own) = floor(module) else {
            problems.push(format!(
                "{}: `{module}` has no floor in xtask/src/tidy/floors.rs",
                file.path
            ));
            continue;
        };
        for used in used_modules(&shipped(&file.text)) {
            match floor(&used) {
                _ if used == module => {}
                Some(other) if other > own => {}
                Some(_) => problems
                    .push(format!("{}: uses `{used}`, which is not below `{module}`", file.path)),
                None => problems.push(format!("{}: `crate::{used}` is on no floor", file.path)),
            }
        }
    }
    problems
}

/// The floor of a module of the trainer, counted from the top.
fn floor(module: &str) -> Option<usize> {
    TRAINER.iter().position(|floor| floor.contains(&module))
}

/// The modules that a source names as `crate::…`, outside of comments.
fn used_modules(source: &str) -> BTreeSet<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let named = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => rest,
        };
        let grouped = rest.starts_with('{');
        for part in named.split(',').take(if grouped { usize::MAX } else { 1 }) {
            let name: String = part
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let known = TRAINER_NAMES.iter().find(|(known, _)| *known == name);
            found.extend(
                (!name.is_empty()).then(|| known.map_or(name, |(_, module)| (*module).into())),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_that_point_up_are_told() {
        let told = |name: &str, text: &str| {
            crates(&Repository::of(&[(&format!("crates/{name}/Cargo.toml"), text)]))
        };
        let quant = "[dependencies]\nqft-tensor.workspace = true\nrayon.workspace = true\n\
                     [dev-dependencies]\nqft-testing.workspace = true\n";
        assert_eq!(told("qft-quant", quant), [""; 0]);
        assert!(told("qft-tensor", quant)[0].contains("qft-tensor must not depend on qft-tensor"));
        assert!(told("qft-new", quant)[0].contains("has no floor"));
        let shipped_test = "[target.'cfg(unix)'.dependencies]\nqft-testing.workspace = true\n";
        assert!(told("qft-quant", shipped_test)[0].contains("qft-testing"));
        let anyhow = "[dependencies]\nanyhow = \"1\"\n";
        assert!(told("qft-train", anyhow)[0].contains("errors of the crates have types"));
    }

    #[test]
    fn the_trainer_uses_lower_floors_only() {
        let told = |path: &str, text: &str| {
            trainer(&Repository::of(&[(&format!("crates/qft-train/src/{path}"), text)]))
        };
        let text =
            "//! See [`crate::run`].\nuse crate::TrainOps;\nuse crate::{error::Result, options};\n";
        assert_eq!(told("machine/a.rs", text), [""; 0]);
        assert!(told("step.rs", text)[0].contains("uses `options`"));
        assert!(told("data/a.rs", "use crate::memory::gb;\n")[0].contains("not below `data`"));
        assert!(told("news/a.rs", text)[0].contains("`news` has no floor"));
        assert!(
            told("data.rs", "use crate::{\n    data::A,\n    run,\n};\n")[0].contains("uses `run`")
        );
    }
}
