//! Layers leave the host free: no operation waits for the device or reads from it.

mod common;

use common::{alloc, host, upload};
use qft_autograd::ops::{
    AddBias, AttentionBackward, AttentionForward, BiasGradient, EmbedBackward, EmbedForward,
    GatherRows, Operands, RmsNormBackward, RmsNormForward, Rope, ScaledAdd, ScatterRows,
};
use qft_autograd::{ActivationsOut, Heads, LayerOps, Segments, TableRef};
use qft_cuda::{Arg, Cuda, Driver, Error, Launch, Properties};
use qft_emulator::Emulator;
use std::sync::Arc;

/// An emulator that never answers the host.
#[derive(Debug)]
struct Silent(Emulator);

fn waited<T>(call: &str) -> Result<T, Error> {
    Err(Error::Driver { call: call.to_owned(), message: "the host waited".to_owned() })
}

impl Driver for Silent {
    fn properties(&self) -> &Properties {
        self.0.properties()
    }
    common::pass_on!(0);
    fn download(&self, _dst: &mut [u8], _src: u64) -> Result<(), Error> {
        waited("download")
    }
    fn synchronize(&self) -> Result<(), Error> {
        waited("synchronize")
    }
    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        self.0.launch(kernel, launch, args)
    }
}

#[test]
fn no_layer_waits_for_the_device() {
    let device = Cuda::new(Arc::new(Silent(Emulator::new(1 << 30, 0))), host()).unwrap();
    let ops: &dyn LayerOps = &device;
    let (tokens, channels, vocab) = (4, 8, 10);
    let len = tokens * channels;
    let ids = &upload(ops, &[1u32, 9, 0, 9]);
    let floats = |len: usize| upload(ops, &vec![0.5f32; len]);
    let table = floats(vocab * channels);
    let (mut x, mut out) = (floats(len), alloc(ops, len));
    let embed =
        EmbedForward { ids, table: TableRef::Float(&table), vocab, channels, out: &mut out };
    ops.embed_forward(embed).unwrap();
    let index = &upload(ops, &[3u32, 0]);
    let mut some = alloc(ops, 2 * channels);
    ops.gather_rows(GatherRows { src: &x, index, channels, out: &mut some }).unwrap();
    ops.scatter_rows(ScatterRows { src: &some, index, channels, dst: &mut out }).unwrap();
    let mut grad = floats(vocab * channels);
    let view = grad.mat_mut(vocab, channels).unwrap();
    ops.embed_backward(EmbedBackward { ids, dy: &x, rows: 0..vocab, grad: view }).unwrap();

    let (gain, mut rstd, mut dgain) = (floats(channels), alloc(ops, tokens), floats(channels));
    let (gain, eps) = (&gain, 1e-5);
    let norm =
        RmsNormForward { x: &x, gain, eps, rstd: &mut rstd, out: ActivationsOut::Float(&mut out) };
    ops.rmsnorm_forward(norm).unwrap();
    let (rstd, dy, dx) = (&rstd, &floats(len), &mut out);
    ops.rmsnorm_backward(RmsNormBackward { x: &x, gain, rstd, dy, dx, dgain: &mut dgain }).unwrap();
    let inv_freq = &floats(2);
    let (heads, size) = (2, channels / 2);
    let rope =
        Rope { x: &mut x, positions: ids, inv_freq, heads, size, scale: 1.0, inverse: false };
    ops.rope(rope).unwrap();
    ops.add_bias(AddBias { y: &mut x, bias: gain }).unwrap();
    ops.bias_gradient(BiasGradient { dy, dbias: &mut dgain }).unwrap();
    ops.scaled_add(ScaledAdd { src: dy, scale: 2.0, dst: &mut x }).unwrap();

    let heads = Heads { query: 1, key_value: 1, size: channels };
    let segments = &Segments::new(vec![0, 1, tokens]).unwrap();
    let (q, k, v) = (&x, &x, &x);
    let (mut lse, mut out) = (alloc(ops, tokens), alloc(ops, len));
    let operands = Operands::Bf16;
    ops.attention_forward(AttentionForward {
        q,
        k,
        v,
        segments,
        heads,
        operands,
        lse: &mut lse,
        out: &mut out,
    })
    .unwrap();
    let [dq, dk, dv] = &mut [(); 3].map(|()| alloc(ops, len));
    let (out, lse, dout) = (&out, &lse, &floats(len));
    ops.attention_backward(AttentionBackward {
        q,
        k,
        v,
        out,
        lse,
        dout,
        segments,
        heads,
        operands,
        dq,
        dk,
        dv,
    })
    .unwrap();
}
