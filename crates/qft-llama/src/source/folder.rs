//! What a path is that is no model's folder: named for what it is, with the way from there to one that is.

use crate::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The names in a folder.
struct Names(Vec<String>);

impl Names {
    /// Sorted; none if the folder cannot be read, which reading its files will report.
    fn of(dir: &Path) -> Option<Self> {
        let entries = std::fs::read_dir(dir).ok()?;
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.filter_map(Result::ok).map(name).collect();
        names.sort_unstable();
        Some(Self(names))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|found| found == name)
    }

    fn any(&self, start: &str, end: &str) -> bool {
        self.0.iter().any(|name| name.starts_with(start) && name.ends_with(end))
    }
}

/// A kind of folder, told by the names in it.
struct Kind {
    is: fn(&Names) -> bool,
    what: &'static str,
    remedy: &'static str,
}

/// Folders that hold something beside a model which would be ignored.
const ADAPTER: Kind = Kind {
    is: |names| names.has("adapter_config.json"),
    what: "a folder with an adapter (adapter_config.json), such as PEFT writes",
    remedy: "merge the adapter into its base model, as with merge_and_unload of peft, and give the folder of the result",
};

/// Folders with weights in another format, the most telling first.
const OTHER_WEIGHTS: [Kind; 5] = [
    Kind {
        is: |names| names.has("params.json") && names.any("consolidated.", ".pth"),
        what: "a checkpoint in Meta's original format (params.json and consolidated.*.pth)",
        remedy: "fetch the Hugging Face version of the model, or convert it with convert_llama_weights_to_hf.py of transformers",
    },
    Kind {
        is: |names| names.any("consolidated", ".safetensors"),
        what: "a checkpoint in Mistral's own format (consolidated.safetensors)",
        remedy: "fetch the files of the Hugging Face format too: config.json, model*.safetensors and tokenizer.json",
    },
    Kind {
        is: |names| names.any("pytorch_model", ".bin"),
        what: "a folder with weights in pytorch_model.bin only, a format that can run code when it is read",
        remedy: "convert it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) in transformers",
    },
    Kind {
        is: |names| names.any("", ".gguf"),
        what: "a folder with weights in GGUF files only",
        remedy: "give the folder that they were made from, with the weights in safetensors files",
    },
    Kind {
        is: |names| names.any("model.", ".safetensors"),
        what: "a folder with the weights of a variant only, such as model.fp16.safetensors",
        remedy: "rename the file to model.safetensors, or fetch the model without a variant",
    },
];

/// What Git puts in the place of a large file that was not fetched.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// No pointer is longer.
const POINTER_BYTES: u64 = 1024;

/// Refuses a path with no configuration to read, or with something that reading it would ignore.
///
/// Errors: [`Error::Folder`].
pub(crate) fn refuse_other_kinds(path: &Path) -> Result<(), Error> {
    if path.is_file() {
        return Err(a_file(path));
    }
    let Some(names) = Names::of(path) else { return Ok(()) };
    if names.0.is_empty() {
        let remedy = "fetch a model into it, as with `hf download ORG/NAME --local-dir FOLDER`";
        return Err(other(path, "an empty folder", remedy));
    }
    let has_config = names.has("config.json");
    if !has_config && names.has("snapshots") {
        return Err(hub_cache(path));
    }
    let kinds = std::iter::once(&ADAPTER).chain(OTHER_WEIGHTS.iter().filter(|_| !has_config));
    if let Some(kind) = kinds.into_iter().find(|kind| (kind.is)(&names)) {
        return Err(other(path, kind.what, kind.remedy));
    }
    refuse_pointer(&path.join("config.json"))
}

/// Refuses a folder without the safetensors files of a model, if it has weights of another kind.
///
/// Errors: [`Error::Folder`].
pub(crate) fn refuse_other_weights(dir: &Path) -> Result<(), Error> {
    let Some(names) = Names::of(dir) else { return Ok(()) };
    let own = names.has("model.safetensors") || names.has("model.safetensors.index.json");
    let kinds = OTHER_WEIGHTS.iter().filter(|_| !own);
    if let Some(kind) = kinds.into_iter().find(|kind| (kind.is)(&names)) {
        return Err(other(dir, kind.what, kind.remedy));
    }
    let mut files = names.0.iter().filter(|name| name.ends_with(".safetensors"));
    files.try_for_each(|name| refuse_pointer(&dir.join(name)))
}

/// Refuses a file that stands for one that Git has not fetched.
fn refuse_pointer(path: &Path) -> Result<(), Error> {
    let small = path.metadata().is_ok_and(|data| data.is_file() && data.len() <= POINTER_BYTES);
    if small && begins_with(path, POINTER) {
        let remedy =
            "fetch what it stands for with `git lfs pull`, or the model with `hf download`";
        return Err(other(path, "a Git LFS pointer, not the file itself", remedy));
    }
    Ok(())
}

fn begins_with(path: &Path, start: &[u8]) -> bool {
    let mut bytes = vec![0; start.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).is_ok() && bytes == start
}

fn a_file(path: &Path) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".gguf") || begins_with(path, b"GGUF") {
        let remedy = "give the folder that it was made from, with the weights in safetensors files";
        return other(path, "a GGUF file", remedy);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    other(path, "a file", &format!("give the model's folder: {}", parent.display()))
}

/// A model in the cache of the Hugging Face hub: the folder of a snapshot is meant.
fn hub_cache(path: &Path) -> Error {
    let what = "a model's root in the hub's cache";
    let snapshots = path.join("snapshots");
    let names = Names::of(&snapshots).map_or_else(Vec::new, |names| names.0);
    let main = std::fs::read_to_string(path.join("refs/main")).unwrap_or_default();
    let chosen = match names.as_slice() {
        [] => return other(path, what, "it has no snapshot; fetch the model with `hf download`"),
        [one] => Some(one),
        many => many.iter().find(|name| *name == main.trim()),
    };
    match chosen {
        Some(name) => {
            other(path, what, &format!("give its snapshot: {}", snapshots.join(name).display()))
        }
        None => {
            let remedy = format!(
                "give one of its snapshots: {} with {}",
                snapshots.display(),
                names.join(" or ")
            );
            other(path, what, &remedy)
        }
    }
}

fn other(path: &Path, what: &str, remedy: &str) -> Error {
    Error::Folder { path: path.to_path_buf(), what: what.into(), remedy: remedy.into() }
}
