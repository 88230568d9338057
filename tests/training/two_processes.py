"""What the ranks of `forks.together` do: each function is called in both of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from cells import METHODS, SHORT, run, schedule, watched

from reproduction.cli import quiet
from reproduction.data import TokenizedSet
from reproduction.training import ModelSpec, build_adapted, build_base, launching, trainer

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


PACKED = {name: (name, {"micro_batch_size": 2}) for name in ("full", "lora", "idlora", "moelora")}
"""name → (method, changes of the schedule) of the trainings on packed passes."""


def train_packed(folder: Path, base: ModelSpec, rows: list[dict]) -> None:
    """The same on packed passes, as on GPUs; the second rank begins with other weights, which are the first's then."""
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
    for name, (method, changes) in PACKED.items():
        tokenized = TokenizedSet(rows, [str(index) for index in range(len(rows))])
        model, tokenizer = build_base(base)
        model = build_adapted(model, METHODS[method], 0)
        if launching.rank() == 1:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter += 1
                for buffer in model.buffers():
                    if buffer.is_floating_point():
                        buffer += 1
        spec = schedule(**changes)
        resources = trainer.train(
            model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=folder / name
        )
        seen |= {"passes": resources.passes, "accumulation": resources.accumulation}
        seen["weights"] = sum(float(each.double().sum()) for each in model.parameters() if each.requires_grad)
        (folder / name / f"rank-{launching.rank()}.json").write_text(json.dumps(seen))


def agree(folder: Path) -> None:
    """Writes what the first rank said, which says True and then False, and the other the opposite."""
    launching.join()
    rank = launching.rank()
    said = [launching.from_first_rank(value) for value in ((True, False) if rank == 0 else (False, True))]
    (folder / f"said-{rank}").write_text(" ".join(map(str, said)))
