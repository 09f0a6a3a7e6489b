//! A server, a cache and a hub for each test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses its part")]

use qft_hub::{
    DataFiles, DataName, Error, Hub, ModelName, ModelRepository, Need, Notice, Retries, Settings,
    Snapshot, Token,
};
use qft_testing::hub_server::HubServer;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Weights that take some blocks of reading.
pub(crate) static WEIGHTS: [u8; 300_000] = weights();

/// A model's repository, by name.
pub(crate) const MODEL: [(&str, &[u8]); 7] = [
    ("LICENSE", b"free"),
    ("config.json", b"{}"),
    ("model.safetensors", &WEIGHTS),
    ("onnx/model.safetensors", b"another"),
    ("pytorch_model.bin", b"pickled"),
    ("tokenizer.json", b"{\"version\": \"1.0\"}"),
    ("tokenizer_config.json", b"{\"a\": 1}"),
];

const fn weights() -> [u8; 300_000] {
    let (mut bytes, mut i) = ([0; 300_000], 0);
    while i < bytes.len() {
        bytes[i] = (i * 7 % 251) as u8;
        i += 1;
    }
    bytes
}

/// A server and a cache of one test.
pub(crate) struct Bench {
    pub(crate) server: HubServer,
    temp: tempfile::TempDir,
    notices: Mutex<Vec<String>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { server: HubServer::start(), temp, notices: Mutex::default() }
    }

    pub(crate) fn serve_model(&self) -> String {
        self.server.commit("models/org/name", 'a', &MODEL)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.temp.path().join("hub")
    }

    /// Quick tries, since nothing here takes long.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            endpoint: self.server.endpoint(),
            token: None,
            cache: self.cache(),
            offline: false,
            certificates: None,
            retries: Retries {
                attempts: 3,
                pause: Duration::from_millis(10),
                longest: Duration::from_millis(100),
                silence: Duration::from_secs(3),
            },
        }
    }

    pub(crate) fn settings_with_token(&self, token: &str) -> Settings {
        Settings { token: Token::new(token).unwrap(), ..self.settings() }
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.settings()).unwrap()
    }

    pub(crate) fn offline(&self) -> Hub {
        Hub::new(Settings { offline: true, ..self.settings() }).unwrap()
    }

    pub(crate) fn model(&self, name: &str) -> Result<Snapshot, Error> {
        self.model_with(self.settings(), name)
    }

    pub(crate) fn model_with(&self, settings: Settings, name: &str) -> Result<Snapshot, Error> {
        let hub = Hub::new(settings).unwrap();
        hub.model(&model_name(name), Need::All, &mut |notice| self.note(notice))
    }

    pub(crate) fn data(&self, hub: &Hub, name: &str) -> Result<DataFiles, Error> {
        let name = DataName::of(Path::new(name)).unwrap_or_else(|| panic!("{name} is a name"));
        hub.data(&name, &mut |notice| self.note(notice))
    }

    /// What was told until now, in words.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something was told that has these words.
    pub(crate) fn said(&self, words: &str) -> bool {
        self.notices().iter().any(|notice| notice.contains(words))
    }

    fn note(&self, notice: &Notice<'_>) {
        let text = match notice {
            Notice::CacheOnly { why, .. } => format!("cache only: {why}"),
            Notice::Moved { from, to, .. } => format!("moved from {from} to {to}"),
            Notice::Again { what, why, .. } => format!("again: {what}: {why}"),
            Notice::Damaged { file, why } => format!("damaged: {}: {why}", file.display()),
            other => format!("{other:?}"),
        };
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// The files below a folder, sorted, with `/` between the parts of their names.
    pub(crate) fn files(&self, dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        add(dir, dir, &mut found);
        found.sort();
        found
    }

    /// Whether a file of this name stands in any snapshot of the model.
    pub(crate) fn has(&self, name: &str) -> bool {
        let snapshots = self.cache().join("models--org--name/snapshots");
        self.files(&snapshots).iter().any(|path| path.ends_with(&format!("/{name}")))
    }

    /// Blobs that are not whole.
    pub(crate) fn incomplete_files(&self) -> Vec<PathBuf> {
        let root = self.cache();
        let all = self.files(&root).into_iter();
        all.filter(|path| path.ends_with(".incomplete")).map(|path| root.join(path)).collect()
    }

    pub(crate) fn incomplete(&self) -> usize {
        self.incomplete_files().len()
    }
}

pub(crate) fn model_name(name: &str) -> ModelRepository {
    ModelName::from(name).in_hub().unwrap_or_else(|| panic!("{name} is a name"))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hash = qft_files::Sha256::new();
    hash.update(bytes);
    hash.hex()
}

fn add(root: &Path, dir: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap();
            found.push(name.to_str().unwrap().replace('\\', "/"));
        }
    }
}
