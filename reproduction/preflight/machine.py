"""The GPUs of this machine, what stands between them and PyTorch, and whether their memory suffices."""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.cells.sizes import Kind
from reproduction.running.memory import Gpu, gpus, room_on

DRIVER = Path("/proc/driver/nvidia/version")
SLOW = 50_000_000
"""Parameters from which on a step of training takes a CPU seconds, not a fraction of one."""

WHEELS = "pip install torch --index-url https://download.pytorch.org/whl/cu"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides whether PyTorch can use a machine's GPUs.

    Args:
        gpus: the visible CUDA devices that PyTorch can use.
        built: the CUDA version that PyTorch was built for; None is a build for CPUs.
        archs: as `torch.cuda.get_arch_list` gives them, such as sm_90 and compute_90; none is no answer.
        driver: the newest CUDA version that the driver knows; None where it cannot be asked.
        driven: whether the driver is loaded.
    """

    gpus: tuple[Gpu, ...] = ()
    built: str | None = None
    archs: tuple[str, ...] = ()
    driver: tuple[int, int] | None = None
    driven: bool = False


def this_machine() -> Machine:
    """The machine that this process runs on."""
    import torch

    return Machine(
        gpus=gpus(),
        built=torch.version.cuda,
        archs=tuple(torch.cuda.get_arch_list()),
        driver=_driver(),
        driven=DRIVER.exists() or Path("/dev/nvidiactl").exists(),
    )


def gpu_lacks(machine: Machine, kinds: Sequence[Kind]) -> Iterable[str]:
    """What keeps a machine's GPUs from being used, and whether one is needed: 16-bit weights are for GPUs.

    Where none is needed, as at the embedded scale, a GPU that PyTorch cannot use is none: its cells run on the CPU.
    """
    needing = [cell for kind in kinds for cell in kind.cells if cell.model.dtype != "float32"]
    if machine.gpus or needing:
        yield from unusable(machine)
    if not machine.gpus and needing:
        yield (
            f"GPUs: no CUDA device is visible, and {len(needing)} cells have weights in {needing[0].model.dtype}, "
            "which need one (model.dtype=float32 runs them on the CPU, slowly)"
        )
    old = next((gpu for gpu in machine.gpus if gpu.capability < (8, 0)), None)
    halved = [cell for cell in needing if cell.model.dtype == "bfloat16"]
    if old is not None and halved:
        yield (
            f"bfloat16: {old.name} does not compute in it (capability {old.capability[0]}.{old.capability[1]}; 8.0 "
            f"does), and {len(halved)} cells have such weights: give model.dtype=float32 where the memory allows"
        )


def slow_on_cpu(found: Sequence[Gpu], kinds: Sequence[Kind]) -> Iterable[str]:
    """The largest base, if it is of `SLOW` parameters or more, that is to be trained although there is no GPU."""
    sizes = {kind.body.parameters: kind.first.model.label for kind in kinds if kind.body is not None and kind.trains}
    if not found and sizes and max(sizes) >= SLOW:
        yield f"No GPU is visible: {sizes[max(sizes)]} ({max(sizes) / 1e6:.0f}M parameters) trains on the CPU, slowly."


def unusable(machine: Machine) -> Iterable[str]:
    """What stands between PyTorch and a machine's GPUs: the driver, or a build without code for them."""
    if not machine.gpus:
        yield from driver_lacks(machine)
    for gpu in dict.fromkeys(machine.gpus):
        yield from build_lacks(gpu, machine)


def driver_lacks(machine: Machine) -> Iterable[str]:
    """Why PyTorch sees no GPU although a driver is there."""
    if not machine.driven:
        return
    built, driver = machine.built, machine.driver
    known = f"{driver[0]}.{driver[1]}" if driver else "an unknown version"
    if built is None:
        yield (
            f"PyTorch: this build is for CPUs alone, and an NVIDIA driver (CUDA {known}) is here: install a CUDA "
            f"build, for example `{WHEELS}{_wheel(driver)}`"
        )
    elif driver is not None and driver < tuple(int(part) for part in built.split(".")[:2]):
        yield (
            f"PyTorch: this build is for CUDA {built}, and the driver knows CUDA up to {known}: update the driver, or "
            f"install an older build, `{WHEELS}{_wheel(driver)}`"
        )
    else:
        yield (
            f"PyTorch: an NVIDIA driver (CUDA {known}) is here and no GPU is usable: look at `nvidia-smi`, and at "
            "CUDA_VISIBLE_DEVICES"
        )


