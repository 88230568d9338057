"""Evaluation of a model, trained by a cell or given by a user: first its answers, then their scores.

Each of several GPUs has one process, which loads the model and answers every n-th missing batch into its own file.
Scoring happens in this process and needs no model.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from reproduction.cells.evaluation import EvalJob
from reproduction.evals.answers import THROUGHPUT, Shard, answered_prompts, gather, require_model, throughput
from reproduction.evals.prompts import Prompts
from reproduction.evals.sandbox import require_permission
from reproduction.evals.scoring import score
from reproduction.evals.task import Protocol
from reproduction.records import ANSWERS, DONE, META, AnswerLog, RecordError, write_json
from reproduction.running.pool import Ended, run_jobs
from reproduction.running.progress import NullProgress
from reproduction.running.run_lock import at_work


class ShardFailed(Exception):
    """A process of an evaluation ended early; its answers so far are on disk."""


def evaluate(job: EvalJob, progress: NullProgress | None = None, *, rescore: bool = False) -> list[Path]:
    """Answer and score every incomplete evaluation; return the folders of all.

    Existing answers are used. Waits for another process that works in the folder.

    Args:
        job: the model and its evaluations.
        progress: display of the steps.
        rescore: score all answers again without generating any.

    Raises:
        ExecutionRefused: an evaluation runs programs of the model, which is not allowed.
        ShardFailed: a process ended early; the others have finished their part.
        RecordError: the answers are another model's.
    """
    progress, identity_of = progress or NullProgress(), functools.cache(job.identity)  # reads all of the weights
    _require_own_answers(job, identity_of)
    if wanted := job.protocols if rescore else job.waiting:
        if any(protocol.task.runs_code for protocol in wanted):
            require_permission(job.permissions)
        with at_work(job.folder):
            identity = identity_of()
            if not rescore:
                wanted = job.waiting  # another process may have completed some meanwhile
                _answer_all(job, wanted, progress, identity=identity)
            _score_all(job, wanted, progress, identity=identity)
    return [job.eval_folder(protocol) for protocol in job.protocols]


def _require_own_answers(job: EvalJob, identity_of: Callable[[], str]) -> None:
    """Raise `RecordError` if another model answered a complete evaluation, and remove its DONE mark."""
    waiting = job.waiting
    for protocol in [each for each in job.protocols if each not in waiting]:
        if (job.answers_folder(protocol) / META).is_file():
            try:
                require_model(job.answers_folder(protocol), identity_of())
            except RecordError:
                (job.eval_folder(protocol) / DONE).unlink(missing_ok=True)
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
    import torch  # takes seconds; not needed if nothing is missing

    processes = job.processes or max(1, torch.cuda.device_count())
    if processes == 1:
        _answer(job, missing, progress, identity=identity)
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # memory of a training here is needed by the first process
    failed: list[Ended] = []
    run_jobs(
        _answer_shard,
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
        raise ShardFailed(
            f"{len(failed)} of the {processes} processes that evaluate {job.folder} ended early (number "
            f"{failed[0].job + 1}: {failed[0].error}); the same command asks only for what they have not answered"
        )


def _note_throughput(job: EvalJob, protocol: Protocol) -> None:
    """Write the throughput of answers that several processes gave, or one process that ended before writing it."""
    folder = job.answers_folder(protocol)
    if (folder / ANSWERS).is_file() and not (folder / THROUGHPUT).is_file():
        prompts = answered_prompts(Prompts(**job.asked(protocol)), log := AnswerLog(folder / ANSWERS))
        write_json(folder / THROUGHPUT, throughput(log, [each for each in prompts if each], protocol))


def _unanswered(job: EvalJob, protocol: Protocol) -> bool:
    log = gather(job.answers_folder(protocol))  # includes the shards of an earlier attempt
    return None in answered_prompts(Prompts(**job.asked(protocol)), log)


def _answer_shard(job: tuple[EvalJob, list[Protocol], str, Shard], progress: NullProgress) -> None:
    job, protocols, identity, shard = job
    _answer(job, protocols, progress, identity=identity, shard=shard)


def _answer(
    job: EvalJob, protocols: list[Protocol], progress: NullProgress, *, identity: str, shard: Shard | None = None
) -> None:
    """Load the model once and generate the missing answers of each evaluation, or a shard of them."""
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
            share=shard,
            progress=_steps(progress, protocol),
        )
    shared_base.give_back(model)  # the next model on this base reuses it


def _steps(progress: NullProgress, protocol: Protocol, phase: str = "") -> Callable[[int, int], None]:
    what = " ".join(filter(None, (protocol.benchmark, protocol.name, phase)))
    return lambda done, total: progress.step(what, done, total)
