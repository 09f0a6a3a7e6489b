//! `cargo xtask tidy`: rules of the repository that no compiler knows. Each module below holds the table of one kind.

mod docs;
mod facts;
mod floors;
mod memory_table;
mod source;

use crate::options;
use crate::repository::repository;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// A text file of the repository.
pub(super) struct File {
    /// Where it is, from the root, with slashes.
    pub(super) path: String,
    /// What it holds.
    pub(super) text: String,
}

/// The files that the rules are about.
pub(super) struct Repository {
    root: PathBuf,
    files: Vec<File>,
}

impl Repository {
    /// Reads sources, documents and manifests.
    fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for folder in [".github", "benchmarks", "crates", "docs", "examples", "scripts", "xtask"] {
            collect(root, &root.join(folder), &mut files)?;
        }
        for name in ["Cargo.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
            files.push(file(root, &root.join(name))?);
        }
        Ok(Self { root: root.to_owned(), files })
    }

    /// The files whose names end so.
    pub(super) fn ending(&self, ending: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.path.ends_with(ending))
    }

    /// The text of a file that a rule needs.
    pub(super) fn text(&self, path: &str) -> Result<&str, String> {
        let found = self.files.iter().find(|file| file.path == path);
        found.map(|file| &*file.text).ok_or_else(|| format!("{path}: a rule needs it"))
    }

    /// Whether there is such a file or folder.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// What a rule found wrong, a line each.
pub(super) type Problems = Vec<String>;

/// Looks at the whole repository.
type Rule = fn(&Repository) -> Problems;

/// Every rule, and what it is about.
const RULES: [(&str, Rule); 11] = [
    ("sizes of files", source::sizes),
    ("module comments", source::comments),
    ("places of `unsafe`", source::unsafe_places),
    ("lengths of functions", source::functions),
    ("floors of crates", floors::crates),
    ("floors of the trainer", floors::trainer),
    ("links", docs::links),
    ("paths in documents", docs::paths),
    ("paths of machines", docs::machine_paths),
    ("constants in documents", facts::constants),
    ("the README's memory table", memory_table::check),
];

/// Checks every rule and reports all violations at once.
pub(crate) fn run() -> Result<()> {
    let repository = Repository::read(&repository())?;
    let mut problems: Problems = RULES.iter().flat_map(|(_, rule)| rule(&repository)).collect();
    problems.extend(options::stale(&repository.root));
    if problems.is_empty() {
        println!("tidy: {} files follow {} rules", repository.files.len(), RULES.len() + 1);
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            // What a build or a fuzzer leaves is not ours.
            let name = entry.file_name();
            if !["target", "corpus", "artifacts"].iter().any(|skip| name == *skip) {
                collect(root, &path, files)?;
            }
        } else if matches!(ending, Some("rs" | "md" | "toml" | "yml")) {
            files.push(file(root, &path)?);
        }
    }
    Ok(())
}

fn file(root: &Path, path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    Ok(File { path: shown.replace('\\', "/"), text })
}

#[cfg(test)]
impl Repository {
    /// A repository of these files alone.
    fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| File { path: path.into(), text: text.into() };
        Self { root: PathBuf::new(), files: files.iter().map(file).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_follows_the_rules() {
        let repository = Repository::read(&repository()).unwrap();
        for (about, rule) in RULES {
            let problems = rule(&repository);
            assert!(problems.is_empty(), "{about}:\n{}", problems.join("\n"));
        }
    }
}
