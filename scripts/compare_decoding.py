#!/usr/bin/env python3
"""Times how fast qft and llama.cpp write, on the same model in 8 bits and as many threads, interleaved in one run.

    python3 -m venv venv && venv/bin/pip install llama-cpp-python==0.3.36
    cargo build --release -p qft-train
    venv/bin/python scripts/compare_decoding.py --model DIR [--threads 2] [--tokens 200] [--rounds 5]

qft reads the folder, and llama.cpp the Q8_0 file that `qft export` makes of it. Both continue the same prompt, the likeliest
token each time, and are timed from the first new token to the last. The table shows medians; the rate of reading is that
of the weights that each new token reads.
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT = "The history of the whales begins long before that of men:"


def qft_rate(args):
    command = [args.qft, "generate", "-v", "--model", args.model, "--prompt", PROMPT]
    command += ["--max-new-tokens", str(args.tokens), "--threads", str(args.threads)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(re.search(r"wrote \d+ at ([\d.]+)", found.stderr)[1])


def llama_model(path, threads):
    import llama_cpp

    # Weights as they are in the file: repacked for AMX, Q8_0 of any origin crashes in some virtual machines.
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def as_they_are():
        params = defaults()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_cpp.llama_model_default_params = as_they_are
    return llama_cpp.Llama(str(path), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)


def llama_rate(model, args):
    model.reset()
    begun, count = None, 0
    for _ in model.generate(model.tokenize(PROMPT.encode()), temp=0.0, top_k=1):
        count += 1
        begun = begun or time.perf_counter()
        if count == args.tokens:
            break
    return (count - 1) / (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--qft", default=ROOT / "target/release/qft")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export = [args.qft, "export", "--model", args.model, "--to", "gguf", "--dtype", "q8_0", "--out", folder + "/gguf"]
        subprocess.run(export, check=True, capture_output=True)
        file = next(pathlib.Path(folder, "gguf").glob("*.gguf"))
        model = llama_model(file, args.threads)
        rates = {"qft": [], "llama.cpp Q8_0": []}
        for round in range(args.rounds + 1):
            found = qft_rate(args), llama_rate(model, args)
            # The first round warms both up.
            if round > 0:
                for rates_of, rate in zip(rates.values(), found):
                    rates_of.append(rate)
        print(f"{args.threads} threads, {args.tokens} tokens, medians of {args.rounds} rounds")
        for name, found in rates.items():
            gigabytes = file.stat().st_size / 1e9
            rate = statistics.median(found)
            spread = f"{min(found):.1f} to {max(found):.1f}"
            print(f"{name:16} {rate:6.1f} tok/s ({spread}), {rate * gigabytes:.1f} GB/s of a file of {gigabytes:.3f} GB")


if __name__ == "__main__":
    main()
