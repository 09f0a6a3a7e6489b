//! `qft export`: a model as files that other programs serve.

use crate::error::{Context, Result};
use crate::memory::gb;
use crate::options::ExportOptions;
use crate::report::{Fetching, write};
use crate::run::exports::Export;
use crate::run::{ModelFolder, card};
use qft_hub::Need;
use qft_llama::export::{CARD, Existing, SavedRounding};
use qft_llama::{WeightSource, Weights};
use std::sync::Arc;

/// Runs the command; if `quiet`, without progress.
///
/// Errors: anything wrong with the model or the output folder; nothing is left half-written.
pub fn run(options: &ExportOptions, quiet: bool) -> Result<()> {
    let ExportOptions { model, out, format, overwrite } = options;
    let mut fetching = Fetching::new(quiet);
    let folder = ModelFolder::find(model, Need::All, &mut |notice| fetching.show(notice))?;
    let source = folder.dir.as_path();
    let weights = WeightSource::open(source, &folder.config)?;
    let fill = &mut |spec: &qft_llama::TensorSpec, rows, values: &mut [f32]| {
        weights.read_rows(&spec.name, rows, values)
    };
    let card = match std::fs::read_to_string(source.join(CARD)) {
        Ok(text) => text,
        Err(_) => card::of_folder(source, folder.origin.as_ref()),
    };
    let hub = folder.origin.as_ref().map(|origin| origin.repository.as_str());
    let export = Export {
        format: *format,
        out,
        name: hub.and_then(|id| id.rsplit('/').next()),
        source: &folder,
        template: None,
        rounding: SavedRounding::Nearest,
        card: Some(&card),
        codes: None,
        existing: if *overwrite { Existing::Replaced } else { Existing::Refused },
    };
    let exported = export.write(&Arc::default(), fill);
    exported.with_context(|| format!("cannot export {model}"))?;
    write(format_args!("wrote {}", out.display()))?;
    let entries =
        std::fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name(), entry.metadata().ok()?.len()))
        })
        .collect();
    files.sort();
    for (name, bytes) in files {
        write(format_args!("  {} ({})", name.display(), gb(bytes)))?;
    }
    Ok(())
}
