"""What the whole suite shares: one thread count, no network, no GPU, a cache of its own, where the real data are."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and inherited by what the tests start
os.environ.setdefault("WANDB_MODE", "disabled")
if not os.environ.get("IDLORA_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so that the tests find the same on every machine

import torch  # after the variables that it reads
from in_process import REPOSITORY, run_jobs_here, run_script

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # without a GPU, kernels run in Triton's interpreter


def real_data_root() -> Path | None:
    """The folder with copies of the public data sets, or None where this machine has none."""
    named = os.environ.get("IDLORA_REAL_DATA")
    candidates = [Path(named)] if named else [REPOSITORY.parent / "shared" / "data"]
    return next((path for path in candidates if (path / "gsm8k" / "test.jsonl").is_file()), None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real data sets; skips without them, fails instead where IDLORA_REQUIRE_REAL_DATA is set."""
    root = real_data_root()
    if root is None:
        if os.environ.get("IDLORA_REQUIRE_REAL_DATA"):
            pytest.fail("IDLORA_REQUIRE_REAL_DATA is set, but no real data were found; set IDLORA_REAL_DATA=<folder>")
        pytest.skip("no copies of the public data sets here; set IDLORA_REAL_DATA=<folder> to run this")
    return root


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests, and the processes that they start, keep for later: never the user's own folder."""
    os.environ["IDLORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return Path(os.environ["IDLORA_CACHE"])


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Run ``scripts/<name>.py arguments`` in this process; gives its exit code and what it printed."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", sys.argv)
        capsys.readouterr()
        code = run_script(name, *arguments)
        return subprocess.CompletedProcess(sys.argv, code, *capsys.readouterr())

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells and trials run in this process, one after another: no worker has to import torch."""
    for module in ("running.table", "commands.search"):
        monkeypatch.setattr(f"reproduction.{module}.run_jobs", run_jobs_here)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cells below would leave their runs."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def paper(results: Path) -> dict:
    """Cells of the paper's scale as two GPUs would launch them; nothing of them is run."""
    from reproduction.cells.from_config import compose_cell  # most tests need no config

    def composed(method: str, launch: str):
        overrides = [
            f"results_dir={results}",
            f"launch={launch}",
            "launch.num_processes=2",
            "allow_code_execution=true",
        ]
        return compose_cell("multitask_llama3", method, scale="paper", seed=0, overrides=overrides)

    return {method: composed(method, "zero3" if method == "fft" else "ddp") for method in ("fft", "lora", "base")}


@pytest.fixture(scope="module")
def tiny(results: Path):
    """A cell of the embedded scale; nothing of it is run."""
    from reproduction.cells.from_config import compose_cell

    overrides = [f"results_dir={results}", "train.learning_rate=0.01"]
    return compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
