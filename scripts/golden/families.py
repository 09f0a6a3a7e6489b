#!/usr/bin/env python3
"""Makes a tiny random model of each family, and the figures that transformers computes with it.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0
    OMP_NUM_THREADS=1 venv/bin/python scripts/golden/families.py [--out FOLDER] [NAME ...]

Writes FOLDER/NAME/{config.json, model.safetensors, golden.safetensors}; FOLDER is crates/qft-testing/data/families. The
weights come from a generator seeded by the name, so a second run writes the same weights.

golden.safetensors holds (T = 48 inputs, V = 64 tokens):

* `ids` [T + 1]: the sequence. Every figure is of the inputs `ids[:T]` and the targets `ids[1:]`.
* `logits` [T, V]; `mean_nll`: the mean negative log-likelihood of the targets.
* `grad.NAME`: the gradient of `mean_nll` of each parameter, by its name in model.safetensors.
* `lion_losses` [10]: `mean_nll` before each of ten steps of Lion (f32, lr 1e-3, betas 0.9 and 0.99, no weight decay) on
  this sequence; norm gains and biases follow the same rule as matrices.
* `short_mean_nll`: `mean_nll` of the first 24 inputs alone, where it matters how long a sequence is.
* `prompt_ids` [8], `greedy_ids` [24]: the prompt and, after it, the likeliest tokens, computed without a cache.

Before it writes, it checks that the figures can be relied on: that each feature of a family moves `mean_nll`, that f32
and f64 agree, and that no greedy token is a near tie.
"""

import argparse
import copy
import dataclasses
import json
import math
import pathlib
import types
import zlib

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "crates/qft-testing/data/families"
INPUTS, SHORT, PROMPT, GREEDY = 48, 24, 8, 24
PAD, BOS = 0, 1
LION = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.99, "steps": 10}

# The least difference of the mean loss by which a test can tell that a feature is absent.
NOTICEABLE = 1e-3
# The largest relative error of a gradient in f32, and the largest error of a loss along Lion's steps: a tenth of what
# the tests of the trainer allow.
GRADIENT, LOSS = 1e-4, 1e-4
# The least distance of a greedy token's logit from the next one's.
MARGIN = 2e-2


@dataclasses.dataclass
class Without:
    """A model without one of its features: another configuration, or a change made to the model."""

    feature: str
    config: dict = dataclasses.field(default_factory=dict)
    patch: object = None
    inputs: int = INPUTS
    # Whether the feature does nothing, and its absence must show nothing.
    idle: bool = False


@dataclasses.dataclass
class Family:
    """The configuration of a model, what it may do without, and a seed with which all checks pass."""

    config: dict
    without: list
    seed: int = 0


def config(architecture, model_type, **keys):
    """A configuration as model hubs have it, with the sizes that all of them share."""
    shape = {
        "architectures": [architecture], "model_type": model_type, "vocab_size": 64, "hidden_size": 32,
        "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1000.0,
        "tie_word_embeddings": True, "bos_token_id": BOS, "eos_token_id": 2, "pad_token_id": PAD,
        "torch_dtype": "float32",
    }  # fmt: skip
    return {key: value for key, value in (shape | keys).items() if value is not ...}


# What a model may do without. Each of these takes the model and changes it.


def zero(ending):
    """Sets the parameters whose names end so to zero."""
    return scaled(ending, 0.0)


def scaled(ending, factor, plus=0.0):
    def patch(model):
        found = [p for name, p in model.named_parameters() if name.endswith(ending)]
        assert found, ending
        for p in found:
            p.mul_(factor).add_(plus)

    return patch


def identity(name):
    """Takes the module of this name out of each layer."""

    def patch(model):
        for layer in model.model.layers:
            owner = layer.self_attn if hasattr(layer.self_attn, name) else layer
            setattr(owner, name, torch.nn.Identity())

    return patch


def norm_per_head(model):
    """The norms of queries and keys over each head, where they are over all heads."""
    for layer in model.model.layers:
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            forward, size = type(norm).forward, layer.self_attn.head_dim

            def split(self, x, forward=forward, size=size):
                heads = x.unflatten(-1, (-1, size))
                one = copy.copy(self)
                one._parameters = {"weight": self.weight.view(-1, size)}
                return forward(one, heads).flatten(-2)

            norm.forward = types.MethodType(split, norm)


def silu(model):
    """SiLU in place of another activation."""
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.SiLU()


def swapped(name, *parts):
    """Swaps two neighbouring blocks of rows of a fused projection."""
    start, middle, end = parts

    def patch(model):
        for parameter in (p for n, p in model.named_parameters() if n.endswith(name)):
            rows = parameter[start:end].clone()
            parameter[start:end] = torch.cat([rows[middle - start :], rows[: middle - start]])

    return patch


