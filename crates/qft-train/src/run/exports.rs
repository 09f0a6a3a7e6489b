//! The model as files: what a run saves, and what it and `qft export` write for other programs.

use super::card;
use super::events::{Event, Observers};
use super::finetune::{Run, State};
use super::folder::ModelFolder;
use crate::data::Documents;
use crate::error::{Context, ErrorKind, OfKind, Result};
use crate::options::{DataFormat, ExportFormat, FileOptions, ReadingOptions, RunExport};
use crate::step::rows::{self, WholeRows};
use qft_files::Disk;
use qft_llama::TensorSpec;
use qft_llama::export::{
    self, DEFAULT_SHARD_BYTES, Existing, FillCodes, FillRows, FolderExport, GgufExport,
    GgufWeights, Int8, SavedRounding, SavedWeights, WeightType,
};
use qft_tensor::Ledger;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A folder for other programs.
#[derive(Clone, Copy)]
pub struct Export<'a> {
    /// What it holds.
    pub format: ExportFormat,
    /// The folder.
    pub out: &'a Path,
    /// What the model is called, if not as the folder that it came from.
    pub name: Option<&'a str>,
    /// The folder that it came from.
    pub source: &'a ModelFolder,
    /// A chat template to write in place of the one there.
    pub template: Option<&'a str>,
    /// How weights are rounded to float types.
    pub rounding: SavedRounding,
    /// The card, where the format has one.
    pub card: Option<&'a str>,
    /// Codes and scales of linear layers, if the model has them as compressed-tensors does.
    pub codes: Option<&'a FillCodes<'a>>,
    /// What becomes of a folder that is there.
    pub existing: Existing,
}

impl Export<'_> {
    /// Looks whether it can be written. Changes nothing.
    ///
    /// Errors: what the format cannot hold; a folder that must stay as it is.
    pub fn check(&self) -> Result<(), qft_llama::Error> {
        match self.format {
            ExportFormat::Folder { dtype, int8 } => export::check_folder(&self.folder(dtype, int8)),
            ExportFormat::Gguf(weights) => export::check_gguf(&self.gguf(weights)),
        }
    }

    /// Writes it: [`export::export_folder_on`], [`export::export_gguf`].
    ///
    /// Errors: as there.
    pub fn write(
        &self,
        ledger: &Arc<Ledger>,
        fill: &mut FillRows<'_>,
    ) -> Result<(), qft_llama::Error> {
        let disk = &Disk::default();
        match self.format {
            ExportFormat::Folder { dtype, int8 } => {
                export::export_folder_on(disk, &self.folder(dtype, int8), ledger, fill)
            }
            ExportFormat::Gguf(weights) => {
                export::export_gguf(disk, &self.gguf(weights), ledger, fill)
            }
        }
    }

    fn folder(&self, dtype: WeightType, int8: bool) -> FolderExport<'_> {
        FolderExport {
            out: self.out,
            source: Some(&self.source.dir),
            template: self.template,
            config: &self.source.config,
            saved: SavedWeights { dtype, rounding: self.rounding },
            int8: int8.then_some(self.codes.map_or(Int8::Rounded, Int8::Stored)),
            max_shard_bytes: DEFAULT_SHARD_BYTES,
            ends: self.source.tokenizer.eos(),
            card: self.card,
            existing: self.existing,
        }
    }

    fn gguf(&self, weights: GgufWeights) -> GgufExport<'_> {
        GgufExport {
            name: self.name,
            out: self.out,
            source: &self.source.dir,
            config: &self.source.config,
            tokenizer: &self.source.tokenizer,
            template: self.template,
            weights,
            rounding: self.rounding,
            replace: self.existing == Existing::Replaced,
        }
    }
}

/// Looks whether a model from `source` can be written as all that was asked for.
///
/// Errors: what of it cannot, and why.
pub(super) fn check(files: &FileOptions, source: &ModelFolder) -> Result<()> {
    files.exports.iter().try_for_each(|choice| {
        let export = Export {
            format: choice.format,
            out: &files.out.join(choice.folder()),
            name: None,
            source,
            template: None,
            rounding: SavedRounding::Nearest,
            card: None,
            codes: None,
            existing: Existing::Replaced,
        };
        let context = || format!("--export {choice}: the model cannot be written so");
        export.check().with_context(context).of_kind(ErrorKind::Options)
    })
}

