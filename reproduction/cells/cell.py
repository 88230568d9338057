"""One cell: train, then evaluate what was saved. Resumes, never repeats, and leaves every ending on disk."""

import contextlib
import dataclasses
import functools
import gc
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.resolve_paths import embedded_tokenizer
from reproduction.data.catalogue import DATASETS, DatasetSpec
from reproduction.data.templates import TEMPLATE_VERSION
from reproduction.evals.protocol import Permissions, Protocol
from reproduction.records import RecordError, Run, run_name
from reproduction.running.evaluation import Subject, evaluate_all, load_run, run_identity
from reproduction.running.progress import Silent
from reproduction.running.run_lock import at_work, give_room
from reproduction.training import launching
from reproduction.training.launching import Launch
from reproduction.training.spec import DataSpec, MethodSpec, ModelSpec, TrackingSpec, TrainSpec

_logger = logging.getLogger(__name__)

MARGIN = 0.05
"""A mixture takes a share of a source. So much of the source, at least, is neither in it nor held out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell computes, and where and how it is run here.

    `config` is what is computed and names the run's folder; launch, tracking, results_dir, data_root, threads,
    batch_size, processes (of evaluation) and the permissions are this machine's affair and are not part of it.
    `revisions`, of the hub's data sets, are in it through the data's digest. `trial_steps` are those of the trials that
    its learning rate comes from, None where they are as long as its own training.
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
        if self.data.template is None:  # a user's own stands there as a whole
            specs["data"]["template_version"] = TEMPLATE_VERSION
        if not specs["method"]["long_rows"]:
            del specs["method"]["long_rows"]  # the names of runs are older than it
        if specs["model"]["tokenizer"] == embedded_tokenizer():
            specs["model"]["tokenizer"] = None  # where it lies is the machine's affair
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
    def subject(self) -> Subject:
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
        return self.run.done and not self.subject.waiting

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
        return [f"not evaluated on {protocol.benchmark} ({protocol.name})" for protocol in self.subject.waiting]


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


def unseen(
    data: DataSpec, protocols: Iterable[Protocol], *, everything: bool, named: Collection[str]
) -> list[Protocol]:
    """The protocols, where ``everything`` was asked for without those whose rows a run with this data trains on.

    Raises `ConfigError` where one of those is ``named``, or was asked for otherwise.
    """
    kept = []
    for protocol in protocols:
        if not trains_on(data, protocol):
            kept.append(protocol)
        elif not everything or protocol.name in named:
            raise ConfigError(
                f"eval.{protocol.benchmark}.protocols.{protocol.name} asks {protocol.share:g} of "
                f"{protocol.task.data.name}'s training rows, of which data.held_out={data.held_out:g} are kept out of "
                f"training: make that {protocol.share:g}, or take it out of eval or heldout_sources"
            )
    return kept


def finished(folder: Path, model: ModelSpec, method: MethodSpec, **rest: Any) -> Subject:
    """The `Subject` of a finished run's folder."""
    load, identity = (functools.partial(each, folder, model, method) for each in (load_run, run_identity))
    return Subject(folder=folder, load=load, identity=identity, dtype=model.dtype, **rest)


def run_cell(cell: Cell, progress: Silent | None = None) -> None:
    """Train the cell unless that is done, then run each evaluation that is not, on the model as it was saved.

    A run that was killed stands as ``running``, an interrupted one says so; either is taken up again: training from its
    last checkpoint, an evaluation from its last batch of answers. What is finished is never run again.

    Raises whatever ended it, after the ending of a training (oom, failed, interrupted, with the reason) is on disk.
    """
    if not cell.run.done:
        train_cell(cell, progress)
    gc.collect()  # the Trainer leaves reference cycles, and in them a model that would stand beside the next
    evaluate_all(cell.subject, progress)


def train_cell(cell: Cell, progress: Silent | None = None) -> None:
    """The training half of `run_cell`; an untuned base only has its parameters counted.

    Waits for another process that works on the run, and does nothing where that one finished it.
    """
    progress = progress or Silent()
    in_ranks = cell.launch.needs_ranks and cell.method.kind != "none"
    if not in_ranks:
        launching.join()
    with _status_on_disk(cell) as finish:
        if finish is None:
            return
        if in_ranks:
            from reproduction.running.ranks import train_in_ranks as train
        else:
            train = train_here
        finish(in_smaller_passes(train, cell, progress))
    if launching.rank() == 0:
        shutil.rmtree(cell.run.folder / "checkpoints", ignore_errors=True)  # of no use once the run is done


