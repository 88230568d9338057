"""Settings of PyTorch under which the same products have the same digits in every run."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


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
