"""What a machine lacks for the cells asked of it, all of it in one list, before anything is downloaded or computed."""

import dataclasses
import functools
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from idlora.data.catalogue import DATASETS, revision_of
from idlora.evals.registry import runs_code
from idlora.evals.sandbox import ExecutionRefused, Job, run_jobs
from idlora.pipeline.cell import Cell
from idlora.pipeline.compose import compose, plain
from idlora.pipeline.places import data_digest, locate_model
from idlora.pipeline.typed import typed
from idlora.training.spec import ModelSpec

TIMEOUT = 8.0
"""Seconds in which a server must answer."""

GPU_MEMORY = {"paper": 80e9}
"""Bytes of memory that one GPU needs at a scale; a scale that is not here runs on a CPU."""

GPUS = {"paper": 2}
"""GPUs that a scale was planned for."""

DISK = {"tiny": 0.5e9, "paper": 150e9}
"""Bytes that a scale's runs and downloads take, roughly: at the paper's, two bases and six fully tuned models."""


class NotReady(Exception):
    """This machine cannot run what was asked; the message lists everything that is missing."""


def require(cells: Iterable[Cell], *, scale: str, results_dir: Path) -> None:
    """Raise `NotReady` naming everything at once that these cells need and this machine lacks; seconds at most.

    Leaves out: an estimate per cell of memory and time, and whether a download that may start will also finish.
    """
    waiting = [cell for cell in cells if not cell.complete]
    if not waiting:
        return
    lacks = [*_misfits(waiting), *_sandbox(waiting), *_disk(scale, results_dir), *_gpus(scale)]
    lacks += [*_launch(waiting), *_sources(waiting)]
    if lacks:
        listed = "".join(f"\n  {number}. {lack}" for number, lack in enumerate(lacks, start=1))
        raise NotReady(f"{len(waiting)} cells at scale={scale} cannot run here; missing:{listed}")


def _misfits(cells: list[Cell]) -> Iterable[str]:
    """Methods whose sizes (rank, clusters, …) the base's layers cannot serve.

    Each is put on the base's shape, on the meta device, by the code that trains it: what that would refuse after the
    cells before it have run for hours is refused now. A shape that cannot be had is left to `_sources`.
    """
    import torch

    from idlora.training import UnfitBase, build_adapted, build_model

    pairs: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.method.kind == "peft":
            pairs.setdefault((cell.model.name, cell.method.name), []).append(cell)
    for alike in pairs.values():
        first = alike[0]
        try:
            with torch.device("meta"):
                build_adapted(build_model(_shape(first)), first.method, seed=first.train.seed)
        except UnfitBase:
            continue
        except ValueError as error:
            titles = ", ".join(dict.fromkeys(cell.title for cell in alike))
            yield f"a fit: {titles} cannot be trained on {first.model.label}: {error}"


def _shape(cell: Cell) -> ModelSpec:
    """The cell's base as a shape whose weights are not read.

    Of a hub model that configs/model knows, what stands there, and one layer of it, since all are alike; else the
    model's own config.json.
    """
    known = _known_shape(cell.experiment, cell.scale)
    if known.path_or_id != cell.model.path_or_id or known.shape is None:
        return dataclasses.replace(cell.model, init="random")
    return dataclasses.replace(known, shape={**known.shape, "num_hidden_layers": 1})


@functools.cache
def _known_shape(experiment: str, scale: str) -> ModelSpec:
    model = plain(compose("train", [f"experiment={experiment}", f"scale={scale}"]).model)
    return typed(ModelSpec, locate_model({**model, "init": "random"}), where="model")


def _sandbox(cells: list[Cell]) -> Iterable[str]:
    """Tries the sandbox on a harmless program, where a benchmark will run what a model writes."""
    if not any(runs_code(protocol.benchmark) for cell in cells for protocol in cell.subject.waiting):
        return
    harmless = Job(prompt="", test="def check(f):\n    f()\n", entry_point="f", program="def f():\n    pass\n")
    try:
        run_jobs([harmless], permissions=cells[0].permissions, workers=1)
    except ExecutionRefused as error:
        yield f"HumanEval: {error}"


