#!/usr/bin/env python3
"""Times full-parameter steps of qft and of PyTorch on one GPU: same LLaMA shape, batch and sequence, interleaved.

    cargo build --release -p xtask
    python3 scripts/compare_gpu.py [--model llama-2-7b] [--seq-len 2048] [--batch-size 1] [--recompute] [--json FILE]

PyTorch trains bf16 weights with bf16 gradients and an 8-bit AdamW: that of bitsandbytes or torchao, whichever is there,
else Lion with bf16 momentum; its model is plain PyTorch with its fused attention, compiled by torch.compile. Each
contender runs in a process of its own; rounds alternate between the contenders, and the table shows medians.
`--device cpu` runs the same without a GPU, to try this script.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# C, blocks, heads, key/value heads, F, V, tied.
SHAPES = {
    "llama-15m": (288, 6, 6, 6, 768, 32000, True),
    "llama-110m": (768, 12, 12, 12, 2048, 32000, True),
    "tinyllama-1.1b": (2048, 22, 32, 4, 5632, 32000, False),
    "llama-2-7b": (4096, 32, 32, 32, 11008, 32000, False),
    "llama-3-8b": (4096, 32, 32, 8, 14336, 128256, False),
}
TORCH = ["torch bf16", "torch bf16 compiled"]


def xtask():
    """The program, packed or built."""
    for path in [ROOT / "bin/xtask", ROOT / "target/release/xtask"]:
        if path.exists():
            return path
    sys.exit("there is no xtask: cargo build --release -p xtask, or use the folder that gpu-check --pack made")


def build(torch, shape, recompute):
    """LLaMA in plain PyTorch."""
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.checkpoint import checkpoint

    channels, blocks, heads, kv_heads, ffn, vocab, tied = shape
    size = channels // heads

    def linear(inputs, outputs):
        return nn.Linear(inputs, outputs, bias=False)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.RMSNorm(channels, 1e-5), nn.RMSNorm(channels, 1e-5)
            self.q, self.o = linear(channels, channels), linear(channels, channels)
            self.k, self.v = linear(channels, kv_heads * size), linear(channels, kv_heads * size)
            self.gate, self.up, self.down = linear(channels, ffn), linear(channels, ffn), linear(ffn, channels)

        def forward(self, x, cos, sin):
            batch, tokens, _ = x.shape
            h = self.attention_norm(x)
            q, k, v = (p(h).view(batch, tokens, -1, size).transpose(1, 2) for p in (self.q, self.k, self.v))
            q, k = (p * cos + torch.cat((-p[..., size // 2:], p[..., : size // 2]), -1) * sin for p in (q, k))
            if kv_heads != heads:
                k, v = (p.repeat_interleave(heads // kv_heads, 1) for p in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).reshape(batch, tokens, channels))
            h = self.mlp_norm(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocab, channels)
            self.blocks = nn.ModuleList(Block() for _ in range(blocks))
            self.norm, self.head = nn.RMSNorm(channels, 1e-5), linear(channels, vocab)
            if tied:
                self.head.weight = self.embedding.weight

        def forward(self, ids, targets):
            x = self.embedding(ids)
            frequency = 10000.0 ** (-torch.arange(0, size, 2, device=ids.device).float() / size)
            angle = torch.arange(ids.shape[1], device=ids.device).float()[:, None] * frequency
            cos, sin = (torch.cat((f, f), -1).to(x.dtype) for f in (angle.cos(), angle.sin()))
            for block in self.blocks:
                x = checkpoint(block, x, cos, sin, use_reentrant=False) if recompute else block(x, cos, sin)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())

    return Llama()


def optimizer_of(torch, params, device):
    """The name of the best 8-bit optimizer there is, and its step."""
    if device != "cpu":
        try:
            import bitsandbytes

            return "bitsandbytes AdamW8bit", bitsandbytes.optim.AdamW8bit(params, lr=1e-4).step
        except ImportError:
            pass
        try:
            from torchao.optim import AdamW8bit

            return "torchao AdamW8bit", AdamW8bit(params, lr=1e-4).step
        except ImportError:
            pass
    momenta = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def lion():
        grads = [p.grad for p in params]
        directions = torch._foreach_lerp(momenta, grads, 0.05)
        torch._foreach_sign_(directions)
        torch._foreach_add_(params, directions, alpha=-1e-4)
        torch._foreach_lerp_(momenta, grads, 0.02)

    return "Lion, bf16 momentum", lion


def torch_worker(name, args):
    import torch

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    shape = SHAPES[args.model]
    with torch.device(args.device):
        torch.set_default_dtype(torch.bfloat16)
        model = build(torch, shape, args.recompute)
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p.normal_(0.0, 0.02)
        ids = torch.randint(0, shape[5], (args.batch_size, args.seq_len + 1))
    params = list(model.parameters())
    optimizer, update = optimizer_of(torch, params, args.device)
    forward = torch.compile(model) if name.endswith("compiled") else model
    on_gpu = args.device != "cpu"
    seconds, loss = [], None
    for step in range(args.steps + 3):
        start = time.perf_counter()
        loss = forward(ids[:, :-1], ids[:, 1:])
        loss.backward()
        update()
        model.zero_grad(set_to_none=True)
        if on_gpu:
            torch.cuda.synchronize()
        # The first steps compile, tune and allocate.
        if step >= 3:
            seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_reserved() if on_gpu else None
    print(json.dumps({"seconds": statistics.median(seconds), "peak_device_bytes": peak, "loss": loss.item(),
                      "optimizer": optimizer, "torch": torch.__version__}))


def run(command, limit):
    """The result of a contender, and why there is none."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None, f"not done within {limit:.0f} s"
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="llama-2-7b")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--recompute", action="store_true", help="recompute blocks in the backward pass, all contenders")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--states", nargs="*", default=["full", "compact"])
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=600, help="seconds for one contender in one round")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--worker", choices=TORCH, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return torch_worker(args.worker, args)

    shape = ["--model", args.model, "--seq-len", args.seq_len, "--batch-size", args.batch_size,
             "--device", args.device, "--steps", args.steps, *(["--recompute"] if args.recompute else [])]
    contenders = {f"qft {states}": [xtask(), "bench-step", "--json", "--states", states, *shape]
                  for states in args.states}
    for name in TORCH:
        contenders[name] = [sys.executable, __file__, "--worker", name, *shape]
    results, reasons = {name: [] for name in contenders}, {}
    for _ in range(args.rounds):
        for name, command in contenders.items():
            result, reason = run(command, args.limit)
            if result is None:
                reasons[name] = reason
                print(f"{name}: {reason}", file=sys.stderr)
            else:
                results[name].append(result)
    tokens = args.seq_len * args.batch_size
    rows = {name: {"seconds": statistics.median(r["seconds"] for r in found),
                   "peak_device_bytes": max(r["peak_device_bytes"] or 0 for r in found),
                   "details": found[-1]} for name, found in results.items() if found}
    if args.json:
        args.json.write_text(json.dumps({"shape": vars(args) | {"json": str(args.json)}, "rows": rows,
                                         "without_result": reasons}, indent=1, default=str) + "\n")
    if not rows:
        print("no contender gave a result", file=sys.stderr)
        return 1
    best = min((row["seconds"] for name, row in rows.items() if name.startswith("torch")), default=None)
    print(f"{args.model}, {args.batch_size} x {args.seq_len} tokens, {args.device}\n")
    print("| trainer | tok/s | s per step | times the best of PyTorch | peak device GB |\n|---|---|---|---|---|")
    for name, row in rows.items():
        label = f"{name}, {row['details']['optimizer']}" if "optimizer" in row["details"] else name
        ratio = f"{best / row['seconds']:.2f}x" if best else ""
        print(f"| {label} | {tokens / row['seconds']:.0f} | {row['seconds']:.4f} | {ratio} "
              f"| {row['peak_device_bytes'] / 1e9:.2f} |")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
