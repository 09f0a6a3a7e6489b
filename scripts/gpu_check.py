#!/usr/bin/env python3
"""Checks qft on a machine with an NVIDIA GPU, from the folder that `cargo xtask gpu-check --pack DIR` made.

    python3 scripts/gpu_check.py [--out gpu-check.json] [--budget 470] [--only NAME ...]

Needs the driver and Python, nothing else. Each step has a time limit of its own and the whole a budget; a step that fails
does not stop the others. The results are written as JSON after every step. Exit code: 0 if all that ran passed, 1 if a
step failed or did not get its time, 2 if there is no GPU. `--device cpu` compares the CPU with itself and the kernels on
the emulator with the CPU: it checks this script, on any machine.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
QFT, XTASK = ROOT / "bin/qft", ROOT / "bin/xtask"
MODEL = "examples/stories260k"

# Losses of CPU and GPU, absolute. The integers of both are the same bits; float sums of attention, norms and the loss run
# in another order, which moves the loss of one pass by some 1e-6. In training, such a difference flips the rounding of a
# few weights of many, and the two runs part slowly; twenty steps apart by more than this is another algorithm.
PASS_TOLERANCE, TRAINING_TOLERANCE = 2e-4, 1e-2
TRAINING_STEPS = 20


class Failure(Exception):
    pass


class Skip(Exception):
    pass


class Check:
    """The steps, the time they have left, and what they found."""

    def __init__(self, args):
        self.args, self.device = args, args.device
        self.began = time.monotonic()
        self.results = {"gpu": gpu(), "steps": []}
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))
        # All of the text takes long to tokenize.
        self.text = self.scratch / "text.txt"
        self.text.write_text((ROOT / "examples/tinyshakespeare.txt").read_text()[:60_000])

    def left(self):
        return self.args.budget - (time.monotonic() - self.began)

    def step(self, name, limit, function):
        if self.args.only and not any(name.startswith(only) for only in self.args.only):
            return
        entry = {"name": name}
        start = time.monotonic()
        limit = min(limit, self.left())
        try:
            if limit < 5:
                raise Failure("no time is left; give a larger --budget")
            entry["found"] = function(limit)
            entry["result"] = "passed"
        except Skip as reason:
            entry.update(result="skipped", reason=str(reason))
        except Failure as reason:
            entry.update(result="failed", reason=str(reason))
        except subprocess.TimeoutExpired:
            entry.update(result="failed", reason=f"not done within {limit:.0f} s")
        except Exception as error:  # One step that breaks must not take the others along.
            entry.update(result="failed", reason=f"{type(error).__name__}: {error}")
        entry["seconds"] = round(time.monotonic() - start, 1)
        self.results["steps"].append(entry)
        print(f"{entry['result']:8} {entry['seconds']:6.1f} s  {name}"
              + (f": {entry['reason'].splitlines()[0]}" if "reason" in entry else ""), flush=True)
        self.write()

    def write(self):
        outcomes = [step["result"] for step in self.results["steps"]]
        self.results["failed"] = outcomes.count("failed")
        self.results["seconds"] = round(time.monotonic() - self.began, 1)
        self.args.out.write_text(json.dumps(self.results, indent=1) + "\n")


def gpu():
    """What the driver says of the first GPU, or None."""
    query = "name,memory.total,driver_version,compute_cap"
    try:
        out = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"],
                             capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if out.returncode != 0 or not out.stdout.strip():
        return None
    name, memory, driver, capability = [part.strip() for part in out.stdout.splitlines()[0].split(",")]
    return {"name": name, "memory_mib": int(memory), "driver": driver, "compute_capability": capability}


def run(command, limit, env=None):
    """Runs a program in the folder; what it printed. Its failure is the step's."""
    environment = {**os.environ, "QFT_REPOSITORY": str(ROOT), **(env or {})}
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, capture_output=True,
                          text=True, timeout=max(limit, 1))
    if done.returncode != 0:
        tail = (done.stdout[-3000:] + done.stderr[-3000:]).strip()
        raise Failure(f"exit code {done.returncode}: {' '.join(map(str, command))}\n{tail}")
    return done.stdout


