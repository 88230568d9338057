"""What training a cell takes of each GPU's memory at its highest, from shapes alone.

Bytes, with b of a weight (2 in bfloat16), n processes, T = rows × length tokens of a micro-batch, vocabulary V, hidden
width H, L decoder layers, P frozen and Q trained parameters:

                 one GPU or DDP          ZeRO-2                      ZeRO-3
    weights      b·P                     b·P                         b·P/n
    trained      4·Q                     b·Q                         b·Q/n
      gradients  4·Q                     b·Q/n                       b·Q/n
      Adam's     8·Q                     12·Q/n                      12·Q/n       moments (and float32 weights)
    buffers      DDP 4·Q (its buckets)   b·(bucket, two to overlap)  the same, and b·(what is gathered at once)
    checkpoints  b·T·H·L with gradient checkpointing: a hidden state for each layer

and of what never stands there together the largest, `activations`:

    loss         (b + 12)·T·V: logits, their float32 copy, log-probabilities, gradient; with a fused loss (b + 12)·T·H
    layer        T·(3·b·ΣO + 3.5·ΣI + 6·ΣS) + 12·R: one decoder layer computed again and taken back. Without
                 checkpointing each of the L layers keeps T·(1.75·b·ΣO + 3.5·ΣI + 6·ΣS), beside the loss as well
    update       4 (DeepSpeed 8) for each number that Adam updates at once

ΣO are the outputs of a layer's linear modules; ΣI the inputs that adapters keep, a copy for each of their matrices that
the input is multiplied with; ΣS the outputs of modules that an adapter rescales row by row, for which it makes W anew,
the largest of R entries. The factors are fitted to LLaMA-3-8B's layers as measured in results/h200/benchmark.csv.

Left out: optimisers other than Adam, and what attention needs beside q, k and v (unless it is the eager one).
"""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig

from reproduction.training.batches import Packing
from reproduction.training.build import _config, build_adapted, build_model
from reproduction.training.spec import MethodSpec, ModelSpec, TrainSpec

CONTEXT = 1_500_000_000
"""CUDA's context, NCCL's buffers, and what is lost between the blocks of PyTorch's allocator."""

KEPT, AT_WORK = 1.75, 3.0
"""Of a layer's outputs: what is kept for the backward pass, and what is there during it."""

COPY, RESCALED = 3.5, 6.0
"""Bytes of an adapter's copy of an input (a 16-bit one and its dropout mask, or float32), and of rescaled outputs."""

BUSY = 2048
"""Tokens of a pass from which on more of them make a GPU no faster by much: checkpointing's third is then dearer."""

