"""Settings of PyTorch under which the same products have the same digits in every run, and a crew of threads."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Generic, TypeVar

import torch

Task, Result = TypeVar("Task"), TypeVar("Result")


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Products of float32 in float32: no TF32, no bf16 passes, no autocast. The switches are the whole process's."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    new = all(hasattr(backend, "fp32_precision") for backend in backends)  # torch 2.9; it forbids mixing with the old
    before = [backend.fp32_precision for backend in backends] if new else torch.get_float32_matmul_precision()
    autocast = torch.amp.is_autocast_available(device.type)
    try:
        if new:
            for backend in backends:
                backend.fp32_precision = "ieee"
        else:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
            yield
    finally:
        if new:
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision
        else:
            torch.set_float32_matmul_precision(before)


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU PyTorch works on one thread; elsewhere nothing changes. The number is the whole process's.

    A sum over all rows is split among threads, so its last digits follow their number, and with them the side of a row
    between two clusters: of 210 modules of SmolLM2-135M one had other pivots on two threads than on one.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Crew(Generic[Task, Result]):
    """Work on the CPU side by side: each task on one of PyTorch's threads, whose products then do not know of others.

    Results come in the order of their tasks, and so does what a task raises. At most `size` tasks wait or are at work.
    """

    def __init__(self, work: Callable[[Task], Result]):
        self.work, self.size = work, torch.get_num_threads()
        self._given: deque[Future[Result]] = deque()
        self._settings = ExitStack()

    def __enter__(self) -> "Crew[Task, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        while self._given:
            self._given.popleft().cancel()
        self._settings.close()

    def give(self, task: Task, *, on_cpu: bool) -> Iterator[Result]:
        """Results: of this task if it is another device's or there is one thread, else of earlier ones."""
        if not on_cpu or self.size == 1:
            yield self.work(task)
            return
        if not hasattr(self, "_pool"):
            cpu = torch.device("cpu")
            for setting in (full_float32(cpu), one_thread(cpu)):  # once for all: each is the whole process's
                self._settings.enter_context(setting)
            self._pool = self._settings.enter_context(ThreadPoolExecutor(self.size))
        if len(self._given) == self.size:
            yield self._given.popleft().result()
        self._given.append(self._pool.submit(self.work, task))

    def rest(self) -> Iterator[Result]:
        """The results of what is still at work."""
        while self._given:
            yield self._given.popleft().result()
