//! From a name to its files: what the server says, what the cache has, and what is fetched.

use crate::cache::RepositoryCache;
use crate::choose::{CONFIG, INDEX, SINGLE, TOKENIZER, found_instead, small_files};
use crate::client::{Asked, Client};
use crate::error::Error;
use crate::fetch::Fetcher;
use crate::listing::{FileFacts, Listing};
use crate::name::{DataName, Kind, ModelRepository, Repository};
use crate::notice::{Notice, Watch};
use crate::patience::with_patience;
use crate::settings::{Retries, Settings};
use crate::splits::choose;
use qft_files::safetensors::read_index;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What stands in an error where the variables of the environment forbid to ask a server.
const OFFLINE: &str = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE keeps everything offline";

/// Where models and data sets come from.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

/// What is needed of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its configuration alone.
    Config,
    /// What turns text into tokens: configuration, tokenizer, chat template; licences as well.
    Text,
    /// Everything: configuration, tokenizer, chat template, licences, weights.
    All,
}

/// Where files came from, so that the same can be had again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Origin {
    /// A model or a data set.
    pub kind: Kind,
    /// `org/name`.
    pub repository: String,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it was at.
    pub commit: String,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its folder.
    pub dir: PathBuf,
    /// Where it came from.
    pub origin: Origin,
}

/// Data files in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFiles {
    /// The files, in the order of their names in the repository.
    pub files: Vec<PathBuf>,
    /// Where they came from.
    pub origin: Origin,
}

/// What is known of a repository before files are fetched.
enum Known {
    /// What the server says now.
    Listed(Listing),
    /// The server cannot be asked; the commit that the cache has.
    Cached(String),
}

/// A repository at a revision, and its place in the cache.
struct Place<'a> {
    repository: &'a Repository,
    revision: &'a str,
    cache: RepositoryCache,
}

