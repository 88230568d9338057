"""Folders of finished runs, written through the records API like real runs, with made-up scores."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reproduction.records import Run, find_runs, is_complete, run_name, write_items, write_json
from reproduction.records.archive import DECIMALS, pack
from reproduction.report import Grid, Table, gather, lay_out, load_grid
from reproduction.report.cells import Filled
from reproduction.report.rebuild import make_reference
from reproduction.report.reference import RECORDS, Made, write_reference

MODELS = {
    "tiny": {"llama3": ("pebble", "Pebble"), "mistral": ("cobble", "Cobble"), "llama3_2_3b": ("gravel", "Gravel")},
    "small": dict.fromkeys(
        ("llama3", "llama3_paper_rate", "llama3_full", "llama3_2_3b"), ("smollm2_135m", "SmolLM2-135M-Instruct")
    ),
    "paper": {
        "llama3": ("llama3_8b", "LLaMA-3-8B"),
        "mistral": ("mistral_7b", "Mistral-7B"),
        "llama3_2_3b": ("llama3_2_3b", "LLaMA-3.2-3B"),
    },
}
KINDS = {"base": "none", "fft": "full"}
TRAINABLE = {"base": 0, "fft": 1_300_000, "lora": 12_000, "dora": 12_600, "hydralora": 13_000, "idlora": 7_000}
RATES = {"base": 0.02, "fft": 0.8, "lora": 0.55, "dora": 0.6, "hydralora": 0.55, "idlora": 0.7}
SIZES = {"gsm8k": (60, 1), "humaneval": (40, 10), "hexphi": (50, 1), "hexphi_benign": (50, 1)}
SIZES |= {"mmlu": (80, 1), "commonsenseqa": (60, 1), "safety_prompts": (50, 1), "harmless_prompts": (50, 1)}
SCORES = {"gsm8k": ("strict", "flexible"), "humaneval": ("passed",), "hexphi": ("refusal",)}
SCORES |= {"hexphi_benign": ("refusal",), "mmlu": ("acc",), "commonsenseqa": ("acc",)}
SCORES |= {"safety_prompts": ("refusal",), "harmless_prompts": ("refusal",)}
UNITS = {"humaneval": "problem"} | {name: "prompt" for name, scores in SCORES.items() if scores == ("refusal",)}
DIGEST = "0badcafe"
HELDOUT = "heldout"
"""The benchmark whose sources are separate evaluations with `ROWS` rows each."""

ROWS = 70
LOSSES = {"base": 2.0, "fft": 0.9, "lora": 1.0, "dora": 1.01, "hydralora": 1.0, "idlora": 1.02}


class World:
    """A folder of runs. `run` adds one cell, `fill` a whole grid; scores are drawn from `RATES` with a fixed seed."""

    def __init__(self, root: Path, grid: Grid, scale: str = "tiny"):
        self.root, self.grid, self.scale = root, grid, scale

    def config(self, experiment: str, method: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
        data, base = experiment.split("_", 1)
        name, label = MODELS[self.scale][base]
        return {
            "experiment": experiment,
            "scale": self.scale,
            "seed": seed,
            "model": {"name": name, "label": label, "checksum": f"weights of {name}"},
            "method": {"name": method, "label": method.upper(), "kind": KINDS.get(method, "peft")},
            "data": {"name": data, "max_length": 256},
            "train": {"learning_rate": 1e-3, "epochs": 1},
        } | changes

    def run(
        self, experiment: str, method: str, *, seed: int = 0, benchmarks: Iterable[str] | None = None, **changes: Any
    ) -> Run:
        """Add a done run with its evaluations; an existing run (an untuned base) gets the missing evaluations."""
        config = self.config(experiment, method, seed, **changes)
        run = Run(self.root / run_name(config))
        if not run.done:
            run.start(config)
            trainable = TRAINABLE.get(method, 10_000)
            run.finish({
                "parameters_trainable": trainable,
                "parameters_router": 0,
                "parameters_total": 1_300_000 + (0 if method == "fft" else trainable),
                "frozen_copies": 48_000 if method == "idlora" else 0,
            })  # fmt: skip
        for benchmark in self.grid.benchmarks(experiment, self.scale) if benchmarks is None else benchmarks:
            if benchmark == HELDOUT:
                self.measure(run, experiment, method, seed)
            elif not is_complete(run.eval_folder(benchmark, DIGEST)):  # an untuned base is one run for all seeds
                self.evaluate(run, benchmark, self.draw(experiment, method, benchmark, seed))
        return run

    def measure(self, run: Run, experiment: str, method: str, seed: int) -> None:
        """Write the held-out losses of a cell that the grid's columns need."""
        columns = [each for each in self.grid.columns_at(self.scale) if each.benchmark == HELDOUT]
        own = [each for each in columns if any(self.grid.experiment(each, b) == experiment for b in self.grid.bases)]
        for source in dict.fromkeys(name for column in own for name in column.protocols_at(self.scale)):
            if not is_complete(run.eval_folder(HELDOUT, source)):
                rows = np.random.default_rng(sum(map(ord, source)))
                tokens, hard = rows.integers(5, 200, ROWS), rows.normal(0, 0.3, ROWS)
                key = [sum(map(ord, method + source)), 0 if method == "base" else seed]
                luck = np.random.default_rng(key).normal(0, 0.05, ROWS)
                nats = np.maximum(LOSSES.get(method, 1.03) + hard + luck, 0.01) * tokens
                self.record_losses(run, source, nats=nats, tokens=tokens)

    def record_losses(self, run: Run, source: str, *, nats: np.ndarray, tokens: np.ndarray) -> Path:
        """Write a finished evaluation of a source's held-out loss from rows' nats and tokens of four bytes."""
        folder, cut = run.eval_folder(HELDOUT, source), partial(round, ndigits=DECIMALS)
        records = [
            record(f"row/{item}", 0, {"nats_per_token": cut(loss / count), "bits_per_byte": cut(loss / count / 2.7726)})
            | {"raw": "", "weights": {"nats_per_token": int(count), "bits_per_byte": 4 * int(count)}, "nats": loss}
            for item, (loss, count) in enumerate(zip(nats.tolist(), tokens.tolist(), strict=True))
        ]
        protocol = {"protocol_version": 1, "name": source, "source": source}
        meta = {"benchmark": HELDOUT, "protocol": protocol, "unit": "row", "items": len(records), "samples": 1}
        write_json(folder / "meta.json", meta | {"data_digest": "d"})
        write_items(folder, records)
        return folder

    def draw(self, experiment: str, method: str, benchmark: str, seed: int = 0) -> np.ndarray:
        """Draw 0/1 (items, samples). All methods share an item's difficulty; the untuned base ignores the seed."""
        items, samples = SIZES[benchmark]
        difficulty = np.random.default_rng(len(experiment)).random((items, 1))
        key = [len(experiment), sum(map(ord, method + benchmark)), 0 if method == "base" else seed]
        luck = np.random.default_rng(key).random((items, samples))
        rate = 0.1 if benchmark in ("hexphi_benign", "harmless_prompts") else RATES.get(method, 0.6)
        return (0.5 * difficulty + 0.5 * luck < rate).astype(int)

    def evaluate(
        self,
        run: Run,
        benchmark: str,
        outcomes: np.ndarray,
        *,
        digest: str = DIGEST,
        shuffle: bool = False,
        edited: bool = False,
        **meta: Any,
    ) -> Path:
        """Write a finished evaluation with these outcomes (items, samples); ``edited`` alters its first item."""
        folder = run.eval_folder(benchmark, digest)
        items, samples = outcomes.shape
        records = [
            record(f"{benchmark}/{item}", sample, {name: int(outcomes[item, sample]) for name in SCORES[benchmark]})
            for item in range(items)
            for sample in range(samples)
        ]
        if edited:
            records[0]["item_hash"] = "hash of another text"
        if shuffle:
            np.random.default_rng(1).shuffle(records)
        announced = {
            "benchmark": benchmark,
            "protocol": {"protocol_version": 1, "name": "only"},
            "unit": UNITS.get(benchmark, "question"),
            "items": items,
            "samples": samples,
        }
        write_json(folder / "meta.json", announced | {"data_digest": "d"} | meta)
        write_items(folder, records)
        return folder

    def made(self, benchmarks: tuple[str, ...] | None = None) -> Made:
        """Return the inputs of the grid's table, of all benchmarks or a subset."""
        keys = self.grid.cells()
        names = {key: run_name(self.config(key[0], key[1], key[2])) for key in keys}
        evaluations = {
            (column.benchmark, protocol or "only"): f"{column.benchmark}-{protocol or DIGEST}"
            for column in self.grid.columns_at(self.scale)
            for protocol in column.protocols_at(self.scale)
            if benchmarks is None or column.benchmark in benchmarks
        }
        return Made(seeds=self.grid.seeds, runs=names, evaluations=evaluations, benchmarks=benchmarks)

    def gather(self, **changes: Any) -> Filled:
        """Gather the cells of the grid; ``changes`` override `made`."""
        made = dataclasses.replace(self.made(), **changes)
        return gather(self.grid, self.root, scale=self.scale, expected=made.runs, evaluations=made.evaluations)

    def table(self, **changes: Any) -> Table:
        return lay_out(self.gather(**changes))

    def keep(self, results: Path, experiments: Path, benchmarks: tuple[str, ...] | None = None) -> Path:
        """Make the reference of this table under ``results``; returns its folder."""
        made = self.made(benchmarks)

        def put(folder: Path) -> None:
            pack(find_runs(self.root), folder / RECORDS, evaluations=made.evaluations.values())
            write_reference(folder, {self.grid.table: made})

        return make_reference(results, experiments, scale=self.scale, put=put)

    def fill(self, *, skip: Iterable[tuple[str, str]] = ()) -> "World":
        for experiment, method, seed in self.grid.cells():
            if (experiment, method) not in skip:
                self.run(experiment, method, seed=seed)
        return self


