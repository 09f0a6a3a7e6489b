//! Loads a model folder into INT8 and prints the loss of a text: `loss_of_text DIR TEXT`.

use qft_autograd::Products;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::pass::{self, PassOptions, Recompute};
use qft_llama::stream::StreamFormat;
use qft_llama::{Batch, LlamaConfig, Tokenizer, WeightSource};
use qft_quant::{HybridFormat, Residual};
use qft_tensor::{Cpu, CpuConfig};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or("examples/stories260k".to_owned()));
    let text = args.next().unwrap_or("Once upon a time there was a fox.".to_owned());
    let config = LlamaConfig::from_dir(&dir)?;
    let tokenizer = Tokenizer::from_dir(&dir, &config)?;
    let cpu = Cpu::new(CpuConfig::detect()?)?;
    let format =
        HybridFormat { residual: Residual::Bits8, protected_fraction: 0.01, rotated: true };
    let weights = WeightSource::open(&dir, &config)?;
    let model =
        Model::load(&cpu, &config, &weights, WeightFormat::Hybrid(format), &mut |name, report| {
            println!("{name}: L2 error {:.4}", report.l2_error);
        })?;

    let mut ids: Vec<u32> = tokenizer.bos().into_iter().collect();
    ids.extend(tokenizer.encode(&text)?);
    let mut batch = Batch::default();
    batch.push(&ids[..ids.len() - 1], &ids[1..]);
    let options = PassOptions {
        compute: Products::INT8,
        recompute: Recompute::None,
        stream: StreamFormat::Bf16,
        seed: 0,
        step: 0,
    };
    let nll = pass::evaluate(&cpu, &model, &options, &batch)?.nll;
    for (id, nll) in ids[1..].iter().zip(&nll) {
        println!("{:>12} {nll:.3}", tokenizer.decode(&[*id])?);
    }
    println!("mean {:.4} nats", nll.iter().sum::<f64>() / nll.len() as f64);
    Ok(())
}
