//! The home folder in paths where no shell puts it: behind `=`, and in a settings file.

use std::ffi::OsString;

/// Options that are paths, or may be.
const PATHS: [&str; 13] = [
    "model",
    "data",
    "eval-data",
    "out",
    "config",
    "resume",
    "template",
    "cache",
    "log-file",
    "prompts",
    "history",
    "questions",
    "log-samples",
];

/// A word of the command line, of which `~/` is replaced if it is the beginning of a path behind `=`.
pub fn expanded(word: OsString) -> OsString {
    word.to_str().and_then(|word| expanded_by(word, home)).map_or(word, OsString::from)
}

/// The same, of a text.
pub(super) fn expanded_text(word: String) -> String {
    expanded_by(&word, home).unwrap_or(word)
}

fn home() -> Option<String> {
    std::env::var("HOME").ok().filter(|home| !home.is_empty())
}

fn expanded_by(word: &str, home: impl Fn() -> Option<String>) -> Option<String> {
    let (name, path) = word.strip_prefix("--")?.split_once("=~/")?;
    PATHS.contains(&name).then(home)?.map(|home| format!("--{name}={home}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_begin_at_home() {
        let expanded = |word| expanded_by(word, || Some("/h".into()));
        assert_eq!(expanded("--out=~/a/~/b").as_deref(), Some("--out=/h/a/~/b"));
        for word in ["--prompt=~/a", "--out=~a", "--out=a/~/b", "out=~/a", "--out", "~/a"] {
            assert_eq!(expanded(word), None, "{word}");
        }
        assert_eq!(expanded_by("--out=~/a", || None), None);
    }
}
