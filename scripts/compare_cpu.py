#!/usr/bin/env python3
"""Times qft, PyTorch and candle on the same LLaMA shape, batch and threads, interleaved in one run.

    python3 -m venv venv && venv/bin/pip install torch transformers bitsandbytes
    cargo build --release -p xtask
    cargo build --release --manifest-path scripts/peer-candle/Cargo.toml
    venv/bin/python scripts/compare_cpu.py [--model llama-110m] [--seq-len 256] [--batch-size 4] [--threads 2]

Each contender runs in a process of its own, so that its peak resident memory is its own; rounds alternate between the
contenders, and the table shows the median over all rounds. Beside it stands the least time that all threads together
spent on cores in a step, which other work on the machine disturbs less; with more than one thread PyTorch's includes
waiting, and so does candle's. PyTorch trains Hugging Face's LlamaForCausalLM with random weights; the importing of
torch and transformers alone takes about 0.7 GB of the peaks shown. Candle, a tensor library in Rust, takes part if
built; --check-candle shows that it computes the same losses as PyTorch.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CANDLE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "scripts/peer-candle/target")) / "release/peer-candle"
SHAPES = {
    "llama-110m": (768, 12, 12, 12, 2048, 32000, True),
    "llama-15m": (288, 6, 6, 6, 768, 32000, True),
    "tinyllama-1.1b": (2048, 22, 32, 4, 5632, 32000, False),
}
MODES = ["fp32-adamw", "fp32-lion", "bf16-autocast-adamw", "bf16-lion", "bf16-adamw8bit", "bf16-lion8bit"]


def torch_model(args):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    c, layers, heads, kv, f, v, tied = SHAPES[args.model]
    config = LlamaConfig(
        hidden_size=c, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        intermediate_size=f, vocab_size=v, tie_word_embeddings=tied, max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config)


def torch_worker(mode, args):
    import resource
    import time

    import torch

    model = torch_model(args)
    if mode.startswith("bf16") and "autocast" not in mode:
        model = model.to(torch.bfloat16)
    params = list(model.parameters())
    if mode.endswith("8bit"):
        from bitsandbytes import optim

        optimizer = {"bf16-adamw8bit": optim.AdamW8bit, "bf16-lion8bit": optim.Lion8bit}[mode](params, lr=1e-4)
        update = optimizer.step
    elif mode.endswith("adamw"):
        optimizer = torch.optim.AdamW(params, lr=1e-4)
        update = optimizer.step
    else:
        momenta = [torch.zeros_like(p) for p in params]

        @torch.no_grad()
        def update():
            for p, m in zip(params, momenta):
                p.add_(torch.sign(m.mul(0.95).add_(p.grad, alpha=0.05)), alpha=-1e-4)
                m.mul_(0.98).add_(p.grad, alpha=0.02)

    ids = torch.randint(0, model.config.vocab_size, (args.batch_size, args.seq_len))
    seconds, core_seconds = [], []
    for step in range(args.steps + 1):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.startswith("bf16-autocast")):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        update()
        model.zero_grad(set_to_none=True)
        if step > 0:
            seconds.append(time.perf_counter() - start)
            core_seconds.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {"seconds": statistics.median(seconds), "core_seconds": min(core_seconds), "peak_rss_bytes": peak}
    print(json.dumps(result))


def candle_command(args):
    # Without the tunables a third of a step is the kernel's: it hands out the same pages again and again.
    tunables = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000"
    numbers = [*SHAPES[args.model], args.batch_size, args.seq_len, args.steps]
    return ["env", f"RAYON_NUM_THREADS={args.threads}", f"GLIBC_TUNABLES={tunables}", str(CANDLE),
            *(str(int(n)) for n in numbers)]


def check_candle(args):
    import tempfile

    import torch
    from safetensors.torch import save_file

    model = torch_model(args)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as weights:
        save_file({name: p.detach() for name, p in model.named_parameters()}, weights.name)
        result, error = run([*candle_command(args), weights.name])
    if error:
        sys.exit(f"candle: {error[0]}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.arange(args.batch_size * args.seq_len) * 7919 % model.config.vocab_size
    ids = ids.reshape(args.batch_size, args.seq_len)
    for theirs in result["losses"]:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        model.zero_grad()
        print(f"loss: torch {loss.item():.6f}, candle {theirs:.6f}")


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        return None, result.stderr.strip().splitlines()[-1:] or ["failed"]
    return json.loads(result.stdout.strip().splitlines()[-1]), None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="llama-110m")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round, after one that is not")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--states", nargs="*", default=["full", "compact", "f32"], help="qft's; full is always run")
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES)
    parser.add_argument("--check-candle", action="store_true", help="print the losses of a few steps, and PyTorch's")
    parser.add_argument("--worker", choices=MODES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return torch_worker(args.worker, args)
    if args.check_candle:
        return check_candle(args)

    shape = ["--model", args.model, "--seq-len", str(args.seq_len), "--batch-size", str(args.batch_size),
             "--threads", str(args.threads), "--steps", str(args.steps)]
    contenders = {
        f"qft {states}": [str(TARGET / "release/xtask"), "bench-step", "--json", "--states", states, *shape]
        for states in dict.fromkeys(["full", *args.states])
    }
    for mode in args.modes:
        contenders[f"torch {mode}"] = [sys.executable, __file__, "--worker", mode, *shape]
    if CANDLE.exists():
        contenders["candle f32 AdamW"] = candle_command(args)
    else:
        print("no candle: cargo build --release --manifest-path scripts/peer-candle/Cargo.toml", file=sys.stderr)
    results = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, command in contenders.items():
            result, error = run(command)
            if error:
                print(f"{name}: {error[0]}", file=sys.stderr)
            else:
                results[name].append(result)
    tokens = args.seq_len * args.batch_size

    def summary(rows):
        return statistics.median(r["seconds"] for r in rows), min(r["core_seconds"] or 0.0 for r in rows)

    ours, our_cpu = summary(results["qft full"])
    print(f"{args.model}, {args.batch_size} x {args.seq_len} tokens, {args.threads} threads\n")
    print("| trainer | tok/s | s per step | qft full is faster by | core s per step | by core s | peak resident MB |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in results.items():
        if rows:
            seconds, cpu = summary(rows)
            peak = max(r["peak_rss_bytes"] for r in rows) / 1e6
            speeds = f"{tokens / seconds:.0f} | {seconds:.3f} | {seconds / ours:.2f}x"
            cores = f"{cpu:.2f} | {cpu / our_cpu:.2f}x" if our_cpu else " | "
            print(f"| {name} | {speeds} | {cores} | {peak:.0f} |")


if __name__ == "__main__":
    main()
