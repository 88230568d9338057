"""What `pip install .` gives: the library alone, small, and importable without what the reproduction needs."""

import shutil
import subprocess
import sys
import textwrap
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ALONE = """
    import sys
    for name in ("reproduction", "hydra", "omegaconf", "datasets", "deepspeed", "k_means_constrained"):
        sys.modules[name] = None
    sys.path.insert(0, sys.argv[1])
    import idlora
    assert idlora.__file__.startswith(sys.argv[1]), idlora.__file__
    from peft import PeftType
    assert PeftType("IDLORA") and PeftType("HYDRALORA") and PeftType("MOELORA")
    import torch
    weight = torch.randn(12, 3)
    assert idlora.select_pivots(weight, 2, 3).shape == (2, 3)
    try:
        idlora.select_pivots(weight, 2, 3, backend="k_means_constrained")
    except ValueError as error:
        assert "k-means-constrained" in str(error)
    else:
        raise AssertionError("it is not installed")
"""


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")  # building writes beside what it builds
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    for package in ("idlora", "reproduction"):
        shutil.copytree(
            repository / package, source / package, ignore=shutil.ignore_patterns("bases", "__pycache__", "*.egg-info")
        )
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", source]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *map(str, options), str(source)], check=True)
    (built,) = source.glob("*.whl")
    return built


def test_the_wheel_is_the_library_alone_with_its_types_and_under_300_kb(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        metadata = Parser().parsestr(content.read(next(each for each in names if each.endswith("METADATA"))).decode())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"idlora"}
    assert "idlora/py.typed" in names
    assert "idlora/tuners/idlora/layer.py" in names
    assert wheel.stat().st_size < 300_000
    assert metadata["Author"] is None
    assert metadata["Author-email"] is None
    assert metadata.get_all("Project-URL")
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_the_wheel_imports_and_registers_without_the_reproduction_and_what_it_needs(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(ALONE), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
