"""Run by torchrun in two processes, of which the second would select other pivots: what both have in the end.

Usage: agree_on_pivots.py <folder>
"""

import json
import os
import sys
from pathlib import Path

import torch
from tuner_models import make_adapted

from idlora.tuners.idlora import pivot_cache


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    real = pivot_cache.select_pivots_many
    selected = []

    def selecting(*arguments, seed, **settings):
        selected.append(1)
        return real(*arguments, seed=seed + rank, **settings)

    pivot_cache.select_pivots_many = selecting
    found = {}
    for name, cache in {"off": "", "cold": f"cache-{rank}", "warm": f"cache-{rank}"}.items():
        os.environ["IDLORA_CACHE"] = cache and str(folder / cache)  # each with a disk of its own, as on two machines
        tuner = make_adapted("idlora").base_model
        layers = tuner.pivot_layers("default").items()
        found[name] = {
            "pivots": {name: layer.idlora_pivots["default"].tolist() for name, layer in layers},
            "seconds": tuner.pivot_seconds,
            "cached": tuner.pivots_cached,
            "selections": len(selected),
        }
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
