#!/usr/bin/env python3
"""Exports models with `qft export`, and reads them with the programs that serve them.

    python3 -m venv venv
    CMAKE_ARGS="-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAVA_BUILD=OFF" \\
        venv/bin/pip install torch==2.15.0 transformers==5.24.0 compressed-tensors==0.20.1 loguru accelerate gguf==0.19.0 \\
        llama-cpp-python==0.3.36
    python3 -m venv old && old/bin/pip install torch==2.15.0 transformers==4.49.0
    venv/bin/python scripts/check_exports.py --qft target/release/qft --old old/bin/python --families MODEL ...

llama-cpp-python is compiled, which takes ten minutes on two cores. What is not installed is left out, with a line that says so.

For each folder MODEL, and with --families for the tiny models of the repository (each of which may also be a MODEL): the mean
negative log-likelihood of a text (the beginning of --text, at most --tokens tokens) and the greedy continuation of a prompt, of the
folder itself in f32 by transformers and the former by `qft eval`, then of each export by each reader. A loss that is farther from that of the folder than the format can explain is an
error, and so are other tokens of the tokenizer. Greedy tokens may differ where rounding decides a near tie, and what follows is then
another text: printed is how many agree before, and by how much the likeliest token led there. In f32 all must agree.
"""

import argparse
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = ROOT / "crates/qft-testing/data/families"
PROMPT, NEW = "The capital of France is", 16

# Tokens of the shortest context that llama.cpp has.
LLAMA_CONTEXT = 256

# The largest distance of a loss, relative to that of the folder in f32.
WITHIN = {"f32": 2e-4, "f16": 1e-3, "bf16": 5e-3, "q8_0": 1e-2, "w8a8": 5e-2}

# By how much, in nats, the likeliest token of the folder in f32 may lead where an export has another one: a near tie.
TIE = {"f32": 0.0, "f16": 0.01, "bf16": 0.05, "q8_0": 0.1, "w8a8": 0.3}

SAMPLES = [
    "Hello world, it's 2024!  Two  spaces,\ttabs\n\nand 1234567 numbers; I'LL see.",
    "def f(x):\n    return x**2  # squared\n\n\n    if x != 3:\n        pass",
    "na\u00efve caf\u00e9 \u2014 \u4f60\u597d\u4e16\u754c \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f680\U0001f600 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    " leading and trailing ",
    "a",
    "",
    "'''```\"\"\"...!!!??? \u2581 <s> [INST]",
]


def has(module):
    if importlib.util.find_spec(module):
        return True
    print(f"left out: {module} is not installed")
    return False


# What a Python with transformers measures; also run by the older one.


