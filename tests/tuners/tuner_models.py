"""Tiny random models and one small config per method."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from idlora.tuners import REGISTRY

OURS = sorted(REGISTRY)
EVERY_METHOD = [*OURS, "lora", "dora"]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 61


SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "attention_bias": True,
    "mlp_bias": True,
    "pad_token_id": 0,
    "use_cache": False,
}


def make_base(seed=0, *, dtype=torch.float32, **shape):
    """A random Llama: 2 layers, grouped-query attention, linear layers with biases that are not zero."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | shape))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).eval()


def make_config(method, **settings):
    """A small config of any method, on all linear layers of a block."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings
    if method in REGISTRY:
        return REGISTRY[method].config_cls(**settings)
    return LoraConfig(use_dora=method == "dora", **settings)


def make_adapted(method, *, seed=0, base=None, adapter_seed=1, **settings):
    """A base model with a fresh adapter."""
    base = make_base(seed) if base is None else base
    torch.manual_seed(adapter_seed)
    return get_peft_model(base, make_config(method, **settings)).eval()


def excite(model, seed=2, *, size=0.3):
    """Move every trainable parameter away from where it started, so that the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return model


def make_batch(rows=2, length=9, seed=3):
    """Token ids without padding."""
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(model, batch=None):
    """Logits of a model on a batch, without gradients, as float32."""
    with torch.no_grad():
        return model(input_ids=make_batch() if batch is None else batch).logits.float()


def trainable(model):
    """The trainable parameters, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(model: PeftModel, folder):
    """Save an adapter and give the folder's name."""
    model.save_pretrained(str(folder))
    return str(folder)