def _disk(scale: str, results_dir: Path) -> Iterable[str]:
    place = next(path for path in (results_dir.resolve(), *results_dir.resolve().parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, DISK[scale]
    if free < needed:
        yield f"disk: {free / 1e9:.1f} GB are free at {place}, about {needed / 1e9:.1f} GB are needed"


def _gpus(scale: str) -> Iterable[str]:
    if scale not in GPUS:
        return
    import torch  # seconds to import, and needed here alone

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    if len(found) < GPUS[scale]:
        memory = f"{GPU_MEMORY[scale] / 1e9:.0f} GB"
        yield f"GPUs: {len(found)} CUDA devices are visible, {GPUS[scale]} of {memory} are needed"
    for gpu in found:
        if gpu.total_memory < 0.95 * GPU_MEMORY[scale]:
            yield f"GPU memory: {gpu.name} has {gpu.total_memory / 1e9:.0f} GB of {GPU_MEMORY[scale] / 1e9:.0f} GB"


def _launch(cells: list[Cell]) -> Iterable[str]:
    sharded = [cell for cell in cells if cell.method.kind == "full" and cell.model.dtype != "float32"]
    if sharded and not all(cell.train.deepspeed for cell in sharded):
        yield (
            f"DeepSpeed for {len(sharded)} cells that train every weight in {sharded[0].model.dtype}: run each with "
            f"`accelerate launch --use_deepspeed scripts/train.py experiment={sharded[0].experiment} "
            f"method={sharded[0].method.name} scale=… launch=zero3`, then this command for the rest"
        )


def _sources(cells: list[Cell]) -> Iterable[str]:
    """Models and data sets that are neither here nor to be had from the hub."""
    models = {
        cell.model.path_or_id for cell in cells if cell.model.checksum is None and cell.model.init == "pretrained"
    }
    data = {source for cell in cells if cell.method.kind != "none" for source in cell.data.sources}
    data |= {protocol.benchmark for cell in cells for protocol in cell.protocols}
    repositories = dict.fromkeys(sorted(models), "model")
    root = cells[0].data_root
    for name in sorted(data):
        spec = DATASETS[name]
        if root is not None:
            if data_digest(name, root) == "absent":
                yield f"data set {name}: {root / name} is not there"
        elif spec.url is not None:
            yield from _url(name, spec.source(revision_of(name, cells[0].revisions)))
        elif spec.hub_id is None:
            yield f"data set {name}: it is on no hub; put it under data_root=<folder>"
        else:
            repositories[spec.hub_id] = "dataset"
    yield from _hub(repositories)


def _hub(repositories: Mapping[str, str]) -> Iterable[str]:
    """What stands between here and these hub repositories (id → "model" or "dataset")."""
    if not repositories:
        return
    endpoint = huggingface_hub.constants.ENDPOINT
    if not _answers(endpoint):
        yield (
            f"the hub: {endpoint} does not answer, and is needed for {', '.join(repositories)}; "
            "check the network, or name local folders (data_root=…, model.path_or_id=…)"
        )
        return
    api = huggingface_hub.HfApi()
    for repository, kind in repositories.items():
        try:
            api.auth_check(repository, repo_type=kind)
        except GatedRepoError:
            yield (
                f"access to the {kind} {repository}: accept its terms at {endpoint}/"
                f"{'datasets/' if kind == 'dataset' else ''}{repository} and run `hf auth login`"
            )
        except (RepositoryNotFoundError, HfHubHTTPError, OSError, httpx.HTTPError) as error:
            yield f"the {kind} {repository}: {str(error).splitlines()[0]}"


def _url(name: str, url: str) -> Iterable[str]:
    if not _answers(url):
        yield f"data set {name}: {url} does not answer; put the file into <folder>/{name} and give data_root=<folder>"


def _answers(url: str) -> bool:
    try:
        return httpx.head(url, timeout=TIMEOUT, follow_redirects=True).status_code < 400
    except httpx.HTTPError:
        return False
