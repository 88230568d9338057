"""How many processes train a cell, one for each GPU, each with a share of the effective batch; and joining a launch.

    launch=single   one process on one device
    launch=ddp      weights on every device, gradients added up once a step (`passes`) or by PyTorch's DDP
    launch=zero2    gradients and optimiser state sharded as well (DeepSpeed)
    launch=zero3    weights too
    launch=auto     zero3 for full fine-tuning and ddp for adapters where several GPUs are visible, else single

A process that torchrun, `accelerate launch` or `srun` started already has its rank, and joins that launch; several
machines are launched that way. Otherwise `reproduction.running.ddp` starts the ranks on this machine.
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
"""Bytes of a GPU that CUDA's context and NCCL's buffers take."""

GRACE = 0.5
"""Seconds in which a launcher notices the death of a rank and ends the others."""


class RanksFailed(RuntimeError):
    """A rank failed for a reason that the user cannot mend; the message says which rank and how it ended."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A launch as it is carried out.

    Args:
        mode: one of `MODES` but auto.
        processes: the number of ranks.
        memory_gb: the most that a process may take of its GPU, in 10^9 bytes; None is all of it.
    """

    mode: Literal["single", "ddp", "zero2", "zero3"] = "single"
    processes: int = 1
    memory_gb: float | None = None

    @property
    def needs_ranks(self) -> bool:
        """Whether processes must be started for it: DeepSpeed wants a launch even for one."""
        return (self.processes > 1 or self.mode.startswith("zero")) and not inside()


def resolve(mode: str, *, num_processes: int | None, full: bool, gpus: int, memory_gb: float | None = None) -> Launch:
    """The launch that a config's ``launch`` asks for on this machine.

    Args:
        mode: one of `MODES`.
        num_processes: ranks; None is the launch that this process is in, else one a visible GPU, or one without GPUs.
        full: whether every weight is trained.
        gpus: visible CUDA devices.
        memory_gb: see `Launch`.

    Raises:
        ValueError: an unknown mode, a number of processes that this machine, the mode or the launch does not allow, or
            a cap of memory that leaves none.
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
    """The number of CUDA devices that this process sees; does not initialise CUDA.

    A machine without a GPU's driver has none, and is spared the seconds that importing torch takes.
    """
    if not any(Path(driver).exists() for driver in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        return 0
    import torch

    return torch.cuda.device_count()


def inside() -> bool:
    """Whether a launcher started this process as one of several ranks, or as the only one of a launch."""
    _adopt_slurm_step()
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's rank in its launch; 0 outside of any."""
    return int(os.environ["RANK"]) if inside() else 0


def _adopt_slurm_step() -> None:
    """Give the tasks of an ``srun`` step of several the environment that torchrun would have given them.

    A batch script, an interactive shell and a job of one task are no launch, whatever the allocation's size is.
    """
    step = os.environ
    if "RANK" in step or int(step.get("SLURM_STEP_NUM_TASKS", "1")) < 2 or "SLURM_PROCID" not in step:
        return
    port = 10000 + int(step.get("SLURM_JOB_ID", "0")) % 50000  # every task comes to the same one
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
    """The first of SLURM's list of nodes, such as node[03-05,9] or a1,b2; this machine where the list is empty."""
    prefix, bracket, ranges = nodes.partition("[")
    first = prefix.split(",")[0]
    if bracket and "," not in prefix:
        first = prefix + re.split(r"[-,\]]", ranges)[0]
    return first or "127.0.0.1"


def join(*, deepspeed: bool = False) -> None:
    """Connect this process with the other ranks of its launch, if any: gloo on CPUs, NCCL on GPUs.

    Afterwards `torch.distributed` is initialised, with `deepspeed` DeepSpeed's own layer above it too, and the current
    CUDA device is this rank's own. May be called again.
    """
    import torch

    if not inside():
        return
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            # A launcher that gives each rank one GPU to see numbers them all 0.
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            torch.cuda.set_device(device)
            torch.distributed.init_process_group("nccl", device_id=device)
        else:
            torch.distributed.init_process_group("gloo")
    if deepspeed:
        # On CPUs it builds an extension first, by a ninja that lies beside the interpreter, activated or not.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        from deepspeed import init_distributed

        with contextlib.redirect_stdout(io.StringIO()):  # on which it announces what it has built
            init_distributed(torch.distributed.get_backend())


def cap_memory(gigabytes: float | None) -> None:
    """Let PyTorch allocate no more of this process's GPU than a card of so many 10^9 bytes would; None is no cap.

    `RESERVED` is what others than PyTorch's allocator hold.
    """
    import torch

    if gigabytes is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (gigabytes * 1e9 - RESERVED) / total))


def min_over_ranks(value: int) -> int:
    """The smallest of the values of a launch's ranks, which all must call it; outside of one the value itself."""
    import torch

    if not torch.distributed.is_initialized():
        return value
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    smallest = torch.tensor(value, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
    return int(smallest)


def from_first_rank(value: bool = False) -> bool:
    """Rank 0's value, in every rank of a launch; outside of one the value itself."""
    return bool(min_over_ranks(value if rank() == 0 else True))


@contextlib.contextmanager
def delayed_errors() -> Iterator[None]:
    """Re-raise a rank's error a little later: if another rank's death was its cause, the launcher ends this one first.

    Of ranks that all fail alike, the first re-raises before the others.
    """
    try:
        yield
    except Exception:
        if inside():
            time.sleep(GRACE if rank() == 0 else 2 * GRACE)
        raise