def build_lacks(gpu: Gpu, machine: Machine) -> Iterable[str]:
    """Whether PyTorch's build has code for a GPU: for its own architecture, an older minor one, or to be translated."""
    major, minor = gpu.capability
    for arch in machine.archs:
        kind, _, number = arch.partition("_")
        digits = "".join(filter(str.isdigit, number))
        theirs = (int(digits[:-1]), int(digits[-1]))
        if (kind == "sm" and theirs[0] == major and theirs[1] <= minor) or (
            kind == "compute" and theirs <= (major, minor)
        ):
            return
    if machine.archs:
        yield (
            f"PyTorch: this build (CUDA {machine.built}) has no code for {gpu.name} (compute capability "
            f"{major}.{minor}; it has {', '.join(machine.archs)}): install another one, `{WHEELS}118` for an old GPU, "
            "the newest for a new one"
        )


def _wheel(driver: tuple[int, int] | None) -> str:
    """The newest of PyTorch's usual CUDA builds that a driver can run."""
    usual = ((13, 0), (12, 8), (12, 6), (12, 4), (12, 1), (11, 8))
    fitting = next((each for each in usual if driver is None or each <= driver), usual[-1])
    return f"{fitting[0]}{fitting[1]}"


def _driver() -> tuple[int, int] | None:
    """The newest CUDA version that the installed driver knows."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        return None
    return version.value // 1000, version.value % 1000 // 10


def memory_lacks(found: Sequence[Gpu], kinds: Sequence[Kind]) -> Iterable[str]:
    """Kinds of cells that do not fit into the smallest GPU (without GPUs: into this machine's memory), worst first."""
    import psutil

    place = min(found, key=lambda gpu: gpu.memory).name if found else "this machine"
    lacks: list[tuple[int, str]] = []
    for kind in kinds:
        if kind.body is None or (not found and kind.first.model.dtype != "float32"):
            continue
        room = room_on(found, kind.first) if found else psutil.virtual_memory().total
        lacks += _kind_lacks(kind, room=room, place=f"{place} has {room / 1e9:.1f} GB", on_gpu=bool(found))
    yield from (line for _, line in sorted(lacks, key=lambda each: -each[0]))


def _kind_lacks(kind: Kind, *, room: int, place: str, on_gpu: bool) -> Iterable[tuple[int, str]]:
    from reproduction.training.memory import stage

    cell, sharded = kind.first, stage(kind.first.train)
    if kind.trains and cell.method.kind == "full" and cell.model.dtype != "float32" and not sharded:
        line = (
            f"launch: {kind.title} trains every weight in {cell.model.dtype}, which needs DeepSpeed's float32 "
            "copies: give launch=zero3 (launch=auto takes it where two GPUs are visible), or model.dtype=float32"
        )
        yield room, line
        return
    try:
        unfit = kind.trains and kind.fitting(room) is None
    except ValueError:
        return  # told as a batch that cannot be shared
    if unfit:
        needed, ways = kind.training(1), ["a lower data.max_length"]
        if on_gpu and sharded < 3:
            ways.append("launch=zero3, which shares the weights among the GPUs")
        if on_gpu:
            ways.append("more GPUs" if sharded else "a GPU with more memory")
        line = f"memory: training {kind.title} takes {needed} on each of {cell.launch.processes}, with "
        yield needed.total, line + f"train.micro_batch_size=1, and {place}: {' or '.join(ways)}"
    if (needed := kind.inference()).total > room:
        way = f"lower eval_batch_size (now {cell.batch_size})" if cell.batch_size else "a GPU with more memory"
        yield needed.total, f"memory: evaluating {kind.title} takes {needed}, and {place}: {way}"
