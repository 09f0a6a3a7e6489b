//! What is given as a model or as data: a path, or a name in the hub.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The branch that is meant where none is given.
pub(crate) const MAIN: &str = "main";

/// Endings of files: what has one is a path, and not the name of a repository.
const FILES: [&str; 15] = [
    "json",
    "jsonl",
    "ndjson",
    "csv",
    "tsv",
    "parquet",
    "txt",
    "text",
    "gz",
    "zst",
    "zstd",
    "toml",
    "gguf",
    "safetensors",
    "bin",
];

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Data,
}

/// A repository of the hub: `org/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What it holds.
    pub kind: Kind,
    /// `org/name`.
    pub id: String,
}

impl Repository {
    /// Its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Data => "datasets",
        };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }

    /// The part of addresses that names it.
    pub(crate) fn path(&self) -> String {
        match self.kind {
            Kind::Model => self.id.clone(),
            Kind::Data => format!("datasets/{}", self.id),
        }
    }

    /// The part of addresses of the programming interface that names it.
    pub(crate) fn api_path(&self) -> String {
        match self.kind {
            Kind::Model => format!("models/{}", self.id),
            Kind::Data => format!("datasets/{}", self.id),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// A model as it is given: a folder, or `org/name`, `org/name@revision` of the hub.
///
/// What exists as a path is that path; so is what begins with `.`, `/` or `~`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelName(PathBuf);

/// A model of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRepository {
    /// Where it is.
    pub repository: Repository,
    /// Branch, tag or commit.
    pub revision: String,
}

impl ModelName {
    /// As it was given; where [`ModelName::in_hub`] is absent, the folder.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The repository that is named, unless it is a path.
    pub fn in_hub(&self) -> Option<ModelRepository> {
        let text = name_text(&self.0)?;
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, revision),
            None => (text, MAIN),
        };
        let named = is_id(id) && !is_file(id) && is_revision(revision);
        named.then(|| ModelRepository {
            repository: Repository { kind: Kind::Model, id: id.into() },
            revision: revision.into(),
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl From<PathBuf> for ModelName {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<&Path> for ModelName {
    fn from(path: &Path) -> Self {
        Self(path.into())
    }
}

impl From<OsString> for ModelName {
    fn from(text: OsString) -> Self {
        Self(text.into())
    }
}

impl From<&str> for ModelName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// Data of the hub: `org/name`, with any of `/INSIDE`, `@REVISION` and `:SPLIT` behind it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataName {
    /// Where it is.
    pub repository: Repository,
    /// A folder or a file of the repository; what is above it does not count.
    pub inside: Option<String>,
    /// Branch, tag or commit.
    pub revision: String,
    /// The split that is asked for.
    pub split: Option<String>,
}

impl DataName {
    /// What `given` names, unless it is a path: what exists, begins with `.`, `/` or `~`, or ends as a file does without
    /// naming a file of a repository. Where a number of times is given behind `=`, it must be taken off before.
    pub fn of(given: &Path) -> Option<Self> {
        let text = name_text(given)?;
        let (rest, split) = match text.split_once(':') {
            Some((rest, split)) => (rest, Some(split)),
            None => (text, None),
        };
        let (path, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
        let mut parts = path.splitn(3, '/');
        let id = format!("{}/{}", parts.next()?, parts.next()?);
        let inside = parts.next();
        // `data/chats.jsonl` is a file that does not exist.
        let is_path = inside.is_none() && split.is_none() && is_file(&id);
        let named = is_id(&id)
            && !is_path
            && is_revision(revision)
            && inside.is_none_or(is_inside)
            && split.is_none_or(is_word);
        named.then(|| Self {
            repository: Repository { kind: Kind::Data, id },
            inside: inside.map(str::to_owned),
            revision: revision.into(),
            split: split.map(str::to_owned),
        })
    }
}

/// The text of what may be a name: it is none where a path exists, or is meant.
fn name_text(given: &Path) -> Option<&str> {
    let text = given.to_str()?;
    let meant = text.starts_with(['.', '/', '~']) || text.contains('\\') || given.is_absolute();
    (!meant && !given.exists()).then_some(text)
}

/// Whether `text` is `org/name` as the hub allows it.
fn is_id(text: &str) -> bool {
    let part = |part: &str| {
        is_word(part)
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.ends_with(".git")
    };
    let sane = text.len() <= 96 && !text.contains("--") && !text.contains("..");
    sane && matches!(text.split_once('/'), Some((org, name)) if part(org) && part(name))
}

/// Whether `text` is one word of the letters, digits and signs that names have.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(allowed)
}

fn is_file(text: &str) -> bool {
    let ending = text.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| FILES.contains(&ending.as_str()))
}

/// Whether `text` can name a branch, tag or commit, and leads nowhere as a path.
pub(crate) fn is_revision(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./+#".contains(c);
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.ends_with('.');
    text.len() <= 200 && text.chars().all(allowed) && text.split('/').all(part)
}

/// Whether `text` is a path below a folder, with `/` between its parts, that leads nowhere else on any system.
pub(crate) fn is_inside(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':'])
            && !part.contains(char::is_control)
    };
    text.len() <= 4096 && text.split('/').all(part)
}

