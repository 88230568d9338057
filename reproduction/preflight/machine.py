"""Checks of this machine's GPUs, their driver, and PyTorch's build for them."""

import ctypes
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.sizes import Kind
from reproduction.running.memory import Gpu, gpus

WHEELS = "pip install torch --index-url https://download.pytorch.org/whl/cu"
BUILDS = ((13, 0), (12, 8), (12, 6), (12, 4), (12, 1), (11, 8))
"""CUDA versions that PyTorch is usually built for, newest first."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Properties that determine whether PyTorch can use a machine's GPUs.

    Args:
        gpus: the visible CUDA devices that PyTorch can use.
        built: CUDA version that PyTorch was built for; None for a CPU build.
        archs: `torch.cuda.get_arch_list()`, such as sm_90 and compute_90.
        driver: newest CUDA version that the driver supports; None if unknown.
        driven: whether an NVIDIA driver is loaded.
    """

    gpus: tuple[Gpu, ...] = ()
    built: str | None = None
    archs: tuple[str, ...] = ()
    driver: tuple[int, int] | None = None
    driven: bool = False


def such_gpus(number: object, memory_gb: object) -> tuple[Gpu, ...]:
    """Return GPUs that need not be here, with ``memory_gb`` of 10^9 bytes each.

    Raises `ConfigError` for a number of GPUs that is no whole number above 0, or a memory size that is no finite number
    above 0.
    """
    for name, value, kind, what in (
        ("gpus", number, int, "whole number"),
        ("memory_gb", memory_gb, int | float, "number"),
    ):
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:
            raise ConfigError(f"{name}={value} cannot be: give a {what} above 0")
    return number * (Gpu(name="such a GPU", memory=int(memory_gb * 1e9), capability=(8, 0)),)


def called(number: int, memory_gb: float) -> str:
    """Return `such_gpus` in words: "2 GPUs of 80 GB"."""
    return f"{number} GPU{'s' * (number > 1)} of {memory_gb:g} GB"


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    import torch

    return Machine(
        gpus=gpus(),
        built=torch.version.cuda,
        archs=tuple(torch.cuda.get_arch_list()),
        driver=_driver(),
        driven=any(Path(path).exists() for path in ("/proc/driver/nvidia/version", "/dev/nvidiactl")),
    )


def gpu_lacks(machine: Machine, kinds: Sequence[Kind]) -> Iterable[str]:
    """Yield why cells have no usable GPU: 16-bit weights need one, float32 weights also run on the CPU."""
    needing = [cell for kind in kinds for cell in kind.cells if cell.model.dtype != "float32"]
    if machine.gpus or needing:
        yield from unusable(machine)
    if not machine.gpus and needing:
        yield (
            f"GPUs: no CUDA device is visible, and {len(needing)} cells have weights in {needing[0].model.dtype}, "
            "which need one (model.dtype=float32 runs them on the CPU, slowly)"
        )
    old = next((gpu for gpu in machine.gpus if gpu.capability < (8, 0)), None)
    if old and (halved := [cell for cell in needing if cell.model.dtype == "bfloat16"]):
        yield (
            f"bfloat16: {old.name} does not compute in it (capability {old.capability[0]}.{old.capability[1]}; 8.0 "
            f"does), and {len(halved)} cells have such weights: give model.dtype=float32 where the memory allows"
        )


def unusable(machine: Machine) -> Iterable[str]:
    """Yield why PyTorch cannot use the GPUs: the driver, or a build without code for them."""
    for gpu in dict.fromkeys(machine.gpus):
        if machine.archs and not any(_runs(arch, gpu.capability) for arch in machine.archs):
            yield (
                f"PyTorch: this build (CUDA {machine.built}) has no code for {gpu.name} (compute capability "
                f"{gpu.capability[0]}.{gpu.capability[1]}; it has {', '.join(machine.archs)}): install another one, "
                f"`{WHEELS}118` for an old GPU, the newest for a new one"
            )
    if machine.gpus or not machine.driven:
        return
    built, driver = machine.built, machine.driver
    supported = f"CUDA {driver[0]}.{driver[1]}" if driver else "of unknown version"
    wheel = next((build for build in BUILDS if driver is None or build <= driver), BUILDS[-1])
    install = f"`{WHEELS}{wheel[0]}{wheel[1]}`"
    if built is None:
        yield f"PyTorch: a build for CPUs, and an NVIDIA driver ({supported}) is here: install a CUDA build, {install}"
    elif driver is not None and driver < tuple(int(part) for part in built.split(".")[:2]):
        yield (
            f"PyTorch: a build for CUDA {built}, newer than the driver ({supported}): update the driver, or install an "
            f"older build, {install}"
        )
    else:
        yield (
            f"PyTorch: an NVIDIA driver ({supported}) is here and no GPU is usable: look at `nvidia-smi`, and at "
            "CUDA_VISIBLE_DEVICES"
        )


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Return whether an architecture's code runs: binary (sm) on its major version, PTX (compute) on any later one."""
    kind, major, minor = re.match(r"(\w+)_(\d+)(\d)", arch).groups()
    return (int(major), int(minor)) <= capability and (kind == "compute" or int(major) == capability[0])


def _driver() -> tuple[int, int] | None:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        return None
    return version.value // 1000, version.value % 1000 // 10
