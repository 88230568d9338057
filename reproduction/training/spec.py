"""Typed description of a training run: the base model, the method, the data, the schedule.

Every spec raises a ValueError that names an invalid value. The fields are hashed into a run's name
(`reproduction.records.identity`): a new field, or another default, changes the run of every cell.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from reproduction.data.templates import ALPACA, Template

CHECKPOINTS_KEPT = 2
"""Number of checkpoints: the last, and the one before it in case the last is damaged."""

Dtype = Literal["float32", "bfloat16", "float16"]
Init = Literal["pretrained", "random"]
Kind = Literal["none", "full", "peft"]


class UnfitBase(ValueError):
    """A base model cannot be loaded as its spec says."""


def _at_least(owner: str, smallest: float, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value >= smallest:
            raise ValueError(f"{owner}.{name} is {value}: it must be {smallest} or more.")


def _one_of(kind: Any, name: str, value: Any) -> None:
    if value not in get_args(kind):
        raise ValueError(f"{name} is {value!r}: choose {', '.join(get_args(kind))}.")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A base model.

    Args:
        name: in folder names and records.
        label: in tables.
        path_or_id: a folder in transformers' layout, or a hub id.
        revision: commit, tag or branch of a hub id; None (default) is its main branch. Name a commit to pin it.
        dtype: dtype of the weights in memory, default float32; trained adapter weights are always float32. Use
            bfloat16 for billions of parameters.
        init: "pretrained" (default) loads the weights; "random" draws them with a fixed seed, to try a shape.
        shape: transformers' `model_type` and the config's sizes, for random weights; None reads `path_or_id`'s config.
        checksum: checksum of the weights' content, if known; see `reproduction.training.base_identity`.
        tokenizer: folder or hub id of the tokenizer for random weights; None is `path_or_id`.
        attention: transformers' name of the attention kernel; None (default) is transformers' choice, SDPA.
        gguf: a quantised file of the same model, which uses the same learning rates: the hub id that it is ``of``, and
            the file's ``sha256``.
    """

    name: str
    label: str
    path_or_id: str
    revision: str | None = None
    dtype: Dtype = "float32"
    init: Init = "pretrained"
    shape: Mapping[str, Any] | None = None
    checksum: str | None = None
    tokenizer: str | None = None
    attention: Literal["sdpa", "flash_attention_2", "flash_attention_3", "eager"] | None = None
    gguf: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        _one_of(Dtype, "model.dtype", self.dtype)
        _one_of(Init, "model.init", self.init)
        for name, value in (("shape", self.shape), ("tokenizer", self.tokenizer)):
            if value is not None and self.init != "random":
                raise ValueError(f"model.{name} is {value!r} and init is {self.init!r}: only random weights take one.")


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A tuning method.

    Args:
        name: in folder names and records.
        label: in tables.
        kind: "none" trains nothing, "full" every parameter, "peft" what the PEFT method adds.
        peft_type: PEFT's name of the method, only for kind "peft".
        arguments: arguments of the method's PEFT config class.
        frozen: regular expressions, searched for in the names of the PEFT method's trainable parameters; the matches
            keep their initial values, and are saved and loaded with the rest.
        long_rows: regular expressions, searched in the same way; the rows of the matching matrices (r, in) start with
            the mean length of the frozen weight's rows, in random directions.
        protocol_version: raise it if a change of code invalidates older results.
    """

    name: str
    label: str
    kind: Kind
    peft_type: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    long_rows: tuple[str, ...] = ()
    protocol_version: int = 1

    def __post_init__(self) -> None:
        _one_of(Kind, "method.kind", self.kind)
        if (self.kind == "peft") != (self.peft_type is not None):
            raise ValueError(
                f"method.peft_type is {self.peft_type!r} and kind {self.kind!r}: peft, and it alone, has one."
            )
        patterns = {"frozen": list(self.frozen), "long_rows": list(self.long_rows)}
        for name, value in {"arguments": dict(self.arguments), **patterns}.items():
            if self.kind != "peft" and value:
                raise ValueError(f"method.{name} is {value} and kind {self.kind!r}: only peft takes any.")
        for name, pattern in ((name, pattern) for name, value in patterns.items() for pattern in value):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"method.{name} has {pattern!r}, which is no regular expression: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Training data.

    Args:
        name: a training set of `reproduction.data`, or the name of a mixture.
        max_length: largest number of tokens of a row, at least 2: prompt, response and end mark together.
        parts: training sets of a mixture, each with the share of its rows, or its proportion if one of them is above 1
            (`reproduction.data.mixture.shares_of`); None (default) for a single set.
        limit: largest number of rows, chosen evenly over the set; None (default) is all of them.
        held_out: share of every source's rows, in [0, 1), that is excluded from training to measure the loss; the
            choice depends only on the prompts. Default 0.
        validation_rows: rows split off for choosing a learning rate; a trial does not train on them. Default 0.
        digest: digest of the data's content, if known.
        packing: put several examples in one row of at most `max_length` tokens, without attention between them. A row
            of the effective batch is then such a pack. Default false.
        template: a user's template: "source" is its Jinja text, "label" its name; None (default) is `ALPACA`.
        protocol_version: raise it if a change of code invalidates older results.
    """

    name: str
    max_length: int
    parts: Mapping[str, float] | None = None
    limit: int | None = None
    held_out: float = 0.0
    validation_rows: int = 0
    digest: str | None = None
    packing: bool = False
    template: Mapping[str, str] | None = None
    protocol_version: int = 1

    def __post_init__(self) -> None:
        _at_least("data", 2, max_length=self.max_length)
        _at_least("data", 1, limit=self.limit)
        _at_least("data", 0, validation_rows=self.validation_rows)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"data.held_out is {self.held_out}: a share that leaves rows to train on lies in [0, 1).")
        if self.parts is not None:
            if not self.parts:
                raise ValueError("data.parts is empty: name the training sets of the mixture, or null for one set.")
            least, proportions = min(self.parts, key=self.parts.get), max(self.parts.values()) > 1
            if not self.parts[least] > 0 or (proportions and self.parts[least] != 1):
                raise ValueError(
                    f"data.parts.{least} is {self.parts[least]}: a share lies above 0 and is at most 1; where a part "
                    "has more, all are proportions, and the least of them is 1."
                )
        if self.template is not None and set(self.template) != {"label", "source"}:
            raise ValueError(f"data.template has {sorted(self.template)}: it needs label and source, and no more.")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the training sets: its own, or those of a mixture's parts."""
        return (self.name,) if self.parts is None else tuple(self.parts)

    @property
    def prompt_template(self) -> Template:
        """Template of every prompt, in training and in evaluation."""
        return ALPACA if self.template is None else Template(self.template["label"], self.template["source"])


