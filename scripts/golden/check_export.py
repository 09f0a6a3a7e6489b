#!/usr/bin/env python3
"""Loads exported folders with transformers and prints their mean loss beside that of the golden figures.

    OMP_NUM_THREADS=1 venv/bin/python scripts/golden/check_export.py [--golden FILE] [--within 1e-5] DIR ...

FILE is by default the golden.safetensors of the family that the folder DIR is named after. With --within it fails where
a loss is farther from the golden one; 1e-5 holds for an untrained model that was exported in f32.
"""

import argparse
import pathlib
import sys

import torch
import transformers
from families import INPUTS, OUT, load, nll
from safetensors.torch import load_file


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--golden", type=pathlib.Path)
    parser.add_argument("--within", type=float, default=float("inf"))
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    far = 0
    for folder in args.folders:
        golden = load_file(args.golden or OUT / folder.resolve().name / "golden.safetensors")
        with torch.no_grad():
            loss = nll(load(folder), golden["ids"], INPUTS).item()
        want = golden["mean_nll"].item()
        far += abs(loss - want) > args.within
        print(f"{folder}: mean NLL {loss:.7f}, golden {want:.7f}, difference {abs(loss - want):.1e}")
    sys.exit(f"{far} of {len(args.folders)} are farther than {args.within}" if far else 0)


if __name__ == "__main__":
    main()