def parity(check, test):
    def function(limit):
        needs = {} if check.device == "cpu" else {"QFT_REQUIRE_GPU": "1"}
        out = run([test, "--test-threads=4"], limit, needs)
        return {"summary": [line for line in out.splitlines() if line.startswith("test result")]}

    return function


def sanitized(tool, test):
    def function(limit):
        sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        if sanitizer is None:
            raise Skip("there is no compute-sanitizer on this machine")
        stop = time.monotonic() + limit
        listed = run([test, "--list"], limit).splitlines()
        names = [line.removesuffix(": test") for line in listed if line.endswith(": test")]
        # The tool slows kernels down by a factor of a hundred: those that say they are small, or the first few.
        chosen = [name for name in names if "small" in name] or names[:3]
        run([sanitizer, "--tool", tool, "--error-exitcode", "99", test, "--exact", *chosen, "--test-threads=1"],
            stop - time.monotonic(), {"QFT_REQUIRE_GPU": "1"})
        return {"tests": chosen}

    return function


def golden(check, limit):
    """The model in the repository: the same loss on CPU and GPU, the same greedy text."""
    found, stop = {}, time.monotonic() + limit
    for states in ["f32", "full", "compact"]:
        losses = {}
        for device in ["cpu", check.device]:
            out = run([QFT, "eval", "--model", MODEL, "--data", check.text, "--states", states, "--device", device,
                       "--limit", "16", "--json"], stop - time.monotonic())
            losses[device] = json.loads(out)["nll"]
        found[states] = losses
        difference = abs(losses["cpu"] - losses[check.device])
        if not difference <= PASS_TOLERANCE:
            raise Failure(f"{states}: losses {losses} differ by {difference:.2e}, more than {PASS_TOLERANCE}")
    texts = [run([QFT, "generate", "--model", MODEL, "--prompt", "Once upon a time", "--max-new-tokens", "48",
                  "--device", device], stop - time.monotonic()) for device in ["cpu", check.device]]
    if texts[0] != texts[1]:
        raise Failure(f"greedy texts differ:\n{texts[0]}\n{texts[1]}")
    found["text"] = texts[1]
    return found


def finetune(check, states, device, limit, *more):
    out = pathlib.Path(tempfile.mkdtemp(dir=check.scratch)) / "out"
    run([QFT, "finetune", "--config", "examples/shakespeare.toml", "--data", check.text, "--states", states, "--steps", TRAINING_STEPS,
         "--eval-batches", 8, "--device", device, "--out", out, *more], limit)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], json.loads((out / "summary.json").read_text())


def training(check, states):
    """The same short fine-tune on CPU and GPU."""

    def function(limit):
        stop = time.monotonic() + limit
        cpu, _ = finetune(check, states, "cpu", stop - time.monotonic())
        gpu, summary = finetune(check, states, check.device, stop - time.monotonic())
        if len(cpu) != TRAINING_STEPS or len(gpu) != TRAINING_STEPS:
            raise Failure(f"{len(cpu)} and {len(gpu)} losses, expected {TRAINING_STEPS}")
        apart = [abs(a - b) for a, b in zip(cpu, gpu)]
        found = {"cpu": cpu, "gpu": gpu, "largest_difference": max(apart),
                 "final_eval_loss": summary["final_eval_loss"]}
        if not apart[0] <= PASS_TOLERANCE:
            raise Failure(f"the first losses {cpu[0]} and {gpu[0]} differ by more than {PASS_TOLERANCE}")
        if not max(apart) <= TRAINING_TOLERANCE:
            raise Failure(f"losses differ by {max(apart):.2e}, more than {TRAINING_TOLERANCE}: {found}")
        return found

    return function