BUCKETS = {  # DeepSpeed's own, for keys that its config leaves out; numbers of parameters
    "reduce_bucket_size": 5e8,
    "stage3_prefetch_bucket_size": 5e7,
    "stage3_max_live_parameters": 1e9,
    "sub_group_size": 1e9,
}
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.0\.")


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The sizes of a base model made ready for a method, in numbers but for `weight_bytes`.

    `parameters` are the base's, `trained` what is trained: of the base where `full`, else beside it. `outputs`,
    `inputs`, `rescaled` and `remade` are ΣO, ΣI, ΣS and R of one decoder layer, `largest` the entries of the base's
    largest weight, `keys` those of a token's keys and values in one layer.
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
        """On disk, of the trained model or adapter; a `sharded` (DeepSpeed) run keeps the weights' type."""
        return (self.weight_bytes if self.full and sharded else 4) * self.trained

    def checkpoint_bytes(self, *, sharded: bool) -> int:
        """On disk, of one checkpoint: what is trained, and Adam's moments (and DeepSpeed's float32 weights) with it."""
        return ((self.weight_bytes if sharded else 0) + 12) * self.trained


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each GPU at the peak, by part; `micro_batch` is the rows that they are for."""

    micro_batch: int
    weights: int
    trained: int
    buffers: int
    checkpoints: int
    activations: int
    context: int = CONTEXT

    @property
    def allocated(self) -> int:
        """What PyTorch allocates: everything but the context."""
        return self.weights + self.trained + self.buffers + self.checkpoints + self.activations

    @property
    def total(self) -> int:
        return self.allocated + self.context

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {getattr(self, name) / 1e9:.1f}"
            for name in ("weights", "trained", "buffers", "checkpoints", "activations", "context")
            if getattr(self, name) >= 5e7
        )
        return f"{self.total / 1e9:.1f} GB ({parts})"


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
    """Memory of one GPU at the peak of training; the formulas stand above.

    Args:
        model: its shape, or a folder or hub id whose config.json can be read; no weight is.
        method: what is trained. Kind "none" trains nothing: see `inference`.
        train: its `deepspeed` says what is sharded.
        length: tokens of a row.
        processes: GPUs that share the batch.
        micro_batch: rows of a forward pass; None is what `train.division` gives.
        packing: of those rows into fewer, where passes are packed.

    Raises:
        UnfitBase: the model's shape cannot be had.
        ValueError: the method does not fit it, or the processes cannot share the batch.
    """
    body = anatomy(model, method)
    rows = micro_batch or train.division(processes)[0]
    taken = rows if packing is None else packing.rows(rows)
    length = length if packing is None else packing.width
    tokens, b = taken * length, body.weight_bytes
    checkpoints = b * tokens * body.hidden * body.layers if train.gradient_checkpointing is True else 0
    loss = (b + 12) * tokens * (body.hidden if train.liger_kernel else body.vocabulary)
    kept, layer = _layer(body, rows=taken, length=length, eager=model.attention == "eager")
    others = 0.0 if train.gradient_checkpointing is True else kept * (body.layers - 1)
    last = 0.0 if train.gradient_checkpointing is True else kept
    return Memory(
        micro_batch=rows,
        **_held(body, train, processes=processes),
        checkpoints=checkpoints,
        activations=int(max(others + last + loss, others + layer, _update(body, train, processes=processes))),
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
    """The schedule with a micro-batch that a GPU of `gpu_bytes` holds, and with gradient checkpointing where it must.

    The micro-batch is of the most rows, at most `train.micro_batch_size`, that divide a process's share of the batch
    evenly. Where checkpointing is "auto" it is off if a pass without it holds `BUSY` tokens or all the rows asked for.
    With a `packing` they take its rows, each of its width, in the place of as many of `length`.

    None where even one row does not fit. Raises as `estimate`.
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
                if rows == most or tokens >= BUSY:
                    return found
                break
    return found


def inference(model: ModelSpec, method: MethodSpec, *, answers: int, length: int, read: int) -> Memory:
    """Memory of one GPU while it reads and decodes.

    Args:
        model, method: as in `estimate`.
        answers: decoded side by side.
        length: tokens of a prompt and its answer, whose keys and values are kept (among the buffers); 0 where none are.
        read: tokens that go through the model at once.

    Raises:
        UnfitBase, ValueError: as `estimate`.
    """
    body = anatomy(model, method)
    b = body.weight_bytes
    return Memory(
        micro_batch=answers,
        weights=b * body.parameters,
        trained=0 if body.full else 4 * body.trained,
        buffers=b * answers * length * body.keys * body.layers,
        checkpoints=0,
        activations=b * read * (body.outputs + 2 * body.hidden) + (b + 8) * answers * body.vocabulary,
    )


def stage(train: TrainSpec) -> int:
    """The ZeRO stage of a schedule's DeepSpeed config; 0 without one."""
    return int(_zero(train).get("stage", 0))


def _zero(train: TrainSpec) -> dict[str, Any]:
    config = train.deepspeed
    if isinstance(config, Path):
        config = json.loads(config.read_text(encoding="utf-8"))
    return {**BUCKETS, **(config or {}).get("zero_optimization", {})}


def _held(body: Anatomy, train: TrainSpec, *, processes: int) -> dict[str, int]:
    """What is there throughout a step: weights that are not trained, what is trained, buffers."""
    zero, b, Q = _zero(train), body.weight_bytes, body.trained
    P = 0 if body.full else body.parameters
    if stage(train) == 0:
        return {"weights": b * P, "trained": (4 + 4 + 8) * Q, "buffers": 4 * Q if processes > 1 else 0}
    buckets = min(zero["reduce_bucket_size"], Q) * (2 if zero.get("overlap_comm") else 1)
    if stage(train) < 3:
        trained = b * Q + (b + 12) * Q // processes
        return {"weights": b * P, "trained": trained, "buffers": int(b * buckets)}
    gathered = max(zero["stage3_max_live_parameters"], body.largest) + zero["stage3_prefetch_bucket_size"]
    return {
        "weights": b * P // processes,
        "trained": (b + b + 12) * Q // processes,
        "buffers": int(b * (buckets + min(gathered, P + Q))),
    }


