"""Writes golden.json beside the miniature sets of questions: what lm-evaluation-harness finds on the story model.

    python scripts/golden/questions.py

Needs what scripts/check_eval.py needs.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from check_eval import harness  # noqa: E402


def rounded(value):
    """Numbers with as many decimals as f32 sums have that say something."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {key: rounded(item) for key, item in value.items()}


folder = ROOT / "crates/qft-testing/data/questions"
paths = sorted(folder.glob("*.jsonl"))
found = harness(ROOT / "examples/stories260k", paths)
(folder / "golden.json").write_text(json.dumps(rounded(found), indent=1) + "\n")
