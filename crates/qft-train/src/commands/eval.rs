//! `qft eval`: negative log-likelihood and perplexity of data under a model.

use crate::data::Dataset;
use crate::open::{self, Folder};
use crate::options::EvalOptions;
use crate::trainer::evaluate;
use anyhow::{Result, ensure};
use qft_llama::pass::Recompute;

/// Runs the command.
pub fn run(options: &EvalOptions) -> Result<()> {
    let ops = open::device(options.device, options.threads)?;
    let folder = Folder::open(&options.model)?;
    let seq_len = options.step.seq_len(folder.config.max_position_embeddings)?;
    let documents = folder.reader(&options.reading, seq_len).read(&options.data)?;
    let dataset = Dataset::new(documents, seq_len, false)?;
    let model = folder.load(&*ops, &options.state, &mut |_, _| ())?;
    let pass = options.state.pass(0, Recompute::None);
    let batches = dataset.batches(options.step.batch_size);
    let limit = options.limit.unwrap_or(usize::MAX);
    let (nll, tokens) = evaluate(&*ops, &model, &pass, batches.take(limit))?;
    ensure!(nll.is_finite(), "the loss is {nll}: the model's weights or the data are broken");
    if options.json {
        let json = serde_json::json!({ "nll": nll, "perplexity": nll.exp(), "tokens": tokens });
        println!("{json}");
    } else {
        println!("nll {nll:.6} nats per token, perplexity {:.4}, {tokens} tokens", nll.exp());
    }
    Ok(())
}
