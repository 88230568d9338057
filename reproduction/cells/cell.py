"""One cell of a table: what it computes, and how this machine runs it."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.evaluation import EvalJob, finished
from reproduction.cells.protocols import ALL
from reproduction.cells.resolve_paths import embedded_tokenizer
from reproduction.data.catalogue import DATASETS, DatasetSpec
from reproduction.data.templates import TEMPLATE_VERSION
from reproduction.evals.sandbox import Permissions
from reproduction.evals.task import Protocol
from reproduction.records import RecordError, Run, run_name
from reproduction.training.launching import Launch
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec, TrackingSpec, TrainSpec

MARGIN = 0.05
"""Minimum share of a source that is neither in a mixture nor held out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: what it computes, and how this machine runs it.

    `config` is what the cell computes and names the run's folder; settings of how it runs are not part of it.

    Args:
        experiment, scale: names of the configs that the cell is composed from.
        model, method, data, train: what the cell computes.
        launch: processes of the training.
        protocols: evaluations of the trained model.
        data_root: folder of the data sets; None is the hub.
        results_dir: folder of all scales' results.
        threads: PyTorch threads on the CPU.
        batch_size: answers generated at once; None is as many as fit into memory.
        permissions: permissions of programs that a model writes.
        revisions: revisions of the hub's data sets; part of `config` through the data's digest.
        processes: processes of an evaluation; None is one per visible GPU.
        tracking: experiment trackers of the training.
        trial_steps: steps of the trials that select its learning rate; None is the steps of its own training.
    """

    experiment: str
    scale: str
    model: ModelSpec
    method: MethodSpec
    data: DataSpec
    train: TrainSpec
    launch: Launch
    protocols: tuple[Protocol, ...]
    data_root: Path | None
    results_dir: Path
    threads: int
    batch_size: int | None
    permissions: Permissions
    revisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    processes: int | None = 1
    tracking: TrackingSpec = dataclasses.field(default_factory=TrackingSpec)
    trial_steps: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Content of the run's config.json; `reproduction.records.run_name` hashes it into the folder's name."""
        specs = {name: dataclasses.asdict(getattr(self, name)) for name in ("model", "method", "data", "train")}
        if self.data.template is None:  # a user's template is recorded in full
            specs["data"]["template_version"] = TEMPLATE_VERSION
        if not specs["method"]["long_rows"]:
            del specs["method"]["long_rows"]  # keeps the names of runs older than this field
        if specs["model"]["tokenizer"] == embedded_tokenizer():
            specs["model"]["tokenizer"] = None  # its path differs between machines
        return {"experiment": self.experiment, "scale": self.scale, "seed": self.train.seed, **specs}

    @property
    def as_tried(self) -> "Cell":
        """The cell with the number of steps of its learning-rate trials."""
        if self.trial_steps is None:
            return self
        return dataclasses.replace(self, train=dataclasses.replace(self.train, max_steps=self.trial_steps))

    @property
    def run(self) -> Run:
        """The run of this cell; its folder need not exist."""
        return Run(self.results_dir / self.scale / "runs" / run_name(self.config))

    @property
    def eval_job(self) -> EvalJob:
        """The evaluation job of the trained model."""
        return finished(
            self.run.folder,
            self.model,
            self.method,
            protocols=self.protocols,
            data_root=self.data_root,
            batch_size=self.batch_size,
            threads=self.threads,
            permissions=self.permissions,
            template=self.data.prompt_template,
            revisions=self.revisions,
            processes=self.processes,
            memory_gb=self.launch.memory_gb,
        )

    @property
    def datasets(self) -> list[DatasetSpec]:
        """All data sets of training and evaluation."""
        trained = self.data.sources if self.method.kind != "none" else ()
        return [*(DATASETS[name] for name in trained), *(protocol.task.data for protocol in self.protocols)]

    @property
    def sharded(self) -> bool:
        """Whether the launch shards weights or optimiser state over several GPUs."""
        return self.launch.mode in ("zero2", "zero3")

    @property
    def division(self) -> str:
        """A sentence on how processes share a step's rows. Raises ValueError if they cannot share them."""
        rows, passes = self.train.division(self.launch.processes)
        cut = f"{passes} passes × {rows} rows"
        if self.train.micro_batch_size == "auto":
            cut = f"{rows * passes} rows, in passes as large as the memory allows"
        return (
            f"{self.train.batch_size} rows a step = {self.launch.processes} process(es) × {cut} "
            f"(launch={self.launch.mode})"
        )

    @property
    def complete(self) -> bool:
        """Whether the run is trained and every evaluation has its DONE mark."""
        return self.run.done and not self.eval_job.waiting

    @property
    def title(self) -> str:
        """Display name: ``experiment/method``, plus the seed if it is not 0; ``model/base`` for an untuned base."""
        if self.method.kind == "none":
            return f"{self.model.name}/{self.method.name}"
        return f"{self.experiment}/{self.method.name}" + (f"/s{self.train.seed}" if self.train.seed else "")

    @property
    def missing(self) -> list[str]:
        """Remaining work: the state of an unfinished training, or the evaluations without a DONE mark."""
        if not self.run.done:
            status = self.run.status
            return [": ".join(filter(None, [status.get("state", "never run"), status.get("reason")]))]
        return [f"not evaluated on {protocol.benchmark} ({protocol.name})" for protocol in self.eval_job.waiting]


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell per run with the protocols of all cells that share it, in order of first appearance."""
    runs: dict[str, Cell] = {}
    for cell in cells:
        known = runs.setdefault(cell.run.name, cell)
        protocols = tuple(dict.fromkeys((*known.protocols, *cell.protocols)))
        runs[cell.run.name] = dataclasses.replace(known, protocols=protocols)
    return list(runs.values())


def unfinished_and_damaged(cells: Iterable[Cell]) -> tuple[list[Cell], dict[str, str]]:
    """Return the readable cells that are not complete, and title → reason for the cells whose folder is damaged."""
    found, damaged = [], {}
    for cell in cells:
        try:
            if not cell.complete:
                found.append(cell)
        except RecordError as error:
            damaged[cell.title] = str(error)
    return found, damaged


def unfinished(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that are not complete, without damaged ones, whose folder must be repaired first."""
    return unfinished_and_damaged(cells)[0]


def trains_on(data: DataSpec, protocol: Protocol) -> bool:
    """Return whether a protocol measures the loss on rows that a run with this data trains on."""
    if protocol.share is None or protocol.share <= data.held_out:
        return False
    spec = protocol.task.data
    taken = [(data.parts or {}).get(source, 1.0) for source in (spec.name, *spec.akin) if source in data.sources]
    return any(share + protocol.share > 1 - MARGIN for share in taken)


def unseen(data: DataSpec, protocols: Iterable[Protocol], asked: str | Collection[str]) -> tuple[Protocol, ...]:
    """Return the protocols; if ``asked`` is "all", without those whose rows a run with this data trains on.

    Raises `ConfigError` if one of those is requested by name or by default.
    """
    names = [asked] if isinstance(asked, str) else asked
    found = []
    for protocol in protocols:
        if not trains_on(data, protocol):
            found.append(protocol)
        elif ALL not in names or protocol.name in names:
            raise ConfigError(
                f"eval.{protocol.benchmark}.protocols.{protocol.name} asks {protocol.share:g} of "
                f"{protocol.task.data.name}'s training rows, of which data.held_out={data.held_out:g} are kept out of "
                f"training: make that {protocol.share:g}, or take it out of eval or heldout_sources"
            )
    return tuple(found)
