//! Times training steps of a LLaMA in candle, f32 with AdamW: a contender of `scripts/compare_cpu.py`.
//!
//! Norms, softmax and rotary embeddings are candle's own, in the forms that have a backward pass; the
//! fused `rms_norm`, `softmax_last_dim` and `rope` have none. Parameters are named as Hugging Face does,
//! so that a file of weights can take the place of the random ones.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::loss::cross_entropy;
use candle_nn::ops::{silu, softmax};
use candle_nn::rotary_emb::rope_slow;
use candle_nn::{AdamW, Init, Linear, Module, Optimizer, ParamsAdamW, RmsNorm, VarBuilder, VarMap};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::time::Instant;

struct Shape {
    c: usize,
    layers: usize,
    heads: usize,
    kv: usize,
    f: usize,
    v: usize,
    tied: bool,
}

struct Block {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    ffn_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

struct Model {
    shape: Shape,
    embedding: Tensor, // [V, C]
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear, // [V, C]
    cos: Tensor,  // [T, D/2]
    sin: Tensor,
    mask: Tensor, // [T, T]
}

fn linear(out: usize, input: usize, vb: VarBuilder) -> Result<Linear> {
    let init = Init::Randn { mean: 0.0, stdev: 0.02 };
    Ok(Linear::new(vb.get_with_hints((out, input), "weight", init)?, None))
}

fn norm(size: usize, vb: VarBuilder) -> Result<RmsNorm> {
    Ok(RmsNorm::new(vb.get_with_hints(size, "weight", Init::Const(1.0))?, 1e-6))
}

impl Model {
    fn new(shape: Shape, tokens: usize, vb: VarBuilder) -> Result<Self> {
        let Shape { c, heads, kv, f, v, .. } = shape;
        let d = c / heads;
        let embedding = linear(v, c, vb.pp("model.embed_tokens"))?.weight().clone();
        let block = |layer| {
            let vb = vb.pp("model.layers").pp(layer);
            let (attention, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
            Ok(Block {
                attention_norm: norm(c, vb.pp("input_layernorm"))?,
                q: linear(c, c, attention.pp("q_proj"))?,
                k: linear(kv * d, c, attention.pp("k_proj"))?,
                v: linear(kv * d, c, attention.pp("v_proj"))?,
                o: linear(c, c, attention.pp("o_proj"))?,
                ffn_norm: norm(c, vb.pp("post_attention_layernorm"))?,
                gate: linear(f, c, mlp.pp("gate_proj"))?,
                up: linear(f, c, mlp.pp("up_proj"))?,
                down: linear(c, f, mlp.pp("down_proj"))?,
            })
        };
        let blocks = (0..shape.layers).map(block).collect::<Result<Vec<_>>>()?;
        let head = match shape.tied {
            true => Linear::new(embedding.clone(), None),
            false => linear(v, c, vb.pp("lm_head"))?,
        };
        let frequency = |i| 1e4f32.powf(-2.0 * i as f32 / d as f32);
        let frequencies: Vec<f32> = (0..d / 2).map(frequency).collect();
        let frequencies = Tensor::new(frequencies, vb.device())?;
        let positions = Tensor::arange(0.0, tokens as f32, vb.device())?;
        let angles = positions.unsqueeze(1)?.broadcast_mul(&frequencies.unsqueeze(0)?)?;
        let future = |i| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..tokens * tokens).map(future).collect();
        Ok(Self {
            embedding,
            blocks,
            norm: norm(c, vb.pp("model.norm"))?,
            head,
            cos: angles.cos()?,
            sin: angles.sin()?,
            mask: Tensor::from_vec(mask, (tokens, tokens), vb.device())?,
            shape,
        })
    }

    fn attention(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let (heads, kv) = (self.shape.heads, self.shape.kv);
        let d = c / heads;
        let split = |x: Tensor, n| x.reshape((b, t, n, d))?.transpose(1, 2)?.contiguous();
        let q = rope_slow(&split(block.q.forward(x)?, heads)?, &self.cos, &self.sin)?;
        let k = rope_slow(&split(block.k.forward(x)?, kv)?, &self.cos, &self.sin)?;
        let v = split(block.v.forward(x)?, kv)?;
        // The query heads of a group lie below each other, so that keys and values need no copies.
        let q = q.reshape((b, kv, heads / kv * t, d))?;
        let scores = (q.matmul(&k.t()?)? * (d as f64).powf(-0.5))?;
        let scores = scores.reshape((b, heads, t, t))?.broadcast_add(&self.mask)?;
        let weights = softmax(&scores, D::Minus1)?.reshape((b, kv, heads / kv * t, t))?;
        let y = weights.matmul(&v)?.reshape((b, heads, t, d))?;
        block.o.forward(&y.transpose(1, 2)?.reshape((b, t, c))?)
    }

    /// The loss of predicting each token but the first of a row from those before it.
    fn loss(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let x = self.embedding.index_select(&ids.flatten_all()?, 0)?;
        let mut x = x.reshape((b, t, self.shape.c))?;
        for block in &self.blocks {
            x = (&x + self.attention(block, &block.attention_norm.forward_diff(&x)?)?)?;
            let h = block.ffn_norm.forward_diff(&x)?;
            let h = (silu(&block.gate.forward(&h)?)? * block.up.forward(&h)?)?;
            x = (&x + block.down.forward(&h)?)?;
        }
        let x = self.norm.forward_diff(&x)?.narrow(1, 0, t - 1)?.flatten_to(1)?;
        let targets = ids.narrow(1, 1, t - 1)?.flatten_all()?;
        cross_entropy(&self.head.forward(&x)?, &targets)
    }
}

/// Seconds that all threads of this process spent on cores, and its peak resident bytes.
fn usage() -> (f64, i64) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("own usage can be read");
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    (microseconds as f64 * 1e-6, usage.max_rss() * 1024)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let n: Vec<usize> = args.iter().map_while(|arg| arg.parse().ok()).collect();
    let &[c, layers, heads, kv, f, v, tied, batch, tokens, steps] = &n[..] else {
        panic!("usage: peer-candle C LAYERS HEADS KV F V TIED BATCH TOKENS STEPS [WEIGHTS]");
    };
    let shape = Shape { c, layers, heads, kv, f, v, tied: tied != 0 };
    let mut vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let model = Model::new(shape, tokens, vb)?;
    if let Some(weights) = args.get(n.len()) {
        vars.load(weights)?;
    }
    let params = ParamsAdamW { lr: 1e-4, ..Default::default() };
    let mut optimizer = AdamW::new(vars.all_vars(), params)?;
    let ids: Vec<u32> = (0..batch * tokens).map(|i| (i * 7919 % v) as u32).collect();
    let ids = Tensor::from_vec(ids, (batch, tokens), &Device::Cpu)?;
    let (mut seconds, mut core_seconds, mut losses) = (vec![], vec![], vec![]);
    for _ in 0..=steps {
        let (start, (cores, _)) = (Instant::now(), usage());
        let loss = model.loss(&ids)?;
        optimizer.backward_step(&loss)?;
        losses.push(loss.to_scalar::<f32>()?);
        seconds.push(start.elapsed().as_secs_f64());
        core_seconds.push(usage().0 - cores);
    }
    // The first step is not counted.
    let sorted = |times: &mut [f64]| times[1..].sort_by(f64::total_cmp);
    sorted(&mut seconds);
    sorted(&mut core_seconds);
    let result = serde_json::json!({
        "seconds": seconds[1 + steps / 2], "core_seconds": core_seconds[1],
        "peak_rss_bytes": usage().1, "losses": losses,
    });
    println!("{result}");
    Ok(())
}
