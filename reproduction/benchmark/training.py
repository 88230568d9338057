"""The trainer compared with a plain training loop on the same model, adapter, rows and precision.

Both train from the same weights with AdamW on the same examples, each in its own order. The lengths of the examples
are drawn from the distribution of the paper's multi-task mixture. `plain_loop` is the loop that a user would write.
"""

import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.data import TokenizedSet
from reproduction.data.tokenization import IGNORED
from reproduction.system.atomic import scratch_folder
from reproduction.training import MethodSpec, ModelSpec, TrainSpec, build_adapted, build_model, train
from reproduction.training.telemetry import WARMUP_STEPS

PLAIN, OURS, AGAIN = "plain loop", "trainer", "plain loop again"

LONGEST = 512
MEDIAN_LENGTH, SPREAD, RESPONSE = 96, 0.65, 0.56
"""Multi-task mixture under LLaMA-3's tokenizer: median tokens, spread of their logarithm, share of the response."""


@dataclass(frozen=True, kw_only=True)
class TrainerScenario:
    """The trainings of one comparison.

    Attributes:
        model: model with random weights.
        methods: tuning methods, trained one after another.
        steps: steps of the trainer; the plain loop takes `plain_steps`, or does not run if they are 0.
    """

    name: str
    model: ModelSpec
    methods: tuple[MethodSpec, ...]
    steps: int = 100
    plain_steps: int = 20
    train: TrainSpec

    def __post_init__(self) -> None:
        if min(self.steps, self.plain_steps or self.steps) < WARMUP_STEPS + 2:
            raise ValueError(
                f"{self.name} has steps={self.steps}, plain_steps={self.plain_steps}: the first {WARMUP_STEPS} are "
                f"warm-up, give {WARMUP_STEPS + 2} or more."
            )


@dataclass(frozen=True, kw_only=True)
class TrainerRow:
    """One training: seconds from the end of a step to the end of the next, after warm-up, and tokens per second.

    Tokens per second are the mean tokens of a step, without padding, over its median seconds.
    """

    scenario: str
    model: str
    method: str
    loop: str
    passes: str
    steps: int
    step_seconds_median: float
    step_seconds_iqr: float
    tokens_per_second: float
    ratio: float
    setup_seconds: float
    peak_memory_bytes: int | None


def run_scenario(scenario: TrainerScenario, tokenizer: PreTrainedTokenizerBase, device: str) -> Iterator[TrainerRow]:
    """Yield a scenario's rows: for each method the plain loop, the trainer, and the loop again, which shows the drift.

    `ratio` is tokens per second over those of the faster plain loop.
    """
    tokenized = drawn_examples(
        scenario.train.batch_size * scenario.steps,
        vocabulary=scenario.model.shape["vocab_size"],
        longest=LONGEST,
    )
    for method in scenario.methods:
        found = [
            measured(scenario, method, loop, tokenized=tokenized, tokenizer=tokenizer, device=device)
            for loop in ((PLAIN, OURS, AGAIN) if scenario.plain_steps else (OURS,))
        ]
        fastest = max((row.tokens_per_second for row in found if row.loop != OURS), default=math.nan)
        yield from (replace(row, ratio=row.tokens_per_second / fastest) for row in found)


def drawn_examples(count: int, *, vocabulary: int, longest: int) -> TokenizedSet:
    """Return examples of random tokens; the same arguments give the same examples."""
    draw, rows = random.Random(0), []
    for _ in range(count):
        length = min(longest, max(8, round(draw.lognormvariate(math.log(MEDIAN_LENGTH), SPREAD))))
        ids = [draw.randrange(3, vocabulary) for _ in range(length)]
        prompt = max(2, round(length * (1 - RESPONSE)))
        rows.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
    return TokenizedSet(rows=rows, ids=[str(index) for index in range(count)])


def plain_loop(
    model: PreTrainedModel | PeftModel, rows: list[dict[str, list[int]]], *, train: TrainSpec, steps: int
) -> Iterator[tuple[float, float]]:
    """Train as a user would without a trainer; yield (seconds, loss) of each step.

    All rows of a step are one pass padded to the longest, under bfloat16 autocast over a bfloat16 base, with AdamW.
    """
    device = next(model.parameters()).device
    halved = next(model.parameters()).dtype == torch.bfloat16
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=train.learning_rate, weight_decay=train.weight_decay)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(train.seed)).tolist()
    model.train()
    for step in range(steps):
        began = time.perf_counter()
        start = step * train.batch_size % len(rows)
        batch = [rows[index] for index in order[start : start + train.batch_size]]
        longest = max(len(row["input_ids"]) for row in batch)

        def padded(values: list[list[int]], padding: int, longest: int = longest) -> torch.Tensor:
            return torch.tensor([value + [padding] * (longest - len(value)) for value in values]).to(device)

        with torch.autocast(device.type, torch.bfloat16) if halved else nullcontext():
            loss = model(
                input_ids=padded([row["input_ids"] for row in batch], 0),
                attention_mask=padded([[1] * len(row["input_ids"]) for row in batch], 0),
                labels=padded([row["labels"] for row in batch], IGNORED),
                use_cache=False,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()
        yield time.perf_counter() - began, value


def measured(
    scenario: TrainerScenario,
    method: MethodSpec,
    loop: str,
    *,
    tokenized: TokenizedSet,
    tokenizer: PreTrainedTokenizerBase,
    device: str,
) -> TrainerRow:
    """Train a method with one of the loops and return its row, without the ratio."""
    spec = replace(scenario.train, max_steps=scenario.steps)
    with _model(scenario, method, device) as model:
        if loop == OURS:
            ends = []
            with scratch_folder() as folder:
                resources = train(
                    model=model,
                    tokenizer=tokenizer,
                    tokenized=tokenized,
                    spec=spec,
                    base=scenario.model,
                    folder=folder,
                    on_step=lambda *_: ends.append(time.perf_counter()),
                )
            seconds = [after - before for before, after in itertools.pairwise(ends)]
            passes, setup = resources.passes, resources.setup_seconds
        else:
            found = plain_loop(model, tokenized.rows, train=spec, steps=scenario.plain_steps)
            seconds, passes, setup = [each for each, _ in found], "padded", 0.0
        q1, median, q3 = statistics.quantiles(seconds[WARMUP_STEPS:], n=4, method="inclusive")
        tokens = sum(len(row["input_ids"]) for row in tokenized.rows) / len(tokenized) * scenario.train.batch_size
        return TrainerRow(
            scenario=scenario.name,
            model=scenario.model.label,
            method=method.label,
            loop=loop,
            passes=passes,
            steps=len(seconds),
            step_seconds_median=median,
            step_seconds_iqr=q3 - q1,
            tokens_per_second=tokens / median,
            ratio=math.nan,
            setup_seconds=setup,
            peak_memory_bytes=torch.cuda.max_memory_allocated() if device == "cuda" else None,
        )


@contextmanager
def _model(scenario: TrainerScenario, method: MethodSpec, device: str) -> Iterator[Any]:
    torch.manual_seed(scenario.train.seed)
    adapted = build_adapted(build_model(scenario.model, device), method, scenario.train.seed)
    adapted.to(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        yield adapted
    finally:
        adapted = None
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