def measure_folder(folder, ids, prompt):
    """Loss and greedy tokens by transformers in f32."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", local_files_only=True, **{kind: torch.float32}
    ).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()
        greedy, leads = list(prompt), []
        for _ in range(NEW):
            logits = model(input_ids=torch.tensor([greedy]), use_cache=False).logits[0, -1]
            first, second = logits.topk(2).values.tolist()
            leads.append(first - second)
            greedy.append(int(logits.argmax()))
    ends = model.generation_config.eos_token_id
    found = {"loss": loss, "greedy": greedy[len(prompt) :], "leads": leads}
    return found | {"ends": ends, "version": transformers.__version__}


def measure_with(python, folder, ids, prompt):
    """The same by another Python."""
    job = json.dumps({"folder": str(folder), "ids": ids, "prompt": prompt})
    command = [python, __file__, "--job", "-"]
    done = subprocess.run(command, input=job, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_gguf(path, ids, prompt):
    """Loss, greedy tokens, and the tokens of the samples by llama.cpp, with a cache in f32."""
    import llama_cpp
    import numpy

    # Weights as they are in the file: repacked for AMX, Q8_0 of any origin crashes in some virtual machines.
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def as_they_are():
        params = defaults()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_cpp.llama_model_default_params = as_they_are
    model = llama_cpp.Llama(
        str(path), n_ctx=max(len(ids), len(prompt) + NEW), n_batch=512, n_threads=1, logits_all=True, verbose=False,
        type_k=0, type_v=0, flash_attn=False,
    )  # fmt: skip
    model.eval(ids)
    logits = model.scores[: len(ids) - 1].astype(numpy.float64)
    most = logits.max(axis=1, keepdims=True)
    sums = numpy.log(numpy.exp(logits - most).sum(axis=1)) + most[:, 0]
    loss = float((sums - logits[numpy.arange(len(ids) - 1), ids[1:]]).mean())
    model.reset()
    model.eval(prompt)
    greedy = []
    for _ in range(NEW):
        token = int(model.scores[model.n_tokens - 1].argmax())
        greedy.append(token)
        model.eval([token])
    tokens = [model.tokenize(text.encode(), add_bos=True, special=True) for text in SAMPLES]
    llama_cpp.llama_cpp.llama_model_default_params = defaults
    return {"loss": loss, "greedy": greedy, "tokens": tokens}


class Check:
    def __init__(self, args):
        self.args, self.wrong = args, 0
        self.llama, self.gguf = has("llama_cpp"), has("gguf")
        self.compressed = has("compressed_tensors")

    def fail(self, what):
        self.wrong += 1
        print(f"  WRONG: {what}")

    def export(self, model, kind, dtype, out):
        """Whether it is exported; why not is printed."""
        command = [self.args.qft, "export", "--model", model, "--to", kind, "--dtype", dtype, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"  {kind} {dtype}: {done.stderr.strip()}")
        elif done.stderr:
            print(f"  {kind} {dtype}: says {done.stderr.strip()}")
        return done.returncode == 0

    def compare(self, name, found, base, precision):
        off = abs(found["loss"] / base["loss"] - 1)
        pairs = zip(found["greedy"], base["greedy"])
        same = next((place for place, (a, b) in enumerate(pairs) if a != b), NEW)
        lead = base["leads"][same] if same < NEW else 0.0
        until = f"until the folder's leads by {lead:.4f}" if same < NEW else "the same"
        print(f"  {name:38} loss {found['loss']:.5f} ({off:.1e}), {same} of {NEW} greedy tokens {until}")
        if not off <= WITHIN[precision]:
            self.fail(f"{name}: a loss within {WITHIN[precision]} was expected")
        if lead > TIE[precision]:
            self.fail(f"{name}: other greedy tokens")

    def model(self, folder, ids=None, prompt=None):
        """All exports of a folder. Without `ids`, its tokenizer makes them from a text."""
        print(f"{folder.name}:")
        self.samples, text = None, None
        if ids is None:
            encode = self.encoder(folder)
            text = pathlib.Path(self.args.text).read_text()[: 8 * self.args.tokens]
            while len(ids := encode(text)) > self.args.tokens:
                text = text[: -(1 + len(text) // 50)]
            prompt = encode(PROMPT)
            self.samples = [encode(sample) for sample in SAMPLES]
        base = measure_folder(folder, ids, prompt)
        print(f"  {'the folder, f32, transformers ' + base['version']:38} loss {base['loss']:.5f}, {len(ids)} tokens")
        if text is not None:
            self.evaluate(folder, text, ids, base)
        with tempfile.TemporaryDirectory() as root:
            self.folders(folder, pathlib.Path(root), ids, prompt, base)
            if self.llama or self.gguf:
                self.ggufs(folder, pathlib.Path(root), ids, prompt, base)

    def evaluate(self, folder, text, ids, base):
        """The loss by `qft eval`, of the same tokens."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(text)
            file.flush()
            command = [self.args.qft, "eval", "--model", folder, "--data", file.name, "--seq-len", str(len(ids)), "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return self.fail(f"qft eval: {done.stderr.strip()}")
        found = json.loads(done.stdout)
        off = abs(found["nll"] / base["loss"] - 1)
        print(f"  {'the folder, f32, qft eval':38} loss {found['nll']:.5f} ({off:.1e})")
        if found["tokens"] != len(ids) - 1 or not off <= WITHIN["f32"]:
            self.fail(f"qft eval: {found['tokens']} tokens, and a loss within {WITHIN['f32']} was expected")

    def encoder(self, folder):
        """From texts to tokens, as tokenizer.json alone says: so qft trains. transformers changes some tokenizers."""
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: tokenizer.encode(text).ids

    def folders(self, folder, root, ids, prompt, base):
        for dtype in ("f32", "bf16"):
            out = root / f"hf-{dtype}"
            if not self.export(folder, "hf", dtype, out):
                self.fail("no Hugging Face folder")
                continue
            self.compare(f"hf {dtype}, transformers {base['version']}", measure_folder(out, ids, prompt), base, dtype)
            if self.args.old and old_yarn(folder):
                print(f"  hf {dtype}: left out with the older transformers, which has another YaRN for such a model")
            elif self.args.old:
                found = measure_with(self.args.old, out, ids, prompt)
                if "skipped" in found:
                    print(f"  hf {dtype}, transformers {found['version']}: {found['skipped']}")
                else:
                    self.compare(f"hf {dtype}, transformers {found['version']}", found, base, dtype)
        out = root / "w8a8"
        if self.compressed and self.export(folder, "compressed-tensors", "bf16", out):
            self.compare("compressed-tensors, transformers", measure_folder(out, ids, prompt), base, "w8a8")

    def ggufs(self, folder, root, ids, prompt, base):
        for dtype in ("f32", "f16", "bf16", "q8_0"):
            out = root / f"gguf-{dtype}"
            if not self.export(folder, "gguf", dtype, out):
                return
            path = next(out.glob("*.gguf"))
            if self.gguf:
                import gguf

                reader = gguf.GGUFReader(path)
                if not reader.tensors or "general.architecture" not in reader.fields:
                    self.fail(f"{path.name}: gguf finds nothing in it")
            if not self.llama:
                continue
            found = measure_gguf(path, ids, prompt)
            self.compare(f"gguf {dtype}, llama.cpp", found, base, dtype)
            if self.samples and dtype == "f32":
                for text, ours, theirs in zip(SAMPLES, self.samples, found["tokens"]):
                    # llama.cpp gives no begin token alone.
                    if text and ours != theirs:
                        self.fail(f"tokens of {text!r}: {ours} by the tokenizer, {theirs} by llama.cpp")
            shutil.rmtree(out)

    def family(self, family):
        """A tiny model, with a tokenizer that has an entry for each of its 64 tokens."""
        from safetensors.torch import load_file

        golden = load_file(family / "golden.safetensors")
        ids, prompt = golden["ids"].tolist(), golden["prompt_ids"].tolist()
        with tempfile.TemporaryDirectory() as root:
            folder = pathlib.Path(root) / family.name
            shutil.copytree(family, folder, ignore=shutil.ignore_patterns("golden*"))
            tiny_tokenizer(folder)
            config = json.loads((folder / "config.json").read_text())
            if family.name == "smollm3":
                # llama.cpp leaves positions out of every fourth layer, whatever the model says.
                config["no_rope_layers"] = [1, 1]
            if family.name in ("llama-yarn", "olmo3"):
                # llama.cpp has the usual bounds alone.
                for rope in (config.get("rope_parameters"), config.get("rope_scaling")):
                    if rope:
                        rope |= {"beta_fast": 32.0, "beta_slow": 1.0}
            long = (config.get("rope_scaling") or {}).get("type") == "longrope"
            if long:
                # LongRoPE: transformers takes the factors for the text, llama.cpp those for its context of at least 256 tokens.
                prompt = ids[: config["original_max_position_embeddings"] + 1]
            (folder / "config.json").write_text(json.dumps(config))
            # Past its window, or where dynamic NTK begins, llama.cpp computes otherwise.
            longest = min(config["max_position_embeddings"], config.get("sliding_window") or 64)
            self.model(folder, ids[:longest], prompt[: max(1, longest - NEW)])
            if long:
                config |= {"original_max_position_embeddings": LLAMA_CONTEXT, "max_position_embeddings": 4 * LLAMA_CONTEXT}
                (folder / "config.json").write_text(json.dumps(config))
                self.model(folder.rename(folder.with_name(f"{folder.name}, short")), ids, golden["prompt_ids"].tolist())


def old_yarn(folder):
    """Whether transformers 4.49 computes another YaRN: it takes all positions for those before scaling."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    before = rope.get("original_max_position_embeddings", config["max_position_embeddings"])
    return rope.get("rope_type") == "yarn" and before != config["max_position_embeddings"]


def tiny_tokenizer(folder):
    """Three special tokens, and 61 bytes that stay as they are."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    special = ["<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: 64 - len(special)]
    vocab = {token: number for number, token in enumerate(special + alphabet)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def job():
    import transformers

    given = json.load(sys.stdin)
    kind = json.loads((pathlib.Path(given["folder"]) / "config.json").read_text())["model_type"]
    if kind not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        print(json.dumps({"skipped": f"does not know {kind}", "version": transformers.__version__}))
    else:
        print(json.dumps(measure_folder(given["folder"], given["ids"], given["prompt"])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--qft", default=ROOT / "target/release/qft", type=pathlib.Path)
    parser.add_argument("--old", help="a Python with transformers 4.49")
    parser.add_argument("--families", action="store_true", help="the tiny models of the repository too")
    parser.add_argument("--text", default=ROOT / "examples/tinyshakespeare.txt", help="what losses are of")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("models", nargs="*", type=pathlib.Path, metavar="MODEL")
    args = parser.parse_args()
    if args.job:
        return job()
    args.qft = args.qft.resolve()
    check = Check(args)
    tiny = sorted(path.parent for path in FAMILIES.glob("*/golden.safetensors")) if args.families else []
    for model in [path.resolve() for path in args.models] + tiny:
        if model.name == "gemma3":
            continue
        if (model / "golden.safetensors").exists() and model.parent == FAMILIES:
            check.family(model)
        else:
            check.model(model)
    sys.exit(f"{check.wrong} are wrong" if check.wrong else 0)


if __name__ == "__main__":
    main()
