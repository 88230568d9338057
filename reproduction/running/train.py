"""Training of a cell: base, data, adapter, then the steps. It resumes, never repeats, and records how it ended.

an ending                    raised in                                 status.json, by records/status.py: Run
every step done, saved       -                                         done
out of memory in training    training/trainer.py: _memory_errors       oom, after a retry with half the rows a pass
loss or gradient not finite  training/trainer.py: StepLog              failed
a full disk                  training/trainer.py, checkpoints.py       failed
a rank died                  ddp.py: _run_ranks                        failed
any other error              -                                         failed
Ctrl-C, SIGTERM              the signal (cli.py, pool.py)              interrupted
kill -9 of this process      -                                         running, until the same command resumes
"""

import contextlib
import dataclasses
import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from reproduction.cells.cell import Cell
from reproduction.records import RecordError, Run
from reproduction.running.ddp import train_in_ranks
from reproduction.running.evaluate import evaluate
from reproduction.running.memory import estimated_bytes, fitted_now
from reproduction.running.progress import TRAINING, NullProgress
from reproduction.running.run_lock import at_work, release_reserve
from reproduction.training import launching

_logger = logging.getLogger(__name__)


def run_cell(cell: Cell, progress: NullProgress | None = None) -> None:
    """Train the cell unless it is trained, then run each incomplete evaluation on the saved model.

    A killed run has the state ``running``, an interrupted one ``interrupted``; both resume: training from the last
    checkpoint, an evaluation from the last batch of answers. Finished work is not repeated.

    Re-raises the error that ended it, after recording a training's end (oom, failed, interrupted, with the reason).
    """
    if not cell.run.done:
        train_cell(cell, progress)
    gc.collect()  # the Trainer leaves reference cycles that hold its model
    evaluate(cell.eval_job, progress)


def train_cell(cell: Cell, progress: NullProgress | None = None) -> None:
    """Train the cell unless it is trained; for an untuned base only count its parameters.

    Waits for another process that works on the run, and does nothing if that process finishes it.
    """
    progress = progress or NullProgress()
    in_ranks = cell.launch.needs_ranks and cell.method.kind != "none"
    if not in_ranks:
        launching.join()
    with _recorded(cell) as finish:
        if finish is None:
            return
        finish(in_smaller_passes(train_in_ranks if in_ranks else train_here, cell, progress))
    if launching.rank() == 0:
        shutil.rmtree(cell.run.folder / "checkpoints", ignore_errors=True)  # not needed once the run is done


def in_smaller_passes(
    train: Callable[[Cell, NullProgress], dict[str, Any]], cell: Cell, progress: NullProgress
) -> dict[str, Any]:
    """Train the cell; if it runs out of memory, log that and train once more with half the rows per pass.

    A launch that was started outside is not retried: its ranks may have failed at different steps.
    """
    from reproduction.training import OutOfMemory

    try:
        return train(cell, progress)
    except OutOfMemory as error:
        if error.rows == 1 or launching.inside():
            raise
        rows, checkpointing, reason = error.rows, error.checkpointing, str(error)
    # Outside of the handler, since the error's frames hold GPU memory.
    _logger.warning("%s: %s Goes on with train.micro_batch_size=%d.", cell.title, reason, rows // 2)
    gc.collect()
    half = dataclasses.replace(cell.train, micro_batch_size=rows // 2, gradient_checkpointing=checkpointing)
    smaller = dataclasses.replace(cell, train=half)
    return train(smaller, progress) | {"out_of_memory_at_micro_batch_size": rows}


def train_here(cell: Cell, progress: NullProgress) -> dict[str, Any]:
    """Train in this process, alone or as one of a launch, and return the content of resources.json; record no state."""
    import torch  # takes seconds; a finished cell does not need it

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
        untuned = build_model(dataclasses.replace(cell.model, init="random"), "meta")  # counted without weights
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
        on_step=lambda step, total, loss: progress.step(TRAINING, step, total, note=f"loss {loss:.2f}"),
        tracking=cell.tracking,
    )
    # Otherwise the base cannot be reused: full tuning changes weights, ranks end, liger replaces forward passes.
    if cell.method.kind == "peft" and cell.launch.mode == "single" and not cell.train.liger_kernel:
        shared_base.give_back(model)
    return dataclasses.asdict(resources) | {
        "launch": cell.launch.mode,
        "startup_seconds": laps.seconds | {"trainer": resources.setup_seconds},
        "memory_estimate_bytes": estimated_bytes(cell, packing=packing) if torch.cuda.is_available() else None,
    }


@contextlib.contextmanager
def _recorded(cell: Cell) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Record the run's states around a training.

    Yields a function that takes the resources at the end, or None if the run is already done. In a launch that was
    started outside, rank 0 starts and finishes the run, and any rank may mark it as failed.
    """
    run, first = cell.run, launching.rank() == 0
    with at_work(run.folder) if first else contextlib.nullcontext():
        # Checked under the lock: another command may have finished it.
        done = launching.from_first_rank(run.done) if first else launching.from_first_rank()
        if first and not done:
            run.start(cell.config)
        try:
            yield None if done else run.finish if first else lambda resources: None
        except BaseException as error:
            if not done:
                with contextlib.suppress(RecordError):  # a disk error must not hide the first error
                    _mark(run, error)
            raise


def _mark(run: Run, error: BaseException) -> None:
    """Record how a training ended, unless another rank of its launch has."""
    from reproduction.training import OutOfMemory

    rank = f"rank {launching.rank()}: " if launching.inside() else ""
    if run.state != "running":
        return
    release_reserve(run.folder)
    if isinstance(error, OutOfMemory):
        run.fail("oom", f"{rank}{error}")
    elif isinstance(error, Exception):
        run.fail("failed", f"{rank}{type(error).__name__}: {error}")
    else:
        run.fail("interrupted", "stopped by a signal while training")
