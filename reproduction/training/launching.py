"""Launch modes of a training (one process per GPU, each with a share of the effective batch), and joining a launch.

    launch=single   one process on one device
    launch=ddp      weights on every device, gradients summed once a step (`passes`) or by PyTorch's DDP
    launch=zero2    gradients and optimiser state sharded as well (DeepSpeed)
    launch=zero3    weights too
    launch=auto     zero3 for full fine-tuning and ddp for adapters where several GPUs are visible, else single

A process started by torchrun, `accelerate launch` or `srun` has a rank and joins that launch; this is the way to use
several machines. Otherwise `reproduction.running.ddp` starts the ranks on this machine.
"""

import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MODES = ("auto", "single", "ddp", "zero2", "zero3")
RESERVED = 1.5e9
"""Bytes of GPU memory for CUDA's context and NCCL's buffers."""

GRACE = 0.5
"""Seconds within which a launcher notices the death of a rank and ends the others."""


class RanksFailed(RuntimeError):
    """A rank failed for a reason that the user cannot fix; the message names the rank and its end."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A resolved launch.

    Args:
        mode: one of `MODES` except auto.
        processes: number of ranks.
        memory_gb: memory limit of a process on its GPU, in 10^9 bytes; None is no limit.
    """

    mode: Literal["single", "ddp", "zero2", "zero3"] = "single"
    processes: int = 1
    memory_gb: float | None = None

    @property
    def needs_ranks(self) -> bool:
        """Whether it needs started processes; DeepSpeed needs a launch even for one."""
        return (self.processes > 1 or self.mode.startswith("zero")) and not inside()


def resolve(mode: str, *, num_processes: int | None, full: bool, gpus: int, memory_gb: float | None = None) -> Launch:
    """Resolve a config's ``launch`` on this machine.

    Args:
        mode: one of `MODES`.
        num_processes: ranks; None is the size of the current launch, else one per visible GPU, or one without GPUs.
        full: whether every weight is trained.
        gpus: number of visible CUDA devices.
        memory_gb: see `Launch`.

    Raises:
        ValueError: an unknown mode, a number of processes that this machine, the mode or the launch does not allow, or
            a memory limit that leaves no memory.
    """
    if memory_gb is not None and not memory_gb * 1e9 > RESERVED:
        raise ValueError(f"launch.memory_gb={memory_gb:g} leaves nothing: give more than {RESERVED / 1e9:g}, or null.")
    if mode not in MODES:
        raise ValueError(f"launch={mode} is no way to launch: choose {', '.join(MODES)}.")
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"launch.num_processes={num_processes} trains nothing: give 1 or more, or null.")
    world = int(os.environ["WORLD_SIZE"]) if inside() else None
    if world is not None and num_processes not in (None, world):
        raise ValueError(
            f"launch.num_processes={num_processes}, and this process is one of {world} that a launcher started: "
            "leave launch.num_processes out."
        )
    if world is None and gpus and (num_processes or 1) > gpus:
        raise ValueError(
            f"launch.num_processes={num_processes} and {gpus} visible GPUs: each process needs one of its own."
        )
    processes = world or num_processes or (1 if mode == "single" else max(gpus, 1))
    if mode == "auto":
        mode = "single" if processes == 1 else "zero3" if full and gpus else "ddp"
    if mode == "single" and processes > 1:
        raise ValueError(f"launch=single is one process, and {processes} are asked for: choose launch=ddp or auto.")
    return Launch(mode=mode, processes=processes, memory_gb=memory_gb)


def visible_gpus() -> int:
    """Return the number of visible CUDA devices without initialising CUDA.

    Without a GPU driver the answer is 0, and torch, whose import takes seconds, is not imported.
    """
    if not any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        return 0
    import torch

    return torch.cuda.device_count()


def inside() -> bool:
    """Return whether a launcher started this process, as one of several ranks or as the only one."""
    _adopt_slurm_step()
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """Return this process's rank in its launch; 0 outside a launch."""
    return int(os.environ["RANK"]) if inside() else 0


def _adopt_slurm_step() -> None:
    """Set torchrun's environment variables for the tasks of an ``srun`` step of several tasks.

    A batch script, an interactive shell and a job of one task are not a launch, whatever the allocation's size.
    """
    step = os.environ
    if "RANK" in step or int(step.get("SLURM_STEP_NUM_TASKS", "1")) < 2 or "SLURM_PROCID" not in step:
        return
    port = 10000 + int(step.get("SLURM_JOB_ID", "0")) % 50000  # the same for every task
    on_this_machine = step.get("SLURM_STEP_TASKS_PER_NODE", step["SLURM_STEP_NUM_TASKS"]).split("(")[0].split(",")[0]
    step |= {
        "RANK": step["SLURM_PROCID"],
        "WORLD_SIZE": step["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": step["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": on_this_machine,
    }
    step.setdefault("MASTER_ADDR", _first_host(step.get("SLURM_STEP_NODELIST", "")))
    step.setdefault("MASTER_PORT", str(port))


def _first_host(nodes: str) -> str:
    """Return the first of SLURM's list of nodes, such as node[03-05,9] or a1,b2; this machine for an empty list."""
    prefix, bracket, ranges = nodes.partition("[")
    first = prefix.split(",")[0]
    if bracket and "," not in prefix:
        first = prefix + re.split(r"[-,\]]", ranges)[0]
    return first or "127.0.0.1"


def join(*, deepspeed: bool = False) -> None:
    """Connect this process with the other ranks of its launch, if any: gloo on CPUs, NCCL on GPUs.

    It initialises `torch.distributed`, with `deepspeed` also DeepSpeed's layer above it, and sets the current CUDA
    device to this rank's. It may be called repeatedly.
    """
    import torch

    if not inside():
        return
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            # If the launcher makes only one GPU visible to each rank, its number is 0.
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            torch.cuda.set_device(device)
            torch.distributed.init_process_group("nccl", device_id=device)
        else:
            torch.distributed.init_process_group("gloo")
    if deepspeed:
        # On CPUs DeepSpeed builds an extension with the ninja beside the interpreter, activated environment or not.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        from deepspeed import init_distributed

        with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints the built extension
            init_distributed(torch.distributed.get_backend())


def cap_memory(gigabytes: float | None) -> None:
    """Limit PyTorch's allocations on this process's GPU to those of a card of so many 10^9 bytes; None is no limit.

    `RESERVED` bytes of the card are outside PyTorch's allocator.
    """
    import torch

    if gigabytes is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (gigabytes * 1e9 - RESERVED) / total))


def min_over_ranks(value: int) -> int:
    """Return the smallest value over the ranks of a launch, which must all call this; else the value itself."""
    import torch

    if not torch.distributed.is_initialized():
        return value
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    smallest = torch.tensor(value, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
    return int(smallest)


def from_first_rank(value: bool = False) -> bool:
    """Return rank 0's value in every rank of a launch; outside a launch the value itself."""
    return bool(min_over_ranks(value if rank() == 0 else True))


@contextlib.contextmanager
def delayed_errors() -> Iterator[None]:
    """Re-raise a rank's error after a delay: if another rank's death is the cause, the launcher ends this one first.

    If all ranks fail alike, the first re-raises before the others.
    """
    try:
        yield
    except Exception:
        if inside():
            time.sleep(GRACE if rank() == 0 else 2 * GRACE)
        raise
