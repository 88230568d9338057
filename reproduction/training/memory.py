"""Peak GPU memory of training a cell, estimated from shapes.

Bytes, with b of a weight (2 in bfloat16), n processes, T = rows × length tokens of a micro-batch, vocabulary V, hidden
width H, L decoder layers, P frozen and Q trained parameters:

                 one GPU or DDP          ZeRO-2                      ZeRO-3
    weights      b·P                     b·P                         b·P/n
    trained      4·Q                     b·Q                         b·Q/n
      gradients  4·Q                     b·Q/n                       b·Q/n
      Adam       8·Q                     12·Q/n                      12·Q/n       moments (and float32 weights)
    buffers      DDP 4·Q (its buckets)   b·(bucket, two to overlap)  the same, and b·(what is gathered at once)
    checkpoints  b·T·H·L with gradient checkpointing: a hidden state for each layer

and `activations`, the largest of three parts that never coexist:

    loss         (b + 12)·T·V: logits, their float32 copy, log-probabilities, gradient; with a fused loss (b + 12)·T·H
    layer        T·(3·b·ΣO + 3.5·ΣI + 6·ΣS) + 12·R: backward of one decoder layer. Without checkpointing each of the
                 L layers keeps T·(1.75·b·ΣO + 3.5·ΣI + 6·ΣS), during the loss as well
    update       4 (DeepSpeed 8) for each number that Adam updates at once

ΣO are the outputs of a layer's linear modules; ΣI the inputs that adapters keep, one copy for each matrix that reads
the input; ΣS the outputs of modules that an adapter rescales row by row, with a new copy of W, the largest of R
entries. The factors are fitted to the measurements of LLaMA-3-8B's layers in results/h200/benchmark.csv.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig

from reproduction.training.batches import Packing
from reproduction.training.build import build_adapted, build_model, model_config
from reproduction.training.spec import MethodSpec, ModelSpec, TrainSpec

CONTEXT = 1_500_000_000
"""Bytes of CUDA's context, NCCL's buffers, and fragmentation of PyTorch's allocator."""

ENOUGH_TOKENS = 2048
"""Tokens of a pass above which throughput hardly grows: there checkpointing, a third slower, is not worth it."""

BUCKETS = {  # DeepSpeed's defaults, in numbers of parameters
    "reduce_bucket_size": 5e8,
    "stage3_prefetch_bucket_size": 5e7,
    "stage3_max_live_parameters": 1e9,
    "sub_group_size": 1e9,
}
_BY_LAYER = ("rank_pattern", "alpha_pattern")
"""Arguments of a method by which decoder layers may differ, so that one does not stand for all."""

