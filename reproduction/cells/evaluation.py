"""What is evaluated: a model, the benchmarks and their protocols, and the folders of answers and scores."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reproduction.cells.resolve_paths import data_digest, folder_digest
from reproduction.data.templates import ALPACA, Template
from reproduction.evals.sandbox import Permissions
from reproduction.evals.task import TEMPLATE, Protocol, decoding
from reproduction.records import Run, digest, is_complete
from reproduction.training.spec import MethodSpec, ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalJob:
    """A model to evaluate, what on, and the folder of its answers and scores.

    Args:
        folder: of answers and scores.
        load: gives (model, tokenizer); called only where an answer is missing. Picklable: other processes call it too.
        identity: gives what tells the model from every other, for its answers to carry.
        protocols: the evaluations.
        data_root: folder of the data sets; None is the hub.
        batch_size: answers at once; None is as many as the device's memory holds. No answer depends on it.
        threads: of PyTorch on the CPU.
        permissions: of programs that the model writes.
        template: of the prompts.
        revisions: of the hub's data sets.
        processes: that answer side by side; None is one a visible GPU, or one. No answer depends on it.
        dtype: of the weights.
        memory_gb: most that each process may take of its GPU; None is all of it.

    Raises:
        ValueError: a number of processes or a batch size below 1.
    """

    folder: Path
    load: Callable[[], tuple[Any, Any]]
    identity: Callable[[], str]
    protocols: tuple[Protocol, ...]
    data_root: Path | None
    batch_size: int | None
    threads: int
    permissions: Permissions
    template: Template = ALPACA
    revisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    processes: int | None = 1
    dtype: str = "float32"
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        if self.processes is not None and not self.processes >= 1:
            raise ValueError(
                f"eval_processes={self.processes} answer nothing: give 1 or more, or null for one a visible GPU"
            )
        if self.batch_size is not None and not self.batch_size >= 1:
            raise ValueError(
                f"eval_batch_size={self.batch_size} holds no sequence: give 1 or more, or null for as many as fit"
            )

    def answers_folder(self, protocol: Protocol) -> Path:
        """Where the model's answers lie, named after how they are decoded, and after the data of worked examples."""
        how = decoding(protocol, self.template)
        if protocol.num_fewshot:
            how["data"] = data_digest(protocol.task.data, self.data_root, revisions=self.revisions)
        return self.folder / "answers" / f"{protocol.benchmark}-{digest(how, 8)}"

    def eval_folder(self, protocol: Protocol) -> Path:
        """Where the scores of one benchmark lie: named after what the protocol asks (not what it is called), the
        template, and the content of the data.
        """
        asked = protocol.identity | {
            "data": data_digest(protocol.task.data, self.data_root, revisions=self.revisions),
            **(self.template.identity if protocol.layout == TEMPLATE else {}),
        }
        return Run(self.folder).eval_folder(protocol.benchmark, digest(asked, 8))

    @property
    def waiting(self) -> list[Protocol]:
        """The evaluations that have no DONE mark."""
        return [protocol for protocol in self.protocols if not is_complete(self.eval_folder(protocol))]

    def asked(self, protocol: Protocol) -> dict[str, Any]:
        """What is put to the model: the arguments that answering and scoring have in common."""
        where = {"root": self.data_root, "revisions": self.revisions}
        return {
            "protocol": protocol,
            "rows": protocol.task.rows(**where),
            "shown": protocol.task.examples(**where) if protocol.num_fewshot else [],
            "template": self.template,
        }


def finished(folder: Path, model: ModelSpec, method: MethodSpec, **rest: Any) -> EvalJob:
    """The `EvalJob` of a finished run's folder."""
    load, identity = (functools.partial(each, folder, model, method) for each in (load_run, run_identity))
    return EvalJob(folder=folder, load=load, identity=identity, dtype=model.dtype, **rest)


def load_run(folder: Path, model: ModelSpec, method: MethodSpec) -> tuple[Any, Any]:
    """`EvalJob.load` of a finished run."""
    from reproduction.training import load_finished, shared_base

    return load_finished(folder, model, method, take=shared_base.take)


def run_identity(folder: Path, model: ModelSpec, method: MethodSpec) -> str:
    """`EvalJob.identity` of a finished run: its base, and the content of what it saved."""
    from reproduction.training import require_saved

    if method.kind == "none":
        return model_identity(model, None)
    require_saved(folder)
    return model_identity(model, folder / ("model" if method.kind == "full" else "adapter"))


def load_model(model: ModelSpec, adapter: Path | str | None, *, allow_unknown_base: bool) -> tuple[Any, Any]:
    """`EvalJob.load` of a base model, with an adapter or without; see `reproduction.training.load_adapter`."""
    from reproduction.training import load_adapter, shared_base

    base, tokenizer = shared_base.take(model)
    if adapter is None:
        return base, tokenizer
    return load_adapter(base, adapter, model, allow_unknown_base=allow_unknown_base), tokenizer


def model_identity(model: ModelSpec, saved: Path | str | None) -> str:
    """`EvalJob.identity` of a base model, or of one with the adapter, or the weights, that a folder holds."""
    from reproduction.training import base_identity

    own = {"base": base_identity(model), "dtype": model.dtype}
    places = {"files": model.path_or_id, "tokenizer": model.tokenizer}  # tokenizer, end tokens and positions are files
    own |= {name: _settings_digest(Path(place)) for name, place in places.items() if place and Path(place).is_dir()}
    return digest(own | ({} if saved is None else {"saved": folder_digest(Path(saved))}), 16)


def _settings_digest(folder: Path) -> str:
    """A hash of a model folder's files other than its weights."""
    files = (path for kind in ("*.json", "*.model", "*.txt") for path in folder.glob(kind))
    return digest({path.name: path.read_text(encoding="utf-8", errors="replace") for path in sorted(files)}, 16)
