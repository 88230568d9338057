"""Evaluating a model, whether a cell of a table trained it or someone brought it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from idlora.data.sources import load_rows, load_shown
from idlora.data.templates import TEMPLATE_VERSION
from idlora.evals import registry
from idlora.evals.protocol import Permissions, Protocol
from idlora.evals.sandbox import require_permission
from idlora.pipeline.places import data_digest
from idlora.pipeline.progress import Silent
from idlora.pipeline.work import at_work
from idlora.records import Run, digest, is_complete


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate, what on, and the folder under which the records go.

    ``load`` gives (model, tokenizer) and is called only where something is left to do.
    """

    folder: Path
    load: Callable[[], tuple[Any, Any]]
    protocols: tuple[Protocol, ...]
    data_root: Path | None
    batch_size: int
    threads: int
    permissions: Permissions
    revisions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def eval_folder(self, protocol: Protocol) -> Path:
        """Where the records of one benchmark lie: named after what the protocol asks (not what it is called), the
        content of its data, and the batch size, which decides what random numbers a sampled answer gets.
        """
        data = data_digest(protocol.benchmark, self.data_root, revisions=self.revisions)
        asked = protocol.identity | {"data": data, "generation_batch": self.batch_size}
        asked["template_version"] = TEMPLATE_VERSION
        return Run(self.folder).eval_folder(protocol.benchmark, digest(asked, 8))

    @property
    def waiting(self) -> list[Protocol]:
        """The evaluations that have no DONE mark."""
        return [protocol for protocol in self.protocols if not is_complete(self.eval_folder(protocol))]


def evaluate_all(subject: Subject, progress: Silent | None = None) -> list[Path]:
    """Run every evaluation that is not complete, from its last batch of records; returns the folders of all.

    Waits for another process that works in the folder. Raises `ExecutionRefused` before anything is asked where one
    of the evaluations runs what the model writes, and that is not allowed.
    """
    if subject.waiting:
        require_permissions(subject.waiting, subject.permissions)
        with at_work(subject.folder):
            _evaluate(subject, progress or Silent())
    return [subject.eval_folder(protocol) for protocol in subject.protocols]


def _evaluate(subject: Subject, progress: Silent) -> None:
    import torch  # seconds to import: what is complete needs none of it

    from idlora.evals import evaluate

    torch.set_num_threads(subject.threads)
    waiting = subject.waiting  # less than before, where another process has been at work meanwhile
    if not waiting:
        return
    model, tokenizer = subject.load()
    if torch.cuda.is_available():
        model = model.to("cuda")
    for protocol in waiting:
        evaluate(
            model=model,
            tokenizer=tokenizer,
            protocol=protocol,
            rows=load_rows(protocol.benchmark, "test", root=subject.data_root, revisions=subject.revisions),
            folder=subject.eval_folder(protocol),
            batch_size=subject.batch_size,
            permissions=subject.permissions,
            progress=lambda done, total, what=f"{protocol.benchmark} {protocol.name}": progress.step(what, done, total),
            fewshot_rows=_worked_examples(protocol, subject),
        )


def require_permissions(protocols: Iterable[Protocol], permissions: Permissions) -> None:
    """Raises `ExecutionRefused` where one of the protocols runs what a model writes, and that is not allowed."""
    if any(registry.runs_code(protocol.benchmark) for protocol in protocols):
        require_permission(permissions)


def _worked_examples(protocol: Protocol, subject: Subject) -> list[dict[str, Any]] | None:
    if not protocol.num_fewshot:
        return None
    return load_shown(protocol.benchmark, root=subject.data_root, revisions=subject.revisions)
