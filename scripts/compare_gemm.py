#!/usr/bin/env python3
"""Times qft's INT8 products and those of PyTorch on one GPU: the same shapes, interleaved.

    cargo build --release -p xtask
    python3 scripts/compare_gemm.py [--model llama-2-7b] [--tokens 2048] [--rounds 3] [--json FILE]

PyTorch multiplies INT8 by torch._int_mm (cuBLASLt) and bf16 by matmul. qft's results are f32 with scales applied; those of
_int_mm are i32 without scales. _int_mm refuses some transposed operands: then they are copied first, inside of the timed
region, and the table says so. `--device cpu` needs no GPU.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPEATS = 20


def xtask():
    """The program, packed or built."""
    for path in [ROOT / "bin/xtask", ROOT / "target/release/xtask"]:
        if path.exists():
            return path
    sys.exit("there is no xtask: cargo build --release -p xtask, or use the folder that gpu-check --pack made")


def qft(args):
    """Rows of bench-gemm, by layer and product."""
    command = [str(xtask()), "bench-gemm", "--json", "--model", args.model, "--tokens", str(args.tokens),
               "--device", args.device]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {(row["layer"], row["product"]): row for row in report["products"]}, report["machine"]


def operands(torch, product, m, n, k, dtype, device):
    """Views with the orientation of the product: the stored copies are those that qft reads."""
    def stored(rows, cols):
        return torch.randint(-127, 128, (rows, cols), dtype=torch.int8, device=device).to(dtype)

    if product == "Y":
        return stored(m, k), stored(n, k).t()
    if product == "dX":
        return stored(m, k), stored(k, n)
    return stored(k, m).t(), stored(k, n)


def seconds(torch, device, multiply):
    """Of one product, with the device idle before and after."""
    def wait():
        if device != "cpu":
            torch.cuda.synchronize(device)

    multiply()
    wait()
    start = time.perf_counter()
    for _ in range(REPEATS):
        multiply()
    wait()
    return (time.perf_counter() - start) / REPEATS


def torch_seconds(torch, row, device):
    """Seconds of the INT8 and of the bf16 product, and whether the INT8 operands had to be copied."""
    shape = (row["product"], row["m"], row["n"], row["k"])
    a, b = operands(torch, *shape, torch.int8, device)
    copied = False
    try:
        int8 = seconds(torch, device, lambda: torch._int_mm(a, b))
    except RuntimeError:
        copied = True
        # cuBLASLt takes the first operand by rows and the second by columns.
        int8 = seconds(torch, device, lambda: torch._int_mm(a.contiguous(), b.t().contiguous().t()))
    a, b = operands(torch, *shape, torch.bfloat16, device)
    return int8, seconds(torch, device, lambda: torch.matmul(a, b)), copied


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llama-2-7b")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is needed: pip install torch")

    found, machine = {}, None
    for _ in range(args.rounds):
        rows, machine = qft(args)
        for key, row in rows.items():
            int8, bf16, copied = torch_seconds(torch, row, args.device)
            entry = found.setdefault(key, row | {"qft": [], "int_mm": [], "bf16": [], "copied": copied})
            for name, value in [("qft", row["seconds"]), ("int_mm", int8), ("bf16", bf16)]:
                entry[name].append(value)
    for entry in found.values():
        for name in ["qft", "int_mm", "bf16"]:
            entry[name] = statistics.median(entry[name])
    if args.json:
        report = {"machine": machine, "torch": torch.__version__, "products": list(found.values())}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{args.model}, {args.tokens} tokens, {machine}, PyTorch {torch.__version__}\n")
    print("| layer | product | M, N, K | qft TOP/s | _int_mm TOP/s | bf16 TFLOP/s | qft / _int_mm | qft / bf16 |")
    print("|---|---|---|---|---|---|---|---|")
    for (layer, product), e in found.items():
        rate = {name: 2e-12 * e["m"] * e["n"] * e["k"] / e[name] for name in ["qft", "int_mm", "bf16"]}
        note = " (copied)" if e["copied"] else ""
        print(f"| {layer} | {product} | {e['m']}, {e['n']}, {e['k']} | {rate['qft']:.1f} | {rate['int_mm']:.1f}{note} "
              f"| {rate['bf16']:.1f} | {rate['qft'] / rate['int_mm']:.2f}x | {rate['qft'] / rate['bf16']:.2f}x |")


if __name__ == "__main__":
    main()
