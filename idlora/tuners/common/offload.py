"""Layers whose weights accelerate keeps on the CPU or on disk (`device_map`), and loads around each forward.

Between forwards such a weight is on the meta device, and a hook of accelerate's, `AlignDevicesHook`, knows its values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def offload_hook(layer: nn.Module) -> Any | None:
    """Return accelerate's hook that loads the layer's weights, or None if they are not offloaded."""
    hook = getattr(layer, "_hf_hook", None)
    return next((each for each in getattr(hook, "hooks", (hook,)) if getattr(each, "offload", False)), None)


def execution_device(layer: nn.Module) -> torch.device | None:
    """Return the device on which an offloaded layer computes, None if the layer is not offloaded."""
    hook = offload_hook(layer)
    # An empty tensor completes a device without an index.
    return None if hook is None else torch.empty(0, device=hook.execution_device).device


def awaits_dispatch(model: nn.Module) -> bool:
    """Return whether PEFT has removed accelerate's hooks from an offloaded model, until it has loaded an adapter."""
    places = (getattr(model, "hf_device_map", None) or {}).values()
    return bool({"cpu", "disk"} & set(places)) and not hasattr(model, "_hf_hook")


@contextmanager
def loaded(layer: nn.Module) -> Iterator[None]:
    """Load the weights of an offloaded layer to its execution device within the context."""
    hook = offload_hook(layer)
    if hook is None:
        yield
        return
    hook.pre_forward(layer)
    try:
        yield
    finally:
        hook.post_forward(layer, None)


def loaded_bias(layer: nn.Module) -> torch.Tensor | None:
    """Return the bias of a linear layer; of an offloaded one a copy, without loading the weight."""
    bias, hook = layer.bias, offload_hook(layer)
    if bias is None or hook is None or not bias.is_meta:
        return bias
    return hook.weights_map["bias"].to(hook.execution_device, bias.dtype)


def hold_loaded(layer: BaseTunerLayer, incompatible_keys: object = None) -> None:
    """Keep the adapters' tensors for `settle` if accelerate is about to take them; a hook after `load_state_dict`."""
    if layer.awaits_dispatch:
        layer.held = {(name, key): tensor for name, each in containers(layer) for key, tensor in each.items()}


def settle(layer: BaseTunerLayer) -> None:
    """Move the adapters beside an offloaded base layer to where it computes, and free them of accelerate's hooks.

    accelerate hooks every module that has tensors, to load them around its forward. Those of an adapter are in
    dictionaries, which have no forward.
    """
    device = execution_device(layer.get_base_layer())
    for name, container in containers(layer) if device is not None else ():
        for adapter_name, tensor in list(container.items()):
            value = layer.held.get((name, adapter_name), tensor) if tensor.is_meta else tensor
            if value.is_meta:  # not loaded yet
                continue
            if value is not tensor or value.device != device:  # else an optimizer may hold the tensor
                value = value.detach().to(device)
                is_parameter = isinstance(tensor, nn.Parameter)
                container[adapter_name] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
        for attribute in ("_hf_hook", "_old_forward", "forward"):
            container.__dict__.pop(attribute, None)
    layer.awaits_dispatch, layer.held = False, {}


def containers(layer: BaseTunerLayer) -> Iterator[tuple[str, nn.ParameterDict | BufferDict]]:
    """Yield the dictionaries of the adapters' tensors, by attribute."""
    return ((name, each) for name, each in layer.named_children() if isinstance(each, (nn.ParameterDict, BufferDict)))