_FIRST_LAYER = re.compile(r"\.(?:layers|h|blocks)\.0\.")


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes of a base model under a method, as numbers of entries except `weight_bytes`.

    `trained` is included in `parameters` only if `full`. `outputs`, `inputs`, `rescaled` and `remade` are ΣO, ΣI, ΣS
    and R of one decoder layer, `largest` the base's largest weight, `keys` the keys and values of a token in one layer.
    """

    layers: int
    hidden: int
    vocabulary: int
    heads: int
    keys: int
    weight_bytes: int
    parameters: int
    trained: int
    full: bool
    outputs: int
    inputs: int
    rescaled: int
    remade: int
    largest: int

    def saved_bytes(self, *, sharded: bool) -> int:
        """Return the bytes on disk of the trained model or adapter; `sharded` (DeepSpeed) keeps the weights' type."""
        return (self.weight_bytes if self.full and sharded else 4) * self.trained

    def checkpoint_bytes(self, *, sharded: bool) -> int:
        """Return the bytes of a checkpoint: trained weights and Adam's moments (and DeepSpeed's float32 weights)."""
        return ((self.weight_bytes if sharded else 0) + 12) * self.trained


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each GPU at the peak, by part, for a micro-batch of `micro_batch` rows."""

    micro_batch: int
    weights: int
    trained: int
    buffers: int
    checkpoints: int
    activations: int
    context: int = CONTEXT

    @property
    def allocated(self) -> int:
        """Bytes that PyTorch allocates: all but the context."""
        return self.weights + self.trained + self.buffers + self.checkpoints + self.activations

    @property
    def total(self) -> int:
        return self.allocated + self.context

    def __str__(self) -> str:
        names = ("weights", "trained", "buffers", "checkpoints", "activations", "context")
        parts = (f"{name} {getattr(self, name) / 1e9:.1f}" for name in names if getattr(self, name) >= 5e7)
        return f"{self.total / 1e9:.1f} GB ({', '.join(parts)})"


def estimate(
    model: ModelSpec,
    method: MethodSpec,
    train: TrainSpec,
    *,
    length: int,
    processes: int,
    micro_batch: int | None = None,
    packing: Packing | None = None,
) -> Memory:
    """Estimate the peak memory of one GPU during training with Adam, by the formulas above.

    Args:
        model: the base model; its weights are not read.
        method: the method; for kind "none" see `inference`.
        train: the schedule; its `deepspeed` determines the sharding.
        length: tokens of a row.
        processes: GPUs that share the batch.
        micro_batch: rows of a forward pass; None is that of `train.division`.
        packing: layout of the rows in packed passes, None without packing.

    Raises:
        UnfitBase: the model's shape is not available.
        ValueError: the method does not fit it, or the processes cannot share the batch.
    """
    sizes, zero = model_sizes(model, method), _zero(train)
    b, P, Q = sizes.weight_bytes, 0 if sizes.full else sizes.parameters, sizes.trained
    micro_batch = micro_batch or train.division(processes)[0]
    rows, length = (micro_batch, length) if packing is None else (packing.rows(micro_batch), packing.width)
    tokens = rows * length
    buckets = min(zero["reduce_bucket_size"], Q) * (2 if zero.get("overlap_comm") else 1)
    if zero["stage"] == 0:
        weights, trained, buffers, update = b * P, 16 * Q, 4 * Q if processes > 1 else 0, 4 * Q
    elif zero["stage"] < 3:
        weights, trained, buffers, update = b * P, b * Q + (b + 12) * Q // processes, b * buckets, 8 * Q / processes
    else:
        gathered = max(zero["stage3_max_live_parameters"], sizes.largest) + zero["stage3_prefetch_bucket_size"]
        weights, trained = b * P // processes, (b + b + 12) * Q // processes
        buffers = b * (buckets + min(gathered, P + Q))
        update = 8 * min(Q / processes, zero["sub_group_size"])

    adapters = tokens * (3.5 * sizes.inputs + 6 * sizes.rescaled)
    if model.attention == "eager":
        adapters += rows * sizes.heads * length**2 * (b + 4)
    layer = tokens * 3 * b * sizes.outputs + adapters + 12 * sizes.remade
    loss = (b + 12) * tokens * (sizes.hidden if train.liger_kernel else sizes.vocabulary)
    checkpointed = train.gradient_checkpointing is True
    saved = 0.0 if checkpointed else tokens * 1.75 * b * sizes.outputs + adapters
    others = saved * (sizes.layers - 1)
    return Memory(
        micro_batch=micro_batch,
        weights=weights,
        trained=trained,
        buffers=int(buffers),
        checkpoints=b * tokens * sizes.hidden * sizes.layers if checkpointed else 0,
        activations=int(max(others + saved + loss, others + layer, update)),
    )


def fitting(
    model: ModelSpec,
    method: MethodSpec,
    train: TrainSpec,
    *,
    length: int,
    processes: int,
    gpu_bytes: int,
    packing: Packing | None = None,
) -> TrainSpec | None:
    """Return the schedule with the largest micro-batch that fits into `gpu_bytes`, or None if one row does not fit.

    The micro-batch divides a process's share of the batch evenly. With gradient checkpointing "auto", it is off if a
    pass without it has `ENOUGH_TOKENS` tokens or all requested rows. Arguments and errors are those of `estimate`.
    """
    found = None
    most, passes = train.division(processes)
    for checkpointing in (False, True) if train.gradient_checkpointing == "auto" else (train.gradient_checkpointing,):
        tried = replace(train, gradient_checkpointing=checkpointing)
        for rows in (rows for rows in range(most, 0, -1) if most * passes % rows == 0):
            needed = estimate(
                model, method, tried, length=length, processes=processes, micro_batch=rows, packing=packing
            )
            if needed.total <= gpu_bytes:
                found = replace(tried, micro_batch_size=rows)
                tokens = rows * length if packing is None else packing.rows(rows) * packing.width
                if rows == most or tokens >= ENOUGH_TOKENS:
                    return found
                break
    return found


def inference(model: ModelSpec, method: MethodSpec, *, answers: int, length: int, read: int) -> Memory:
    """Estimate the peak memory of one GPU for prefill and decoding. Raises as `estimate`.

    Args:
        model, method: as in `estimate`.
        answers: number of answers decoded in parallel.
        length: tokens of a prompt and its answer with cached keys and values (as buffers); 0 without a cache.
        read: tokens of one forward pass.
    """
    sizes = model_sizes(model, method)
    b = sizes.weight_bytes
    return Memory(
        micro_batch=answers,
        weights=b * sizes.parameters,
        trained=0 if sizes.full else 4 * sizes.trained,
        buffers=b * answers * length * sizes.keys * sizes.layers,
        checkpoints=0,
        activations=b * read * (sizes.outputs + 2 * sizes.hidden) + (b + 8) * answers * sizes.vocabulary,
    )


def stage(train: TrainSpec) -> int:
    """Return the ZeRO stage of a schedule's DeepSpeed config; 0 without one."""
    return _zero(train)["stage"]