impl Hub {
    /// Errors: [`Error::Certificates`].
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let client = Client::new(&settings)?;
        Ok(Self { settings, client })
    }

    /// As the environment of this process has it.
    ///
    /// Errors: those of [`Settings::from_env`] and [`Hub::new`].
    pub fn from_env() -> Result<Self, Error> {
        Self::new(Settings::from_env()?)
    }

    /// The folder of a model: its files are fetched if the cache lacks them.
    ///
    /// A branch or tag is asked for each time, so that one that has moved is noticed; if the server cannot be reached and
    /// the cache has all that is needed, that is used and [`Notice::CacheOnly`] says so.
    ///
    /// Errors: anything wrong with the name, the server, what it sends, the network or the disk. What has come of a file
    /// stays, under a name that is not its own, and is gone on with the next time.
    pub fn model(
        &self,
        name: &ModelRepository,
        need: Need,
        watch: &mut Watch<'_>,
    ) -> Result<Snapshot, Error> {
        let place = self.place(&name.repository, &name.revision);
        let missing = |commit: &str| missing(&place.cache.snapshot(commit), need);
        let commit = match self.known(&place, watch, &|commit| missing(commit).is_empty())? {
            Known::Cached(commit) => match missing(&commit).as_slice() {
                [] => commit,
                files => {
                    let why = format!("commit {commit} is there without {}", files.join(", "));
                    return Err(self.not_cached(&place, why));
                }
            },
            Known::Listed(listing) => {
                check_model(&place, &listing, need)?;
                self.bring_model(&place, &listing, need, watch)?;
                place.cache.set_commit(place.revision, &listing.commit)?;
                listing.commit
            }
        };
        Ok(Snapshot { dir: place.cache.snapshot(&commit), origin: place.origin(commit) })
    }

    /// The files of data: fetched if the cache lacks them, as [`Hub::model`] does it.
    ///
    /// Errors: those of [`Hub::model`]; [`Error::NoData`] if it is not clear which files are meant, or there are none.
    pub fn data(&self, name: &DataName, watch: &mut Watch<'_>) -> Result<DataFiles, Error> {
        let place = self.place(&name.repository, &name.revision);
        let chosen = |listing: &Listing| -> Result<Vec<String>, Error> {
            let chosen = choose(&listing.paths(), name.inside.as_deref(), name.split.as_deref());
            let owned = |paths: Vec<&str>| paths.into_iter().map(str::to_owned).collect();
            let named = |problem| Error::NoData { name: place.repository.to_string(), problem };
            chosen.map(owned).map_err(named)
        };
        let is_there = |commit: &str| {
            let listing = place.cached(commit);
            chosen(&listing).is_ok_and(|files| place.lacks(commit, &files).is_empty())
        };
        let (commit, files) = match self.known(&place, watch, &is_there)? {
            Known::Cached(commit) => {
                let files = chosen(&place.cached(&commit))?;
                let lacks = place.lacks(&commit, &files);
                if !lacks.is_empty() {
                    let why = format!("commit {commit} is there without {}", lacks.join(", "));
                    return Err(self.not_cached(&place, why));
                }
                (commit, files)
            }
            Known::Listed(listing) => {
                let files = chosen(&listing)?;
                let paths: Vec<_> = files.iter().map(String::as_str).collect();
                self.bring(&place, &listing, &paths, watch)?;
                place.cache.remember(&listing)?;
                place.cache.set_commit(place.revision, &listing.commit)?;
                (listing.commit, files)
            }
        };
        let dir = place.cache.snapshot(&commit);
        let files = files.iter().map(|path| dir.join(path)).collect();
        Ok(DataFiles { files, origin: place.origin(commit) })
    }

    fn place<'a>(&self, repository: &'a Repository, revision: &'a str) -> Place<'a> {
        let cache = RepositoryCache::new(&self.settings.cache, repository);
        Place { repository, revision, cache }
    }

    /// Asks the server what the repository has, unless it must not be asked or cannot be; then the cache, as far as
    /// `is_enough` says that a commit will do.
    fn known(
        &self,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
        is_enough: &dyn Fn(&str) -> bool,
    ) -> Result<Known, Error> {
        let cached = place.cache.commit_of(place.revision);
        if self.settings.offline {
            let why = || self.not_cached(place, "nothing of it is there".into());
            return cached.map(Known::Cached).ok_or_else(why);
        }
        let usable = cached.as_deref().filter(|commit| is_enough(commit));
        let mut retries = self.settings.retries;
        if usable.is_some() {
            // There is something to go on with: no long wait for a server that is not there.
            retries = Retries { attempts: retries.attempts.min(2), ..retries };
        }
        let listing = match self.listing(place, retries, watch) {
            Ok(listing) => listing,
            Err(error) if error.is_absence() => match usable {
                Some(commit) => {
                    let repository = place.repository.to_string();
                    let why = error.to_string();
                    let notice = Notice::CacheOnly { repository: &repository, commit, why: &why };
                    watch(&notice);
                    return Ok(Known::Cached(commit.to_owned()));
                }
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if let Some(from) = cached.filter(|from| *from != listing.commit) {
            let repository = place.repository.to_string();
            watch(&Notice::Moved {
                repository: &repository,
                revision: place.revision,
                from: &from,
                to: &listing.commit,
            });
        }
        Ok(Known::Listed(listing))
    }

    fn listing(
        &self,
        place: &Place<'_>,
        retries: Retries,
        watch: &mut Watch<'_>,
    ) -> Result<Listing, Error> {
        let what = "the description";
        let asked = Asked { repository: place.repository, revision: place.revision, what };
        let url = self.client.description(place.repository, place.revision);
        let ask = || self.client.get(&url, 0, &asked)?.into_bytes();
        let answer = with_patience(&self.client, &asked, retries, watch, ask)?;
        Listing::from_answer(&answer).map_err(|problem| self.client.wrong(&asked, problem))
    }

    /// Fetches what is needed of a model. The index comes first, as it names the weights.
    fn bring_model(
        &self,
        place: &Place<'_>,
        listing: &Listing,
        need: Need,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        if need == Need::Config {
            return self.bring(place, listing, &[CONFIG], watch);
        }
        let mut paths = small_files(listing);
        if need == Need::Text {
            return self.bring(place, listing, &paths, watch);
        }
        if listing.files.contains_key(SINGLE) {
            paths.push(SINGLE);
            return self.bring(place, listing, &paths, watch);
        }
        self.bring(place, listing, &[INDEX], watch)?;
        let shards = shards(&place.cache.snapshot(&listing.commit))?;
        if let Some(absent) = shards.iter().find(|shard| !listing.files.contains_key(*shard)) {
            return Err(Error::NoModel {
                repository: place.repository.to_string(),
                missing: "file for each name in its index of weights",
                found: format!("no {absent}"),
                remedy: "ask its owner, or give another revision",
            });
        }
        paths.push(INDEX);
        paths.extend(shards.iter().map(String::as_str));
        self.bring(place, listing, &paths, watch)
    }

    /// Fetches those of `paths` that the snapshot lacks.
    fn bring(
        &self,
        place: &Place<'_>,
        listing: &Listing,
        paths: &[&str],
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let mut fetcher = Fetcher {
            client: &self.client,
            retries: self.settings.retries,
            cache: &place.cache,
            repository: place.repository,
            revision: place.revision,
            commit: &listing.commit,
            watch,
            done: 0,
            bytes: None,
        };
        let nothing = FileFacts::default();
        let mut absent = Vec::new();
        for path in paths {
            let facts = listing.files.get(*path).unwrap_or(&nothing);
            if !fetcher.has(path, facts)? {
                absent.push((*path, facts));
            }
        }
        if absent.is_empty() {
            return Ok(());
        }
        fetcher.bytes = absent.iter().map(|(_, facts)| facts.size).sum();
        let (repository, bytes) = (place.repository.to_string(), fetcher.bytes);
        let (files, commit) = (absent.len(), listing.commit.as_str());
        (fetcher.watch)(&Notice::Begins { repository: &repository, commit, files, bytes });
        for (path, facts) in absent {
            fetcher.fetch(path, facts)?;
        }
        (fetcher.watch)(&Notice::Ends);
        Ok(())
    }

    fn not_cached(&self, place: &Place<'_>, why: String) -> Error {
        Error::NotCached {
            repository: place.repository.to_string(),
            revision: place.revision.into(),
            cache: self.settings.cache.clone(),
            why,
            offline: OFFLINE.into(),
        }
    }
}

impl Place<'_> {
    fn origin(&self, commit: String) -> Origin {
        Origin {
            kind: self.repository.kind,
            repository: self.repository.id.clone(),
            revision: self.revision.into(),
            commit,
        }
    }

    /// The files of a commit as far as the cache knows: all of them if it remembers, else those that are there.
    fn cached(&self, commit: &str) -> Listing {
        self.cache.listing(commit).unwrap_or_else(|| {
            let mut files = BTreeMap::new();
            let root = self.cache.snapshot(commit);
            add_files(&root, "", &mut files);
            Listing { commit: commit.into(), files }
        })
    }

    /// Those of `files` that the snapshot lacks.
    fn lacks(&self, commit: &str, files: &[String]) -> Vec<String> {
        let dir = self.cache.snapshot(commit);
        files.iter().filter(|path| !dir.join(path).is_file()).cloned().collect()
    }
}