/// The chat template that programs are to use with what is trained on `data`; absent if it is the one that the model brings,
/// or if no data was written with any. Of several, it is the one for `messages`, with which the model will be talked to.
///
/// Errors: as [`Reader::template`](crate::data::Reader::template).
pub(super) fn template(
    reading: &ReadingOptions,
    model: &ModelFolder,
    data: &Documents,
) -> Result<Option<String>> {
    let used = data.templates();
    let template = match used {
        [] => return Ok(None),
        [one] => one,
        [first, ..] => {
            let reader = model.reader(reading, 0);
            let chat = reader.template(DataFormat::Messages)?;
            let chat =
                used.iter().find(|&used| chat.as_ref().is_some_and(|chat| chat.source() == used));
            tracing::warn!(
                "records of several formats are written with {} chat templates, and the saved model can have one: that for \
                 `messages`; give --template to write all with the same",
                used.len()
            );
            chat.unwrap_or(first)
        }
    };
    let own = model.tokenizer.chat_template() == Some(template);
    Ok((!own).then(|| template.clone()))
}

impl Run<'_> {
    /// Saves the model, and writes what else it is to be written as.
    pub(super) fn export(&self, state: &State, observers: &mut Observers<'_, '_>) -> Result<()> {
        let model = &state.trainer.model;
        if !self.job.leads() {
            return rows::serve(&*self.ops, model);
        }
        let mut rows = WholeRows::of(&*self.ops, model);
        let written = self.write(state, &mut rows, observers);
        // The others wait, whatever is wrong here.
        let finished = rows.finish();
        written.and(finished)
    }

    fn write(
        &self,
        state: &State,
        rows: &mut WholeRows<'_>,
        observers: &mut Observers<'_, '_>,
    ) -> Result<()> {
        let (ops, files) = (&*self.ops, &self.options.files);
        let (out, model) = (files.out.as_path(), &state.trainer.model);
        let fill: &mut FillRows<'_> = &mut |spec, range, values| {
            self.check_saving()?;
            rows.read(spec, range, values)
        };
        let stored = export::codes_of(model, ops);
        let codes = stored.as_ref().map(|stored| {
            move |spec: &TensorSpec, rows: Range<usize>, codes: &mut [i8], scales: &mut [f32]| {
                self.check_saving()?;
                stored(spec, rows, codes, scales)
            }
        });
        let card = card::of_run(&self.folder.dir, &state.recipe.to_json()?, &self.summary(state));
        let saved = Export {
            format: ExportFormat::Folder { dtype: files.export_dtype, int8: false },
            out,
            name: out.file_name().and_then(|name| name.to_str()),
            source: &self.folder,
            template: self.template.as_deref(),
            // To nearest, an update of less than half of what bf16 can tell apart would be lost.
            rounding: SavedRounding::Stochastic { seed: self.options.training.seed },
            card: Some(&card),
            codes: codes.as_ref().map(|codes| codes as &FillCodes<'_>),
            existing: Existing::Joined,
        };
        // What steps were served from is free for what exports take.
        ops.reserve(0)?;
        saved.write(ops.ledger(), fill).with_context(|| {
            format!("cannot save the model to {}; checkpoints are untouched", out.display())
        })?;
        observers.tell(Event::Exported(out))?;
        for choice in &files.exports {
            let dir = out.join(choice.folder());
            let format = choice.format;
            ops.trim();
            let export = Export { format, out: &dir, existing: Existing::Replaced, ..saved };
            export.write(ops.ledger(), fill).with_context(|| {
                format!(
                    "the model was saved to {}, but cannot be written as {choice}",
                    out.display()
                )
            })?;
            observers.tell(Event::ExportedAs(&dir))?;
        }
        self.tell_of_others();
        Ok(())
    }

    /// Warns of what an earlier run wrote here, and this one does not.
    fn tell_of_others(&self) {
        let files = &self.options.files;
        for other in RunExport::all().filter(|choice| !files.exports.contains(choice)) {
            let dir = files.out.join(other.folder());
            if dir.exists() {
                tracing::warn!(
                    "{} stays as an earlier run wrote it; --export {other} writes it anew",
                    dir.display()
                );
            }
        }
    }

    /// Ends saving where it stands, if that was asked for.
    fn check_saving(&self) -> Result<(), qft_llama::Error> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(qft_llama::Error::Stopped { what: "saving the model" }),
            false => Ok(()),
        }
    }
}