def _layer(body: Anatomy, *, rows: int, length: int, eager: bool) -> tuple[float, float]:
    """What one decoder layer keeps for its backward pass, and what is there during that."""
    tokens, b = rows * length, body.weight_bytes
    adapters = tokens * (COPY * body.inputs + RESCALED * body.rescaled)
    squares = rows * body.heads * length**2 * (b + 4) if eager else 0
    kept = tokens * KEPT * b * body.outputs + adapters + squares
    return kept, tokens * AT_WORK * b * body.outputs + adapters + squares + 12 * body.remade


def _update(body: Anatomy, train: TrainSpec, *, processes: int) -> float:
    if stage(train) == 0:
        return 4 * body.trained
    share = body.trained / processes
    return 8 * (min(share, _zero(train)["sub_group_size"]) if stage(train) == 3 else share)


def anatomy(model: ModelSpec, method: MethodSpec) -> Anatomy:
    """The sizes of a model under a method; counted on one decoder layer, since all are alike, without a weight.

    Raises as `estimate`.
    """
    arguments = {key: value for key, value in method.arguments.items() if key != "seed"}  # no shape depends on it
    return _anatomy(
        json.dumps(asdict(replace(model, init="random", name="", label="")), default=list),
        json.dumps(asdict(replace(method, arguments=arguments, name="", label="")), default=list),
    )


@functools.lru_cache(maxsize=1024)
def _anatomy(model: str, method: str) -> Anatomy:
    base, way = ModelSpec(**json.loads(model)), MethodSpec(**json.loads(method))
    config, layers = _one_layer(base)
    with torch.device("meta"):
        bare = build_model(replace(base, shape=config))
        sizes = {name: parameter.numel() for name, parameter in bare.named_parameters()}
        heads, hidden = bare.config.num_attention_heads, bare.config.hidden_size
        outputs = sum(module.out_features for name, module in _linear(bare) if _LAYER.search(f".{name}."))
        model = build_adapted(bare, way, seed=0)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tuned = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    inputs = rescaled = remade = 0
    for name, module in tuned:
        if not _LAYER.search(f".{name}."):
            continue
        linear = module.get_base_layer()
        shapes = [tuple(each.shape) for key, each in module.named_parameters() if not key.startswith("base_layer.")]
        inputs += linear.in_features * sum(len(shape) == 2 and shape[1] == linear.in_features for shape in shapes)
        if (linear.out_features,) in shapes:
            rescaled += linear.out_features
            remade = max(remade, linear.in_features * linear.out_features)
    head = getattr(bare.config, "head_dim", None) or hidden // heads

    def whole(numbers: dict[str, int]) -> int:
        return sum(count * (layers if _LAYER.search(f".{name}.") else 1) for name, count in numbers.items())

    return Anatomy(
        layers=layers,
        hidden=hidden,
        vocabulary=bare.config.vocab_size,
        heads=heads,
        keys=2 * head * bare.config.num_key_value_heads,
        weight_bytes=getattr(torch, base.dtype).itemsize,
        parameters=whole(sizes),
        trained=whole({name: parameter.numel() for name, parameter in trained.items()}),
        full=way.kind == "full",
        outputs=outputs,
        inputs=inputs,
        rescaled=rescaled,
        remade=remade,
        largest=max(sizes.values()),
    )


def _one_layer(model: ModelSpec) -> tuple[dict[str, Any], int]:
    """The model's shape cut down to one decoder layer, and how many it has."""
    shape = dict(model.shape or _config(model).to_dict())
    if model.shape is None:
        known = AutoConfig.for_model(shape["model_type"]).to_dict()
        shape = {key: value for key, value in shape.items() if key in known and key != "layer_types"}
    return {**shape, "num_hidden_layers": 1}, shape["num_hidden_layers"]


def _linear(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
