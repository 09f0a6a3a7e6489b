#!/usr/bin/env python3
"""Lets TensorBoard read what runs wrote for it, and compares that with their metrics.jsonl.

    python3 -m venv venv && venv/bin/pip install tensorboard==2.21.0
    venv/bin/python scripts/check_tensorboard.py tuned ...

Both readers of TensorBoard are asked: the one in Python, which checks every record's checksum, and the server that `tensorboard`
starts, as a browser would ask it. Each number of each line must be there under its key and step, rounded to f32, and nothing else.
Where a resumed run did steps again, the later ones count.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request


def f32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def numbers(line, front=""):
    """The numbers of a line, each with its key."""
    for key, value in line.items():
        if key == "step":
            continue
        if isinstance(value, dict):
            yield from numbers(value, f"{front}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield front + key, f32(value)


def expected(out):
    """By key and step, what metrics.jsonl says."""
    found = {}
    for text in (out / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        name = line.get("set")
        for key, number in numbers(line):
            if name is not None and key.startswith("set_"):
                key = f"eval/{name}/{key.removeprefix('set_')}"
            found.setdefault(key, {})[line["step"]] = number
    return found


def by_reader(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: {event.step: event.value for event in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}


def by_server(folder):
    """The same, over HTTP."""
    with tempfile.TemporaryFile("w+") as said:
        line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--samples_per_plugin", "scalars=1000000"]
        server = subprocess.Popen(line, stderr=said, stdout=subprocess.DEVNULL)
        try:
            for _ in range(600):
                said.seek(0)
                text = said.read()
                if "http://" in text:
                    break
                time.sleep(0.1)
            address = "http://" + text.split("http://")[1].split("/")[0] + "/data/plugin/scalars"
            get = lambda path: json.load(urllib.request.urlopen(address + path))
            for _ in range(100):
                tags = get("/tags").get(".", {})
                if tags:
                    break
                time.sleep(0.1)
            found = {}
            for tag in tags:
                query = urllib.parse.urlencode({"run": ".", "tag": tag})
                found[tag] = {step: value for _, step, value in get(f"/scalars?{query}")}
            return found
        finally:
            server.terminate()
            server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    failed = False
    for out in parser.parse_args().runs:
        right = expected(out)
        for reader in [by_reader, by_server]:
            found = reader(out / "tensorboard")
            wrong = [f"{key}: {len(right.get(key, {}))} in metrics.jsonl, {len(found.get(key, {}))} read"
                     for key in sorted(right.keys() | found.keys()) if right.get(key) != found.get(key)]
            count = sum(map(len, found.values()))
            print(f"{out} {reader.__name__}: {'; '.join(wrong) or f'{count} numbers of {len(found)} keys are the same'}")
            failed |= bool(wrong) or not found
    sys.exit(failed)


if __name__ == "__main__":
    main()
