"""Which files the library `datasets` takes for which split: crates/qft-hub/tests/golden/splits.json.

    python splits.py            # datasets 5.2.0

Layouts as repositories have them, and random ones of the words that decide. Each case is the files of a folder and, for
each split that the library infers, its files.
"""

import json
import os
import random
import tempfile
from pathlib import Path

from datasets.data_files import get_data_patterns, resolve_pattern

OUT = Path(__file__).parents[2] / "crates/qft-hub/tests/golden/splits.json"

LAYOUTS = [
    ["README.md", "data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
    ["data/train-00000-of-00001-0a1b2c3d4e5f.parquet"],
    ["data/train_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"],
    ["train.jsonl", "dev.jsonl", "test.jsonl"],
    ["alpaca_data_cleaned.json", "README.md"],
    ["data/train.csv", "data/valid.csv"],
    ["train/a.txt", "train/b.txt", "test/a.txt"],
    ["databricks-dolly-15k.jsonl"],
    ["ShareGPT_V3_unfiltered_cleaned_split.json", "HTML_cleaned_raw_dataset/sg_90k_part1.json"],
    ["oasst1_train.jsonl.gz", "oasst1_eval.jsonl.gz"],
    ["training-set.csv", "testing-set.csv", "retrain.csv"],
    ["train1.json", "train2.json", "val1.json"],
    ["2023/train.csv", "2024/train.csv"],
    ["pretrain/x.json", "train_data/x.json", "my-test/x.json"],
]

WORDS = ["train", "training", "trained", "dev", "val", "valid", "validation", "test", "testing", "eval", "data", "part", "x"]


def name(rng):
    words = rng.choices(WORDS, k=rng.choice([1, 1, 2]))
    text = rng.choice(["-", "_", ".", ""]).join(words)
    return text + rng.choice(["", "", "1", "-00000-of-00001"])


def layout(rng):
    files = set()
    for _ in range(rng.randint(1, 5)):
        folders = [name(rng) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
        files.add("/".join([*folders, name(rng) + ".jsonl"]))
    return sorted(files)


def splits(files):
    with tempfile.TemporaryDirectory() as root:
        for file in files:
            path = Path(root, file)
            if any(parent.is_file() for parent in path.parents):
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        root = os.path.realpath(root)
        found = {}
        for split, patterns in get_data_patterns(root).items():
            paths = {path for pattern in patterns for path in resolve(pattern, root)}
            found[str(split)] = sorted(os.path.relpath(path, root) for path in paths)
        return found


def resolve(pattern, root):
    try:
        return resolve_pattern(pattern, root)
    except FileNotFoundError:
        return []


def main():
    rng = random.Random(7)
    cases = []
    for files in LAYOUTS + [layout(rng) for _ in range(120)]:
        found = splits(files)
        if found is not None:
            cases.append({"files": sorted(files), "splits": found})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