/// Whether `text` is the whole hash of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_by_path_and_by_name() {
        for path in [
            "/opt/model",
            "./org/name",
            "../org/name",
            "~/model",
            "gpt2",
            "a/b/c",
            "org/",
            "/name",
            "org/-name",
            "org/na--me",
            "org/na..me",
            "org/name.gguf",
            "org/name@",
            "org/name@../../x",
            "org/name@a//b",
            "org/na me",
            "org\\name",
            "src/name.rs",
            "org/name.git",
        ] {
            // A file of this crate, seen from its folder, is a path as well.
            let path = if path == "src/name.rs" { "src/lib.rs" } else { path };
            assert_eq!(ModelName::from(path).in_hub(), None, "{path}");
        }
        let hub = |text: &str| ModelName::from(text).in_hub().unwrap();
        let found = hub("Qwen/Qwen2.5-0.5B");
        assert_eq!(
            (found.repository.id.as_str(), found.revision.as_str()),
            ("Qwen/Qwen2.5-0.5B", MAIN)
        );
        assert_eq!(found.repository.folder(), "models--Qwen--Qwen2.5-0.5B");
        assert_eq!(hub("org/name@refs/pr/7").revision, "refs/pr/7");
        assert_eq!(hub("org/name@v1.0").revision, "v1.0");
    }

    #[test]
    fn data_by_path_and_by_name() {
        for path in [
            "chats.jsonl",
            "data/chats.jsonl",
            "data/chats.jsonl.gz",
            "./a/b",
            "a/b:",
            "a/b:x y",
            "a/b/../c",
            "a/b//c",
            "a",
        ] {
            assert_eq!(DataName::of(Path::new(path)), None, "{path}");
        }
        let data = |text: &str| {
            let name = DataName::of(Path::new(text)).unwrap_or_else(|| panic!("{text} is a name"));
            assert_eq!(name.repository.kind, Kind::Data);
            (name.repository.id, name.inside, name.revision, name.split)
        };
        let some = |text: &str| Some(text.to_owned());
        let id = || "org/name".to_owned();
        assert_eq!(data("org/name"), (id(), None, MAIN.into(), None));
        assert_eq!(data("org/name:test"), (id(), None, MAIN.into(), some("test")));
        assert_eq!(data("org/name/en:train"), (id(), some("en"), MAIN.into(), some("train")));
        assert_eq!(data("org/name/a/b.csv"), (id(), some("a/b.csv"), MAIN.into(), None));
        assert_eq!(
            data("org/name/en@feature/x:train_sft"),
            (id(), some("en"), "feature/x".into(), some("train_sft"))
        );
        assert_eq!(data("org/set.json:train").0, "org/set.json", "a name, as it has a split");
        let folder = Repository { kind: Kind::Data, id: id() };
        assert_eq!(folder.folder(), "datasets--org--name");
    }

    #[test]
    fn paths_of_servers_stay_inside() {
        for good in ["a", "data/train-00000-of-00001.parquet", "a b/ü.txt"] {
            assert!(is_inside(good), "{good}");
        }
        for wrong in ["", "/a", "a/", "../a", "a/../b", "./a", "a\\b", "c:a", "a//b", "a\nb", "a\0"]
        {
            assert!(!is_inside(wrong), "{wrong:?}");
        }
        assert!(is_commit(&"a0".repeat(20)) && !is_commit("main") && !is_commit(&"A0".repeat(20)));
    }
}
