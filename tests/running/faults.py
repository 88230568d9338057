"""Failures of a training for `forks.start`, which calls one in the command's process before the command starts."""

import ctypes
import os
import resource
import signal
from pathlib import Path

from transformers import Trainer

from reproduction.running.progress import LineProgress
from reproduction.training.launching import rank


def _before_step(step: int, happens) -> None:
    real = Trainer.training_step

    def training_step(self, *arguments, **options):
        if self.state.global_step == step:
            happens()
        return real(self, *arguments, **options)

    Trainer.training_step = training_step


def _at(which: int, happens) -> None:
    if rank() == which:
        happens()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exhaust() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def _err() -> None:
    raise KeyError("no such expert")


def _refuse() -> None:
    raise ValueError("method.arguments.r=60 does not fit")


def _fill_the_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))  # less than the optimiser's state


def steps_written() -> None:
    """Write the command's displayed steps to the file `steps` in its folder."""
    place = Path.cwd() / "steps"

    def step(self, phase, done, total, *, note="", slot=0):
        with place.open("a") as file:
            file.write(f"{phase} {done}/{total} {note}\n")

    LineProgress.step = step


def killed(step: int, which: int = 0) -> None:
    """Kill one rank with SIGKILL at a step."""
    _before_step(step, lambda: _at(which, _die))


def defect(step: int, which: int = 0) -> None:
    """Raise a defect in one rank."""
    _before_step(step, lambda: _at(which, _err))


def bad_value(step: int, which: int = 0) -> None:
    """Raise a user error in one rank only."""
    _before_step(step, lambda: _at(which, _refuse))


def out_of_memory(step: int, which: int = 0) -> None:
    """Run out of GPU memory in one rank."""
    _before_step(step, lambda: _at(which, _exhaust))


def out_of_memory_above(rows: int, step: int) -> None:
    """Run out of GPU memory in passes of more than ``rows`` rows, from a step on."""
    real = Trainer.training_step

    def training_step(self, model, inputs, *arguments, **options):
        if self.state.global_step >= step and len(inputs["input_ids"]) > rows:
            _exhaust()
        return real(self, model, inputs, *arguments, **options)

    Trainer.training_step = training_step


def stuck(step: int, which: int = 0) -> None:
    """Block one rank's interpreter in native code, while the others wait for it in the communication library."""
    _before_step(step, lambda: _at(which, lambda: ctypes.PyDLL(None).sleep(60)))


def full_disk(step: int) -> None:
    """Limit the size of files from a step on."""
    _before_step(step, _fill_the_disk)


def killed_while_saving(step: int) -> None:
    """Kill the process with SIGKILL while it writes the checkpoint of this step."""
    real = Trainer._save_rng_state

    def save(self, folder):
        if self.state.global_step == step:
            _at(0, _die)
        real(self, folder)

    Trainer._save_rng_state = save
