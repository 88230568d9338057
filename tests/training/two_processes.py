"""Started twice by torchrun: trains every method on the rows that its one argument's folder names."""

import json
import sys
from pathlib import Path

import torch
from cells import METHODS, run, schedule

from idlora.data import TokenizedSet
from idlora.training import ModelSpec


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    task = json.loads((folder / "task.json").read_text())
    base = ModelSpec(**task["base"])
    tokenized = TokenizedSet(task["rows"], [str(index) for index in range(len(task["rows"]))])
    for name, method in METHODS.items():
        _, resources = run(folder / name, base, method, tokenized, schedule(micro_batch_size=4))
        (folder / name / f"world-{torch.distributed.get_rank()}.json").write_text(
            json.dumps([torch.distributed.get_world_size(), resources.processes])
        )
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
