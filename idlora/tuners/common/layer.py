"""A frozen linear layer with token-routed low-rank updates beside it.

    u = W h + b + Σ_adapters c Δ(h)        h (..., in) -> u (..., out), c = lora_alpha/r

A method defines Δ. This file handles several adapters, switching between them, and dtypes, and it refuses merging.
"""

from contextlib import nullcontext
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from peft.utils import resolve_quantization_backend
from torch import nn

from idlora.tuners.common.config import RoutedConfig
from idlora.tuners.common.offload import execution_device, hold_loaded

BASE = "__base__"
"""Name in `adapter_names` of the base model without an adapter, as in PEFT."""


class RoutedLayer(nn.Module, BaseTunerLayer):
    """A layer that replaces a linear layer of a model and contains it, frozen, as `base_layer`.

    A subclass defines `adapter_layer_names`, `other_param_names` (those of this class and its own),
    `create_containers`, `init_adapter`, `update` and `alpha`.
    """

    other_param_names = ("r", "scaling", "dropout")
    cast_input_dtype_enabled = True  # `peft.helpers.disable_input_dtype_casting` sets it to False temporarily
    row_adapters: list[str] | None = None  # names for the rows of a batch, in a call of PEFT's with `adapter_names`
    kernels_enabled = True  # False: plain PyTorch, the reference for measuring the kernels

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: RoutedConfig,
        *,
        awaits_dispatch: bool = False,
        **arguments: Any,
    ):
        super().__init__()
        self.awaits_dispatch, self.held = awaits_dispatch, {}  # for the functions of `offload`
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(self.get_base_layer())
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.dropout = nn.ModuleDict()
        self.merged_adapters: list[str] = []  # all layers share the class attribute of the mixin
        self.create_containers()
        self.register_load_state_dict_post_hook(hold_loaded)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, **arguments)

    def create_containers(self) -> None:
        """Create the empty dictionaries, keyed by adapter name, for the method's own parameters."""
        raise NotImplementedError

    def init_adapter(self, adapter_name: str, config: RoutedConfig, **arguments: Any) -> None:
        """Create the parameters of one adapter; `arguments` come from the model's `layer_arguments`."""
        raise NotImplementedError

    def update(self, adapter_name: str, h: torch.Tensor, base_output: torch.Tensor) -> torch.Tensor:
        """Compute c Δ(h), shape (..., out), from h (..., in) and the base layer's output W h + b (..., out)."""
        raise NotImplementedError

    def alpha(self, adapter_name: str, h: torch.Tensor) -> torch.Tensor:
        """Compute the routing weights α (..., n) of every token h (..., in), in float32 or a wider type."""
        raise NotImplementedError

    def alpha_sums_to_one(self, adapter_name: str) -> bool:
        """Return whether α is a distribution: nonnegative, with sum 1."""
        return True

    def update_layer(self, adapter_name: str, config: RoutedConfig, **arguments: Any) -> None:
        self.r[adapter_name] = config.r
        self.scaling[adapter_name] = config.lora_alpha / config.r
        self.dropout[adapter_name] = nn.Dropout(config.lora_dropout)
        self.init_adapter(adapter_name, config, **arguments)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
        device, dtype = super()._get_base_layer_device_and_dtype(base_layer)
        if self.awaits_dispatch and device is not None and device.type == "meta":
            device = None  # the adapter stays where it is made
        return execution_device(base_layer) or device, dtype

    def forward(self, h: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        if self.disable_adapters:
            return self.base_layer(h, *args, **kwargs)
        if self.row_adapters is not None:
            return self.forward_mixed(h, *args, **kwargs)
        active = [name for name in self.active_adapters if name in self.scaling]  # not every adapter targets this layer
        if self.kernels_enabled and len(active) == 1 and self.can_use_kernels(active[0], h):
            return self.forward_by_kernels(active[0], h, *args, **kwargs)
        output = base_output = self.base_layer(h, *args, **kwargs)
        for adapter_name in active:
            output = output + self.update(adapter_name, h, base_output).to(base_output.dtype)
        return output

    def forward_mixed(self, h: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """Compute the output of a batch h (batch, ..., in) with the adapters in `row_adapters`, without kernels.

        A row whose adapter does not target this layer, or is `BASE`, gets the base layer's output.
        """
        names = self.row_adapters
        if len(h) != len(names):
            raise ValueError(
                f"adapter_names has {len(names)} names for a batch of {len(h)} rows: pass one a row, and to `generate` "
                "also num_beams and num_return_sequences if the model's own generation_config sets them"
            )
        base_output = self.base_layer(h, *args, **kwargs)
        output = base_output.clone()  # a quantised layer may return a view, which must not be written to
        for adapter_name in self.scaling.keys() & set(names):
            rows = [row for row, name in enumerate(names) if name == adapter_name]
            output[rows] += self.update(adapter_name, h[rows], base_output[rows]).to(output.dtype)
        return output

    def can_use_kernels(self, adapter_name: str, h: torch.Tensor) -> bool:
        """Return whether the method has kernels for this adapter and this input."""
        return False

    def forward_by_kernels(self, adapter_name: str, h: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """Compute the output with one adapter; `args` and `kwargs` go to the base layer."""
        raise NotImplementedError

    def copy_frozen(self, adapter_name: str) -> None:
        """Store a copy of what the adapter reads from the frozen weight, and compute with the copy from then on."""
        raise NotImplementedError(f"{type(self).__name__} reads nothing out of the frozen weight")

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:
        raise_unmergeable(type(self))

    def unmerge(self) -> NoReturn:
        raise_unmergeable(type(self))


def raise_unmergeable(kind: type) -> NoReturn:
    """Raise NotImplementedError with the reason why adapters of this kind cannot be merged into W."""
    raise NotImplementedError(
        f"{kind.__name__} cannot be merged into (or unmerged from) the base weights: its router mixes the update anew "
        "for every token, so no single matrix added to W equals it. Keep the adapter beside the base model."
    )


def softmax_route(router: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Compute softmax(T h) over the experts, (..., experts), from T (experts, in) and h (..., in).

    The result has float32 or a wider type, also under autocast: a half-precision softmax rounds the small differences
    between experts that the router learns from.
    """
    dtype = torch.promote_types(router.dtype, torch.float32)
    with full_precision(h.device.type):
        return F.linear(h.to(dtype), router.to(dtype)).softmax(dim=-1)


def full_precision(device_type: str):
    """Return a context manager that switches autocast off."""
    if device_type == "meta":  # it has no autocast, and torch.compile (2.11) cannot trace the call below for it
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
