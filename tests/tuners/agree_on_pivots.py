"""Run by torchrun in two processes: the pivots of an adapter that the first makes alone, and of those that both make.

Usage: agree_on_pivots.py <folder>
"""

import json
import os
import sys
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
            name: layer.idlora_pivots["default"].tolist() for name, layer in tuner.pivot_layers("default").items()
        }
        found[name] = {"pivots": pivots, "cached": tuner.pivots_cached}

    os.environ["IDLORA_CACHE"] = ""
    if rank == 0:
        make("alone")
    torch.distributed.barrier()
    make("off")
    os.environ["IDLORA_CACHE"] = str(folder / "cache")
    make("cold")
    torch.distributed.barrier()
    make("warm")
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
