"""A small table of the tiny scale: its commands, their results and leftovers, and their processes."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from reproduction import tinyworld
from reproduction.records import find_runs

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENT, METHODS, STEPS = "codealpaca_llama3", ("lora", "idlora"), 6
OVERRIDES = [f"train.max_steps={STEPS}", "train.save_steps=2", "data.limit=48", "train.learning_rate=0.002"]
KEPT = {"humaneval/HumanEval.jsonl": 4, "gsm8k/test.jsonl": 6}
"""Number of test rows by file."""

ENDED = 2.0
"""Seconds within which all processes of a killed command must end."""


def cut_world(folder: Path) -> Path:
    """Export the tiny world with few test items."""
    root = tinyworld.export(folder)
    for name, kept in KEPT.items():
        lines = (root / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (root / name).write_text("".join(lines[:kept]), encoding="utf-8")
    return root


@dataclass(frozen=True)
class Place:
    """A working folder with its own cache and temporary files, and the world as data root."""

    folder: Path
    world: Path

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def table(self, *, workers: int = 2) -> list[str]:
        """Return the command that fills the table."""
        chosen = [f"experiments=[{EXPERIMENT}]", f"methods=[{','.join(METHODS)}]", "allow_missing=true"]
        changes = [f"overrides={json.dumps(OVERRIDES)}", f"workers={workers}"]
        return self._command("table", "table=table1", *chosen, *changes)

    def train(self, method: str) -> list[str]:
        """Return the command that trains one of its cells."""
        return self._command("train", f"experiment={EXPERIMENT}", f"method={method}", "scale=tiny", *OVERRIDES)

    def _command(self, script: str, *arguments: str) -> list[str]:
        own = [f"data_root={self.world}", "allow_code_execution=true"]
        return [sys.executable, str(REPOSITORY / "scripts" / f"{script}.py"), *arguments, *own]

    def start(self, command: list[str]) -> subprocess.Popen:
        """Start a command; its output is appended to the file `printed`."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        variables = {
            "TMPDIR": str(self.folder / "tmp"), "IDLORA_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        with (self.folder / "printed").open("ab") as printed:
            return subprocess.Popen(
                command, cwd=self.folder, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=printed,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run a command; return its exit code and output."""
        printed = self.folder / "printed"
        before = printed.stat().st_size if printed.exists() else 0
        code = self.start(command).wait()
        return code, printed.read_bytes()[before:].decode()

    def outcome(self) -> dict[str, bytes]:
        """Return the content of the table's reports by file name."""
        reports = [*self.results.glob("tables/*"), *self.results.glob("significance/*"), self.results / "metrics.csv"]
        return {path.name: path.read_bytes() for path in reports}

    def attempts(self) -> dict[str, int]:
        """Return how often each run was started."""
        return {run.name: run.status["attempts"] for run in find_runs(self.results / "runs")}

    def leftovers(self) -> list[str]:
        """Return files that a successful command does not leave behind: not the cache of torch's compiler."""
        names = ("*.idlora-tmp", "*.part", "*.tmp", ".aside", "checkpoints", "answers.[0-9]*.jsonl")
        found = [path for name in names for path in self.folder.rglob(name)]
        found += [path for path in (self.folder / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
        return [str(path.relative_to(self.folder)) for path in found]


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """Return a process and its descendants."""
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def at_work(process: subprocess.Popen) -> bool:
    """Whether a command has started a worker."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("reproduction.running.pool" in each.cmdline() for each in family(process))
    return False


def killed(process: subprocess.Popen) -> tuple[int, float]:
    """Kill a command only; return the number of its descendants, and the seconds until all of them ended.

    Raises AssertionError if one is alive after `ENDED` seconds.
    """
    own = family(process)
    process.kill()
    began = time.monotonic()
    process.wait()
    while left := [each for each in own if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
        seconds = time.monotonic() - began
        assert seconds < ENDED, f"{len(left)} of {len(own) - 1} processes outlived their command: {_told(left)}"
        time.sleep(0.01)
    return len(own) - 1, time.monotonic() - began


def _told(processes: list[psutil.Process]) -> str:
    try:
        return "; ".join(" ".join(each.cmdline())[:200] for each in processes)
    except psutil.NoSuchProcess:
        return "gone meanwhile"
