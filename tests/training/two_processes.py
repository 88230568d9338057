"""What the ranks of `forks.together` do: each function is called in both of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from cells import METHODS, SHORT, run, schedule, watched

from idlora.data import TokenizedSet
from idlora.pipeline.shell import quiet
from idlora.training import ModelSpec, launching

JOBS = {
    name: (name, {"micro_batch_size": 4}, None) for name in METHODS
} | {
    "finer": ("lora", {"micro_batch_size": 1}, None),
    "two epochs": ("lora", SHORT | {"micro_batch_size": 2}, 27),
    "by length": ("lora", SHORT | {"micro_batch_size": 2, "group_by_length": True}, 27),
}  # fmt: skip
"""name → (method, changes of the schedule, rows; None is all of them)."""


def train_jobs(folder: Path, names: list[str], base: ModelSpec, rows: list[dict], deepspeed: Mapping | None) -> None:
    """Do each job as one of the launch's ranks, and leave beside its outcome what was seen meanwhile."""
    torch.set_num_threads(1)
    quiet()
    for name in names:
        method, changes, count = JOBS[name]
        tokenized = TokenizedSet(rows[:count], [str(index) for index in range(len(rows[:count]))])
        spec = schedule(**changes, deepspeed=deepspeed)
        with watched() as seen:
            _, resources = run(folder / name, base, METHODS[method], tokenized, spec)
        seen["world"] = [torch.distributed.get_world_size(), resources.processes]
        seen["division"] = [resources.micro_batch_size, resources.accumulation]
        (folder / name / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(seen))


def agree(folder: Path) -> None:
    """Writes what the first rank said, which says True and then False, and the other the opposite."""
    launching.join()
    rank = launching.rank()
    said = [launching.from_first_rank(value) for value in ((True, False) if rank == 0 else (False, True))]
    (folder / f"said-{rank}").write_text(" ".join(map(str, said)))
