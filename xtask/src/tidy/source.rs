//! Rules of Rust sources: how long files and functions are, how they begin, and where `unsafe` may stand.

use super::{File, Problems, Repository};

/// Lines of a source file without its tests.
const MAX_FILE_LINES: usize = 700;

/// Lines of a function, from its name to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;

/// Longer functions, each with the reason. An entry that is no longer needed is a violation as well.
const LONG_FUNCTIONS: [(&str, &str, &str); 3] = [
    (
        "crates/qft-emulator/build.rs",
        "main",
        "one compiler with all of its flags, then the list of kernels",
    ),
    (
        "crates/qft-train/src/report/console.rs",
        "on",
        "an arm for each event of a run, in their order",
    ),
    (
        "crates/qft-train/src/run/recipe.rs",
        "of",
        "takes every option apart to its last field, so that none is forgotten",
    ),
];

/// Folders and files in which `unsafe` is allowed.
const UNSAFE: [&str; 7] = [
    "crates/qft-tensor/src/simd/",
    "crates/qft-tensor/src/cpu/region.rs",
    "crates/qft-cuda/src/",
    "crates/qft-emulator/src/",
    "crates/qft-processes/src/ending.rs",
    "crates/qft-processes/src/mpi/calls.rs",
    "crates/qft-processes/src/mpi/library.rs",
];

pub(super) fn sizes(repository: &Repository) -> Problems {
    let long = |file: &File| {
        let lines = shipped(&file.text).lines().count();
        let says =
            || format!("{}: {lines} lines, at most {MAX_FILE_LINES}: split by concept", file.path);
        (lines > MAX_FILE_LINES).then(says)
    };
    sources(repository).filter_map(long).collect()
}

pub(super) fn comments(repository: &Repository) -> Problems {
    let bare = |file: &&File| !file.text.starts_with("//!");
    let says = |file: &File| format!("{}: does not begin with a module comment", file.path);
    repository.ending(".rs").filter(bare).map(says).collect()
}

pub(super) fn unsafe_places(repository: &Repository) -> Problems {
    let keyword = ["unsafe ", "{"].concat();
    let allowed = |file: &File| UNSAFE.iter().any(|folder| file.path.starts_with(folder));
    sources(repository)
        .filter(|file| !allowed(file) && shipped(&file.text).contains(&keyword))
        .map(|file| format!("{}: unsafe outside of {UNSAFE:?}", file.path))
        .collect()
}

pub(super) fn functions(repository: &Repository) -> Problems {
    let mut problems = Problems::new();
    let mut excused = Vec::new();
    for file in sources(repository) {
        for (name, lines) in functions_of(&shipped(&file.text)) {
            if lines <= MAX_FUNCTION_LINES {
                continue;
            }
            match LONG_FUNCTIONS.iter().find(|(path, long, _)| *path == file.path && *long == name)
            {
                Some(entry) => excused.push(*entry),
                None => problems.push(format!(
                    "{}: `{name}` has {lines} lines, at most {MAX_FUNCTION_LINES}: split it",
                    file.path
                )),
            }
        }
    }
    let idle = LONG_FUNCTIONS
        .iter()
        .filter(|entry| repository.text(entry.0).is_ok() && !excused.contains(entry));
    problems.extend(idle.map(|(path, name, _)| {
        format!(
            "{path}: `{name}` is short enough, take it off the list in xtask/src/tidy/source.rs"
        )
    }));
    problems
}

/// Sources that are not tests, benchmarks or examples.
fn sources(repository: &Repository) -> impl Iterator<Item = &File> {
    let tests = ["/tests/", "/benches/", "/examples/"];
    repository.ending(".rs").filter(move |file| {
        !tests.iter().any(|folder| file.path.contains(folder)) && !file.path.ends_with("/tests.rs")
    })
}

/// A source without its modules of tests.
pub(super) fn shipped(text: &str) -> String {
    let mut lines = text.lines().peekable();
    let mut kept = String::with_capacity(text.len());
    while let Some(line) = lines.next() {
        let is_test = line.trim_start().starts_with("#[cfg(test)]");
        let module = |next: &&str| next.trim_start().starts_with("mod ") && next.ends_with('{');
        if let (true, Some(header)) = (is_test, lines.peek().filter(|next| module(next))) {
            let end = format!("{}}}", indent(header));
            lines.by_ref().find(|line| *line == end);
        } else {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// Name and lines of every function, as rustfmt lays them out: the closing brace stands below the first word.
fn functions_of(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let ends = |line: &&str| line.ends_with(['{', ';', '}']);
        let Some(signature) = lines[start..].iter().position(ends) else { continue };
        if !lines[start + signature].ends_with('{') {
            continue;
        }
        let close = format!("{}}}", indent(line));
        let body = lines[start + signature..].iter().position(|line| *line == close);
        found.extend(body.map(|body| (name.to_owned(), signature + body + 1)));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start();
    loop {
        if let Some(rest) = words.strip_prefix("fn ") {
            return rest.split(['(', '<']).next();
        }
        let (word, rest) = words.split_once(' ')?;
        let qualifier = matches!(word, "pub" | "const" | "unsafe" | "async" | "extern" | "\"C\"");
        if !qualifier && !word.starts_with("pub(") {
            return None;
        }
        words = rest;
    }
}

fn indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "//! A.\n\
        \n\
        #[cfg(test)]\n\
        mod tests;\n\
        pub(super) fn one<T>(\n    a: T,\n) -> T\nwhere\n    T: Copy,\n{\n    a\n}\n\
        trait A {\n    fn none(&self);\n    fn two(&self) {\n    }\n}\n\
        #[cfg(test)]\n\
        mod inner {\n    unsafe {}\n}\n\
        const unsafe fn last() {}\n";

    #[test]
    fn tests_do_not_count_and_what_follows_them_does() {
        let shipped = shipped(SOURCE);
        assert!(shipped.contains("mod tests;") && shipped.contains("last()"), "{shipped}");
        assert!(!shipped.contains("unsafe {}") && !shipped.contains("inner"), "{shipped}");
    }

    #[test]
    fn functions_are_measured() {
        let found = functions_of(&shipped(SOURCE));
        assert_eq!(found, [("one".to_owned(), 8), ("two".to_owned(), 2)]);
        let long = format!("//! A.\nfn long() {{\n{}}}\n", "    a();\n".repeat(70));
        let told = functions(&Repository::of(&[("crates/a/src/a.rs", &long)]));
        assert!(told[0].contains("`long` has 72 lines"), "{told:?}");
        assert_eq!(functions(&Repository::of(&[("crates/a/tests/a.rs", &long)])), [""; 0]);
        let excused = (LONG_FUNCTIONS[0].0, "//! A.\nfn main() {\n}\n");
        assert!(functions(&Repository::of(&[excused]))[0].contains("take it off the list"));
    }

    #[test]
    fn files_are_measured() {
        let unsafe_block = ["unsafe ", "{}"].concat();
        let text = format!("{}{unsafe_block}\n", "a\n".repeat(700));
        let repository = Repository::of(&[("crates/a/src/a.rs", &text)]);
        assert_eq!(sizes(&repository).len(), 1);
        assert_eq!(comments(&repository).len(), 1);
        assert_eq!(unsafe_places(&repository).len(), 1);
        let allowed = Repository::of(&[("crates/qft-tensor/src/simd/a.rs", &text)]);
        assert!(unsafe_places(&allowed).is_empty());
    }
}
