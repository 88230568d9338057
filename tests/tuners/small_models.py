"""Models of a few thousand weights at most, and every method on them: what the tests of PEFT's behaviours run over."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from tuner_models import OURS, excite, trainable

from idlora.tuners import REGISTRY

TOKENS = 32
# Every method as it is by default, ID-LoRA's other parameter layouts, and LoRA as the control.
VARIANTS = {method: (method, {}) for method in OURS} | {
    "idlora, inner product": ("idlora", {"router": "inner_product"}),
    "idlora, no router": ("idlora", {"router": "uniform"}),
    "idlora, rows of its own": ("idlora", {"bases": "gaussian"}),
    "lora": ("lora", {}),
}


class Perceptron(nn.Module):
    """Two linear layers and nothing of transformers about them."""

    def __init__(self):
        super().__init__()
        self.lower, self.norm, self.upper = nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 8, bias=False)

    def forward(self, x):
        return self.upper(self.norm(self.lower(x)).relu())


class Tagger(nn.Module):
    """An embedding below linear layers."""

    def __init__(self):
        super().__init__()
        self.words, self.mixing, self.head = nn.Embedding(TOKENS, 8), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.mixing(self.words(x)).relu())


def llama(**shape):
    """One layer with grouped queries and biases."""
    shape = {
        "vocab_size": TOKENS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32, "initializer_range": 0.2,
        "attention_bias": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    } | shape  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**shape))


def gpt2(**shape):
    """One layer, its linear layers `Conv1D`s, whose weights lie transposed; no dropout of its own."""
    shape = {
        "vocab_size": TOKENS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "initializer_range": 0.2,
        "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    } | shape  # fmt: skip
    return GPT2LMHeadModel(GPT2Config(**shape))


def tokens(rows=2, length=6):
    """Token ids without padding."""
    return torch.randint(3, TOKENS, (rows, length), generator=torch.Generator().manual_seed(3))


@dataclass(frozen=True)
class Kind:
    """A small model: how it is made, which of its layers are adapted, what it is run on."""

    make: Callable[..., nn.Module]
    targets: tuple[str, ...]
    inputs: dict[str, torch.Tensor]
    task_type: str | None = None


KINDS = {
    "llama": Kind(llama, ("k_proj", "o_proj", "down_proj"), {"input_ids": tokens()}, "CAUSAL_LM"),
    "gpt2": Kind(gpt2, ("c_attn", "c_fc"), {"input_ids": tokens()}, "CAUSAL_LM"),
    "perceptron": Kind(Perceptron, ("lower", "upper"), {"x": torch.linspace(-2, 2, 18).view(3, 6)}),
    "tagger": Kind(Tagger, ("mixing", "head"), {"x": tokens()}),
}


def small_base(kind="llama", *, seed=0, **shape):
    """A random model of a kind."""
    torch.manual_seed(seed)
    return KINDS[kind].make(**shape).eval()


def small_config(variant="lora", kind="llama", **settings):
    """A config of a variant for the layers of a kind."""
    method, own = VARIANTS[variant]
    settings = {
        "r": 2, "lora_alpha": 4, "target_modules": list(KINDS[kind].targets), "task_type": KINDS[kind].task_type,
    } | own | settings  # fmt: skip
    if method == "idlora":
        settings = {"num_clusters": 2} | settings
    return REGISTRY[method].config_cls(**settings) if method in REGISTRY else LoraConfig(**settings)


def small_adapted(variant="lora", kind="llama", *, base=None, adapter_name="default", trained=True, **settings):
    """A model with an adapter, moved away from where it starts unless `trained` is false."""
    base = small_base(kind) if base is None else base
    torch.manual_seed(1)
    model = get_peft_model(base, small_config(variant, kind, **settings), adapter_name).eval()
    return excite(model) if trained else model


def run(model, kind="llama", **arguments):
    """What a model makes of its kind's input."""
    made = model(**KINDS[kind].inputs, **arguments)
    return getattr(made, "logits", made)


def outputs(model, kind="llama", **arguments):
    """What a model makes of its kind's input, without gradients."""
    with torch.no_grad():
        return run(model, kind, **arguments)


def differ(found, other):
    """Whether two outputs are apart by more than rounding."""
    return (found - other).abs().max() > 1e-3


def training(model):
    """The adapters with trainable parameters, by name; nothing else of the model may train."""
    found = set()
    for name in trainable(model):
        assert model.base_model.prefix in name, name
        found.add(name.removesuffix(".weight").rpartition(".")[2])
    return found
