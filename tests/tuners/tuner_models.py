"""Tiny random models and small configs of every method and its parameter layouts."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from idlora.tuners import REGISTRY

OURS = sorted(REGISTRY)
LAYOUTS = {method: (method, {}) for method in OURS} | {
    "inner product": ("idlora", {"router": "inner_product"}),
    "uniform": ("idlora", {"router": "uniform", "rank_boost": 1}),
    "gaussian, dropped input": ("idlora", {"bases": "gaussian", "dropout_position": "input"}),
    "orthonormal": ("idlora", {"bases": "orthonormal"}),
    "equal norm": ("idlora", {"bases": "equal_norm", "router": "inner_product"}),
    "pivoted QR, four chunks": ("idlora", {"selection": "pivoted_qr", "rank_boost": 4}),
}
ROUTERS = ("dense", "inner_product", "uniform")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 61
on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 3, "max_position_embeddings": 64, "initializer_range": 0.1,
    "attention_bias": True, "mlp_bias": True, "pad_token_id": 0, "use_cache": False,
}  # fmt: skip


def draw(*shape, dtype=torch.float32, scale=1.0):
    """Draw normal random numbers on the device."""
    return (scale * torch.randn(*shape, device=DEVICE)).to(dtype)


def make_base(seed=0, *, dtype=torch.float32, **shape):
    """Return a random Llama: 2 layers, grouped-query attention, linear layers with nonzero biases."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | shape))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).eval()


def make_gpt2():
    """Return a GPT-2 with one layer, `Conv1D` linear layers (transposed weights), and no dropout."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=32, initializer_range=0.2, resid_pdrop=0,
        embd_pdrop=0, attn_pdrop=0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def make_config(layout, **settings):
    """Return a small config of a method's layout, for all linear layers of a block."""
    method, own = LAYOUTS.get(layout, (layout, {}))
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | own | settings
    return (REGISTRY[method].config_cls if method in REGISTRY else LoraConfig)(**settings)


def make_adapted(layout, *, base_seed=0, base=None, adapter_seed=1, **settings):
    """Return a base model with a new adapter."""
    base = make_base(base_seed) if base is None else base
    torch.manual_seed(adapter_seed)
    return get_peft_model(base, make_config(layout, **settings)).eval()


def excite(model, seed=2, *, size=0.3):
    """Move every trainable parameter away from its initial value, so that the adapter has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return model


def make_batch(rows=2, length=9, seed=3):
    """Return token ids without padding."""
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(model, batch=None):
    """Compute the logits of a model on a batch, without gradients, as float32."""
    with torch.no_grad():
        return model(input_ids=make_batch() if batch is None else batch).logits.float()


def trainable(model):
    """Return the trainable parameters, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(model, batch=None):
    """Compute the gradients of the loss, by parameter name."""
    batch = make_batch() if batch is None else batch
    model.zero_grad()
    model(input_ids=batch, labels=batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def train(model, steps=3):
    """Train a few steps of AdamW; return the losses."""
    optimizer, losses = torch.optim.AdamW(trainable(model).values(), lr=1e-2), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.train()(input_ids=make_batch(), labels=make_batch()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def save(model: PeftModel, folder):
    """Save an adapter and return the folder's name."""
    model.save_pretrained(str(folder))
    return str(folder)


def assert_same(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Assert bitwise equality on a CPU, closeness in the computing dtype on a GPU, whose kernels round otherwise."""
    if DEVICE == "cpu":
        assert torch.equal(found, expected)
    else:
        tolerance = 5e-2 if min(dtype.itemsize, found.dtype.itemsize) < 4 else 1e-4
        scale = expected.abs().max().item()
        torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=0, atol=tolerance * max(scale, 1))
