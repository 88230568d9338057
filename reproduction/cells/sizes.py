"""Groups of cells of equal size, and their memory needs computed from shapes alone."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import yaml

from reproduction.cells.cell import Cell
from reproduction.paths import CONFIGS
from reproduction.system.hub import config_folder
from reproduction.training.spec import MethodSpec, ModelSpec, TrainSpec

if TYPE_CHECKING:
    from reproduction.training.batches import Packing
    from reproduction.training.memory import Memory, ModelSizes

PROMPT = 256
"""Approximate tokens of a question, and of each few-shot example; used only in estimates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """Cells of one base, one method and one launch.

    Attributes:
        cells: one or more cells.
        shape: the base without its weights.
        body: sizes of its layers; None if neither configs/model nor a folder nor the hub has them.
        refusal: the reason why the method does not fit the base.
    """

    cells: tuple[Cell, ...]
    shape: ModelSpec
    body: "ModelSizes | None"
    refusal: str | None

    @property
    def first(self) -> Cell:
        return self.cells[0]

    @property
    def title(self) -> str:
        return f"{self.first.model.label} with {self.first.method.label}"

    @property
    def trains(self) -> bool:
        return self.first.method.kind != "none"

    def training(self, micro_batch: int | None = None, *, packing: "Packing | None" = None) -> "Memory":
        """Return the training memory of one GPU; see `reproduction.training.memory.estimate`."""
        from reproduction.training.memory import estimate

        return estimate(*self._schedule, **self._sizes, micro_batch=micro_batch, packing=packing)

    def fitting(self, gpu_bytes: int, *, packing: "Packing | None" = None) -> TrainSpec | None:
        """Return the schedule that fits such a GPU; see `reproduction.training.memory.fitting`."""
        from reproduction.training.memory import fitting

        return fitting(*self._schedule, **self._sizes, gpu_bytes=gpu_bytes, packing=packing)

    @property
    def _schedule(self) -> tuple[ModelSpec, MethodSpec, TrainSpec]:
        return self.shape, self.first.method, self.first.train

    @property
    def _sizes(self) -> dict[str, int]:
        return {"length": self.first.data.max_length, "processes": self.first.launch.processes}

    def inference(self) -> "Memory":
        """Return the GPU memory of the largest evaluation; see `reproduction.training.memory.inference`."""
        from reproduction.evals.batching import PREFILL_TOKENS
        from reproduction.evals.decoding import FEWEST_ROWS
        from reproduction.training.memory import inference

        asked = [protocol for cell in self.cells for protocol in cell.protocols]
        answers = self.first.batch_size or FEWEST_ROWS  # None: as many as fit, but at least this
        prompts = [PROMPT * (1 + protocol.num_fewshot) for protocol in asked]
        decoded = [length + p.max_new_tokens for length, p in zip(prompts, asked, strict=True) if p.max_new_tokens]
        return inference(
            self.shape,
            self.first.method,
            answers=answers,
            length=max(decoded, default=0),
            read=min(answers * max(prompts, default=0), PREFILL_TOKENS),
        )


def kinds_of(cells: Iterable[Cell]) -> list[Kind]:
    """Group cells by kind, in order of first appearance. A base of unknown shape is no error."""
    from reproduction.training import UnfitBase
    from reproduction.training.memory import model_sizes

    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_key(cell), []).append(cell)
    found = []
    for alike in groups.values():
        first, body, refusal = alike[0], None, None
        shape, known = _sized(first.model)
        try:
            body = model_sizes(shape, first.method) if known else None
        except UnfitBase:
            pass  # the base is not available: the check of the sources reports it
        except ValueError as error:
            refusal = str(error)
        found.append(Kind(cells=tuple(alike), shape=shape, body=body, refusal=refusal))
    return found


def _key(cell: Cell) -> str:
    arguments = {key: value for key, value in cell.method.arguments.items() if key != "seed"}
    train = dataclasses.asdict(cell.train)
    sizes = [train[key] for key in ("batch_size", "micro_batch_size", "gradient_checkpointing", "liger_kernel")]
    model, launch = dataclasses.asdict(cell.model), dataclasses.asdict(cell.launch)
    return json.dumps([model, cell.method.name, arguments, cell.data.max_length, sizes, launch], default=str)


def sort_of(cell: Cell) -> str:
    """Return base and tuning method without ranks and row choices: such cells take about as long as each other."""
    return f"{cell.model.name}/{tuning_of(cell.method)}"


def tuning_of(method: MethodSpec) -> str:
    """Return the tuning method without ranks and row choices."""
    switches = (name for name, value in method.arguments.items() if value is True)
    return "/".join([method.kind, *filter(None, [method.peft_type]), *sorted(switches)])


def _sized(model: ModelSpec) -> tuple[ModelSpec, bool]:
    """Return a base in the form used to count memory, without network access, and whether its shape is known.

    Only eager attention takes more memory; the kernels of the others need not be installed.
    """
    shape = shape_of(model)
    shape = dataclasses.replace(shape, attention=shape.attention if shape.attention == "eager" else None)
    if shape.shape is not None:
        return shape, True
    folder = config_folder(shape.path_or_id, shape.revision)
    return (
        (shape, False) if folder is None else (dataclasses.replace(shape, path_or_id=str(folder), revision=None), True)
    )


def shape_of(model: ModelSpec) -> ModelSpec:
    """Return a base's shape, without weights: from configs/model if the base is one of those, else its own."""
    if model.init == "random":
        return model
    return dataclasses.replace(model, init="random", shape=_known_shapes().get(model.path_or_id))


@functools.cache
def _known_shapes() -> dict[str, dict]:
    written = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CONFIGS / "model").glob("*.yaml")))
    return {model["path_or_id"]: model["shape"] for model in written if model.get("shape") and "path_or_id" in model}
