//! `qft eval`: negative log-likelihood and perplexity of data under a model.

use crate::data::{Cache, Dataset, Loader};
use crate::error::{Result, ensure};
use crate::machine::Machine;
use crate::options::{EvalOptions, StateOptions};
use crate::report::{ReadingBar, arithmetic, write};
use crate::run::ModelFolder;
use crate::step::trainer::evaluate;
use qft_llama::pass::Recompute;
use std::sync::atomic::AtomicBool;

/// Runs the command.
pub fn run(options: &EvalOptions) -> Result<()> {
    let machine = Machine::open(options.machine)?;
    let (ops, mut clock) = machine.watched(options.profile);
    let folder = ModelFolder::open(&options.model)?;
    let seq_len = options.step.seq_len(&folder.config)?;
    let folder = folder.for_sequences(seq_len);
    let cache = Cache::of(&options.cache)?;
    let bar = ReadingBar::default();
    let loader = Loader {
        reader: folder.reader(&options.reading, seq_len),
        model_sha256: &folder.text_sha256()?,
        cache: cache.as_ref(),
        told: &|progress| bar.show(progress),
    };
    let documents = loader.read(&options.data)?;
    bar.finish();
    let (counts, told) = (documents.counts(), documents.to_string());
    let dataset = Dataset::new(documents, seq_len, false)?;
    if !options.json {
        write(format_args!("data: {told}"))?;
    }
    let never = AtomicBool::new(false);
    let model = folder.load(&*ops, options.state.format(), &never, &mut |_, _| ())?;
    let pass = options.state.pass(0, Recompute::None);
    let batches = dataset.batches(options.step.batch_size);
    let limit = options.limit.unwrap_or(usize::MAX);
    if let Some(clock) = &mut clock {
        clock.begin();
    }
    let (nll, tokens) = evaluate(&*ops, &model, &pass, batches.take(limit))?;
    let profile = clock.map(|mut clock| clock.end());
    ensure!(nll.is_finite(), "the loss is {nll}: the model's weights or the data are broken");
    let StateOptions { states, compute, .. } = options.state;
    let compute = compute.forward;
    if options.json {
        let mut json = serde_json::json!({
            "nll": nll,
            "perplexity": nll.exp(),
            "tokens": tokens,
            "data": counts,
            "states": states,
            "compute": compute,
        });
        if let Some(profile) = profile {
            json["profile"] = serde_json::to_value(profile)?;
        }
        return write(json);
    }
    write(format_args!(
        "nll {nll:.6} nats per token, perplexity {:.4}, {tokens} tokens; {}, weights as {states}",
        nll.exp(),
        arithmetic(compute)
    ))?;
    match profile {
        Some(profile) => write(format_args!("\n{profile}")),
        None => Ok(()),
    }
}
