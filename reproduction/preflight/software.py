"""Versions of the packages that cells need, and DeepSpeed with its compiler where a launch takes it.

Nothing is imported here: the packages' own records tell their versions, and DeepSpeed is tried in another process.
"""

import re
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

PROJECTS = (REPOSITORY / "pyproject.toml", REPOSITORY / "reproduction" / "pyproject.toml")
"""Of the library and of the reproduction: each names the packages that it needs."""

WHERE_ASKED = {
    "deepspeed", "wandb", "tensorboard", "liger-kernel", "flash-attn", "hydra-submitit-launcher", "k-means-constrained",
}  # fmt: skip
"""Packages that only some settings need."""

SECONDS = 10.0
"""That importing DeepSpeed is waited for."""


def software_lacks(cells: Sequence[Cell]) -> Iterable[str]:
    """Packages that are missing or older than pyproject.toml asks for, and what the cells' own settings need."""
    asked = {requirement.name: requirement for requirement in _requirements()}
    names = [name for name in asked if name not in WHERE_ASKED]
    sharded = any(cell.sharded for cell in cells)
    names += ["deepspeed"] * sharded
    names += ["liger-kernel"] * any(cell.train.liger_kernel for cell in cells)
    names += ["flash-attn"] * any(cell.model.attention == "flash_attention_2" for cell in cells)
    names += ["k-means-constrained"] * any("k_means_constrained" in cell.method.arguments.values() for cell in cells)
    for name in names:
        yield from package_lacks(asked.get(name, Requirement(name)))
    if sharded:
        yield from _deepspeed_lacks()


def package_lacks(requirement: Requirement) -> Iterable[str]:
    """Whether an installed package is what a requirement asks for."""
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


def _requirements() -> Iterable[Requirement]:
    for path in PROJECTS:
        for text in tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]:
            if text != "idlora":  # the library beside this package
                yield Requirement(text)


def _deepspeed_lacks() -> Iterable[str]:
    if not visible_gpus() and not (shutil.which("c++") or shutil.which("g++")):
        yield "a C++ compiler: DeepSpeed on CPUs builds its communication with one (apt install g++)"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", "import deepspeed"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return  # a slow disk, and no sign of a fault
    if tried.returncode:
        said = [line for line in tried.stderr.splitlines() if line.strip()]
        last = re.sub(r"\s+", " ", said[-1]) if said else f"exit code {tried.returncode}"
        yield f"DeepSpeed, which launch=zero2 and zero3 take, cannot be imported: {last}"
