"""A base with random weights, the context in which a variant is applied to it, and the variant's size."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import PreTrainedModel

from reproduction.benchmark.spec import Plan, Variant
from reproduction.system.atomic import scratch_folder
from reproduction.training import build_adapted, build_model, count_parameters
from reproduction.training.telemetry import selection_seconds, weight_bytes

STANDARD_DEVIATION = 0.02
"""Standard deviation of the values drawn in place of zeros: that of the base's own weights."""


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """A model ready to be measured.

    Attributes:
        model: transformers' model with a variant's layers in it. PEFT's own wrapper, some microseconds of a forward
            pass, is left out, so that all variants are called alike.
        weights_bytes: bytes of all parameters and buffers, base and adapter.
        facts: the columns `record.FACTS`.
    """

    model: PreTrainedModel
    weights_bytes: int
    facts: dict[str, int | float | str | None]


def build_base(plan: Plan, layers: int) -> PreTrainedModel:
    """Build the plan's model with this many decoder layers on the plan's device."""
    shape = {**plan.model.shape, "num_hidden_layers": layers}
    return build_model(replace(plan.model, shape=shape), plan.device)


@contextmanager
def with_variant(base: PreTrainedModel, variant: Variant, seed: int) -> Iterator[MeasuredModel]:
    """Apply a variant to `base` in place, and restore `base` when the context ends.

    Parameters that the method initialises to zero are drawn at random, so that no product with zeros is timed. Only a
    merged variant keeps its zeros: methods that add to the base's weights then leave them unchanged to the bit.

    Raises whatever the method raises: ValueError if it does not fit or has no such way of computing;
    NotImplementedError if it cannot merge or has nothing to copy.
    """
    try:
        adapted = build_adapted(base, variant.method, seed)
        trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        if variant.adapter_dtype is not None:
            for parameter in trained:
                parameter.data = parameter.data.to(getattr(torch, variant.adapter_dtype))
        if not variant.merged:
            with torch.no_grad():
                for parameter in trained:
                    if not parameter.any():
                        parameter.normal_(std=STANDARD_DEVIATION)
        facts = _facts(adapted, trained)
        if variant.merged:
            adapted.merge_adapter()
        if variant.way != "own":
            _change_way(adapted, variant)
        yield MeasuredModel(model=base, weights_bytes=_bytes([*base.parameters(), *base.buffers()]), facts=facts)
    finally:
        _take_off(base)


def _change_way(adapted: torch.nn.Module, variant: Variant) -> None:
    layers = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        if not hasattr(layer, "kernels_enabled"):
            raise ValueError(f"{variant.name}.way is {variant.way!r}: a {type(layer).__name__} has one way alone.")
        layer.kernels_enabled = False
        if variant.way == "copied":
            for name in layer.active_adapters:
                layer.copy_frozen(name)


def _take_off(base: PreTrainedModel) -> None:
    """Put the base's own layers back in place of the adapted ones, also after a method that failed half-way."""
    for module in list(base.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(module, name, child.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config
    base.requires_grad_(False)


def _facts(adapted: torch.nn.Module, trained: list[torch.nn.Parameter]) -> dict[str, int | float | str | None]:
    facts = {
        "adapter_dtype": "+".join(sorted({str(each.dtype).removeprefix("torch.") for each in trained})),
        "trainable": count_parameters(adapted)["parameters_trainable"],
        "trainable_bytes": _bytes(trained),
        "pivot_seconds": selection_seconds(adapted) or None,
    }
    if isinstance(adapted, PeftModel):
        with scratch_folder() as folder:
            # "auto" would ask the hub whether the base's vocabulary has grown.
            adapted.save_pretrained(folder, save_embedding_layers=False)
            facts["adapter_file_bytes"] = weight_bytes(folder)
            saved = load_file(folder / "adapter_model.safetensors").values()
            facts["index_bytes"] = _bytes([tensor for tensor in saved if not tensor.is_floating_point()])
    return facts


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def free_memory() -> None:
    """Release memory that no tensor uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