@dataclass(frozen=True, kw_only=True)
class WandbSpec:
    """A run in Weights & Biases.

    Args:
        mode: "disabled" (default) does not need the package wandb; "offline" writes files into the run's folder for
            `wandb sync`, without a network.
        project, entity: project and entity of the run; None is W&B's own default.
    """

    mode: Literal["disabled", "online", "offline"] = "disabled"
    project: str | None = None
    entity: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Trackers of a training; see `reproduction.training.tracking`.

    Args:
        wandb: Weights & Biases.
        tensorboard: write TensorBoard's events into the run's folder. Default false.
    """

    wandb: WandbSpec = WandbSpec()
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.tensorboard, bool):
            raise ValueError(f"tensorboard is {self.tensorboard!r}: give true or false.")

    @property
    def wanted(self) -> bool:
        """Whether any tracker is on."""
        return self.wandb.mode != "disabled" or self.tensorboard


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The schedule of a run.

    Args:
        learning_rate: peak learning rate, above 0; None only if nothing is trained.
        epochs: passes over the training set, above 0.
        batch_size: rows of one optimiser step: micro-batch x accumulation x processes.
        micro_batch_size: largest number of rows of one forward pass of one process; `division` uses as many as divide
            evenly. "auto" (default) is as many as the estimated memory allows (`reproduction.training.memory.fitting`).
            Lower it if memory runs out.
        max_steps: optimiser steps; None (default) is the number of steps in the epochs.
        warmup_steps: steps over which the rate rises from zero. Default 0.
        lr_scheduler: transformers' name of the schedule after the warm-up. Default "linear".
        weight_decay: weight decay of the optimiser. Default 0.
        max_grad_norm: largest gradient norm, for clipping. Default 1; 0 does not clip.
        optimizer: transformers' name of the optimiser. Default "adamw_torch".
        seed: seed of new weights, dropout and the order of the rows. Default 0.
        gradient_checkpointing: recompute activations in the backward pass: less memory, a third slower, the same
            gradients. "auto" (default) does so only if memory is short.
        save_steps: steps between checkpoints; 0 (default) writes none, and an interrupted run starts over.
        group_by_length: assign a step's rows to its micro-batches by length. It saves padding and changes neither the
            rows of a step nor its gradient. Default false.
        liger_kernel: use the fused loss and norms of liger-kernel, an optional package for GPUs. Default false.
        deepspeed: DeepSpeed's config, or the path of its file; None (default) does not use DeepSpeed.
        protocol_version: raise it if a change of code invalidates older results.
    """

    learning_rate: float | None
    epochs: float
    batch_size: int
    micro_batch_size: int | Literal["auto"] = "auto"
    max_steps: int | None = None
    warmup_steps: int = 0
    lr_scheduler: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw_torch"
    seed: int = 0
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    save_steps: int = 0
    group_by_length: bool = False
    liger_kernel: bool = False
    deepspeed: Mapping[str, Any] | Path | None = None
    protocol_version: int = 1

    def __post_init__(self) -> None:
        if self.micro_batch_size != "auto":
            if not isinstance(self.micro_batch_size, int):
                raise ValueError(f"train.micro_batch_size is {self.micro_batch_size!r}: give a number, or auto.")
            _at_least("train", 1, micro_batch_size=self.micro_batch_size)
        if self.gradient_checkpointing not in (True, False, "auto"):
            raise ValueError(
                f"train.gradient_checkpointing is {self.gradient_checkpointing!r}: give true, false or auto."
            )
        _at_least("train", 1, batch_size=self.batch_size, max_steps=self.max_steps)
        _at_least("train", 0, warmup_steps=self.warmup_steps, save_steps=self.save_steps, seed=self.seed)
        _at_least("train", 0, weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm)
        for name in ("epochs", "learning_rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}: it must be above 0.")

    def division(self, processes: int) -> tuple[int, int]:
        """Return (rows of one micro-batch, micro-batches of one process per step).

        Their product times the processes is exactly `batch_size`; the first is the largest that `micro_batch_size`
        allows; "auto" is all of a process's share.

        Raises:
            ValueError: the processes cannot share the batch evenly.
        """
        share, rest = divmod(self.batch_size, processes)
        if rest or not share:
            raise ValueError(
                f"train.batch_size={self.batch_size} cannot be shared evenly by {processes} processes: make it a "
                f"multiple of {processes}, or set launch.num_processes to a divisor of {self.batch_size}."
            )
        most = share if self.micro_batch_size == "auto" else min(self.micro_batch_size, share)
        rows = next(rows for rows in range(most, 0, -1) if share % rows == 0)
        return rows, share // rows
