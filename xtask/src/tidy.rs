//! Rules of the repository that no compiler knows: file sizes, module docs, where `unsafe` may stand, links in docs.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Lines of a source file without its tests.
const MAX_LINES: usize = 700;

/// Folders in which `unsafe` is allowed.
const UNSAFE: [&str; 3] =
    ["crates/qft-tensor/src/simd/", "crates/qft-cuda/src/", "crates/qft-emulator/src/"];

/// Checks every rule and reports all violations at once.
pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "docs"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.extend(["README.md", "CHANGELOG.md"].map(|name| root.join(name)));
    let mut problems = Vec::new();
    for file in &files {
        let shown = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        let Ok(text) = std::fs::read_to_string(file) else {
            problems.push(format!("{shown}: cannot be read"));
            continue;
        };
        if shown.ends_with(".rs") {
            rust(&shown, &text, &mut problems);
        } else if shown.ends_with(".md") {
            links(file, &shown, &text, &mut problems);
        }
    }
    if problems.is_empty() {
        println!("tidy: {} files follow the rules", files.len());
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            // What a build or a fuzzer leaves is not ours.
            let name = entry.file_name();
            if !["target", "corpus", "artifacts"].iter().any(|skip| name == *skip) {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs" || e == "md") {
            files.push(path);
        }
    }
    Ok(())
}

fn rust(shown: &str, text: &str, problems: &mut Vec<String>) {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().count();
    if lines > MAX_LINES && !shown.contains("/tests/") {
        problems.push(format!("{shown}: {lines} lines, at most {MAX_LINES}: split by concept"));
    }
    if !text.starts_with("//!") {
        problems.push(format!("{shown}: does not begin with a module comment"));
    }
    let keyword = ["unsafe ", "{"].concat();
    if code.contains(&keyword) && !UNSAFE.iter().any(|folder| shown.starts_with(folder)) {
        problems.push(format!("{shown}: unsafe outside of {UNSAFE:?}"));
    }
}

/// Relative links of a Markdown file must lead somewhere.
fn links(file: &Path, shown: &str, text: &str, problems: &mut Vec<String>) {
    for part in text.split("](").skip(1) {
        let target = part.split([')', '#', ' ']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") {
            continue;
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        if !folder.join(target).exists() {
            problems.push(format!("{shown}: link to {target}, which does not exist"));
        }
    }
}