def record(item: str, sample: int, scores: dict[str, float]) -> dict[str, Any]:
    """Return one item record with all its fields."""
    return {
        "item_id": item,
        "item_hash": f"hash of {item}",
        "prompt_hash": f"prompt of {item}",
        "sample": sample,
        "raw": "text",
        "parsed": "1",
        "gold": "1",
        "scores": scores,
    }


@pytest.fixture(scope="session")
def whole(repository: Path) -> Grid:
    """The project's own Table 1, of all scales."""
    return load_grid(repository / "experiments" / "table1")


@pytest.fixture(scope="session")
def grid(whole: Grid) -> Grid:
    """Table 1 with a block for each of its two bases, like the paper's."""
    return whole.at("paper")


@pytest.fixture(scope="session")
def few(grid: Grid) -> Grid:
    """A small part of Table 1: one base, three methods, all columns."""
    return dataclasses.replace(
        grid,
        bases={"llama3": grid.bases["llama3"]},
        experiments=tuple(name for name in grid.experiments if name.endswith("llama3")),
        methods=("base", "lora", "idlora"),
    )


@pytest.fixture
def world(tmp_path: Path, grid: Grid) -> Callable[..., World]:
    """Make a `World` in the test's own folder: world(), world(scale="paper"), world(grid=…)."""

    def make(*, scale: str = "tiny", grid: Grid = grid, name: str = "runs") -> World:
        return World(tmp_path / name, grid, scale)

    return make


@pytest.fixture
def problems(world: Callable[..., World], few: Grid) -> Callable[..., World]:
    """Make a world of word problems only, with outcomes (n,) or (seeds, n) by method."""

    def make(name: str = "problems", **outcomes: Any) -> World:
        by_seed = {method: np.atleast_2d(values) for method, values in outcomes.items()}
        seeds = tuple(range(max(map(len, by_seed.values()))))
        own = {"columns": few.columns[:1], "experiments": ("gsm8k_llama3",), "seeds": seeds}
        made = world(grid=dataclasses.replace(few, **own), name=name)
        for method, values in by_seed.items():
            for seed, row in enumerate(values):
                made.evaluate(made.run("gsm8k_llama3", method, seed=seed, benchmarks=[]), "gsm8k", row[:, None])
        return made

    return make


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, grid: Grid) -> World:
    """Every cell of Table 1 at the tiny scale; read only."""
    return World(tmp_path_factory.mktemp("full") / "runs", grid).fill()


@pytest.fixture(scope="session")
def table(full: World) -> Table:
    """Table 1 of `full`."""
    return full.table()
