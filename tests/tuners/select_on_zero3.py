"""Pivots of a base that DeepSpeed ZeRO-3 keeps in parts, in each of the ranks of `forks.together`."""

import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import deepspeed
import torch
from peft import get_peft_model
from transformers.integrations import HfDeepSpeedConfig
from tuner_models import make_base, make_config

from idlora.tuners.idlora.clustering import PivotSelector


def select(folder: Path) -> None:
    """Save what a rank finds as rank-<rank>.json."""
    torch.set_num_threads(1)
    # Via sys.modules, because the package's attribute `torch` is PyTorch.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # slow to compile, not needed
    deepspeed.init_distributed("gloo", timeout=timedelta(seconds=60))
    rank = torch.distributed.get_rank()
    os.environ["IDLORA_CACHE"] = str(folder / f"cache-{rank}")  # separate disks, as on two machines
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
    keep = HfDeepSpeedConfig(settings)  # tells PEFT to gather weights
    base = deepspeed.initialize(model=make_base(), config=settings)[0].module
    weights = [p for n, p in base.named_parameters() if n.endswith("proj.weight")]
    in_parts = [weight.numel() == 0 < weight.ds_numel for weight in weights]
    whole = []
    real = PivotSelector.select

    def counting(*args):
        whole.append(sum(weight.numel() > 0 for weight in weights))
        return real(*args)

    PivotSelector.select = counting
    model = get_peft_model(base, make_config("idlora"))
    found = {
        "world": torch.distributed.get_world_size(),
        "in_parts_before": all(in_parts),
        "in_parts_after": all(weight.numel() == 0 for weight in weights),
        "whole_at_once": max(whole),
        "pivots": {n: layer.idlora_pivots["default"].tolist() for n, layer in model.adapted_layers().items()},
        "fingerprints": model.peft_config["default"].base_fingerprint,
    }
    if rank == 1:
        shutil.rmtree(folder / "cache-1")
    model.add_adapter("again", make_config("idlora"))
    found["again"] = {n: layer.idlora_pivots["again"].tolist() for n, layer in model.adapted_layers("again").items()}
    found["cached"] = model.base_model.pivots_cached
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    del keep