def _zero(train: TrainSpec) -> dict[str, Any]:
    config = train.deepspeed
    if isinstance(config, Path):
        config = json.loads(config.read_text(encoding="utf-8"))
    return {"stage": 0, **BUCKETS, **(config or {}).get("zero_optimization", {})}


_counted: dict[str, ModelSizes] = {}


def model_sizes(model: ModelSpec, method: MethodSpec) -> ModelSizes:
    """Count a model's sizes under a method, on one decoder layer if all are alike, on the meta device.

    Raises as `estimate`.
    """
    arguments = {key: value for key, value in method.arguments.items() if key != "seed"}  # shapes do not depend on it
    model = replace(model, init="random", name="", label="")
    method = replace(method, arguments=arguments, name="", label="")
    key = repr((model, method))
    if key not in _counted:
        _counted[key] = _count(model, method)
    return _counted[key]


def _count(spec: ModelSpec, method: MethodSpec) -> ModelSizes:
    shape = dict(spec.shape or model_config(spec).to_dict())
    if spec.shape is None:
        known = AutoConfig.for_model(shape["model_type"]).to_dict()
        shape = {key: value for key, value in shape.items() if key in known and key != "layer_types"}
    layers = shape["num_hidden_layers"]
    built = layers if any(map(method.arguments.get, _BY_LAYER)) else 1
    with torch.device("meta"):
        base = build_model(replace(spec, shape={**shape, "num_hidden_layers": built}))
        sizes = {name: parameter.numel() for name, parameter in base.named_parameters()}
        outputs = sum(module.out_features for module in _in_layer(base, nn.Linear))
        model = build_adapted(base, method, seed=0)
    config = base.config
    inputs = rescaled = remade = 0
    for module in _in_layer(model, BaseTunerLayer):
        linear = module.get_base_layer()
        shapes = [tuple(each.shape) for key, each in module.named_parameters() if not key.startswith("base_layer.")]
        inputs += linear.in_features * sum(len(shape) == 2 and shape[1] == linear.in_features for shape in shapes)
        if (linear.out_features,) in shapes:
            rescaled += linear.out_features
            remade = max(remade, linear.in_features * linear.out_features)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def whole(numbers: dict[str, int]) -> int:
        copies = layers // built
        return sum(count * (copies if _FIRST_LAYER.search(f".{name}.") else 1) for name, count in numbers.items())

    return ModelSizes(
        layers=layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        heads=config.num_attention_heads,
        keys=2 * head * config.num_key_value_heads,
        weight_bytes=getattr(torch, spec.dtype).itemsize,
        parameters=whole(sizes),
        trained=whole({name: each.numel() for name, each in model.named_parameters() if each.requires_grad}),
        full=method.kind == "full",
        outputs=outputs,
        inputs=inputs,
        rescaled=rescaled,
        remade=remade,
        largest=max(sizes.values()),
    )


def _in_layer(model: nn.Module, kind: type) -> list[nn.Module]:
    """Return the modules of a type in the first decoder layer."""
    return [each for name, each in model.named_modules() if isinstance(each, kind) and _FIRST_LAYER.search(f".{name}.")]
