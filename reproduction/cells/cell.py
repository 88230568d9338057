"""One cell of a table: what it computes, and where and how it is run here."""

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
"""A mixture takes a share of a source. So much of the source, at least, is neither in it nor held out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell computes, and where and how it is run here.

    `config` is what is computed and names the run's folder; what says how it is run here is not part of it.

    Args:
        experiment, scale: names of the configs that it was composed from.
        model, method, data, train: what is computed.
        launch: processes of the training.
        protocols: evaluations of the trained model.
        data_root: folder of the data sets; None is the hub.
        results_dir: folder of all scales' results.
        threads: of PyTorch on the CPU.
        batch_size: answers at once; None is as many as the memory holds.
        permissions: of programs that a model writes.
        revisions: of the hub's data sets; part of `config` through the data's digest.
        processes: of an evaluation; None is one a visible GPU.
        tracking: services that follow the training.
        trial_steps: steps of the trials that its learning rate comes from; None is as many as its own training has.
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
        """config.json of the run's folder; `reproduction.records.run_name` hashes it into the folder's name."""
        specs = {name: dataclasses.asdict(getattr(self, name)) for name in ("model", "method", "data", "train")}
        if self.data.template is None:  # a user's own is recorded as a whole
            specs["data"]["template_version"] = TEMPLATE_VERSION
        if not specs["method"]["long_rows"]:
            del specs["method"]["long_rows"]  # the names of runs are older than it
        if specs["model"]["tokenizer"] == embedded_tokenizer():
            specs["model"]["tokenizer"] = None  # its place differs between machines
        return {"experiment": self.experiment, "scale": self.scale, "seed": self.train.seed, **specs}

    @property
    def as_tried(self) -> "Cell":
        """The cell with as many steps as the trials of its learning rate have."""
        if self.trial_steps is None:
            return self
        return dataclasses.replace(self, train=dataclasses.replace(self.train, max_steps=self.trial_steps))

    @property
    def run(self) -> Run:
        """The run's folder, which need not exist."""
        return Run(self.results_dir / self.scale / "runs" / run_name(self.config))

    @property
    def eval_job(self) -> EvalJob:
        """The trained model and its evaluations."""
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
        """All that it trains on and is evaluated on."""
        trained = self.data.sources if self.method.kind != "none" else ()
        return [*(DATASETS[name] for name in trained), *(protocol.task.data for protocol in self.protocols)]

    @property
    def sharded(self) -> bool:
        """Whether one cell's weights or optimiser state lie spread over several GPUs."""
        return self.launch.mode in ("zero2", "zero3")

    @property
    def division(self) -> str:
        """How a step's rows are shared, as a sentence. Raises ValueError where the processes cannot share them."""
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
        """How a person names the cell: ``experiment/method``, with the seed where it is not 0; ``model/base``."""
        if self.method.kind == "none":
            return f"{self.model.name}/{self.method.name}"
        return f"{self.experiment}/{self.method.name}" + (f"/s{self.train.seed}" if self.train.seed else "")

    @property
    def missing(self) -> list[str]:
        """What is left to do: the state of a training that is not done, or the evaluations that lack their mark."""
        if not self.run.done:
            status = self.run.status
            return [": ".join(filter(None, [status.get("state", "never run"), status.get("reason")]))]
        return [f"not evaluated on {protocol.benchmark} ({protocol.name})" for protocol in self.eval_job.waiting]


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each run, with the protocols of all that share it, in the order of the first."""
    runs: dict[str, Cell] = {}
    for cell in cells:
        known = runs.setdefault(cell.run.name, cell)
        protocols = tuple(dict.fromkeys((*known.protocols, *cell.protocols)))
        runs[cell.run.name] = dataclasses.replace(known, protocols=protocols)
    return list(runs.values())


def unfinished_and_damaged(cells: Iterable[Cell]) -> tuple[list[Cell], dict[str, str]]:
    """The cells that are not complete; and title → why the folder cannot be read, of the others that are damaged."""
    found, damaged = [], {}
    for cell in cells:
        try:
            if not cell.complete:
                found.append(cell)
        except RecordError as error:
            damaged[cell.title] = str(error)
    return found, damaged


def unfinished(cells: Iterable[Cell]) -> list[Cell]:
    """Cells that are not complete. Damaged cells are left out: their folder must be repaired first."""
    return unfinished_and_damaged(cells)[0]


def trains_on(data: DataSpec, protocol: Protocol) -> bool:
    """Whether a protocol measures the loss on rows that a run with this data trains on."""
    if protocol.share is None or protocol.share <= data.held_out:
        return False
    spec = protocol.task.data
    taken = [(data.parts or {}).get(source, 1.0) for source in (spec.name, *spec.akin) if source in data.sources]
    return any(share + protocol.share > 1 - MARGIN for share in taken)


def unseen(data: DataSpec, protocols: Iterable[Protocol], asked: str | Collection[str]) -> tuple[Protocol, ...]:
    """The protocols; where "all" was ``asked`` for, without those whose rows a run with this data trains on.

    Raises `ConfigError` where one of those is asked for by its name, or by default.
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
