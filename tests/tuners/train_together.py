"""Train methods for four steps on half of every batch, in each of the ranks of `forks.together`."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tuner_models import make_adapted, make_base, make_batch, trainable

STEPS = 4


def train(method, *, rank=0, world=1):
    """Return the losses over the whole batch and the trained parameters."""
    model = make_adapted(method, base=make_base(dtype=torch.float64)).train()
    wrapped = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.5)
    losses = []
    for step in range(STEPS):
        batch = make_batch(rows=4, seed=step)[rank::world]
        optimizer.zero_grad()
        loss = wrapped(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        if world > 1:
            dist.all_reduce(mean)
        losses.append(mean.item() / world)
    return {"losses": losses, "wrapper": type(wrapped).__name__, "parameters": dict(trainable(model))}


def train_all(methods: list[str], result: Path) -> None:
    """What a rank does; the first saves its losses and parameters."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    results = {method: train(method, rank=rank, world=world) | {"world": world} for method in methods}
    if rank == 0:
        torch.save(results, result)
