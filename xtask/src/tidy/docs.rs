//! Rules of documents: links lead somewhere, and nothing depends on the machine of whoever wrote it.

use super::{File, Problems, Repository};

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 4] = ["/work/", "/root/", "/home/", "/tmp/"];

/// Relative links lead to files, and to headings that are there.
pub(super) fn links(repository: &Repository) -> Problems {
    let of = |file| links_of(repository, file);
    repository.ending(".md").flat_map(of).collect()
}

fn links_of(repository: &Repository, file: &File) -> Problems {
    let mut problems = Problems::new();
    let prose = without_code(&file.text);
    for part in prose.split("](").skip(1) {
        let target = part.split([')', ' ']).next().unwrap_or_default();
        if target.contains("://") {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { file.path.clone() } else { beside(&file.path, path) };
        if !repository.has(&path) && repository.text(&path).is_err() {
            problems.push(format!("{}: link to {target}, which does not exist", file.path));
        } else if !anchor.is_empty()
            && let Ok(text) = repository.text(&path)
            && !without_code(text)
                .lines()
                .filter_map(heading)
                .any(|heading| slug(heading) == anchor)
        {
            problems
                .push(format!("{}: link to {target}, and {path} has no such heading", file.path));
        }
    }
    problems
}

/// Paths of files in backticks exist, from the root or beside the document. `NAME` in capitals stands for whatever its reader chooses.
pub(super) fn paths(repository: &Repository) -> Problems {
    let missing = |file: &File| {
        let prose = without_code(&file.text);
        let quoted = prose.split('`').skip(1).step_by(2).filter_map(path);
        let there =
            |path: &String| repository.has(path) || repository.has(&beside(&file.path, path));
        let absent = quoted.filter(|path| !there(path));
        absent.map(|path| format!("{}: names {path}, which does not exist", file.path)).collect()
    };
    // What was is not what is.
    let current = repository.ending(".md").filter(|file| file.path != "CHANGELOG.md");
    current.flat_map(|file| -> Problems { missing(file) }).collect()
}

/// The file that a text in backticks means, from the root.
fn path(quoted: &str) -> Option<String> {
    const FOLDERS: [&str; 7] =
        ["benchmarks/", "crates/", "docs/", "examples/", "kernels/", "scripts/", "xtask/"];
    let written = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c);
    if !quoted.chars().all(written) {
        return None;
    }
    if quoted.starts_with("qft-") && quoted.contains('/') {
        return Some(format!("crates/{quoted}"));
    }
    FOLDERS.iter().any(|folder| quoted.starts_with(folder)).then(|| quoted.to_owned())
}

/// A document without its blocks of code.
fn without_code(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The path that `link` means in the file `path`.
fn beside(path: &str, link: &str) -> String {
    let mut parts: Vec<_> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn heading(line: &str) -> Option<&str> {
    line.starts_with('#').then(|| line.trim_start_matches('#').trim())
}

/// The anchor that hosts of repositories make of a heading.
fn slug(heading: &str) -> String {
    let keep = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(keep).map(|c| if c == ' ' { '-' } else { c }).collect()
}

pub(super) fn machine_paths(repository: &Repository) -> Problems {
    let documents = [".md", ".toml", ".yml"].into_iter().flat_map(|e| repository.ending(e));
    documents
        .flat_map(|file| {
            let lines = file.text.lines().enumerate();
            lines.filter_map(move |(i, line)| {
                let path = MACHINE_PATHS.iter().find(|path| holds(line, path))?;
                Some(format!("{}:{}: {path}... is a path of one machine", file.path, i + 1))
            })
        })
        .collect()
}

/// Whether an absolute path begins so; `target/tmp/` does not.
fn holds(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at]
            .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | '}'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_told() {
        let text = "# The *first* part\n\
            [ok](b.md) [ok](../README.md#try-it) [ok](#the-first-part) [ok](https://a.b/c#d)\n\
            [wrong](c.md) [wrong](../README.md#tryit)\n\
            ```text\n[code](nowhere)\n```\n";
        let repository = Repository::of(&[
            ("docs/a.md", text),
            ("docs/b.md", "b"),
            ("README.md", "## Try it\n"),
        ]);
        let told = links(&repository);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("c.md") && told[1].contains("no such heading"), "{told:?}");
    }

    #[test]
    fn paths_in_backticks_are_files() {
        assert_eq!(path("qft-optim/src/cpu.rs").as_deref(), Some("crates/qft-optim/src/cpu.rs"));
        assert_eq!(path("docs/A.md"), None, "a name that stands for others");
        assert_eq!((path("qft-optim"), path("cargo test")), (None, None));
        let told = paths(&Repository::of(&[("docs/a.md", "see `crates/none.rs` and `a/b`")]));
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn paths_of_a_machine_are_told() {
        let home = ["/ho", "me/"].concat();
        let text = format!("see {home}me/file\ncrates/a/tmp/b\n");
        let told = machine_paths(&Repository::of(&[("docs/a.md", &text)]));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("docs/a.md:1:"), "{told:?}");
    }
}
