"""Typed specifications of a benchmark. Each one validates itself on construction."""

from dataclasses import dataclass
from typing import Literal

from reproduction.training.spec import MethodSpec, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One situation in which every variant is measured.

    Attributes:
        name: name in the records.
        phase: "train" is forward, backward and AdamW's step; "prefill" a forward pass without gradients that returns
            the last position's logits; "decode" one token after `length` - 1 others in a static cache.
        layers: decoder layers of the base.
        batch, length: sequences, and tokens per sequence.
        compiled: whether each decoder layer is compiled in place.
        checkpointing: whether the backward pass recomputes activations ("train" only).
        dropout: dropout of the adapters ("train" only).
        autocast: bfloat16 autocast around the forward pass, as in the Trainer ("train" only).
        warmup, repeats: untimed and timed steps.
    """

    name: str
    phase: Literal["train", "prefill", "decode"]
    layers: int
    batch: int
    length: int
    compiled: bool = False
    checkpointing: bool = False
    dropout: float = 0.0
    autocast: bool = False
    warmup: int = 3
    repeats: int = 20

    def __post_init__(self) -> None:
        for key, smallest in {"layers": 1, "batch": 1, "length": 2, "warmup": 1, "repeats": 3}.items():
            if getattr(self, key) < smallest:
                raise ValueError(f"{self.name}.{key} is {getattr(self, key)}: it must be {smallest} or more.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{self.name}.dropout is {self.dropout}: it must lie in [0, 1).")
        for key in ("checkpointing", "dropout", "autocast"):
            if self.phase != "train" and getattr(self, key):
                raise ValueError(f"{self.name}.{key} is {getattr(self, key)}: only the phase train has any.")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method in the form in which it is measured.

    Attributes:
        name: name in the records.
        method: the method at the scenario's dropout.
        adapter_dtype: dtype that trained parameters are cast to; None leaves them as the method makes them.
        merged: whether the adapter is merged into the base's weights before measuring.
        way: how the adapted layers of this project's methods compute: "own" is their fastest way; "plain" uses only
            PyTorch's operators; "copied" is plain with copies of what the method reads from the frozen weights, as in
            the papers.
    """

    name: str
    method: MethodSpec
    adapter_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    merged: bool = False
    way: Literal["own", "plain", "copied"] = "own"

    def __post_init__(self) -> None:
        if self.method.kind != "peft" and (self.merged or self.adapter_dtype or self.way != "own"):
            raise ValueError(
                f"{self.name} has adapter_dtype={self.adapter_dtype}, merged={self.merged}, way={self.way} and the "
                f"method {self.method.name}: only an adapter has a dtype of its own, is merged, or has a way."
            )


@dataclass(frozen=True, kw_only=True)
class Group:
    """Scenarios that share a base (layers, dropout) and variants, so that each variant is built once for all of them.

    The reference, `variants[0]`, trains nothing; it is measured first and again last.
    """

    scenarios: tuple[Scenario, ...]
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        reference = self.variants[0]
        if reference.method.kind != "none":
            raise ValueError(f"reference={reference.name} trains something: give the method of kind none.")
        for scenario in self.scenarios:
            if scenario.phase == "train" and (merged := [each.name for each in self.variants if each.merged]):
                raise ValueError(f"{scenario.name} trains and {merged[0]} is merged: it has nothing left to train.")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits above which a machine counts as busy or a measurement as disturbed.

    Attributes:
        utilisation: percent of the device (all CPUs, or the GPU) that others may use while this process waits.
        load: load average of the last minute over the number of CPUs, before this process's work; not read for a GPU.
        drift: relative difference between the reference's two medians.
        spread: interquartile range of a measurement over its median.
    """

    utilisation: float
    load: float
    drift: float
    spread: float

    def __post_init__(self) -> None:
        for key in ("utilisation", "load", "drift", "spread"):
            if not getattr(self, key) > 0:
                raise ValueError(f"limits.{key} is {getattr(self, key)}: it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run of the benchmark.

    Attributes:
        model: shape of the model, whose weights are random; the scenarios set its number of layers.
        groups: groups in the order of measuring.
        device: "cpu", "cuda" or "cuda:1".
        allow_busy: report results even if the machine was busy, and mark them in the column `busy`.
        seed: seed of the adapters' initial weights and of the token ids.
    """

    model: ModelSpec
    groups: tuple[Group, ...]
    device: str
    limits: Limits
    allow_busy: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model.init != "random" or self.model.shape is None:
            raise ValueError(
                f"model.init is {self.model.init} and model.shape {self.model.shape}: a benchmark draws random weights "
                "of a shape, so that it needs no files; give both."
            )
        if not self.groups:
            raise ValueError("nothing is left to measure: name a scenario of the suite, or none for all.")
