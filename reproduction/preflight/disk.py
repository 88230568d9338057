"""What cells put on disk, where, and whether there is room: downloads, trained models, checkpoints, records."""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from reproduction.cells.sizes import Kind
from reproduction.data.catalogue import DatasetSpec, revision_of
from reproduction.data.hub import cached
from reproduction.system.hub import model_here
from reproduction.training.spec import CHECKPOINTS_KEPT

DATA_SET = 150_000_000
"""Bytes of a data set's download and of what is made of it, more than any of the project's takes."""

RECORDS = 10_000_000
"""Bytes of a cell's records and logs."""

CHECKPOINTS = CHECKPOINTS_KEPT + 1
"""Checkpoints on disk at a time: those that are kept, and the one that is being written."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes that will be put under a folder, which need not exist; `download` where they come from the network."""

    what: str
    place: Path
    size: int
    download: bool = False


def needs(kinds: Sequence[Kind], *, results_dir: Path) -> list[Need]:
    """What the cells have yet to put on disk. Leaves out kinds whose base's shape is not known here."""
    return [*_downloads(kinds), *_results(kinds, results_dir.resolve())]


def _downloads(kinds: Sequence[Kind]) -> Iterable[Need]:
    bases = {kind.first.model.path_or_id: kind for kind in kinds if kind.body is not None}
    for name, kind in bases.items():
        model, size = kind.first.model, kind.body.parameters * kind.body.weight_bytes
        if model.init == "pretrained" and not Path(name).is_dir() and not model_here(name, model.revision):
            yield Need(what=f"the model {name}", place=Path(constants.HF_HUB_CACHE), size=size, download=True)
    hub_cells = [cell for kind in kinds for cell in kind.cells if cell.data_root is None]
    specs = {spec.name: (spec, revision_of(spec.name, c.revisions)) for c in hub_cells for spec in c.datasets}
    for spec, revision in specs.values():
        if spec.source(revision) and not cached(spec, revision):
            yield Need(what=f"the data set {spec.name}", place=_cache_of(spec), size=DATA_SET, download=True)


def _cache_of(spec: DatasetSpec) -> Path:
    from datasets import config  # takes a second to import

    return Path(constants.HF_HUB_CACHE if spec.hub_files else config.HF_DATASETS_CACHE)


def _results(kinds: Sequence[Kind], place: Path) -> Iterable[Need]:
    saved = checkpoints = 0
    for kind in kinds:
        saved += RECORDS * len({cell.run.name for cell in kind.cells})
        if kind.body is None or not kind.trains:
            continue
        waiting = {cell.run.name for cell in kind.cells if not cell.run.done}
        saved += kind.body.saved_bytes(sharded=kind.first.sharded) * len(waiting)
        if waiting and kind.first.train.save_steps:
            checkpoints = max(checkpoints, CHECKPOINTS * kind.body.checkpoint_bytes(sharded=kind.first.sharded))
    yield Need(what="trained models and records", place=place, size=saved)
    if checkpoints:
        yield Need(what=f"checkpoints of one cell, {CHECKPOINTS} at a time", place=place, size=checkpoints)


def lacking(needed: Sequence[Need]) -> Iterable[str]:
    """File systems with too little room for what will be put on them."""
    systems: dict[int, list[Need]] = {}
    for need in needed:
        systems.setdefault(os.stat(_existing(need.place)).st_dev, []).append(need)
    for there in systems.values():
        total, place = sum(need.size for need in there), _existing(there[0].place)
        free = shutil.disk_usage(place).free
        if free < total:
            parts = ", ".join(f"{need.what} {in_bytes(need.size)}" for need in there if need.size)
            yield (
                f"disk: {in_bytes(free)} are free at {place}, about {in_bytes(total)} are needed ({parts}): make room, "
                "or move HF_HOME (downloads) or results_dir"
            )


def in_bytes(size: float) -> str:
    """Bytes as a person reads them: "16.1 GB", "20 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _existing(place: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    place = place.absolute()
    return next(path for path in (place, *place.parents) if path.exists())