def no_embedding_scale(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


LLAMA = ("LlamaForCausalLM", "llama")
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16,
    "beta_fast": 2.0, "beta_slow": 0.25,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
LONGROPE = {
    "type": "longrope", "short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [1.5, 2.5, 4.0, 6.0],
}  # fmt: skip
OLMO_YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 2.0,
    "beta_slow": 0.25, "attention_factor": 1.4,
}  # fmt: skip
OLMO_LAYERS = ["sliding_attention", "full_attention"]
PLAIN_OLMO = {"rope_type": "default", "rope_theta": 500000.0}


def without_scaling(**more):
    return Without("rope_scaling", {"rope_scaling": None}, **more)


def windows(window, longer=None):
    """Without the window, and with one that is a token too short or too long."""
    return [
        Without("window", {"sliding_window": longer}),
        Without("shorter window", {"sliding_window": window - 1}),
        Without("longer window", {"sliding_window": window + 1}),
    ]


def query_key_norms(plus=1.0):
    """Without the norms of queries and keys, and with norms whose gains are all one."""
    norms = ["q_norm", "k_norm"]
    gains = [Without(f"{name} gain", patch=scaled(f"{name}.weight", 0.0, plus)) for name in norms]
    return [Without(name, patch=identity(name)) for name in norms] + gains


