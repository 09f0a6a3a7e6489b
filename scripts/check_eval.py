"""Compares `qft eval --questions` with lm-evaluation-harness, question by question.

    python scripts/check_eval.py --qft target/release/qft --model MODEL --questions hellaswag.jsonl lambada.jsonl --limit 100

Both read the same JSON lines and the same model in f32 on the CPU. Printed are, for every set, the largest difference of a
log-likelihood, and every score with its standard error by both. Ends with 1 where a log-likelihood differs by more than
TOLERANCE of itself, a score in its fourth digit, or a standard error by more than 1.5 % (that of a perplexity is drawn by the
harness and has a closed form in qft).

Needs: pip install lm_eval datasets accelerate torch transformers (made with lm_eval 0.4.13, transformers 5.24, torch 2.15).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# f32 sums of hundreds of terms, in another order.
TOLERANCE = 1e-4

# What a task of the harness is, by the first key of a line.
FORMS = {
    "query": {
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metrics": ["acc", "acc_norm", "acc_bytes"],
    },
    "context_options": {
        "output_type": "multiple_choice",
        "doc_to_text": "gold",
        "doc_to_choice": "context_options",
        "doc_to_target": "continuation",
        "metrics": ["acc"],
    },
    "context": {
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "{{' ' + continuation}}",
        "metrics": ["acc", "perplexity"],
    },
}


def task_of(path):
    """The task of the harness that reads a file of questions."""
    first = json.loads(Path(path).read_text().splitlines()[0])
    form = dict(next(FORMS[key] for key in FORMS if key in first))
    metrics = form.pop("metrics")
    aggregation = {"perplexity": "perplexity"}
    return {
        "task": Path(path).stem,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path(path).resolve())}},
        "test_split": "test",
        "num_fewshot": 0,
        "metric_list": [
            {
                "metric": metric,
                "aggregation": aggregation.get(metric, "mean"),
                "higher_is_better": metric != "perplexity",
            }
            for metric in metrics
        ],
        **form,
    }


def harness(model, paths, limit=None):
    """By set: log-likelihoods by question, whether answers are greedy, and scores."""
    # JSON files lie here; nothing is fetched.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        tasks = [task_of(path) for path in paths]
        for task in tasks:
            # JSON is YAML.
            Path(folder, f"{task['task']}_here.yaml").write_text(json.dumps(task))
        # What tokenizer.json says: of some classes transformers 5 makes another one, to which a blank at the beginning of a
        # text is nothing.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(model))
        # With its cache, lm_eval 0.4.13 takes the logits of a wrong token where texts are the same and their parts are not.
        lm = HFLM(
            pretrained=str(model),
            tokenizer=tokenizer,
            dtype="float32",
            device="cpu",
            batch_size=4,
            logits_cache=False,
        )
        found = simple_evaluate(
            model=lm,
            tasks=[task["task"] for task in tasks],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            limit=limit,
            log_samples=True,
        )
    results = {}
    for task in tasks:
        name = task["task"]
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        pairs = [[answer[0] for answer in sample["resps"]] for sample in samples]
        scores = {
            key.split(",")[0]: value
            for key, value in found["results"][name].items()
            if key.endswith(",none")
        }
        results[name] = {
            "log_likelihoods": [[float(pair[0]) for pair in question] for question in pairs],
            "scores": scores,
        }
        if task["output_type"] == "loglikelihood":
            results[name]["greedy"] = [bool(question[0][1]) for question in pairs]
    return results


def qft(program, model, paths, limit):
    """The same by qft."""
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/samples.jsonl"
        command = [program, "eval", "--model", model, "--json", "--log-samples", log]
        command += [f"--questions={path}" for path in paths]
        command += [f"--limit-questions={limit}"] if limit else []
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    results = {}
    for score in json.loads(printed)["sets"]:
        own = [line for line in lines if line["set"] == score["set"]]
        scores = {}
        for metric, figure in score["figures"].items():
            scores[metric] = figure["value"]
            scores[f"{metric}_stderr"] = figure["stderr"]
        results[score["set"]] = {
            "log_likelihoods": [line["log_likelihoods"] for line in own],
            "scores": scores,
        }
        if "greedy" in own[0]:
            results[score["set"]]["greedy"] = [line["greedy"] for line in own]
    return results


def compare(name, found, expected):
    """Prints the differences of a set; whether there are none that count."""
    pairs = [
        (a, b)
        for mine, theirs in zip(found["log_likelihoods"], expected["log_likelihoods"], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    worst = max(abs(a - b) for a, b in pairs)
    relative = max(abs(a - b) / max(abs(b), 1.0) for a, b in pairs)
    print(f"{name}: {len(pairs)} log-likelihoods, largest difference {worst:.2e} ({relative:.1e} of itself)")
    same = relative < TOLERANCE and found.get("greedy") == expected.get("greedy")
    for metric, value in found["scores"].items():
        theirs = expected["scores"][metric]
        limit = 0.015 * theirs if metric.endswith("_stderr") else 5e-5 * max(abs(theirs), 1.0)
        fine = abs(value - theirs) <= limit + 1e-9
        print(f"  {metric:20} qft {value:.6f}  lm_eval {theirs:.6f}{'' if fine else '  DIFFERENT'}")
        same &= fine
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--qft", default="target/release/qft")
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions", nargs="+", required=True)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    found = qft(args.qft, args.model, args.questions, args.limit)
    expected = harness(args.model, args.questions, args.limit)
    same = [compare(name, found[name], expected[name]) for name in expected]
    print("the same" if all(same) else "DIFFERENT")
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
