"""ID-LoRA as a PEFT model: pivot selection, the check of the base model, pivot statistics, parameter counts."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from torch import nn

from idlora.tuners.common import RoutedModel, awaits_dispatch, record_routing
from idlora.tuners.idlora.clustering import PivotSelector, Selection
from idlora.tuners.idlora.config import IdLoraConfig
from idlora.tuners.idlora.fingerprint import check_distances, distance, sampled, take_fingerprint
from idlora.tuners.idlora.frozen_weight import is_partitioned, is_quantized, readable_weight
from idlora.tuners.idlora.inspection import PivotStatistics, pivot_statistics
from idlora.tuners.idlora.layer import IdLoraLinear, UnsetPivotsError, is_unset
from idlora.tuners.idlora.pivot_cache import select_cached, selection_progress


class IdLoraModel(RoutedModel):
    """The tuner that PEFT builds for an `IdLoraConfig`.

    Before it replaces any module it checks that every target fits. It then either selects the pivots of all targets or,
    for a saved adapter, compares the base's rows with the adapter's fingerprint. The loaders of PEFT and transformers
    both use it. Pivots selected earlier for the same base are read from disk (`pivot_cache`). A selection that takes
    more than 5 seconds shows its progress on stderr, unless transformers' progress bars are off.

    Each process selects (or reads) the pivots by itself: the same weights, settings and seed give the same pivots on
    devices of one kind (CPUs: with the same `torch.get_num_threads()`). If DeepSpeed ZeRO-3 partitions the base, all
    processes must make the adapter together, with the pivot cache on in all or in none.

    Attributes:
        pivot_seconds: seconds that the original selections took, summed over the adapters.
        pivots_cached: whether the last selection was read from disk.
    """

    prefix = "idlora_"
    tuner_layer_cls = IdLoraLinear
    pivot_seconds: float = 0.0
    pivots_cached: bool = False
    _unchecked: tuple[IdLoraConfig, dict[str, nn.Module]] | None = None

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        self._selected: dict[str, Selection] = {}
        self._fingerprint: dict[str, str] = {}
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        sizes = {module: selection.sizes for module, selection in self._selected.items()}
        self._cluster_sizes = {**getattr(self, "_cluster_sizes", {}), adapter_name: sizes}
        self._selected, self._fingerprint = {}, {}

    def _prepare_model(self, config: IdLoraConfig, model: nn.Module) -> None:
        super()._prepare_model(config, model)
        layers = {name: _base_layer(target) for name, target in self.targets(config, model).items()}
        # The config of a saved adapter, or the one given to `from_pretrained(config=…)`, which sets inference_mode.
        if config.base_fingerprint is not None and (config.inference_mode or not config.init_weights):
            if awaits_dispatch(model):
                self._unchecked = config, layers
            else:
                self._check_base(config, layers)
        if config.init_weights:
            self._select(config, layers)
        self._fingerprint = config.base_fingerprint or {}

    def _cast_adapter_dtype(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        super()._cast_adapter_dtype(adapter_name, *args, **kwargs)
        if self._unchecked and not awaits_dispatch(self.model):
            unchecked, self._unchecked = self._unchecked, None
            self._check_base(*unchecked)

    def check_target(self, config: IdLoraConfig, name: str, target: nn.Module) -> None:
        super().check_target(config, name, target)
        in_features, out_features = _get_in_out_features(_base_layer(target))
        k, r, s = config.num_clusters, config.r, config.rank_boost
        if k * r > out_features:
            raise ValueError(
                f"{name} has {out_features} rows, too few for num_clusters={k} times r={r} = {k * r} pivots: lower one "
                "of them (rank_pattern lowers r here alone), or exclude the module"
            )
        if config.bases == "orthonormal" and r > in_features:
            raise ValueError(f"{name} has {in_features} columns, too few for r={r} orthonormal rows: lower r")
        if out_features % s:
            raise ValueError(f"{name} has {out_features} rows, which rank_boost={s} does not divide")

    def _select(self, config: IdLoraConfig, layers: dict[str, nn.Module]) -> None:
        gathered = any(map(is_partitioned, layers.values()))
        by_selector: dict[PivotSelector, dict[str, nn.Module]] = {}
        for name, layer in layers.items():
            by_selector.setdefault(config.at(name).pivot_selector(), {})[name] = layer
        with selection_progress(len(layers)) as progress:
            results = [
                select_cached(partial(_readable, group), selector, gathered=gathered, advance=progress.update)
                for selector, group in by_selector.items()
            ]
        selected = {name: selection for result in results for name, selection in result.selections.items()}
        self._selected = {name: selected[name] for name in layers if name in selected}
        fingerprint = {
            name: take_fingerprint(weight, selected[name].pivots)
            for name, weight in _readable({name: layers[name] for name in sampled(list(self._selected))})
        }
        config.base_fingerprint = fingerprint or None
        self.pivot_seconds += sum(result.seconds for result in results)
        self.pivots_cached = bool(results) and all(result.cached for result in results)

    def _check_base(self, config: IdLoraConfig, layers: dict[str, nn.Module]) -> None:
        distances = {}
        for name, fingerprint in config.base_fingerprint.items():
            if name not in layers:
                distances[name] = float("inf")
                continue
            with readable_weight(layers[name]) as weight:
                distances[name] = None if weight is None else distance(fingerprint, weight)
        quantized = any(is_quantized(layer) for layer in layers.values())
        check_distances(distances, quantized=quantized, made_for=config.base_model_name_or_path)

    def layer_arguments(self, current_key: str) -> dict[str, Any]:
        selection = self._selected.get(current_key)
        # The layers keep the fingerprint too: the caller may use the config object again on another base.
        fingerprint = self._fingerprint.get(current_key)
        return {
            "pivots": None if selection is None else selection.pivots,
            "fingerprint": None if fingerprint is None else {current_key: fingerprint},
        }

    def pivot_sizes(self, adapter_name: str = "default") -> dict[str, dict]:
        """Return by module the share of W's rows that are pivots and, unless the adapter was loaded, cluster sizes."""
        sizes = {}
        for name, layer in self.adapted_layers(adapter_name).items():
            sizes[name] = {"share": layer.idlora_pivots[adapter_name].numel() / layer.out_features}
            if clusters := self._cluster_sizes[adapter_name].get(name):
                sizes[name]["clusters"] = list(clusters)
        return sizes

    @torch.no_grad()
    def pivot_statistics(
        self, inputs: Iterable[torch.Tensor] = (), adapter_name: str = "default"
    ) -> dict[str, PivotStatistics]:
        """Compute the statistics of the adapter's pivots by module, those of the update only with `inputs`.

        inputs: batches of token ids (batch, length) without padding, on any device; the model runs on each.

        Raises ValueError if the base's weights cannot be read, UnsetPivotsError if there are no pivots.
        """
        layers = self.adapted_layers(adapter_name)
        device = next(self.model.parameters()).device
        with record_routing(layers, adapter_name) as routing:
            for input_ids in inputs:
                self.model(input_ids=input_ids.to(device))
        config = self.peft_config[adapter_name]
        return {
            name: pivot_statistics(layer, config, adapter_name, routing=routing.get(name))
            for name, layer in layers.items()
        }

    def frozen_copy_count(self) -> int:
        """Return the number of entries of all A_i, k·r·in summed over the modules of the active adapters.

        The paper's percentages are trainable / (base + trainable + this number). No such copies exist here, except for
        `bases` other than 'rows'.
        """
        layers = [module for module in self.model.modules() if isinstance(module, IdLoraLinear)]
        return sum(
            layer.idlora_pivots[name].numel() * layer.in_features
            for layer in layers
            for name in layer.active_adapters
            if name in layer.idlora_pivots
        )

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        selected = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        for key, tensor in selected.items():
            if key.endswith(f".idlora_pivots.{adapter_name}") and is_unset(tensor):
                raise UnsetPivotsError(f"cannot save the adapter {adapter_name!r}: {key}")
        fingerprint = {}
        for module in model.modules():
            if isinstance(module, IdLoraLinear):
                fingerprint |= module.idlora_fingerprint.get(adapter_name, {})
        config.base_fingerprint = fingerprint or None  # the config may hold that of another model it was used for
        return selected


def _base_layer(target: nn.Module) -> nn.Module:
    return target.get_base_layer() if isinstance(target, BaseTunerLayer) else target


def _readable(layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the readable weights by name. Each is valid until the next: one at a time is gathered or decoded."""
    for name, layer in layers.items():
        with readable_weight(layer) as weight:
            if weight is not None:
                yield name, weight
