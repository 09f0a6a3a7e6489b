#!/usr/bin/env python3
"""How fast two processes with a thread each train by TCP, beside one process with one thread and with two.

    cargo build --release --bin qft
    sudo python3 scripts/job_speed.py MODEL DATA [--rate none --rate 10gbit --rate 1gbit] [--steps 5] [-- OPTION ...]

Two processes run on one machine (`--processes 2`), and then on two hosts, which are network namespaces of this machine, with a cable
of each rate between them. A row has the medians of all steps but the first: positions per second, seconds of a step, seconds in which
exchanges were under way and in which the first process waited, megabytes that it sent and received. All runs have to come
to the same model. Needs root, Linux, `ip` and `tc`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from check_hosts import HOSTS, Job, Network, sha256

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("", "positions/s", "s per step", "exchanged, s", "waited, s", "sent, MB", "received, MB")


def finetune(args, out, more, network=None):
    """Trains, and returns the lines of metrics of its steps but the first, each with its positions and seconds."""
    command = [args.qft, "finetune", "--model", args.model, "--data", args.data, "--out", str(out), "--quiet", "--states", args.states]
    command += ["--steps", str(args.steps), "--too-long", "cut", *args.options, *more]
    starts = [(command, dict(os.environ))]
    if network:
        starts = [(Job.on(number) + command, os.environ | Job.variables(number)) for number in range(len(HOSTS))]
    processes = [subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) for command, environment in starts]
    if any([process.wait() for process in processes]):
        raise SystemExit("a run has failed")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    for step, before in zip(steps[1:], steps):
        step["seconds"] = (step["positions"] - before["positions"]) / step["positions_per_second"]
    return steps[1:]


def row(name, steps):
    """The medians of a run."""

    def median(of):
        return statistics.median(of(step) for step in steps)

    def exchange(key, scale=1.0):
        return f"{median(lambda step: step['exchange'][key]) * scale:.2f}" if "exchange" in steps[0] else ""

    rate, seconds = median(lambda step: step["positions_per_second"]), median(lambda step: step["seconds"])
    cells = [name, f"{rate:.1f}", f"{seconds:.2f}", exchange("seconds"), exchange("waited_seconds")]
    cells += [exchange("sent_bytes", 1e-6), exchange("received_bytes", 1e-6)]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rate", action="append", help="of a cable, as tc has it; `none` is one without a limit")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--states", default="full")
    parser.add_argument("--qft", default=str(ROOT / "target/release/qft"))
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end], argparse.Namespace(options=given[end + 1 :]))
    args.qft, args.model, args.data = (str(Path(path).resolve()) for path in (args.qft, args.model, args.data))
    scratch = Path(tempfile.mkdtemp(prefix="qft-speed-"))
    digests = set()

    def measure(name, more, network=None):
        out = scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        row(name, finetune(args, out, more, network))
        digests.add(sha256(out / "model.safetensors"))

    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    try:
        measure("one process, one thread", ["--threads", "1"])
        measure("one process, two threads", ["--threads", "2"])
        measure("two processes of one machine", ["--threads", "1", "--processes", "2"])
        for rate in args.rate or []:
            with Network(None if rate == "none" else rate) as network:
                measure(f"two hosts, {rate}", ["--threads", "1"], network)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if len(digests) > 1:
        raise SystemExit("the models differ")


if __name__ == "__main__":
    main()
