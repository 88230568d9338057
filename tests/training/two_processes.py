"""Functions that `forks.together` calls in each of its ranks."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from cells import METHODS, SHORT, run, schedule, watched

from reproduction.cli import quiet
from reproduction.data import TokenizedSet
from reproduction.training import ModelSpec, TrackingSpec, build_adapted, build_base, launching, trainer

JOBS = {
    name: (name, {"micro_batch_size": 4}, None) for name in METHODS
} | {
    "finer": ("lora", {"micro_batch_size": 1}, None),
    "followed": ("idlora", {"micro_batch_size": 4}, None),
    "by length": ("lora", SHORT | {"micro_batch_size": 2, "group_by_length": True}, 27),
}  # fmt: skip
"""Jobs: name → (method, changes of the schedule, number of rows or None for all)."""


def train_jobs(folder: Path, names: list[str], base: ModelSpec, rows: list[dict], deepspeed: Mapping | None) -> None:
    """Run each job as one rank of the launch, and save the observations beside its results."""
    torch.set_num_threads(1)
    quiet()
    launching.join()
    first = launching.rank() == 0
    told = [launching.from_first_rank(value if first else not value) for value in (True, False)]
    for name in names:
        method, changes, count = JOBS[name]
        tokenized = TokenizedSet(rows[:count], [str(index) for index in range(len(rows[:count]))])
        spec = schedule(**changes, deepspeed=deepspeed)
        tracking = TrackingSpec(tensorboard=True) if name == "followed" else None
        with watched() as seen:
            _, resources = run(folder / name, base, METHODS[method], tokenized, spec, tracking=tracking)
        seen["told by the first"] = told
        seen["world"] = [torch.distributed.get_world_size(), resources.processes]
        seen["division"] = [resources.micro_batch_size, resources.accumulation]
        (folder / name / f"rank-{launching.rank()}.json").write_text(json.dumps(seen))


PACKED = ("full", "idlora")
"""Methods of the trainings with packed passes."""


def train_packed(folder: Path, base: ModelSpec, rows: list[dict]) -> None:
    """Train with packed passes, as on GPUs. The second rank starts with other weights and receives the first's."""
    torch.set_num_threads(1)
    quiet()
    trainer.PACKS_ON = ("cpu",)
    launching.join()
    seen: dict = {}
    plain, train = trainer.Stopwatch.on_log, trainer.StepTrainer.train

    def on_log(self, args, state, control, logs, **rest):
        plain(self, args, state, control, logs, **rest)
        seen["tokens"] = int(state.num_input_tokens_seen)

    def watched_train(self, **options):
        result = train(self, **options)
        seen["wrapper"] = type(self.model_wrapped).__name__
        return result

    trainer.Stopwatch.on_log, trainer.StepTrainer.train = on_log, watched_train
    for name in PACKED:
        tokenized = TokenizedSet(rows, [str(index) for index in range(len(rows))])
        model, tokenizer = build_base(base)
        model = build_adapted(model, METHODS[name], 0)
        if launching.rank() == 1:
            with torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    if tensor.requires_grad or (
                        tensor.is_floating_point() and not isinstance(tensor, torch.nn.Parameter)
                    ):
                        tensor += 1
        resources = trainer.train(
            model=model, tokenizer=tokenizer, tokenized=tokenized, spec=schedule(micro_batch_size=2), base=base,
            folder=folder / name,
        )  # fmt: skip
        seen |= {"passes": resources.passes, "accumulation": resources.accumulation}
        seen["weights"] = sum(float(each.double().sum()) for each in model.parameters() if each.requires_grad)
        (folder / name / f"rank-{launching.rank()}.json").write_text(json.dumps(seen))