FAMILIES = {
    "llama-biases": Family(
        config(*LLAMA, attention_bias=True, mlp_bias=True),
        [Without(f"{part}.bias", patch=zero(f"{part}_proj.bias")) for part in "q k v o gate up down".split()],
        seed=1,
    ),
    "llama-linear": Family(
        config(*LLAMA, num_hidden_layers=1, tie_word_embeddings=False, rope_scaling={"type": "linear", "factor": 4.0}),
        [without_scaling()],
    ),
    "llama-yarn": Family(
        config(*LLAMA, num_hidden_layers=1, rope_theta=..., rope_parameters=YARN),
        [
            Without("yarn", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
            Without("attention factor", {"rope_parameters": YARN | {"attention_factor": 1.0}}),
            Without("betas", {"rope_parameters": YARN | {"beta_fast": 32.0, "beta_slow": 1.0}}),
            Without("truncation", {"rope_parameters": YARN | {"truncate": False}}),
        ],
    ),
    # Past 32 tokens the frequencies depend on the length of the sequence, up to there they are the plain ones.
    "llama-dynamic": Family(
        config(*LLAMA, num_hidden_layers=1, max_position_embeddings=32, rope_scaling=DYNAMIC),
        [
            without_scaling(),
            without_scaling(inputs=SHORT, idle=True),
            Without("length", {"max_position_embeddings": 40}),
        ],
    ),
    "mistral-window": Family(
        config("MistralForCausalLM", "mistral", head_dim=16, sliding_window=16), windows(16)
    ),
    "mistral-wide-window": Family(
        config("MistralForCausalLM", "mistral", num_hidden_layers=1, sliding_window=64),
        [Without("window", {"sliding_window": None}, idle=True), Without("wide window", {"sliding_window": 16})],
    ),
    # A window that is there but switched off.
    "qwen2": Family(
        config(
            "Qwen2ForCausalLM", "qwen2", sliding_window=16, use_sliding_window=False, max_window_layers=1,
            tie_word_embeddings=False,
        ),  # fmt: skip
        [
            *[Without(f"{part}.bias", patch=zero(f"{part}_proj.bias")) for part in "qkv"],
            Without("use_sliding_window", {"use_sliding_window": True}),
        ],
    ),
    # H D = 64 is not C = 32, and two heads share a key.
    "qwen3": Family(
        config(
            "Qwen3ForCausalLM", "qwen3", num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            attention_bias=False, sliding_window=None, use_sliding_window=False, max_window_layers=2,
        ),  # fmt: skip
        query_key_norms(),
    ),
    "smollm3": Family(
        config(
            "SmolLM3ForCausalLM", "smollm3", no_rope_layers=[1, 0], no_rope_layer_interval=2,
            layer_types=["full_attention"] * 2, use_sliding_window=False, sliding_window=None,
            attention_bias=False, mlp_bias=False,
        ),  # fmt: skip
        [
            Without("no_rope_layers", {"no_rope_layers": [1, 1]}),
            Without("rope", {"no_rope_layers": [0, 0]}),
            Without("order of layers", {"no_rope_layers": [0, 1]}),
        ],
    ),
    "granite": Family(
        config(
            "GraniteForCausalLM", "granite", embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5,
            attention_multiplier=0.4, attention_bias=False, mlp_bias=False,
        ),  # fmt: skip
        [
            Without("embedding_multiplier", {"embedding_multiplier": 1.0}),
            Without("logits_scaling", {"logits_scaling": 1.0}),
            Without("residual_multiplier", {"residual_multiplier": 1.0}),
            Without("attention_multiplier", {"attention_multiplier": 0.25}),
        ],
    ),
    "phi3": Family(
        config(
            "Phi3ForCausalLM", "phi3", partial_rotary_factor=0.75, original_max_position_embeddings=64,
            rope_scaling=None, sliding_window=None, attention_dropout=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        ),  # fmt: skip
        [
            Without("partial_rotary_factor", {"partial_rotary_factor": 1.0}),
            Without("order of keys and values", patch=swapped("qkv_proj.weight", 32, 48, 64)),
            Without("order of queries and keys", patch=swapped("qkv_proj.weight", 16, 32, 48)),
            Without("order of gate and up", patch=swapped("gate_up_proj.weight", 0, 12, 24)),
        ],
    ),
    # Past 32 tokens the long factors hold, up to there the short ones.
    "phi3-longrope": Family(
        config(
            "Phi3ForCausalLM", "phi3", num_hidden_layers=1, partial_rotary_factor=0.5, max_position_embeddings=128,
            original_max_position_embeddings=32, rope_scaling=LONGROPE, sliding_window=None,
            tie_word_embeddings=False,
        ),  # fmt: skip
        [
            without_scaling(),
            without_scaling(inputs=SHORT),
            Without("long factors", {"original_max_position_embeddings": 64, "max_position_embeddings": 256}),
            Without("short factors", {"rope_scaling": LONGROPE | {"short_factor": [1.0] * 4}}, inputs=SHORT),
            Without("attention factor", {"rope_scaling": LONGROPE | {"attention_factor": 1.0}}),
            Without("attention factor", {"rope_scaling": LONGROPE | {"attention_factor": 1.0}}, inputs=SHORT),
        ],
    ),
    "olmo2": Family(
        config("Olmo2ForCausalLM", "olmo2", attention_bias=False, rope_scaling=None),
        [
            *query_key_norms(),
            Without("norms over all heads", patch=norm_per_head),
            Without("post_attention_layernorm", patch=identity("post_attention_layernorm")),
            Without("post_feedforward_layernorm", patch=identity("post_feedforward_layernorm")),
        ],
    ),
    "olmo3": Family(
        config(
            "Olmo3ForCausalLM", "olmo3", attention_bias=False, rope_theta=500000.0, rope_scaling=OLMO_YARN,
            sliding_window=64, layer_types=OLMO_LAYERS,
        ),  # fmt: skip
        [
            Without("wide window", {"sliding_window": 16}),
            *query_key_norms(),
            without_scaling(),
            Without("attention factor", {"rope_scaling": OLMO_YARN | {"attention_factor": 1.0}}),
            Without(
                "plain rope on layers with a window",
                {"rope_scaling": None, "rope_theta": ...,
                 "rope_parameters": dict.fromkeys(OLMO_LAYERS, PLAIN_OLMO | OLMO_YARN)},
            ),
            Without("order of layers", {"layer_types": OLMO_LAYERS[::-1]}),
        ],
        seed=3,
    ),
    "gemma3": Family(
        config(
            "Gemma3ForCausalLM", "gemma3_text", hidden_act=..., hidden_activation="gelu_pytorch_tanh", head_dim=16,
            query_pre_attn_scalar=8, rope_local_base_freq=10.0,
            rope_scaling={"rope_type": "linear", "factor": 4.0}, sliding_window=16, sliding_window_pattern=2,
            attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None,
        ),  # fmt: skip
        [
            *windows(16, longer=64),
            *query_key_norms(plus=0.0),
            *[
                Without(name, patch=identity(name))
                for name in (
                    "input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm"
                ).split()
            ],
            without_scaling(),
            Without("theta of layers with a window", {"rope_local_base_freq": 1000.0}),
            Without("theta of full layers", {"rope_theta": 10.0}),
            Without("pattern of layers", {"sliding_window_pattern": 3}),
            Without("query_pre_attn_scalar", {"query_pre_attn_scalar": 16}),
            Without("scale of the embedding", patch=no_embedding_scale),
            Without("one added to gains", patch=scaled("norm.weight", 1.0, -1.0)),
            Without("gelu", patch=silu),
        ],
    ),
}


def random_weights(name, seed, model):
    """Normal with deviation 0.2; norm gains have mean one, where Gemma stores them less one."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))
    gemma = "gemma" in model.config.model_type
    weights = {}
    for key, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator) * 0.2
        weights[key] = values + (1.0 if key.endswith("norm.weight") and not gemma else 0.0)
    return weights


def without_model(family, weights, without):
    """The model of other keys or with a change, and the same weights."""
    keys = {key: value for key, value in (family.config | without.config).items() if value is not ...}
    keys = copy.deepcopy(keys)
    other = transformers.AutoConfig.for_model(keys.pop("model_type"), **keys)
    model = transformers.AutoModelForCausalLM.from_config(other, attn_implementation="eager", dtype=torch.float32)
    model.load_state_dict(weights, strict=False)
    if without.patch:
        with torch.no_grad():
            without.patch(model)
    return model.eval()


def load(folder):
    """The model of a folder, in f32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def logits_of(model, inputs):
    """Logits [T, V] of a sequence, computed whole."""
    return model(input_ids=inputs[None], use_cache=False).logits[0]


def nll(model, ids, count):
    """The mean loss of the first `count` inputs alone."""
    logits = logits_of(model, ids[:count])
    return torch.nn.functional.cross_entropy(logits, ids[1 : count + 1])


def gradients(model, ids):
    loss = nll(model, ids, INPUTS)
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def lion(model, ids):
    """Losses of Lion's steps: the rule of `--states f32`, for every parameter."""
    parameters = dict(model.named_parameters())
    momenta = {name: torch.zeros_like(p) for name, p in parameters.items()}
    losses = []
    for _ in range(LION["steps"]):
        grads = gradients(model, ids)
        with torch.no_grad():
            losses.append(nll(model, ids, INPUTS).item())
            for name, p in parameters.items():
                m, g = momenta[name], grads[name]
                p.sub_(LION["lr"] * torch.sign(LION["beta1"] * m + (1 - LION["beta1"]) * g))
                m.mul_(LION["beta2"]).add_((1 - LION["beta2"]) * g)
    return losses


def greedy(model, prompt):
    """The continuation of a prompt, and the least distance of its tokens' logits from the next ones."""
    ids, margin = prompt, math.inf
    while len(ids) < GREEDY:
        best = logits_of(model, ids)[-1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[:1]])
    return ids, margin


