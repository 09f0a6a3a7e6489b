//! What is given by name: the one place where names of the hub become folders and files.

use crate::error::{Context, ErrorKind, OfKind, Result};
use qft_hub::{DataName, Hub, ModelName, Need, Origin, Watch};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Data files, those among them that were named in the hub, and where these came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NamedFiles {
    /// All that was given, each name as the files that it stands for.
    pub paths: Vec<PathBuf>,
    /// Where the files came from that were named.
    pub origins: Vec<Origin>,
}

/// Where a run's model and data came from, as far as they were named in the hub: what the same files can be had by again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Origins {
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Origin>,
    /// Training data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Origin>,
    /// Held-out data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub eval_data: Vec<Origin>,
}

impl Origins {
    /// Whether nothing was named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What was named as `option`, in the order in which it was given.
    pub(super) fn of(&self, option: &str) -> Vec<&Origin> {
        match option {
            "model" => self.model.iter().collect(),
            "data" => self.data.iter().collect(),
            "eval-data" => self.eval_data.iter().collect(),
            _ => Vec::new(),
        }
    }
}

/// The folder of a model, and where it came from if it was named; what is missing of it is fetched.
///
/// Errors: those of [`Hub::model`]. That there is no such folder is found out by who reads it.
pub fn model(
    name: &ModelName,
    need: Need,
    watch: &mut Watch<'_>,
) -> Result<(PathBuf, Option<Origin>)> {
    let Some(repository) = name.in_hub() else { return Ok((name.as_path().to_path_buf(), None)) };
    let mut find = || -> Result<_> { Ok(Hub::from_env()?.model(&repository, need, watch)?) };
    let context = || format!("--model: there is no folder {name}, and as a name in the hub");
    let found = find().with_context(context).of_kind(ErrorKind::Model)?;
    Ok((found.dir, Some(found.origin)))
}

/// Data, each name as the files that it stands for, which are fetched if they are not there; how often data is taken stays
/// with its files.
///
/// Errors: those of [`Hub::data`]. What is wrong with paths is found out by who reads them.
pub fn data(given: &[PathBuf], watch: &mut Watch<'_>) -> Result<NamedFiles> {
    let mut files = NamedFiles::default();
    for given in given {
        let Some((name, times)) = in_hub(given) else {
            files.paths.push(given.clone());
            continue;
        };
        let mut find = || -> Result<_> { Ok(Hub::from_env()?.data(&name, watch)?) };
        let context =
            || format!("--data: there is no {}, and as a name in the hub", given.display());
        let found = find().with_context(context).of_kind(ErrorKind::Data)?;
        files.paths.extend(found.files.into_iter().map(|path| {
            let mut text = path.into_os_string();
            text.push(times);
            PathBuf::from(text)
        }));
        files.origins.push(found.origin);
    }
    Ok(files)
}

/// What data is named in the hub, and `=2` or nothing behind it.
fn in_hub(given: &Path) -> Option<(DataName, &str)> {
    let plain = DataName::of(given).map(|name| (name, ""));
    plain.or_else(|| {
        let text = given.to_str().filter(|_| !given.exists())?;
        let times = &text[text.rfind('=')?..];
        let name = DataName::of(Path::new(text.strip_suffix(times)?))?;
        times[1..].parse::<f64>().is_ok().then_some((name, times))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_keep_how_often_they_are_taken() {
        let found = |text: &str| {
            in_hub(Path::new(text)).map(|(name, times)| (name.split, times.to_owned()))
        };
        assert_eq!(found("org/name:test"), Some((Some("test".into()), String::new())));
        assert_eq!(found("org/name=2"), Some((None, "=2".into())));
        assert_eq!(found("org/name:test=0.5"), Some((Some("test".into()), "=0.5".into())));
        for path in ["chats.jsonl=2", "data/chats.jsonl", "org/name=x", "./org/name", "a=b"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn paths_stay_as_they_are() {
        let given = [PathBuf::from("a.txt"), "b/*.json=2".into()];
        let files = data(&given, &mut |_| ()).unwrap();
        assert_eq!(files, NamedFiles { paths: given.to_vec(), origins: Vec::new() });
        let (dir, origin) = model(&"./org/name".into(), Need::All, &mut |_| ()).unwrap();
        assert_eq!((dir, origin), (PathBuf::from("./org/name"), None));
    }
}
