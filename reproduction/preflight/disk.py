"""Disk space that cells need by place, compared with the free space: downloads, models, checkpoints, records."""

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
"""Upper bound in bytes of a data set's download and the files made from it."""

RECORDS = 10_000_000
"""Estimated bytes of a cell's records and logs."""

CHECKPOINTS = CHECKPOINTS_KEPT + 1
"""Maximum checkpoints on disk at a time: the kept ones and the one being written."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes to be written under a folder, which need not exist; `download` if they come from the network."""

    what: str
    place: Path
    size: int
    download: bool = False


def needs(kinds: Sequence[Kind], *, results_dir: Path) -> list[Need]:
    """Return what the cells have yet to write to disk, without kinds whose base has an unknown shape."""
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
    """Yield a line for each file system with too little free space for its needs."""
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
    """Format bytes for people: "16.1 GB", "20 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _existing(place: Path) -> Path:
    """Return the folder itself, or its nearest existing parent."""
    place = place.absolute()
    return next(path for path in (place, *place.parents) if path.exists())