def sequence(name, model):
    """BOS and random tokens, whose first eight have a continuation without near ties."""
    for attempt in range(1000):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name} ids {attempt}".encode()))
        ids = torch.randint(PAD + 1, model.config.vocab_size, (INPUTS + 1,), generator=generator)
        ids[0] = BOS
        with torch.no_grad():
            continued, margin = greedy(model, ids[:PROMPT])
        if margin >= MARGIN:
            return ids, continued
    raise AssertionError(f"{name}: every prompt has a near tie")


def check_features(name, family, weights, ids):
    for without in family.without:
        with torch.no_grad():
            model = without_model(family, weights, Without("nothing"))
            whole = nll(model, ids, without.inputs).item()
            part = nll(without_model(family, weights, without), ids, without.inputs).item()
        moved = abs(part - whole)
        print(f"  without {without.feature} ({without.inputs} inputs): {whole:.5f} becomes {part:.5f}")
        assert moved == 0.0 if without.idle else moved > NOTICEABLE, f"{name}: {without.feature}: {moved}"


def check_precision(name, folder, ids, grads, losses):
    """f64 but for the softmax of the attention, norms and rotary angles, which transformers does in f32."""
    model = load(folder).double()
    worst = 0.0
    for key, exact in gradients(model, ids).items():
        error = ((grads[key] - exact).norm() / exact.norm()).item()
        assert error < GRADIENT, f"{name}: {key}: {error}"
        worst = max(worst, error)
    off = max(abs(a - b) for a, b in zip(losses, lion(model, ids)))
    assert off < LOSS, f"{name}: losses: {off}"
    print(f"  from f64: gradients {worst:.1e}, losses of Lion {off:.1e}")


def make(name, family, out):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = random_weights(name, family.seed, without_model(family, {}, Without("nothing")))
    (folder / "config.json").write_text(json.dumps(family.config, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load(folder)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[key]), f"{name}: {key}: not what was saved"

    ids, continued = sequence(name, model)
    check_features(name, family, weights, ids)
    with torch.no_grad():
        logits = logits_of(model, ids[:INPUTS])
        golden = {"logits": logits, "mean_nll": nll(model, ids, INPUTS), "short_mean_nll": nll(model, ids, SHORT)}
    grads = gradients(model, ids)
    losses = lion(load(folder), ids)
    check_precision(name, folder, ids, grads, losses)
    golden |= {f"grad.{key}": value for key, value in grads.items()}
    golden |= {"lion_losses": torch.tensor(losses), "ids": ids, "prompt_ids": ids[:PROMPT], "greedy_ids": continued}
    save_file({key: value.clone() for key, value in golden.items()}, folder / "golden.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {count} parameters, mean_nll {golden['mean_nll']:.5f}, {size} bytes", flush=True)
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of: " + ", ".join(FAMILIES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    names = args.names or list(FAMILIES)
    total = sum(make(name, FAMILIES[name], args.out) for name in names)
    print(f"{total} bytes in all, by torch {torch.__version__} and transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
