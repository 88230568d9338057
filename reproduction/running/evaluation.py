"""Evaluating a model, whether a cell of a table trained it or someone brought it: first its answers, then their scores.

On several GPUs one process each answers: they share nothing but the folder, each loads the model and answers every n-th
batch that is missing, into a file of its own. Scoring is this process's, and needs no model.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction.cells.resolve_paths import data_digest, folder_digest
from reproduction.data.templates import ALPACA, Template
from reproduction.evals.answers import THROUGHPUT, Share, answered_prompts, gather, require_model, unanswered
from reproduction.evals.prompts import Prompts
from reproduction.evals.protocol import Permissions, Protocol, decoding
from reproduction.evals.sandbox import require_permission
from reproduction.evals.scoring import score
from reproduction.evals.task import TEMPLATE
from reproduction.evals.throughput import throughput
from reproduction.records import ANSWERS, DONE, META, AnswerLog, RecordError, Run, digest, is_complete, write_json
from reproduction.running.pool import Ended, run_jobs
from reproduction.running.progress import Silent
from reproduction.running.run_lock import at_work
from reproduction.training.spec import MethodSpec, ModelSpec


class ShareFailed(Exception):
    """One of the processes that share an evaluation ended early; what was answered is on disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate, what on, and the folder under which answers and scores go.

    ``load`` gives (model, tokenizer) and is called only where an answer is missing; it is picklable: other processes
    call it too. ``identity`` gives what tells the model from every other, for its answers to carry. ``template`` is of
    the prompts, ``dtype`` the weights'. No answer depends on ``batch_size``, where None is what the device's memory
    holds, or on the number of ``processes`` that answer side by side, where None is one for each visible GPU, or one
    without any; ``memory_gb`` is the most that each may take of its GPU, where None is all of it.

    Raises ValueError for a number of processes or a batch size below 1.
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


def evaluate_all(subject: Subject, progress: Silent | None = None, *, rescore: bool = False) -> list[Path]:
    """Answer and score every evaluation that is not complete; returns the folders of all.

    Answers that are there are not asked for again, whoever asked for them; with ``rescore`` none is asked for, and the
    scores of all are made anew.

    Waits for another process that works in the folder. Raises `ExecutionRefused` before anything is asked where one
    of the evaluations runs what the model writes, and that is not allowed; `ShareFailed` after the other processes
    have done their share.
    """
    progress, identity_of = progress or Silent(), functools.cache(subject.identity)  # reads all of the weights
    for protocol in set(subject.protocols).difference(subject.waiting):
        if (subject.answers_folder(protocol) / META).is_file():  # else they are not here to be asked for their model
            try:
                require_model(subject.answers_folder(protocol), identity_of())
            except RecordError:
                (subject.eval_folder(protocol) / DONE).unlink(missing_ok=True)  # or the scores would be taken next time
                raise
    if wanted := subject.protocols if rescore else subject.waiting:
        require_permissions(wanted, subject.permissions)
        with at_work(subject.folder):
            identity = identity_of()
            if not rescore:
                wanted = subject.waiting  # fewer than before, where another process has been at work meanwhile
                _answer_all(subject, wanted, progress, identity=identity)
            for protocol in wanted:
                _note_throughput(subject, protocol)
                score(
                    **subject.asked(protocol),
                    answers=subject.answers_folder(protocol),
                    identity=identity,
                    folder=subject.eval_folder(protocol),
                    permissions=subject.permissions,
                    progress=_steps(progress, protocol, "scoring"),
                )
    return [subject.eval_folder(protocol) for protocol in subject.protocols]


def _answer_all(subject: Subject, protocols: Iterable[Protocol], progress: Silent, *, identity: str) -> None:
    missing = [protocol for protocol in protocols if _unanswered(subject, protocol)]
    if not missing:
        return
    import torch  # seconds to import: what is answered needs none of it

    processes = subject.processes or max(1, torch.cuda.device_count())
    if processes == 1:
        _answer(subject, missing, progress, identity=identity)
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what a training left here would stand beside the first process's model
    failed: list[Ended] = []
    run_jobs(
        _answer_share,
        [(subject, missing, identity, Share(index, processes)) for index in range(processes)],
        workers=processes,
        threads=subject.threads,
        names=[f"{subject.folder.name} ({index + 1} of {processes})" for index in range(processes)],
        progress=progress,
        ended=lambda end: failed.append(end) if end.error else None,
    )
    for protocol in missing:
        gather(subject.answers_folder(protocol))
        (subject.answers_folder(protocol) / THROUGHPUT).unlink(missing_ok=True)  # of fewer answers
    if failed:
        raise ShareFailed(
            f"{len(failed)} of the {processes} processes that evaluate {subject.folder} ended early (number "
            f"{failed[0].job + 1}: {failed[0].error}); the same command asks only for what they have not answered"
        )