/// Adds the files below `dir`, with `before` in front of their names.
fn add_files(dir: &Path, before: &str, files: &mut BTreeMap<String, FileFacts>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().map(|name| format!("{before}{name}")) else { continue };
        // A folder is none that a link makes one: it could lead in a circle.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_files(&path, &format!("{name}/"), files);
        } else if path.is_file() {
            files.insert(name, FileFacts::default());
        }
    }
}

/// The names of the shards that the index in `dir` names.
fn shards(dir: &Path) -> Result<BTreeSet<String>, Error> {
    let index = read_index(&dir.join(INDEX), "fetch the file again")?;
    Ok(index.into_values().collect())
}

/// What a folder of the cache lacks of a model.
fn missing(dir: &Path, need: Need) -> Vec<String> {
    let mut wanted = vec![CONFIG.to_owned()];
    if need != Need::Config {
        wanted.push(TOKENIZER.into());
    }
    if need == Need::All {
        match shards(dir) {
            Ok(shards) if !dir.join(SINGLE).is_file() => wanted.extend(shards),
            _ => wanted.push(SINGLE.into()),
        }
    }
    wanted.into_iter().filter(|name| !dir.join(name).is_file()).collect()
}

/// Whether a repository has what is needed, before anything is fetched.
fn check_model(place: &Place<'_>, listing: &Listing, need: Need) -> Result<(), Error> {
    let has = |name: &str| listing.files.contains_key(name);
    let lacks = |missing: &'static str, remedy: &'static str| {
        let (repository, found) = (place.repository.to_string(), found_instead(listing));
        Err(Error::NoModel { repository, missing, found, remedy })
    };
    if !has(CONFIG) {
        let remedy = "give the repository of the whole model in the Hugging Face format, of which this may be a \
                      quantized copy, an adapter or a part";
        return lacks("config.json", remedy);
    }
    if need == Need::All && !has(SINGLE) && !has(INDEX) {
        let remedy = "look for a revision or a copy of it in safetensors, or convert it: \
                      AutoModelForCausalLM.from_pretrained(NAME).save_pretrained(FOLDER) in transformers, then give \
                      the folder";
        return lacks("model.safetensors", remedy);
    }
    Ok(())
}
