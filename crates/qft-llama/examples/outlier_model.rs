//! Writes a model that computes what another one does, but with four outlier channels in every linear layer's
//! input: `outlier_model DIR OUT`.

use qft_llama::export::{DEFAULT_SHARD_BYTES, SavedWeights, export_folder};
use qft_llama::{LlamaConfig, WeightSource, Weights, WithOutliers};
use std::path::PathBuf;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let dir = args.next().unwrap_or("examples/stories260k".into());
    let out = args.next().unwrap_or("out/outliers".into());
    let config = LlamaConfig::from_dir(&dir)?;
    let source = WeightSource::open(&dir, &config)?;
    let weights = WithOutliers::new(&source, &config);
    let ledger = Arc::default();
    export_folder(
        &out,
        Some(&dir),
        &config,
        SavedWeights::default(),
        DEFAULT_SHARD_BYTES,
        &ledger,
        &mut |spec, rows, values| weights.read_rows(&spec.name, rows, values),
    )?;
    println!("wrote {}", out.display());
    Ok(())
}
