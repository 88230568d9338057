"""A disk that is full at six moments: each command says which file, and goes on to the same tables once there is room.

The disk is a tmpfs in a mount namespace of its own (`unshare -rm`), so that no rights are needed and nothing stays
mounted. Fills happen in the command's own process, at the call that writes: `forks` starts commands that were patched.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Figures = dict[str, str]

SIZE = "400m"
CELL = [
    "experiment=gsm8k_llama3", "method=idlora", "scale=tiny", "train.max_steps=4", "train.save_steps=2",
    "data.limit=48", "train.learning_rate=0.002",
]  # fmt: skip
BALLAST = "ballast"
DISK = "disk"


def no_disk() -> str | None:
    """Return why no tmpfs can be mounted, or None."""
    try:
        mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp"]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "full disks need `unshare` (util-linux)"
    return f"full disks need a mount namespace ({done.stderr.strip()})" if done.returncode else None


def full_disks(folder: Path) -> Figures:
    """Run `_main` in a namespace with a tmpfs. Raises AssertionError on failure."""
    place = folder / "disks"
    (place / DISK).mkdir(parents=True)
    inside = f'mount -t tmpfs -o size={SIZE} none "$1/{DISK}" && exec "$2" "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", inside, "sh", str(place), sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.partition("\t")[::2] for line in done.stdout.splitlines() if "\t" in line]
    assert done.returncode == 0, f"{done.stderr.strip()[-1500:] or done.stdout[-1500:]}"
    return dict(lines)


def _fill(disk: Path) -> None:
    """Fill the disk to the last byte."""
    with (disk / BALLAST).open("ab", buffering=0) as file:
        block = bytes(2**20)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


def _before(owner: object, name: str, disk: Path) -> None:
    """Fill the disk when a function is called for the first time."""
    real = getattr(owner, name)

    def filling(*arguments: object, **options: object) -> object:
        if not (disk / BALLAST).exists():
            _fill(disk)
        return real(*arguments, **options)

    setattr(owner, name, filling)


def data(disk: Path) -> None:
    _before(
        import_module("reproduction.tinyworld.export"), "_write_if_changed", disk
    )  # a function's name hides the module's


def token_cache(disk: Path) -> None:
    from reproduction.data import token_cache

    _before(token_cache, "_write", disk)


def checkpoint(disk: Path) -> None:
    from transformers import Trainer

    _before(Trainer, "_save_checkpoint", disk)


def adapter(disk: Path) -> None:
    from reproduction.training import trainer

    _before(trainer, "_save", disk)


def answers(disk: Path) -> None:
    from reproduction.records import AnswerLog

    _before(AnswerLog, "append", disk)


def scores(disk: Path) -> None:
    from reproduction.evals import scoring

    _before(scoring, "write_items", disk)


MOMENTS: dict[Callable[[Path], None], tuple[str, str]] = {
    data: ("train", r"data/gsm8k/train\.jsonl"),
    token_cache: ("train", r"train_log\.jsonl"),  # the cache only warns; the next file raises
    checkpoint: ("train", r"checkpoints/checkpoint-2"),
    adapter: ("train", r"What was trained could not be written to \S*runs/"),
    answers: ("evaluate", r"answers/gsm8k-\w+/answers\.jsonl"),
    scores: ("evaluate", r"eval/gsm8k-\w+/items\.jsonl"),
}


def _main(folder: Path) -> None:
    import forks
    from places import cut_world

    from reproduction.records import Run, find_runs

    world = cut_world(folder / "world")  # to ask few questions of
    scripts = Path(__file__).resolve().parents[2] / "scripts"

    def run(name: str, place: Path, fault: Callable[[], None] | None = None) -> subprocess.CompletedProcess:
        """Run a command with its results in `place` and its output in `folder`, off the disk."""
        arguments = [*CELL, f"results_dir={place / 'results'}"]
        if name == "evaluate":
            arguments = [f"run={run_in(place).folder}", "eval=gsm8k", f"data_root={world}"]
        return forks.start(scripts / f"{name}.py", arguments, folder=folder, fault=fault).end()

    def run_in(place: Path) -> Run:
        (own,) = find_runs(place / "results" / "tiny" / "runs")
        return own

    def outcome(place: Path) -> dict[str, bytes]:
        names = ("train_log.jsonl", "adapter/*.safetensors", "eval/*/items.jsonl")
        own = run_in(place).folder
        return {str(path.relative_to(own)): path.read_bytes() for name in names for path in own.glob(name)}

    def ended_well(done: subprocess.CompletedProcess, when: str) -> None:
        assert done.returncode == 0, f"{done.args} {when} ended with {done.returncode}: {done.stderr[-1000:]}"

    alone, disk = folder / "alone", folder / DISK
    os.environ["IDLORA_CACHE"] = str(disk / "cache")  # before the first start, for all
    for name in ("train", "evaluate"):
        ended_well(run(name, alone), "on an empty disk")
    for moment, (name, file) in MOMENTS.items():
        shutil.rmtree(disk / "cache", ignore_errors=True)
        place, when = disk / moment.__name__, f"on a disk that is full when it writes the {moment.__name__}"
        if name == "evaluate":
            ended_well(run("train", place), "on an empty disk")
        done = run(name, place, functools.partial(moment, disk))
        assert (disk / BALLAST).exists(), f"{name} {when} never came to it."
        told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        end = f"{name} {when} ended with {done.returncode}: {done.stderr[-1000:]}"
        assert (done.returncode, len(told)) == (2, 1), end
        assert re.search(file, told[0]), f"{name} {when} names another file: {told[0]}"
        assert "Traceback" not in done.stderr, f"{name} {when} shows a traceback: {done.stderr[-1000:]}"
        states = [each.state for each in find_runs(place / "results" / "tiny" / "runs")]
        assert "running" not in states, f"{name} {when} leaves the state running."
        (disk / BALLAST).unlink()
        for each in dict.fromkeys((name, "evaluate")):
            ended_well(run(each, place), "once there is room again")
        odd = [file for file, content in outcome(alone).items() if outcome(place).get(file) != content]
        assert not odd, f"{name} {when}, then with room, came to other {', '.join(odd)} than on an empty disk."
        said = told[0].removeprefix("error: ").replace(f"{place}/", "").partition(" (IDLORA")[0]
        print(f"disk full at the {moment.__name__}\t“{said}”; then the same outcome", flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    import disks  # by the name by which the forked commands know the faults

    try:
        disks._main(Path(sys.argv[1]))
    except AssertionError as error:
        sys.exit(str(error))
