//! The files of a repository at a commit: as the server says, and as the cache remembers it.

use crate::hash::Hash;
use crate::name::{is_commit, is_inside};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The layout of a remembered listing, which is that of `huggingface_hub`.
const FORMAT_VERSION: u32 = 1;

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listing {
    /// The commit, 40 hexadecimal digits.
    pub(crate) commit: String,
    /// Its files, by path.
    pub(crate) files: BTreeMap<String, FileFacts>,
}

/// What is known of a file before it is fetched.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct FileFacts {
    pub(crate) size: Option<u64>,
    pub(crate) hash: Option<Hash>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// A listing as `trees/COMMIT.json` holds it.
#[derive(Serialize, Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, TreeFile>,
}

#[derive(Serialize, Deserialize)]
struct TreeFile {
    size: u64,
    blob_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lfs_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lfs_size: Option<u64>,
}

impl Listing {
    /// From what the server answers to a question about a repository.
    ///
    /// Errors: it is no such answer, or names a file that would be written elsewhere; in words that follow "with".
    pub(crate) fn from_answer(text: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(text)
            .map_err(|error| format!("what is no description of a repository ({error})"))?;
        if !is_commit(&answer.sha) {
            return Err("a commit that is none".into());
        }
        let mut files = BTreeMap::new();
        for Sibling { rfilename, size, blob_id, lfs } in answer.siblings {
            if !is_inside(&rfilename) {
                return Err(format!("a file name that leads elsewhere ({rfilename:?})"));
            }
            let (size, hash) = match lfs {
                Some(Lfs { sha256, size: stored }) => (stored.or(size), sha256),
                None => (size, blob_id),
            };
            let hash = hash.as_deref().and_then(Hash::from_etag);
            files.insert(rfilename, FileFacts { size, hash });
        }
        Ok(Self { commit: answer.sha, files })
    }

    /// From what the cache remembers of `commit`; none if it cannot be read.
    pub(crate) fn from_tree(commit: &str, text: &[u8]) -> Option<Self> {
        let tree: Tree = serde_json::from_slice(text).ok()?;
        let sane =
            tree.format_version == FORMAT_VERSION && tree.files.keys().all(|name| is_inside(name));
        let facts = |file: TreeFile| FileFacts {
            size: Some(file.lfs_size.unwrap_or(file.size)),
            hash: Hash::from_etag(file.lfs_sha256.as_deref().unwrap_or(&file.blob_id)),
        };
        sane.then(|| Self {
            commit: commit.into(),
            files: tree.files.into_iter().map(|(name, file)| (name, facts(file))).collect(),
        })
    }

    /// As the cache remembers it; none where sizes or hashes are not known.
    pub(crate) fn to_tree(&self) -> Option<String> {
        let file = |facts: &FileFacts| -> Option<TreeFile> {
            let size = facts.size?;
            let (blob_id, lfs) = match facts.hash.as_ref()? {
                Hash::Sha256(name) => (name.clone(), Some(name.clone())),
                Hash::Git(name) => (name.clone(), None),
                Hash::Opaque(_) => return None,
            };
            let lfs_size = lfs.is_some().then_some(size);
            Some(TreeFile { size, blob_id, lfs_sha256: lfs, lfs_size })
        };
        let files: Option<BTreeMap<_, _>> =
            self.files.iter().map(|(name, facts)| Some((name.clone(), file(facts)?))).collect();
        serde_json::to_string_pretty(&Tree { format_version: FORMAT_VERSION, files: files? }).ok()
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_suspicion() {
        let (commit, git, sha) = ("c0".repeat(20), "b1".repeat(20), "a2".repeat(32));
        let text = format!(
            "{{\"sha\": \"{commit}\", \"gated\": false, \"siblings\": [
                {{\"rfilename\": \"config.json\", \"size\": 5, \"blobId\": \"{git}\"}},
                {{\"rfilename\": \"m.safetensors\", \"size\": 9, \"blobId\": \"{git}\",
                  \"lfs\": {{\"sha256\": \"{sha}\", \"size\": 9, \"pointerSize\": 130}}}},
                {{\"rfilename\": \"bare\"}}]}}"
        );
        let listing = Listing::from_answer(text.as_bytes()).unwrap();
        assert_eq!(listing.commit, commit);
        let facts = |size, hash| FileFacts { size: Some(size), hash: Some(hash) };
        assert_eq!(listing.files["config.json"], facts(5, Hash::Git(git)));
        assert_eq!(listing.files["m.safetensors"], facts(9, Hash::Sha256(sha)));
        assert_eq!(listing.files["bare"], FileFacts::default());
        assert_eq!(listing.to_tree(), None);

        let mut whole = listing;
        whole.files.remove("bare");
        let tree = whole.to_tree().unwrap();
        assert_eq!(Listing::from_tree(&commit, tree.as_bytes()), Some(whole));
        assert_eq!(Listing::from_tree(&commit, b"{}"), None);

        for (wrong, told) in [
            ("<html>", "no description"),
            ("{\"sha\": \"main\"}", "commit"),
            (
                &format!("{{\"sha\": \"{commit}\", \"siblings\": [{{\"rfilename\": \"../x\"}}]}}"),
                "elsewhere",
            ),
        ] {
            let error = Listing::from_answer(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
