"""Run by torchrun in two processes: the pivots of an adapter that the first makes alone, and of those that both make.

Usage: agree_on_pivots.py <folder>
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from tuner_models import make_adapted


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=30))
    rank = torch.distributed.get_rank()
    found = {}

    def make(name: str) -> None:
        tuner = make_adapted("idlora").base_model
        pivots = {
            module: layer.idlora_pivots["default"].tolist() for module, layer in tuner.pivot_layers("default").items()
        }
        found[name] = {"pivots": pivots, "cached": tuner.pivots_cached}

    os.environ["IDLORA_CACHE"] = ""
    alone = folder / "alone"
    if rank == 0:
        make("alone")
        alone.touch()
    while not alone.exists():  # in no collective, which would be taken for one of the first process's
        time.sleep(0.1)
    make("off")
    os.environ["IDLORA_CACHE"] = str(folder / "cache")
    make("cold")
    torch.distributed.barrier()
    make("warm")
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
