"""Evaluating a model, whether a cell of a table trained it or someone brought it; on several GPUs, one process each.

The processes share nothing but the folder: each loads the model, and answers every n-th of the batches that are missing
in each evaluation, into a file of its own. Then this process, which has no weights, puts the answers together and
scores them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from idlora.data.sources import load_rows, load_shown
from idlora.data.templates import TEMPLATE_VERSION
from idlora.evals import registry
from idlora.evals.answers import ANSWERS, Share, gather
from idlora.evals.protocol import Permissions, Protocol
from idlora.evals.sandbox import require_permission
from idlora.pipeline.places import data_digest
from idlora.pipeline.pool import Ended, run_jobs
from idlora.pipeline.progress import Silent
from idlora.pipeline.work import at_work
from idlora.records import Run, digest, is_complete
from idlora.training.spec import MethodSpec, ModelSpec


class ShareFailed(Exception):
    """One of the processes that share an evaluation ended early; what was answered is on disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate, what on, and the folder under which the records go.

    ``load`` gives (model, tokenizer) and is called only where something is left to do; ``load(weights=False)`` gives
    the model on the meta device, for what only its config tells. It is picklable: other processes call it too.
    ``processes`` answer side by side; None is one for each visible GPU, or one without any.

    Raises ValueError for a number of processes below 1.
    """

    folder: Path
    load: Callable[..., tuple[Any, Any]]
    protocols: tuple[Protocol, ...]
    data_root: Path | None
    batch_size: int
    threads: int
    permissions: Permissions
    revisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    processes: int | None = 1

    def __post_init__(self) -> None:
        if self.processes is not None and not self.processes >= 1:
            raise ValueError(
                f"eval_processes={self.processes} answer nothing: give 1 or more, or null for one a visible GPU"
            )

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
    of the evaluations runs what the model writes, and that is not allowed; `ShareFailed` after the other processes
    have done their share.
    """
    if subject.waiting:
        require_permissions(subject.waiting, subject.permissions)
        with at_work(subject.folder):
            _evaluate(subject, progress or Silent())
    return [subject.eval_folder(protocol) for protocol in subject.protocols]


def _evaluate(subject: Subject, progress: Silent) -> None:
    import torch  # seconds to import: what is complete needs none of it

    torch.set_num_threads(subject.threads)
    waiting = subject.waiting  # less than before, where another process has been at work meanwhile
    if not waiting:
        return
    processes = subject.processes or max(1, torch.cuda.device_count())
    if processes > 1:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what a training left here would stand beside the first process's model
        _answer_in_shares(subject, waiting, processes=processes, progress=progress)
    loaded = subject.load(weights=processes == 1)
    _run(subject, waiting, loaded, progress=progress)
    release(loaded[0])


def _answer_in_shares(subject: Subject, protocols: list[Protocol], *, processes: int, progress: Silent) -> None:
    for protocol in protocols:
        gather(subject.eval_folder(protocol) / ANSWERS)  # all begin from the same file, which none of them writes
    failed: list[Ended] = []
    run_jobs(
        _answer_share,
        [(subject, Share(index, processes)) for index in range(processes)],
        workers=processes,
        threads=subject.threads,
        names=[f"{subject.folder.name} ({index + 1} of {processes})" for index in range(processes)],
        progress=progress,
        ended=lambda end: failed.append(end) if end.error else None,
    )
    if failed:
        raise ShareFailed(
            f"{len(failed)} of the {processes} processes that evaluate {subject.folder} ended early (number "
            f"{failed[0].job + 1}: {failed[0].error}); the same command asks only for what they have not answered"
        )


def _answer_share(job: tuple[Subject, Share], progress: Silent) -> None:
    """One process's part: it loads the model once and answers its share of each evaluation that is not complete."""
    import torch

    subject, share = job
    torch.set_num_threads(subject.threads)
    _run(subject, subject.waiting, subject.load(), progress=progress, share=share)


def _run(
    subject: Subject,
    protocols: list[Protocol],
    loaded: tuple[Any, Any],
    *,
    progress: Silent,
    share: Share | None = None,
) -> None:
    """Answer and score, or with a share only answer, with the model and tokenizer that were loaded."""
    import torch

    from idlora.evals import evaluate

    model, tokenizer = loaded
    if torch.cuda.is_available() and model.device.type != "meta":
        model = model.to("cuda")
    for protocol in protocols:
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
            share=share,
        )


def load_run(folder: Path, model: ModelSpec, method: MethodSpec, *, weights: bool = True) -> tuple[Any, Any]:
    """`Subject.load` of a finished run."""
    from idlora.training import load_finished, shared_base

    return load_finished(folder, model, method, take=shared_base.take) if weights else _without_weights(model)


def load_model(model: ModelSpec, adapter: Path | str | None, *, weights: bool = True) -> tuple[Any, Any]:
    """`Subject.load` of a base model, with an adapter or without."""
    from idlora.training import load_adapter, shared_base

    if not weights:
        return _without_weights(model)
    base, tokenizer = shared_base.take(model)
    return (base if adapter is None else load_adapter(base, adapter, model)), tokenizer


def release(model: Any) -> None:
    """Leave the base of a model that is no longer needed to the next one that loads it."""
    from idlora.training import shared_base

    shared_base.give_back(model)


def _without_weights(model: ModelSpec) -> tuple[Any, Any]:
    from idlora.training.build import build_model, build_tokenizer

    return build_model(dataclasses.replace(model, init="random"), "meta"), build_tokenizer(model)


def require_permissions(protocols: Iterable[Protocol], permissions: Permissions) -> None:
    """Raises `ExecutionRefused` where one of the protocols runs what a model writes, and that is not allowed."""
    if any(registry.runs_code(protocol.benchmark) for protocol in protocols):
        require_permission(permissions)


def _worked_examples(protocol: Protocol, subject: Subject) -> list[dict[str, Any]] | None:
    if not protocol.num_fewshot:
        return None
    return load_shown(protocol.benchmark, root=subject.data_root, revisions=subject.revisions)
