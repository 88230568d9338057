"""Started twice by torchrun: trains with weights in parts (DeepSpeed ZeRO-3), once alone and once followed.

Usage: followed_in_parts.py <folder with task.json>
"""

import json
import sys
from pathlib import Path

import torch
import yaml
from cells import METHODS, run, schedule

from reproduction.data import TokenizedSet
from reproduction.training import ModelSpec, TrackingSpec


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    import deepspeed  # noqa: F401  the module below is part of it

    # By this name, for the package's attribute `torch` is PyTorch.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiled for a minute, and not needed
    task = json.loads((folder / "task.json").read_text())
    base = ModelSpec(**task["base"])
    tokenized = TokenizedSet(task["rows"], [str(index) for index in range(len(task["rows"]))])
    settings = yaml.safe_load(Path(task["deepspeed"]).read_text())["deepspeed"]
    settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # else weights as small as these stay whole
    spec = schedule(max_steps=2, micro_batch_size=2, deepspeed=settings)
    for name, tracking in (("alone", None), ("followed", TrackingSpec(tensorboard=True))):
        model, _ = run(folder / name, base, METHODS["idlora"], tokenized, spec, tracking=tracking)
        routers = [p for n, p in model.named_parameters() if "router" in n]
        in_parts = all(router.numel() == 0 < router.ds_numel for router in routers)
        (folder / name / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(in_parts))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
