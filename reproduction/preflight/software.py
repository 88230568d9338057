"""Checks of the versions of packages that cells need, and of DeepSpeed and its compiler if a launch uses it."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

from reproduction.cells.cell import Cell
from reproduction.paths import REPOSITORY
from reproduction.training.launching import visible_gpus

OPTIONAL = {
    "deepspeed", "wandb", "tensorboard", "liger-kernel", "flash-attn", "hydra-submitit-launcher", "k-means-constrained",
}  # fmt: skip
"""Packages needed only by some settings."""

SECONDS = 10.0
"""Time limit for importing DeepSpeed; exceeding it (a slow disk) is no error."""


def software_lacks(cells: Sequence[Cell]) -> Iterable[str]:
    """Yield packages missing or outside the ranges of pyproject.toml, including those for the cells' settings."""
    required = {}
    for path in (REPOSITORY / "pyproject.toml", REPOSITORY / "reproduction" / "pyproject.toml"):
        for text in tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]:
            required[Requirement(text).name] = Requirement(text)
    del required["idlora"]  # the library beside this package
    sharded = any(cell.sharded for cell in cells)
    names = [name for name in required if name not in OPTIONAL]
    names += ["deepspeed"] * sharded
    names += ["liger-kernel"] * any(cell.train.liger_kernel for cell in cells)
    names += ["flash-attn"] * any(cell.model.attention == "flash_attention_2" for cell in cells)
    names += ["k-means-constrained"] * any("k_means_constrained" in cell.method.arguments.values() for cell in cells)
    for name in names:
        yield from package_lacks(required.get(name, Requirement(name)))
    if sharded:
        yield from _deepspeed_lacks()


def package_lacks(requirement: Requirement) -> Iterable[str]:
    """Yield why an installed package does not meet a requirement."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        yield f"packages: {requirement.name} is not installed: pip install {requirement.name!s}"
        return
    if not requirement.specifier.contains(installed, prereleases=True):
        yield (
            f"packages: {requirement.name} {installed} is installed and {requirement.specifier} is needed: "
            f"pip install '{requirement}'"
        )


def _deepspeed_lacks() -> Iterable[str]:
    if not visible_gpus() and not (shutil.which("c++") or shutil.which("g++")):
        yield "a C++ compiler: DeepSpeed on CPUs builds its communication with one (apt install g++)"
    command = [sys.executable, "-c", "import deepspeed"]
    try:
        tried = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        yield f"DeepSpeed, which launch=zero2 and zero3 take, cannot be imported: {last}"