def _note_throughput(subject: Subject, protocol: Protocol) -> None:
    """Write what the answers took, where several processes gave them, or one was ended before it could."""
    folder = subject.answers_folder(protocol)
    if (folder / ANSWERS).is_file() and not (folder / THROUGHPUT).is_file():
        prompts = answered_prompts(Prompts(**subject.asked(protocol)), log := AnswerLog(folder / ANSWERS))
        write_json(folder / THROUGHPUT, throughput(log, [each for each in prompts if each], protocol))


def _unanswered(subject: Subject, protocol: Protocol) -> int:
    log = gather(subject.answers_folder(protocol))  # of an attempt that several processes shared, too
    return unanswered(Prompts(**subject.asked(protocol)), log)


def _answer_share(job: tuple[Subject, list[Protocol], str, Share], progress: Silent) -> None:
    subject, protocols, identity, share = job
    _answer(subject, protocols, progress, identity=identity, share=share)


def _answer(
    subject: Subject, protocols: list[Protocol], progress: Silent, *, identity: str, share: Share | None = None
) -> None:
    """Load the model once and answer, of each of the evaluations, all that is missing or a share of it."""
    import torch

    from reproduction.evals.answering import answer
    from reproduction.training import launching, shared_base

    torch.set_num_threads(subject.threads)
    launching.cap_memory(subject.memory_gb)
    model, tokenizer = subject.load()
    if torch.cuda.is_available():
        model = model.to("cuda")
    for protocol in protocols:
        answer(
            **subject.asked(protocol),
            model=model,
            tokenizer=tokenizer,
            folder=subject.answers_folder(protocol),
            identity=identity,
            batch_size=subject.batch_size,
            share=share,
            progress=_steps(progress, protocol),
        )
    shared_base.give_back(model)  # left to the next one that loads its base


def _steps(progress: Silent, protocol: Protocol, phase: str = "") -> Callable[[int, int], None]:
    what = " ".join(filter(None, (protocol.benchmark, protocol.name, phase)))
    return lambda done, total: progress.step(what, done, total)


def load_run(folder: Path, model: ModelSpec, method: MethodSpec) -> tuple[Any, Any]:
    """`Subject.load` of a finished run."""
    from reproduction.training import load_finished, shared_base

    return load_finished(folder, model, method, take=shared_base.take)


def run_identity(folder: Path, model: ModelSpec, method: MethodSpec) -> str:
    """`Subject.identity` of a finished run: its base, and the content of what it saved."""
    from reproduction.training import require_saved

    if method.kind == "none":
        return model_identity(model, None)
    require_saved(folder, method)
    return model_identity(model, folder / ("model" if method.kind == "full" else "adapter"))


def load_model(model: ModelSpec, adapter: Path | str | None, *, allow_unknown_base: bool) -> tuple[Any, Any]:
    """`Subject.load` of a base model, with an adapter or without; see `reproduction.training.load_adapter`."""
    from reproduction.training import load_adapter, shared_base

    base, tokenizer = shared_base.take(model)
    if adapter is None:
        return base, tokenizer
    return load_adapter(base, adapter, model, allow_unknown_base=allow_unknown_base), tokenizer


def model_identity(model: ModelSpec, saved: Path | str | None) -> str:
    """`Subject.identity` of a base model, or of one with the adapter, or the weights, that a folder holds."""
    from reproduction.training import base_identity

    own = {"base": base_identity(model), "dtype": model.dtype}
    places = {"files": model.path_or_id, "tokenizer": model.tokenizer}  # tokenizer, end tokens and positions are files
    own |= {name: _settings_digest(Path(place)) for name, place in places.items() if place and Path(place).is_dir()}
    return digest(own | ({} if saved is None else {"saved": folder_digest(Path(saved))}), 16)


def _settings_digest(folder: Path) -> str:
    """A hash of a model folder's files other than its weights."""
    files = (path for kind in ("*.json", "*.model", "*.txt") for path in folder.glob(kind))
    return digest({path.name: path.read_text(encoding="utf-8", errors="replace") for path in sorted(files)}, 16)


def require_permissions(protocols: Iterable[Protocol], permissions: Permissions) -> None:
    """Raises `ExecutionRefused` where one of the protocols runs what a model writes, and that is not allowed."""
    if any(protocol.task.runs_code for protocol in protocols):
        require_permission(permissions)