def moves(check):
    """A run that begins on the CPU goes on on the GPU."""

    def function(limit):
        stop = time.monotonic() + limit
        source = check.scratch / "moving"
        base = [QFT, "finetune", "--config", "examples/shakespeare.toml", "--data", check.text, "--eval-batches", 2,
                "--steps", TRAINING_STEPS, "--checkpoint-every", TRAINING_STEPS // 2, "--keep-checkpoints", 3, "--out", source]
        run([*base, "--device", "cpu"], stop - time.monotonic())
        checkpoint = source / f"checkpoints/step-{TRAINING_STEPS // 2:06}"
        cpu = json.loads((source / "summary.json").read_text())["final_loss"]
        run([*base, "--device", check.device, "--resume", checkpoint], stop - time.monotonic())
        gpu = json.loads((source / "summary.json").read_text())["final_loss"]
        if not abs(cpu - gpu) <= TRAINING_TOLERANCE:
            raise Failure(f"the last losses {cpu} and {gpu} differ by more than {TRAINING_TOLERANCE}")
        return {"cpu": cpu, "gpu": gpu}

    return function


def memory(check, model, states, needs_gb):
    def function(limit):
        have = (check.results["gpu"] or {"memory_mib": 0})["memory_mib"] * 2**20 / 1e9
        if have < needs_gb:
            raise Skip(f"takes {needs_gb} GB, the card has {have:.1f}")
        out = run([XTASK, "bench-memory", "--model", model, "--states", states, "--tokens", "2048", "--run",
                   "--weights", "synthetic", "--device", check.device, "--json"], limit)
        return json.loads(out)[0]

    return function


def speed(check, *args, env=None):
    def function(limit):
        if check.device == "cpu":
            raise Skip("takes minutes on a CPU")
        return json.loads(run([XTASK, *args, "--device", check.device, "--json"], limit, env))

    return function


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-check.json"))
    parser.add_argument("--budget", type=float, default=470, help="seconds for all steps together")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only steps whose name begins so")
    args = parser.parse_args()
    args.out = args.out.resolve()
    check = Check(args)
    check.write()
    if check.results["gpu"] is None and args.device != "cpu":
        print("there is no GPU here: nvidia-smi is absent or lists none", file=sys.stderr)
        return 2
    print(check.results["gpu"], flush=True)
    tests = sorted((ROOT / "tests").iterdir())
    for test in tests:
        check.step(f"parity {test.name}", 90, parity(check, test))
    check.step("golden model", 60, lambda limit: golden(check, limit))
    for states in ["full", "compact", "paper"]:
        check.step(f"training {states}", 60, training(check, states))
    check.step("checkpoint moves", 60, moves(check))
    check.step("products llama-2-7b", 40, speed(check, "bench-gemm", "--model", "llama-2-7b"))
    if (check.results["gpu"] or {}).get("compute_capability") == "9.0":
        check.step("products without wgmma", 40,
                   speed(check, "bench-gemm", "--model", "llama-2-7b", env={"QFT_NO_WGMMA": "1"}))
    check.step("step llama-110m", 40, speed(check, "bench-step", "--model", "llama-110m"))
    check.step("step tinyllama-1.1b", 60, speed(check, "bench-step", "--model", "tinyllama-1.1b", "--seq-len", "2048",
                                               "--batch-size", "1", "--steps", "3"))
    for states, needs_gb in [("full", 23), ("compact", 17), ("paper", 23)]:
        check.step(f"memory llama-2-7b {states}", 90, memory(check, "llama-2-7b", states, needs_gb))
    for tool in ["memcheck", "racecheck"]:
        for test in tests:
            check.step(f"{tool} {test.name}", 60, sanitized(tool, test))
    shutil.rmtree(check.scratch, ignore_errors=True)
    print(f"{check.results['failed']} of {len(check.results['steps'])} steps failed; {args.out}")
    return 1 if check.results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
