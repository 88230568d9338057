"""Evaluating a model, whether a cell of a table trained it or someone brought it: first its answers, then their scores.

On several GPUs one process each answers: they share nothing but the folder, each loads the model and answers every n-th
batch that is missing, into a file of its own. Scoring is this process's, and needs no model.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from reproduction.cells.evaluation import EvalJob
from reproduction.evals.answers import THROUGHPUT, Shard, answered_prompts, gather, require_model, throughput
from reproduction.evals.prompts import Prompts
from reproduction.evals.sandbox import Permissions, require_permission
from reproduction.evals.scoring import score
from reproduction.evals.task import Protocol
from reproduction.records import ANSWERS, DONE, META, AnswerLog, RecordError, write_json
from reproduction.running.pool import Ended, run_jobs
from reproduction.running.progress import NullProgress
from reproduction.running.run_lock import at_work


class ShareFailed(Exception):
    """One of the processes that share an evaluation ended early; what was answered is on disk."""


def evaluate(job: EvalJob, progress: NullProgress | None = None, *, rescore: bool = False) -> list[Path]:
    """Answer and score every evaluation that is not complete; returns the folders of all.

    Answers that are there are not asked for again, whoever asked for them; with ``rescore`` none is asked for, and the
    scores of all are made anew.

    Waits for another process that works in the folder. Raises `ExecutionRefused` before anything is asked where one
    of the evaluations runs what the model writes, and that is not allowed; `ShareFailed` after the other processes
    have done their share; `RecordError` where the answers are another model's.
    """
    progress, identity_of = progress or NullProgress(), functools.cache(job.identity)  # reads all of the weights
    _require_own_answers(job, identity_of)
    if wanted := job.protocols if rescore else job.waiting:
        _require_permissions(wanted, job.permissions)
        with at_work(job.folder):
            identity = identity_of()
            if not rescore:
                wanted = job.waiting  # fewer than before, where another process has been at work meanwhile
                _answer_all(job, wanted, progress, identity=identity)
            _score_all(job, wanted, progress, identity=identity)
    return [job.eval_folder(protocol) for protocol in job.protocols]


def _require_own_answers(job: EvalJob, identity_of: Callable[[], str]) -> None:
    """Of evaluations that are complete: raises `RecordError`, and unmarks them, where another model answered."""
    for protocol in set(job.protocols).difference(job.waiting):
        if (job.answers_folder(protocol) / META).is_file():  # else they are not here to be asked for their model
            try:
                require_model(job.answers_folder(protocol), identity_of())
            except RecordError:
                (job.eval_folder(protocol) / DONE).unlink(missing_ok=True)  # or the scores would be taken next time
                raise


def _score_all(job: EvalJob, protocols: Iterable[Protocol], progress: NullProgress, *, identity: str) -> None:
    for protocol in protocols:
        _note_throughput(job, protocol)
        score(
            **job.asked(protocol),
            answers=job.answers_folder(protocol),
            identity=identity,
            folder=job.eval_folder(protocol),
            permissions=job.permissions,
            progress=_steps(progress, protocol, "scoring"),
        )


def _answer_all(job: EvalJob, protocols: Iterable[Protocol], progress: NullProgress, *, identity: str) -> None:
    missing = [protocol for protocol in protocols if _unanswered(job, protocol)]
    if not missing:
        return
    import torch  # seconds to import: what is answered needs none of it

    processes = job.processes or max(1, torch.cuda.device_count())
    if processes == 1:
        _answer(job, missing, progress, identity=identity)
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what a training left here would stand beside the first process's model
    failed: list[Ended] = []
    run_jobs(
        _answer_share,
        [(job, missing, identity, Shard(index, processes)) for index in range(processes)],
        workers=processes,
        threads=job.threads,
        names=[f"{job.folder.name} ({index + 1} of {processes})" for index in range(processes)],
        progress=progress,
        ended=lambda end: failed.append(end) if end.error else None,
    )
    for protocol in missing:
        gather(job.answers_folder(protocol))
        (job.answers_folder(protocol) / THROUGHPUT).unlink(missing_ok=True)  # of fewer answers
    if failed:
        raise ShareFailed(
            f"{len(failed)} of the {processes} processes that evaluate {job.folder} ended early (number "
            f"{failed[0].job + 1}: {failed[0].error}); the same command asks only for what they have not answered"
        )


def _note_throughput(job: EvalJob, protocol: Protocol) -> None:
    """Write what the answers took, where several processes gave them, or one was ended before it could."""
    folder = job.answers_folder(protocol)
    if (folder / ANSWERS).is_file() and not (folder / THROUGHPUT).is_file():
        prompts = answered_prompts(Prompts(**job.asked(protocol)), log := AnswerLog(folder / ANSWERS))
        write_json(folder / THROUGHPUT, throughput(log, [each for each in prompts if each], protocol))


def _unanswered(job: EvalJob, protocol: Protocol) -> bool:
    log = gather(job.answers_folder(protocol))  # of an attempt that several processes shared, too
    return None in answered_prompts(Prompts(**job.asked(protocol)), log)


def _answer_share(job: tuple[EvalJob, list[Protocol], str, Shard], progress: NullProgress) -> None:
    job, protocols, identity, share = job
    _answer(job, protocols, progress, identity=identity, share=share)


def _answer(
    job: EvalJob, protocols: list[Protocol], progress: NullProgress, *, identity: str, share: Shard | None = None
) -> None:
    """Load the model once and answer, of each of the evaluations, all that is missing or a share of it."""
    import torch

    from reproduction.evals.answering import answer
    from reproduction.training import launching, shared_base

    torch.set_num_threads(job.threads)
    launching.cap_memory(job.memory_gb)
    model, tokenizer = job.load()
    if torch.cuda.is_available():
        model = model.to("cuda")
    for protocol in protocols:
        answer(
            **job.asked(protocol),
            model=model,
            tokenizer=tokenizer,
            folder=job.answers_folder(protocol),
            identity=identity,
            batch_size=job.batch_size,
            share=share,
            progress=_steps(progress, protocol),
        )
    shared_base.give_back(model)  # left to the next one that loads its base


def _steps(progress: NullProgress, protocol: Protocol, phase: str = "") -> Callable[[int, int], None]:
    what = " ".join(filter(None, (protocol.benchmark, protocol.name, phase)))
    return lambda done, total: progress.step(what, done, total)


def _require_permissions(protocols: Iterable[Protocol], permissions: Permissions) -> None:
    """Raises `ExecutionRefused` where one of the protocols runs what a model writes, and that is not allowed."""
    if any(protocol.task.runs_code for protocol in protocols):
        require_permission(permissions)
