"""One step of a phase as a function without arguments, on a model that it leaves unchanged.

train    forward over random token ids up to the last hidden state, backward from a random gradient of it, AdamW's step.
         The head and its loss are left out: they cost every method the same, and would dominate a model of few layers.
         The gradient reaches the embeddings' output in every variant and in the frozen base, so that the ratios
         compare the same backward pass.
prefill  forward without gradients, the last position's logits, no cache written.
decode   one token at the last position of a full static cache.

On a GPU a CUDA graph replays decoding and uncompiled prefill, so that the GPU's work is timed without the CPU's
overhead, which a server hides in the same way. A compiled prefill runs without a graph: PyTorch 2.11 cannot capture it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, StaticLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from reproduction.benchmark.spec import Scenario
from reproduction.training.trainer import CHECKPOINTING

Step = Callable[[], None]

RECOMPILE_LIMIT = 512
"""Dynamo's limit; its default of 8 silently leaves the ninth layer uncompiled if each layer needs its own graph."""


@contextmanager
def workload(model: PreTrainedModel, scenario: Scenario, seed: int) -> Iterator[tuple[Step, Callable[[], Step]]]:
    """Yield (step, fastest): `step` runs the phase once; `fastest()`, called after warm-up, returns the step to time.

    For inference on a GPU, `fastest` captures a CUDA graph. Raises what the model raises.
    """
    prepare = {"train": _training, "prefill": _prefill, "decode": _decoding}[scenario.phase]
    with ExitStack() as stack:
        if scenario.compiled:
            stack.enter_context(_compiled(model))
        step = stack.enter_context(prepare(model, scenario, seed))
        captures = model.device.type == "cuda" and (
            scenario.phase == "decode" or (scenario.phase == "prefill" and not scenario.compiled)
        )
        yield step, (lambda: _captured(step)) if captures else (lambda: step)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return a model's list of decoder layers. Raises ValueError for a model with none or several such lists."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and all(isinstance(each, GradientCheckpointingLayer) for each in module)
    ]
    if len(found) != 1:
        raise ValueError(f"{type(model).__name__} has {len(found)} lists of decoder layers: one can be measured.")
    return found[0]


def token_ids(model: PreTrainedModel, shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Return random token ids (batch, length) on the model's device, the same for every variant."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)


@contextmanager
def _compiled(model: PreTrainedModel) -> Iterator[None]:
    torch._dynamo.reset()
    layers = decoder_layers(model)
    limits = {"recompile_limit": RECOMPILE_LIMIT, "accumulated_recompile_limit": 8 * RECOMPILE_LIMIT}
    try:
        with torch._dynamo.config.patch(**limits):
            for layer in layers:
                layer.compile(dynamic=False)
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
        torch._dynamo.reset()


@contextmanager
def _training(model: PreTrainedModel, scenario: Scenario, seed: int) -> Iterator[Step]:
    ids = token_ids(model, (scenario.batch, scenario.length), seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # With a rate of zero AdamW does all of its work but changes no weight: all steps are equal.
    on_gpu = model.device.type == "cuda"
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=on_gpu) if trained else None
    autocast = torch.autocast(model.device.type, torch.bfloat16) if scenario.autocast else nullcontext()

    gradient = torch.randn(scenario.batch, scenario.length, model.config.hidden_size, device=model.device)
    gradient = gradient.to(model.dtype) / gradient.numel()

    def step() -> None:
        with autocast:
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        hidden.backward(gradient.to(hidden.dtype))
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    if scenario.checkpointing:  # makes the embeddings' output require gradients
        getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": False})
    else:
        model.enable_input_require_grads()
    model.train()
    try:
        yield step
    finally:
        model.eval()
        if scenario.checkpointing:
            getattr(model, f"{CHECKPOINTING}_disable")()
        model.disable_input_require_grads()
        model.zero_grad(set_to_none=True)


@contextmanager
def _prefill(model: PreTrainedModel, scenario: Scenario, seed: int) -> Iterator[Step]:
    ids = token_ids(model, (scenario.batch, scenario.length), seed)

    @torch.no_grad()
    def step() -> None:
        model(input_ids=ids, use_cache=False, logits_to_keep=1)

    yield step


class OwnCache(nn.Module):
    """A decoder layer that uses its own cache at index 0, whatever its position in the model.

    In transformers all layers index one cache by their position, so each compiled layer would need its own graph. With
    this wrapper all layers share one graph.
    """

    def __init__(self, layer: nn.Module, cache: Cache):
        super().__init__()
        self.layer, self.cache = layer, cache

    def forward(self, *args, past_key_values: Cache | None = None, **kwargs):
        return self.layer(*args, past_key_values=self.cache, **kwargs)


@contextmanager
def _decoding(model: PreTrainedModel, scenario: Scenario, seed: int) -> Iterator[Step]:
    layers = decoder_layers(model)
    last = scenario.length - 1
    ids = token_ids(model, (scenario.batch, 1), seed)
    positions = torch.full((1, 1), last, device=model.device)
    # The cache is full and all of it is visible: the mask that transformers would derive from the position.
    seen = torch.ones(scenario.batch, 1, 1, scenario.length, dtype=torch.bool, device=model.device)
    # One fill resets all layers' positions. They lie 16 bytes apart: inductor copies tensors at unaligned addresses.
    filled = torch.full((len(layers), 2), last, dtype=torch.int64, device=model.device)
    caches = [_full_cache(model, scenario, position) for position in filled[:, 0]]

    @torch.no_grad()
    def step() -> None:
        filled.fill_(last)
        model(
            input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=caches[0], use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip

    places = {
        module: module.layer_idx for layer in layers for module in layer.modules() if hasattr(module, "layer_idx")
    }
    own = list(layers)
    try:
        for module in places:
            module.layer_idx = 0
        for place, cache in enumerate(caches):
            layers[place] = OwnCache(own[place], cache)
        yield step
    finally:
        for place, layer in enumerate(own):
            layers[place] = layer
        for module, place in places.items():
            module.layer_idx = place


def _full_cache(model: PreTrainedModel, scenario: Scenario, position: torch.Tensor) -> Cache:
    """Return a one-layer static cache of random keys and values; `position` () is the index of the next token."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = Cache(layers=[StaticLayer(max_cache_len=scenario.length)])
    cache.early_initialization(
        batch_size=scenario.batch, num_heads=config.num_key_value_heads, head_dim=head, dtype=model.dtype,
        device=model.device,
    )  # fmt: skip
    layer = cache.layers[0]
    layer.cumulative_length = position
    for tensor in (layer.keys, layer.values):
        tensor.normal_()
        vars(tensor).pop("_dynamo_static_input_type", None)  # else older dynamo guards on its address: a graph a layer
    return cache


@cache
def _side_stream() -> torch.cuda.Stream:
    """Return one stream for all captures: the matrix library keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream()


def _captured(step: Step) -> Step:
    """Capture a step as a CUDA graph. Raises RuntimeError if the step synchronises with the device."""
    side = _side_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
