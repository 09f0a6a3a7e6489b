//! A fine-tune as a library call: `cargo run --release -p qft-train --example finetune`.
//!
//! The options are those of `qft finetune`, given as a settings file would; what happens is heard by an observer.

use qft_train::options::FinetuneArgs;
use qft_train::run::{Event, Observer, finetune};
use std::sync::atomic::AtomicBool;

/// Prints the loss of every tenth step.
struct Losses;

impl Observer for Losses {
    fn on(&mut self, event: &Event<'_>) -> qft_train::Result<()> {
        if let Event::Stepped(metrics) = event
            && metrics.step % 10 == 0
        {
            println!("step {}: loss {:.3}", metrics.step, metrics.loss);
        }
        Ok(())
    }
}

fn main() -> qft_train::Result<()> {
    let mut args = FinetuneArgs::default();
    args.files.model = Some("examples/stories260k".into());
    args.files.data = vec!["examples/tinyshakespeare.txt".into()];
    args.files.out = Some(std::env::temp_dir().join("qft-example"));
    args.files.overwrite = Some(true);
    args.training.steps = Some(50);
    args.training.lr = Some(5e-4);
    let summary = finetune(&args.resolve()?, &AtomicBool::new(false), &mut [&mut Losses])?;
    println!("{} tokens in {:.1} s", summary.tokens, summary.seconds);
    Ok(())
}
