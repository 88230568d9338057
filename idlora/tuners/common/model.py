"""Injection of token-routed adapters into a model, on top of PEFT's `BaseTuner`."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    AuxiliaryTrainingWrapper,
    resolve_quantization_backend,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

from idlora.tuners.common.config import RoutedConfig
from idlora.tuners.common.layer import RoutedLayer, raise_unmergeable
from idlora.tuners.common.mixtures import watched_mixtures


class RoutedModel(BaseTuner):
    """A model whose targeted linear layers are wrapped in `tuner_layer_cls`, a `RoutedLayer`.

    A method gives `prefix` and `tuner_layer_cls`. All targets are checked before the first is replaced, so a refusal
    leaves the model as it was. Leaves out merging, weighted sums of adapters, and batches that mix them
    (`adapter_names`).
    """

    tuner_layer_cls: type[RoutedLayer]
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        try:
            self.check_name(adapter_name, model)
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            self.peft_config.pop(adapter_name, None)  # refused, so there is no such adapter
            raise

    def check_name(self, adapter_name: str, model: nn.Module) -> None:
        """Raise ValueError for a name that torch's dictionaries refuse, or that parts of the model have.

        PEFT leaves out of an adapter's file whatever has another adapter's name among its own, parted by dots: of
        adapters 'a' and '1', that of 'a' would lack all of layers.1.
        """
        if not adapter_name or "." in adapter_name or hasattr(nn.ModuleDict(), adapter_name):
            raise ValueError(f"{adapter_name!r} cannot be an adapter's name: no module could be called that")
        layer_cls = self.tuner_layer_cls
        parts = {"base_layer", "weight", "bias", *layer_cls.adapter_layer_names, *layer_cls.other_param_names}
        inner: list[str] = []
        for name, module in model.named_modules():
            if not name.startswith(tuple(inner)):
                parts.update(name.split("."))
                if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                    inner.append(f"{name}.")
        if adapter_name in parts:
            raise ValueError(
                f"{adapter_name!r} cannot be an adapter's name: parts of the model are called that, and PEFT would not "
                "tell them apart when it saves"
            )

    def targets(self, config: RoutedConfig, model: nn.Module) -> dict[str, nn.Module]:
        """The modules of the model that the config targets, by name; layers adapted already count as one module."""
        config = _maybe_include_all_linear_layers(config, model)
        found, adapted = {}, []
        for name, module in model.named_modules():
            if any(name.startswith(prefix) for prefix in adapted):
                continue
            if isinstance(module, BaseTunerLayer):
                adapted.append(f"{name}.")
            if name and self._check_target_module_exists(config, name):
                found[name] = module
        return found

    def _prepare_model(self, config: RoutedConfig, model: nn.Module) -> None:
        # PEFT calls this last before it replaces modules, whichever loader is at work.
        for name, target in self.targets(config, model).items():
            self.check_target(config, name, target)

    def check_target(self, config: RoutedConfig, name: str, target: nn.Module) -> None:
        """Raise ValueError if the method cannot adapt this module."""
        if isinstance(target, self.tuner_layer_cls):
            return
        if isinstance(target, BaseTunerLayer):
            raise ValueError(f"{name} already carries an adapter of another kind, {type(target).__name__}: unload it")
        backend = resolve_quantization_backend(target)
        if not (isinstance(target, (nn.Linear, Conv1D)) or (backend is not None and backend.layer_type == "linear")):
            raise ValueError(f"{name} is a {type(target).__name__}; only linear layers can be adapted: exclude it")

    @contextmanager
    def watched_routers(self, adapter_name: str = "default") -> Iterator[Callable[[], float | None]]:
        """Gives what tells how evenly the routers mixed the tokens that the model was run on inside, padding included.

        That is the mean over the layers of `Mixture.evenness`, from 0 to 1; None where no router mixes shares, or none
        was run. Training is not touched by it. Leaves out layers that torch.compile has compiled before.
        """
        layers = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, self.tuner_layer_cls)
            and adapter_name in module.scaling
            and module.alpha_sums_to_one(adapter_name)
        }
        with watched_mixtures(layers, adapter_name) as mixtures:

            def evenness() -> float | None:
                each = [mixture.evenness for mixture in mixtures.values()]
                return statistics.fmean(each) if each and None not in each else None

            yield evenness

    def prepared_for(self, current_key: str) -> dict[str, Any]:
        """What the layer at this key needs besides the config."""
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
        prepared = self.prepared_for(current_key)
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, config, **prepared)
        else:
            layer = self.tuner_layer_cls(target, adapter_name, config, **prepared)
            self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise_unmergeable(self.tuner_layer_cls)

    def add_weighted_adapter(self, *args, **kwargs) -> NoReturn:
        """Raise NotImplementedError: LoRA's weighted sums of adapters are no adapters of these methods."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot combine adapters into one: each has a router of its own, and no single "
            "router mixes as two do. Activate them together: model.base_model.set_adapter([…]) adds their updates"
        )

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: RoutedConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        # The config is the caller's own object, and is about to be saved beside these tensors.
        layers = (module for module in model.modules() if isinstance(module, cls.tuner_layer_cls))
        made_with = next((layer.made_with[adapter_name] for layer in layers if adapter_name in layer.made_with), {})
        for name, value in made_with.items():
            if (found := getattr(config, name)) != value:
                raise ValueError(
                    f"cannot save the adapter {adapter_name!r}: it was made with {name}={value!r}, and its config says "
                    f"{found!r} now. Change it back; to vary a config, give each adapter a copy of it"
                )
        return super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args, **kwargs):
        # Without this hook PEFT drops the argument, and every row would silently get the active adapter.
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                f"{type(self).__name__} runs one adapter at a time: call set_adapter instead of passing adapter_names"
            )
        yield