def in_smaller_passes(train: Callable[[Cell, Silent], dict[str, Any]], cell: Cell, progress: Silent) -> dict[str, Any]:
    """Train the cell; where memory does not suffice, once more with half of the rows a pass, and say so.

    A launch that was joined is not started again: its ranks may have ended at different places.
    """
    from reproduction.training import OutOfMemory

    try:
        return train(cell, progress)
    except OutOfMemory as error:
        if error.rows == 1 or launching.inside():
            raise
        rows, checkpointing, reason = error.rows, error.checkpointing, str(error)
    # Out of the handler: the error's frames hold what memory there is.
    _logger.warning("%s: %s Goes on with train.micro_batch_size=%d.", cell.title, reason, rows // 2)
    gc.collect()
    half = dataclasses.replace(cell.train, micro_batch_size=rows // 2, gradient_checkpointing=checkpointing)
    smaller = dataclasses.replace(cell, train=half)
    return train(smaller, progress) | {"out_of_memory_at_micro_batch_size": rows}


def train_here(cell: Cell, progress: Silent) -> dict[str, Any]:
    """Train in this process, the only one or one of a launch, and return what resources.json says; marks nothing."""
    import torch  # seconds to import: a finished cell needs none of it

    from reproduction.preflight import estimated_bytes, fitted_now  # which know of cells themselves
    from reproduction.training import (
        Laps,
        build_adapted,
        build_data,
        build_model,
        count_parameters,
        packing_of,
        shared_base,
        train,
    )

    laps = Laps()
    torch.set_num_threads(cell.threads)
    launching.join()
    launching.cap_memory(cell.launch.memory_gb)
    if cell.method.kind == "none":
        untuned = build_model(dataclasses.replace(cell.model, init="random"), "meta")  # counting needs no weights
        return count_parameters(untuned) | {"parameters_trainable": 0}
    model, tokenizer = shared_base.take(cell.model)
    laps.end("base")
    tokenized = build_data(cell.data, tokenizer, root=cell.data_root, revisions=cell.revisions)[0]
    laps.end("data")
    model = build_adapted(model, cell.method, cell.train.seed)
    laps.end("adapter")
    packing = packing_of(model, tokenized, cell.train)
    cell = fitted_now(cell, packing=packing)
    resources = train(
        model=model,
        tokenizer=tokenizer,
        tokenized=tokenized,
        spec=cell.train,
        base=cell.model,
        folder=cell.run.folder,
        on_step=lambda step, total, loss: progress.step("training", step, total, note=f"loss {loss:.2f}"),
        tracking=cell.tracking,
    )
    # Else weights have moved, the process ends, or forward passes are no longer the model's own.
    if cell.method.kind == "peft" and cell.launch.mode == "single" and not cell.train.liger_kernel:
        shared_base.give_back(model)
    return dataclasses.asdict(resources) | {
        "launch": cell.launch.mode,
        "startup_seconds": laps.seconds | {"trainer": resources.setup_seconds},
        "memory_estimate_bytes": estimated_bytes(cell, packing=packing) if torch.cuda.is_available() else None,
    }


@contextlib.contextmanager
def _status_on_disk(cell: Cell) -> Iterator[Any]:
    """Walk the run's states around a training. Of a launch joined the first rank starts and ends it, and each may fail
    it; ranks that this process starts know nothing of it.

    Gives what takes the resources at the end, or None where the run turns out to be done.
    """
    with _opened(cell) as finish:
        try:
            yield finish
        except BaseException as error:
            if finish is not None:
                with contextlib.suppress(RecordError):  # a disk that cannot be written must not hide what went wrong
                    _mark(cell.run, error)
            raise


@contextlib.contextmanager
def _opened(cell: Cell) -> Iterator[Any]:
    if launching.rank() > 0:
        yield None if launching.from_first_rank() else lambda resources: None
        return
    run = cell.run
    with at_work(run.folder):
        done = launching.from_first_rank(run.done)  # known only now: another command may have been at work
        if not done:
            run.start(cell.config)
        yield None if done else run.finish


def _mark(run: Run, error: BaseException) -> None:
    """Write how a training ended, unless another rank has: one fails, and the others are interrupted for it."""
    from reproduction.training import OutOfMemory

    rank = f"rank {launching.rank()}: " if launching.inside() else ""
    if run.state != "running":
        return
    give_room(run.folder)
    if isinstance(error, OutOfMemory):
        run.fail("oom", f"{rank}{error}")
    elif isinstance(error, Exception):
        run.fail("failed", f"{rank}{type(error).__name__}: {error}")
    else:
        run.fail("interrupted", "stopped by a signal while training")
