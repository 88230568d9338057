"""Evaluation jobs: a model, the protocols to evaluate, and the folders of answers and scores."""

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
    """A model to evaluate, its protocols, and the folder of its answers and scores.

    Args:
        folder: folder of answers and scores.
        load: returns (model, tokenizer); called only if an answer is missing. Picklable: other processes call it too.
        identity: returns a string unique to the model, which is stored with its answers.
        protocols: the evaluations.
        data_root: folder of the data sets; None is the hub.
        batch_size: answers generated at once; None is as many as fit into memory. No answer depends on it.
        threads: PyTorch threads on the CPU.
        permissions: permissions of programs that the model writes.
        template: template of the prompts.
        revisions: revisions of the hub's data sets.
        processes: parallel processes; None is one per visible GPU, or one without GPUs. No answer depends on it.
        dtype: dtype of the weights.
        memory_gb: GPU memory limit of each process in GB; None is no limit.

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
        """Return the folder of the answers, named by the decoding settings and the data of few-shot examples."""
        how = decoding(protocol, self.template)
        if protocol.num_fewshot:
            how["data"] = data_digest(protocol.task.data, self.data_root, revisions=self.revisions)
        return self.folder / "answers" / f"{protocol.benchmark}-{digest(how, 8)}"

    def eval_folder(self, protocol: Protocol) -> Path:
        """Return the folder of a protocol's scores, named by its settings (not its name), the template and the data."""
        asked = protocol.identity | {
            "data": data_digest(protocol.task.data, self.data_root, revisions=self.revisions),
            **(self.template.identity if protocol.layout == TEMPLATE else {}),
        }
        return Run(self.folder).eval_folder(protocol.benchmark, digest(asked, 8))

    @property
    def waiting(self) -> list[Protocol]:
        """The evaluations without a DONE mark."""
        return [protocol for protocol in self.protocols if not is_complete(self.eval_folder(protocol))]

    def asked(self, protocol: Protocol) -> dict[str, Any]:
        """Return the arguments that answering and scoring share."""
        where = {"root": self.data_root, "revisions": self.revisions}
        return {
            "protocol": protocol,
            "rows": protocol.task.rows(**where),
            "shown": protocol.task.examples(**where) if protocol.num_fewshot else [],
            "template": self.template,
        }


def finished(folder: Path, model: ModelSpec, method: MethodSpec, **rest: Any) -> EvalJob:
    """Return the `EvalJob` of a finished run's folder."""
    load, identity = (functools.partial(each, folder, model, method) for each in (load_run, run_identity))
    return EvalJob(folder=folder, load=load, identity=identity, dtype=model.dtype, **rest)


def load_run(folder: Path, model: ModelSpec, method: MethodSpec) -> tuple[Any, Any]:
    """Load a finished run (`EvalJob.load`)."""
    from reproduction.training import load_finished, shared_base

    return load_finished(folder, model, method, take=shared_base.take)


def run_identity(folder: Path, model: ModelSpec, method: MethodSpec) -> str:
    """Return the `EvalJob.identity` of a finished run: a hash of its base and its saved files."""
    from reproduction.training import require_saved

    if method.kind == "none":
        return model_identity(model, None)
    require_saved(folder)
    return model_identity(model, folder / ("model" if method.kind == "full" else "adapter"))


def load_model(model: ModelSpec, adapter: Path | str | None, *, allow_unknown_base: bool) -> tuple[Any, Any]:
    """Load a base model, with or without an adapter (`EvalJob.load`); see `reproduction.training.load_adapter`."""
    from reproduction.training import load_adapter, shared_base

    base, tokenizer = shared_base.take(model)
    if adapter is None:
        return base, tokenizer
    return load_adapter(base, adapter, model, allow_unknown_base=allow_unknown_base), tokenizer


def model_identity(model: ModelSpec, saved: Path | str | None) -> str:
    """Return the `EvalJob.identity` of a base model, or of a base with the adapter or weights in the folder `saved`."""
    from reproduction.training import base_identity

    own = {"base": base_identity(model), "dtype": model.dtype}
    places = {"files": model.path_or_id, "tokenizer": model.tokenizer}  # tokenizer, end tokens and positions are files
    own |= {name: _settings_digest(Path(place)) for name, place in places.items() if place and Path(place).is_dir()}
    return digest(own | ({} if saved is None else {"saved": folder_digest(Path(saved))}), 16)


def _settings_digest(folder: Path) -> str:
    """Return a hash of a model folder's files other than its weights."""
    files = (path for kind in ("*.json", "*.model", "*.txt") for path in folder.glob(kind))
    return digest({path.name: path.read_text(encoding="utf-8", errors="replace") for path in sorted(files)}, 16)
