"""Injection of token-routed adapters into a model, on top of PEFT's `BaseTuner`."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import torch
from peft.tuners.lora.model import _get_encoder
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    AuxiliaryTrainingWrapper,
    ModulesToSaveWrapper,
    resolve_quantization_backend,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

from idlora.tuners.common.config import RoutedConfig
from idlora.tuners.common.layer import BASE, RoutedLayer, raise_unmergeable
from idlora.tuners.common.offload import awaits_dispatch, containers, offload_hook, settle
from idlora.tuners.common.routing_statistics import record_routing


class RoutedModel(BaseTuner):
    """A model whose targeted linear layers are wrapped in `tuner_layer_cls`, a `RoutedLayer`.

    A subclass sets `prefix` and `tuner_layer_cls`. All targets are checked before the first is replaced, so an error
    leaves the model unchanged.
    """

    tuner_layer_cls: type[RoutedLayer]
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        try:
            self._check_name(adapter_name, model)
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            self.peft_config.pop(adapter_name, None)  # the adapter was not made
            raise

    def _check_name(self, adapter_name: str, model: nn.Module) -> None:
        # PEFT leaves out of an adapter's file every tensor with another adapter's name in its own: beside an adapter
        # called '1', another one would be saved without layers.1.
        layer, adapted = self.tuner_layer_cls, ()
        parts = {"base_layer", "weight", "bias", *layer.adapter_layer_names, *layer.other_param_names}
        for name, module in model.named_modules():
            if not name.startswith(adapted):
                parts.update(name.split("."))
                if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                    adapted += (f"{name}.",)
        if adapter_name in parts:
            raise ValueError(
                f"{adapter_name!r} cannot be an adapter's name: parts of the model are called that, and PEFT would not "
                "tell them apart when it saves"
            )

    def targets(self, config: RoutedConfig, model: nn.Module) -> dict[str, nn.Module]:
        """Return the modules that the config targets, by name; an already adapted layer counts as one module."""
        config = _maybe_include_all_linear_layers(config, model)
        targets, adapted = {}, []
        for name, module in model.named_modules():
            if any(name.startswith(prefix) for prefix in adapted):
                continue
            if isinstance(module, BaseTunerLayer):
                adapted.append(f"{name}.")
            if name and self._check_target_module_exists(config, name):
                targets[name] = module
        return targets

    def adapted_layers(self, adapter_name: str = "default") -> dict[str, RoutedLayer]:
        """Return the layers that have this adapter, by name."""
        return {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, self.tuner_layer_cls) and adapter_name in module.scaling
        }

    def _prepare_model(self, config: RoutedConfig, model: nn.Module) -> None:
        # Every loader of PEFT and transformers calls this just before it replaces modules.
        targets = self.targets(config, model)
        for name, target in targets.items():
            self.check_target(config.at(name), name, target)
        for name, module in model.named_modules():
            if offload_hook(module) is not None:
                targeted = name.removesuffix(".base_layer") in targets
                self._check_offloaded(config, name, module, targeted=targeted)

    def _check_offloaded(self, config: RoutedConfig, name: str, module: nn.Module, *, targeted: bool) -> None:
        bias_trains = config.bias == "all" or (config.bias == "lora_only" and targeted)
        if any(f"{key}." in f"{name}." for key in config.modules_to_save or ()):  # it, or a module around it
            raise ValueError(f"{name} of modules_to_save is offloaded, so it cannot train: leave it out")
        if bias_trains and getattr(module, "bias", None) is not None:
            raise ValueError(f"{name} is offloaded, so its bias cannot train: set bias='none', not {config.bias!r}")

    def check_target(self, config: RoutedConfig, name: str, target: nn.Module) -> None:
        """Raise ValueError if the method cannot adapt this module; `config` has the module's own r."""
        if isinstance(target, self.tuner_layer_cls):
            return
        if isinstance(target, BaseTunerLayer):
            raise ValueError(f"{name} already carries an adapter of another kind, {type(target).__name__}: unload it")
        backend = resolve_quantization_backend(target)
        if not (isinstance(target, (nn.Linear, Conv1D)) or (backend is not None and backend.layer_type == "linear")):
            raise ValueError(f"{name} is a {type(target).__name__}; only linear layers can be adapted: exclude it")

    @contextmanager
    def record_router_entropy(self, adapter_name: str = "default") -> Iterator[Callable[[], float | None]]:
        """Yield a function that returns the mean normalised entropy of the routers within the context.

        The mean of `RoutingStatistics.normalized_entropy` is over the layers and lies between 0 and 1. It is None if no
        α is a distribution or no router ran. Layers compiled earlier by torch.compile are not recorded.
        """
        layers = self.adapted_layers(adapter_name)
        layers = {name: layer for name, layer in layers.items() if layer.alpha_sums_to_one(adapter_name)}
        with record_routing(layers, adapter_name) as recorded:

            def entropy() -> float | None:
                each = [layer.normalized_entropy for layer in recorded.values()]
                return statistics.fmean(each) if each and None not in each else None

            yield entropy

    def layer_arguments(self, current_key: str) -> dict[str, Any]:
        """Return the keyword arguments that the layer at this key needs besides the config."""
        return {}

    def _create_and_replace(
        self,
        config: RoutedConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config, arguments = config.at(current_key), self.layer_arguments(current_key)
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, config, **arguments)
            return
        awaits = awaits_dispatch(self.model)
        layer = self.tuner_layer_cls(target, adapter_name, config, awaits_dispatch=awaits, **arguments)
        if not any(parameter.is_meta for parameter in layer.get_base_layer().parameters(recurse=False)):
            self._replace_module(parent, target_name, layer, target)
            return
        setattr(parent, target_name, layer)  # PEFT would move the adapter to the meta device
        if (hook := offload_hook(layer.get_base_layer())) is not None:
            # transformers' `load_adapter` places the tensors of an adapter by this map.
            places = {f"{current_key}.{name}": hook.execution_device for name, _ in containers(layer)}
            getattr(self.model, "hf_device_map", {}).update(places)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: RoutedConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        selected = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        trained = set(cls.tuner_layer_cls.adapter_layer_names)
        # For the card: savers take the weights from here, and then save the config.
        config.saved_parameters = sum(each.numel() for key, each in selected.items() if trained & {*key.split(".")})
        return selected

    def _cast_adapter_dtype(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        # PEFT ends the making and the loading of an adapter with this call, after accelerate has dispatched the model.
        for module in () if awaits_dispatch(self.model) else self.model.modules():
            if isinstance(module, RoutedLayer):
                settle(module)
        super()._cast_adapter_dtype(adapter_name, *args, **kwargs)

    def _check_merge_allowed(self) -> None:
        raise_unmergeable(self.tuner_layer_cls)

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError; for `peft.LoraConfig` this makes one adapter of several."""
        raise NotImplementedError(
            f"several {self.tuner_layer_cls.__name__} cannot be combined into one, since each routes tokens by itself: "
            "activate them together with base_model.set_adapter([...]), which adds their updates"
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Pass `adapter_names` of a call of PEFT's `forward` or `generate`, one name a row, to the layers."""
        names = kwargs.get("adapter_names")
        if kwargs.get("alora_offsets") is not None:
            raise ValueError(f"{type(self).__name__} has no activated adapters (aLoRA): leave alora_offsets out")
        if names is None:
            yield
            return
        self._check_adapter_names(names)
        given = kwargs.get("generation_config")
        copies = max(kwargs.get(key) or getattr(given, key, None) or 1 for key in ("num_beams", "num_return_sequences"))
        repeated = [name for name in names for _ in range(copies)]  # `generate` repeats the rows after the encoder
        encoder = _get_encoder(self.model)
        in_encoder = set() if encoder is None else set(encoder.modules())
        with ExitStack() as stack:
            for module in self.model.modules():
                rows = list(names) if module in in_encoder else repeated
                if isinstance(module, RoutedLayer):  # an attribute, since compiled code does not see new hooks
                    module.row_adapters = rows
                    stack.callback(setattr, module, "row_adapters", None)
                elif isinstance(module, ModulesToSaveWrapper):  # it fails on an adapter that does not save the module
                    rows = [name if name in module.modules_to_save else BASE for name in rows]
                    stack.callback(module.register_forward_pre_hook(_naming(rows), with_kwargs=True).remove)
            yield

    def _check_adapter_names(self, names: Sequence[str]) -> None:
        if self.training:
            raise ValueError("adapter_names is for inference: call eval() before mixing adapters in a batch")
        known = [BASE, *self.peft_config]
        for name in names:
            if name not in known:
                raise ValueError(f"adapter_names has {name!r}, which is none of {', '.join(map(repr, known))}")


def _naming(rows: Sequence[str]) -> Callable:
    """Return a hook before `forward` that passes the names of the rows' adapters to the module."""

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple:
        return args, kwargs | {"adapter_names": rows}

    return hook
