"""Cells at both scales, as their configs have them; nothing of them is run."""

from pathlib import Path

import pytest

from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose_cell


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preflight")


@pytest.fixture(scope="module")
def paper(results: Path) -> dict[str, Cell]:
    """Cells of the paper's scale as two GPUs would launch them."""

    def composed(method: str, launch: str) -> Cell:
        overrides = [
            f"results_dir={results}",
            f"launch={launch}",
            "launch.num_processes=2",
            "allow_code_execution=true",
        ]
        return compose_cell("multitask_llama3", method, scale="paper", seed=0, overrides=overrides)

    return {method: composed(method, "zero3" if method == "fft" else "ddp") for method in ("fft", "lora", "base")}


@pytest.fixture(scope="module")
def tiny(results: Path) -> Cell:
    overrides = [f"results_dir={results}", "train.learning_rate=0.01"]
    return compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
