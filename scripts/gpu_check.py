#!/usr/bin/env python3
"""Checks qft on a machine with an NVIDIA GPU, from the folder that `cargo xtask gpu-check --pack DIR` made.

    python3 scripts/gpu_check.py [--out gpu-check.json] [--budget 570] [--only NAME ...]

Needs the driver and Python; beside PyTorch it times products and attention where PyTorch is. The steps are in the order of what
they decide: whether kernels load, are right, are right at sizes that fill the card, and how fast; then whole runs, memory, and
the sanitizers. Each has a time limit of its own and the whole a budget; a step that fails does not stop the others. The results
are written as JSON after every step, and what a step printed lies beside them. Exit code: 0 if all that ran passed, 1 if a step
failed or did not get its time, 2 if there is no GPU. `--device cpu` compares the CPU with itself and the kernels on the
emulator with the CPU: it checks this script, on any machine.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
QFT, XTASK, OPEN = ROOT / "bin/qft", ROOT / "bin/xtask", ROOT / "bin/gpu_open"
MODEL = "examples/stories260k"

# Losses of CPU and GPU, absolute. The integers of both are the same bits; float sums of attention, norms and the loss run
# in another order, which moves the loss of one pass by some 1e-6. In training, such a difference flips the rounding of a
# few weights of many, and the two runs part slowly; twenty steps apart by more than this is another algorithm.
PASS_TOLERANCE, TRAINING_TOLERANCE = 2e-4, 1e-2
TRAINING_STEPS = 20

# What is small enough for a tool that slows kernels down by a factor of a hundred.
SANITIZED = {
    "attention": ["the_order_of_warps_leaves_no_trace"],
    "convert": ["to_bf16_equals_the_cpu"],
    "device": ["devices_give_known_answers"],
    "gemm": ["few_rows", "products_of_warpgroups"],
    "hybrid": ["decoded_rows_equal_the_cpu"],
    "layers": ["rope", "biases_and_sums", "embedding_moves_rows"],
    "loss": ["equals_the_cpu_and_the_reference"],
    "optim": ["owned_rows_are_updated_as_all_are"],
    "quantize": ["rotated_rows_equal_the_cpu"],
}

# Attention of LLaMA-2-7B in PyTorch, bf16: milliseconds forward and backward, by the length of a sequence.
SDPA = """
import json, torch, torch.nn.functional as F
found = {}
for tokens in (2048, 16384):
    q, k, v = (torch.randn(1, 32, tokens, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out = forward(); grad = torch.randn_like(out)
    def timed(work, rounds=20):
        for _ in range(3): work()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(rounds): work()
        end.record(); torch.cuda.synchronize()
        return start.elapsed_time(end) / rounds
    found[tokens] = {"forward_ms": timed(forward), "backward_ms": timed(lambda: out.backward(grad, retain_graph=True))}
print(json.dumps(found))
"""


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
        # What steps printed stays, also where one was ended.
        self.logs = args.out.with_suffix(".logs")
        self.logs.mkdir(exist_ok=True)
        # So that what the driver compiles is seen to be compiled.
        os.environ["CUDA_CACHE_PATH"] = str(self.scratch / "cache")
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


def run(command, limit, env=None, log=None):
    """Runs a program in the folder; what it printed. Its failure is the step's. What it printed stays in the file `log`, if it
    is named, and all that it has started ends with it."""
    environment = {**os.environ, "QFT_REPOSITORY": str(ROOT), **(env or {})}
    with tempfile.TemporaryDirectory() as temporary:
        places = [pathlib.Path(temporary) / "stdout", pathlib.Path(temporary) / "stderr"]
        with open(places[0], "wb") as stdout, open(places[1], "wb") as stderr:
            process = subprocess.Popen([str(part) for part in command], cwd=ROOT, env=environment, stdout=stdout,
                                       stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                code = process.wait(max(limit, 1))
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
                if log is not None:
                    log.write_bytes(places[0].read_bytes() + places[1].read_bytes())
        out, said = (place.read_text(errors="replace") for place in places)
    if code != 0:
        tail = (out[-3000:] + said[-3000:]).strip()
        raise Failure(f"exit code {code}: {' '.join(map(str, command))}\n{tail}")
    return out


def opened(check, limit):
    """Whether the driver takes all kernels, and what it makes of them."""
    if check.device == "cpu":
        raise Skip("there is no driver")
    found = json.loads(run([OPEN], limit, log=check.logs / "open"))
    spilled = {kernel["name"]: kernel["local_bytes"] for kernel in found["kernels"] if kernel["local_bytes"]}
    serialized = [module["name"] for module in found["modules"] if "serialized" in module["notes"]]
    found |= {"local": spilled, "serialized": serialized}
    if serialized:
        raise Failure(f"serialized: {serialized}")
    return found


def parity(check, limit):
    """All test programs at the same time. A fault is told by the launch that made it, since each is waited for."""
    env = {} if check.device == "cpu" else {"QFT_ONLY_GPU": "1", "QFT_CUDA_SYNC": "1"}
    tests = sorted((ROOT / "tests").iterdir())

    def one(test):
        try:
            out = run([test, "--test-threads=2"], limit, env, check.logs / f"parity-{test.name}")
            return test.name, [line for line in out.splitlines() if line.startswith("test result")], None
        except (Failure, subprocess.TimeoutExpired) as error:
            return test.name, [], str(error)

    with concurrent.futures.ThreadPoolExecutor(len(tests) if check.device != "cpu" else 2) as pool:
        done = list(pool.map(one, tests))
    wrong = {name: error for name, _, error in done if error}
    if wrong:
        raise Failure(f"{', '.join(wrong)}\n" + "\n".join(wrong.values()))
    return {name: summary for name, summary, _ in done}


def checked_products(check, limit):
    """Products at sizes that fill the card: right, the same bits each time, and by both kinds of tensor-core instructions."""
    stop = time.monotonic() + limit
    size = ["--model", "llama-15m", "--tokens", "64", "--check", "3"] if check.device == "cpu" else ["--check", "50"]
    command = [XTASK, "bench-gemm", *size, "--device", check.device, "--json"]
    found = json.loads(run(command, stop - time.monotonic(), log=check.logs / "products"))
    if (check.results["gpu"] or {}).get("compute_capability") == "9.0":
        other = json.loads(run(command, stop - time.monotonic(), {"QFT_NO_WGMMA": "1"}))
        hashes = [[row["hash"] for row in result["products"]] for result in (found, other)]
        if hashes[0] != hashes[1]:
            raise Failure(f"wgmma and mma.sync differ: {hashes}")
        found["without_wgmma"] = other["products"]
    return found


def has_torch():
    """Whether there is a PyTorch with a GPU; else the step has nothing to compare with."""
    probe = subprocess.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], capture_output=True)
    if probe.returncode != 0:
        raise Skip("there is no PyTorch with a GPU")


def products_beside(check, limit):
    has_torch()
    out = check.scratch / "products.json"
    run([sys.executable, "scripts/compare_gemm.py", "--json", out, "--device", check.device], limit, log=check.logs / "compare_gemm")
    return json.loads(out.read_text())


def attention_beside(check, limit):
    has_torch()
    return json.loads(run([sys.executable, "-c", SDPA], limit))


def needs(check, gigabytes):
    have = (check.results["gpu"] or {"memory_mib": 0})["memory_mib"] * 2**20 / 1e9
    if check.device != "cpu" and have < gigabytes:
        raise Skip(f"takes {gigabytes} GB, the card has {have:.1f}")


def step(check, model, batch_size, gigabytes, *more):
    """Steps as a run takes them, then one by phases."""

    def function(limit):
        needs(check, gigabytes)
        shape = ["--model", model, "--seq-len", "2048", "--batch-size", batch_size, "--steps", "3"]
        if check.device == "cpu":
            shape = ["--model", "llama-15m", "--seq-len", "32", "--batch-size", "1", "--steps", "1"]
        return json.loads(run([XTASK, "bench-step", *shape, *more, "--device", check.device, "--json"], limit))

    return function


def kernel_times(check, limit):
    """Where the time of a step goes, by the device's clock."""
    if check.device == "cpu":
        raise Skip("there is no clock of a device")
    needs(check, 24)
    log = check.logs / "kernel-times"
    command = [XTASK, "bench-step", "--model", "llama-2-7b", "--seq-len", "2048", "--batch-size", "1", "--steps", "2", "--recompute"]
    run([*command, "--device", check.device, "--json"], limit, {"QFT_KERNEL_TIMES": "1"}, log)
    rows = re.findall(r"^(\w+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", log.read_text(), re.MULTILINE)
    return [{"kernel": kernel, "launches": int(count), "ms": float(ms), "us_each": float(each)} for kernel, count, ms, each, _ in rows]


def counters(check, limit):
    """The hardware's counters of the kernels that take the time."""
    ncu = shutil.which("ncu") or shutil.which("ncu", path="/usr/local/cuda/bin")
    if ncu is None:
        raise Skip("there is no ncu on this machine")
    log = check.logs / "ncu"
    sections = [part for name in ("SpeedOfLight", "Occupancy", "WarpStateStats") for part in ("--section", name)]
    kernels = "regex:hopper|gemm_i8|attention|update|quantize|swiglu|rmsnorm"
    run([ncu, "--clock-control", "none", *sections, "-k", kernels, "-c", "40", XTASK, "bench-step", "--model", "tinyllama-1.1b",
         "--seq-len", "2048", "--batch-size", "4", "--steps", "1", "--device", check.device], limit, log=log)
    if "ERR_NVGPUCTRPERM" in log.read_text():
        raise Skip("counters need another permission here")
    return {"log": log.name}


def sanitized(check, tool, test):
    def function(limit):
        sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        if sanitizer is None:
            raise Skip("there is no compute-sanitizer on this machine")
        tests = SANITIZED[test]
        log = check.logs / f"{tool}-{test}"
        try:
            run([sanitizer, "--tool", tool, "--error-exitcode", "99", ROOT / "tests" / test, "--exact", *tests, "--test-threads=1"],
                limit, {"QFT_ONLY_GPU": "1"}, log)
        except Failure:
            if "Device not supported" in log.read_text():
                raise Skip("the tool does not work on this machine") from None
            raise
        return {"tests": tests}

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


def gpus():
    """How many GPUs the driver lists."""
    try:
        out = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in out.stdout.splitlines())


def ranks(check):
    """A run that GPUs share has the bits of one alone, by NCCL and by way of the host; and how fast each is."""

    def function(limit):
        stop = time.monotonic() + limit
        most = check.args.ranks or (2 if check.device == "cpu" else gpus())
        if most < 2:
            raise Skip("there is one GPU")
        found = {}
        for size in sorted({1, 2, most}):
            for name, env in [("nccl", {}), ("host", {"QFT_NO_NCCL": "1"})][: 1 if size == 1 else 2]:
                out = check.scratch / f"ranks-{size}-{name}"
                device = ["--device", "cpu", "--processes", size] if check.device == "cpu" else ["--gpus", size]
                log = check.logs / f"ranks-{size}-{name}"
                run([QFT, "finetune", "--config", "examples/shakespeare.toml", "--data", check.text, "--steps", 6,
                     "--accumulate", 2 * most, "--eval-batches", 1, *device, "--verbose", "--out", out], stop - time.monotonic(), env, log)
                steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
                rates = sorted(step["positions_per_second"] for step in steps if "positions_per_second" in step)
                digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
                by_nccl = "GPUs exchange by" in log.read_text() and not env
                found[f"{size} {name}"] = {"positions_per_second": rates[len(rates) // 2], "sha256": digest, "by_nccl": by_nccl}
        digests = {run["sha256"] for run in found.values()}
        if len(digests) > 1:
            raise Failure(f"bits differ: {found}")
        if check.device != "cpu" and not any(run["by_nccl"] for run in found.values()):
            raise Failure(f"NCCL was not used: {found}")
        return found

    return function


def memory(check, model, states, gigabytes):
    def function(limit):
        if check.device == "cpu":
            raise Skip("takes minutes on a CPU")
        needs(check, gigabytes)
        out = run([XTASK, "bench-memory", "--model", model, "--states", states, "--tokens", "2048", "--run",
                   "--weights", "synthetic", "--device", check.device, "--json"], limit)
        return json.loads(out)[0]

    return function


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-check.json"))
    parser.add_argument("--budget", type=float, default=570, help="seconds for all steps together")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--ranks", type=int, help="GPUs that share a run; all, where nothing is said")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only steps whose name begins so")
    args = parser.parse_args()
    args.out = args.out.resolve()
    check = Check(args)
    check.write()
    if check.results["gpu"] is None and args.device != "cpu":
        print("there is no GPU here: nvidia-smi is absent or lists none", file=sys.stderr)
        return 2
    print(check.results["gpu"], flush=True)
    check.step("open", 60, lambda limit: opened(check, limit))
    check.step("parity", 120 if args.device != "cpu" else 600, lambda limit: parity(check, limit))
    check.step("products checked", 60, lambda limit: checked_products(check, limit))
    check.step("products beside PyTorch", 60, lambda limit: products_beside(check, limit))
    check.step("attention beside PyTorch", 30, lambda limit: attention_beside(check, limit))
    check.step("step llama-2-7b 1 x 2048", 60, step(check, "llama-2-7b", 1, 24, "--recompute"))
    check.step("step llama-2-7b 8 x 2048", 60, step(check, "llama-2-7b", 8, 34, "--recompute"))
    check.step("step llama-2-7b 8 x 2048, all kept", 60, step(check, "llama-2-7b", 8, 130))
    check.step("kernel times llama-2-7b", 60, lambda limit: kernel_times(check, limit))
    check.step("counters", 60, lambda limit: counters(check, limit))
    check.step("golden model", 60, lambda limit: golden(check, limit))
    for states in ["full", "compact", "paper"]:
        check.step(f"training {states}", 60, training(check, states))
    check.step("checkpoint moves", 60, moves(check))
    check.step("several GPUs", 120, ranks(check))
    for states, gigabytes in [("full", 23), ("compact", 17), ("tiny", 13), ("paper", 23)]:
        check.step(f"memory llama-2-7b {states}", 90, memory(check, "llama-2-7b", states, gigabytes))
    for tool in ["memcheck", "racecheck"]:
        for test in SANITIZED:
            check.step(f"{tool} {test}", 30, sanitized(check, tool, test))
    shutil.rmtree(check.scratch, ignore_errors=True)
    print(f"{check.results['failed']} of {len(check.results['steps'])} steps failed; {args.out}")
    return 1 if check.results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
