//! The data of a run: what is named is fetched, and all of it is read.

use super::events::{Event, Observers};
use super::folder::ModelFolder;
use super::named::{self, NamedFiles};
use crate::data::{Cache, Dataset, Documents, EvalSet, Loader, common};
use crate::error::{Context, Result};
use crate::options::{FinetuneOptions, HeldOut};
use qft_hub::{Origin, Watch};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Training data and sets of held-out data, each something else on the way from names to sequences.
pub(super) struct RunData<T> {
    pub(super) train: T,
    pub(super) held_out: Vec<EvalSet<T>>,
}

impl RunData<NamedFiles> {
    /// The files that are there, or are fetched.
    pub(super) fn find(options: &FinetuneOptions, watch: &mut Watch<'_>) -> Result<Self> {
        let sets = match &options.files.held_out {
            HeldOut::Sets(sets) => sets.as_slice(),
            HeldOut::None | HeldOut::Split(_) => &[],
        };
        let mut held_out = Vec::new();
        for set in sets {
            held_out
                .push(EvalSet { name: set.name.clone(), data: named::data(&set.files, watch)? });
        }
        Ok(Self { train: named::data(&options.files.data, watch)?, held_out })
    }

    /// Where the held-out data came from, as far as it was named.
    pub(super) fn held_out_origins(&self) -> Vec<Origin> {
        self.held_out.iter().flat_map(|set| set.data.origins.clone()).collect()
    }

    /// Reads all of it for the model in `folder`, unless `stop` is set meanwhile.
    pub(super) fn read(
        &self,
        options: &FinetuneOptions,
        folder: &ModelFolder,
        seq_len: usize,
        stop: &AtomicBool,
        observers: &mut Observers<'_, '_>,
    ) -> Result<RunData<Dataset>> {
        let documents = {
            let observers = RefCell::new(&mut *observers);
            let told = |progress| {
                if stop.load(Ordering::Relaxed) {
                    return Err(qft_llama::Error::Stopped { what: "reading the data" }.into());
                }
                observers.borrow_mut().tell(Event::Reading(progress))
            };
            let cache = Cache::of(&options.cache)?;
            let loader = Loader {
                reader: folder.reader(&options.reading, seq_len),
                model_sha256: &folder.text_sha256()?,
                cache: cache.as_ref(),
                told: &told,
            };
            self.documents(&loader, &options.files.held_out)?
        };
        let (train, held_out) = (&documents.train, documents.held_out.as_slice());
        observers.tell(Event::DataRead { train, held_out })?;
        let dataset = |documents| Dataset::new(documents, seq_len, options.layout.pack);
        let held_out = documents.held_out.into_iter().map(|set| {
            let EvalSet { name, data } = set;
            let context = || ["held-out data", name.as_deref().unwrap_or_default()].join(" ");
            let data = dataset(data).with_context(|| context().trim_end().to_owned())?;
            Ok(EvalSet { name, data })
        });
        Ok(RunData { held_out: held_out.collect::<Result<_>>()?, train: dataset(documents.train)? })
    }

    fn documents(&self, loader: &Loader<'_>, source: &HeldOut) -> Result<RunData<Documents>> {
        let data = &self.train.paths;
        if let HeldOut::Split(fraction) = source {
            let (train, data) = loader.read_split(data, *fraction)?;
            return Ok(RunData { train, held_out: vec![EvalSet { name: None, data }] });
        }
        for set in &self.held_out {
            if let Some(path) = common(&set.data.paths, data)? {
                let path = path.display();
                tracing::warn!(
                    "--eval-data: {path} is trained on as well; its loss will say little of other data"
                );
            }
        }
        let train = loader.read(data)?;
        let read = |set: &EvalSet<NamedFiles>| {
            Ok(EvalSet { name: set.name.clone(), data: loader.read(&set.data.paths)? })
        };
        Ok(RunData { train, held_out: self.held_out.iter().map(read).collect::<Result<_>>()? })
    }
}
