"""Estimates of a cell's GPU memory: counts on one layer, and comparison with measurements."""

import csv
import dataclasses
import functools
from pathlib import Path

import pytest

from idlora.tuners import REGISTRY
from reproduction.cells.compose import compose, plain
from reproduction.commands.counts import base_shape, count_on, method_at
from reproduction.paths import EXPERIMENTS
from reproduction.report import load_grid
from reproduction.training import MethodSpec, ModelSpec, TrainSpec
from reproduction.training.batches import Packing
from reproduction.training.memory import ENOUGH_TOKENS, Memory, estimate, fitting, inference, model_sizes, stage

METHODS = [method for method in load_grid(EXPERIMENTS / "table2").methods if method != "base"]
MEASURED = Path(__file__).resolve().parents[2] / "results" / "h200" / "training.csv"


@functools.cache
def deepspeed_config(launch: str) -> dict | None:
    return plain(compose("train", [f"launch={launch}", "scale=paper"]).launch)["deepspeed"]


def schedule(launch: str = "ddp", **changes) -> TrainSpec:
    """Return the paper's schedule under a launch of configs/launch."""
    settings = {"learning_rate": 1e-4, "epochs": 1, "batch_size": 32, "micro_batch_size": 4}
    settings |= {"gradient_checkpointing": True, "deepspeed": deepspeed_config(launch)}
    return TrainSpec(**(settings | changes))


def needed(method: str, train: TrainSpec, *, base: str = "llama3", length: int = 1024, processes: int = 2) -> Memory:
    return estimate(base_shape(base, "paper"), method_at(method, "paper"), train, length=length, processes=processes)


@pytest.mark.parametrize("method", [*METHODS, *(REGISTRY.keys() - {*METHODS}), "vera", "idlora_inner", "lora_fa"])
def test_what_is_trained_is_what_the_count_of_the_whole_model_says(method: str) -> None:
    model, spec = base_shape("llama3_2_3b", "paper"), method_at(method, "paper")
    shallow = dataclasses.replace(model, shape={**model.shape, "num_hidden_layers": 3})
    assert model_sizes(shallow, spec).trained == count_on(shallow, spec).parameters_trainable


def test_ranks_that_differ_by_layer_are_counted_on_all_layers() -> None:
    model, spec = base_shape("llama3_2_3b", "paper"), method_at("idlora", "paper")
    shallow = dataclasses.replace(model, shape={**model.shape, "num_hidden_layers": 3})
    patterns = {"rank_pattern": {r"layers\.2\..*": 8}}
    fewer = dataclasses.replace(spec, arguments={**spec.arguments, **patterns})
    found, plain = model_sizes(shallow, fewer), model_sizes(shallow, spec)
    assert found.trained == count_on(shallow, fewer).parameters_trainable < plain.trained
    assert dataclasses.replace(found, trained=plain.trained) == plain


def test_a_base_is_counted_on_one_of_its_layers(base: ModelSpec) -> None:
    model = base_shape("llama3", "paper")
    dora, lora, moelora = (model_sizes(model, method_at(name, "paper")) for name in ("dora", "lora", "moelora"))
    assert (lora.parameters, lora.layers, lora.hidden) == (8_030_261_248, 32, 4096)
    assert (dora.rescaled, dora.remade) == (dora.outputs, 4096 * 14336)
    assert (lora.rescaled, lora.remade, lora.inputs) == (0, 0, 6 * 4096 + 14336)
    assert moelora.inputs == 2 * lora.inputs  # a router beside A
    small = model_sizes(base, MethodSpec(name="full", label="full", kind="full"))  # a folder's config.json
    assert (small.layers, small.hidden, small.trained) == (2, 32, small.parameters)


def test_measured_peaks_of_two_gpus_are_met_within_a_tenth() -> None:
    """LLaMA-3-8B's shape, micro-batches of 4 × 512 tokens, DeepSpeed with its own bucket sizes."""
    for method, zero, measured in (("lora", 2, 19.1), ("fft", 3, 68.5)):
        train = schedule(deepspeed={"zero_optimization": {"stage": zero}})
        assert needed(method, train, length=512).allocated / 2**30 == pytest.approx(measured, rel=0.1), method


def test_every_measured_training_is_met_within_a_fifth() -> None:
    bases = [base_shape(base, "paper") for base in ("llama3", "mistral", "llama3_2_3b")]
    models = {base.label: base for base in bases}
    methods = {method_at(name, "paper").label: method_at(name, "paper") for name in METHODS}
    with MEASURED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        train = schedule(row["launch"], batch_size=int(row["batch_size"]))
        found = estimate(
            models[row["model"]], methods[row["method"]], train, length=int(row["length"]),
            processes=int(row["processes"]), micro_batch=int(row["micro_batch_size"]),
        )  # fmt: skip
        assert found.allocated == pytest.approx(int(row["peak_memory_bytes"]), rel=0.2), row


@pytest.mark.parametrize(
    ("method", "launch", "changes", "parts"),
    [
        ("lora", "ddp", {"gradient_checkpointing": False}, (16060522496, 1342177280, 335544320, 0, 15611494400)),
        ("dora", "zero2", {"liger_kernel": True}, (16060522496, 767361024, 341049344, 536870912, 2040528896)),
        ("fft", "zero3", {"liger_kernel": True}, (0, 64242089984, 1650673152, 536870912, 800000000)),
    ],
)
def test_estimates_are_what_they_were_when_they_were_measured(method: str, launch: str, changes, parts) -> None:
    base, packing = base_shape("llama3", "paper"), None
    if method == "lora":
        base, packing = dataclasses.replace(base, attention="eager"), Packing((100, 200, 300) * 40, 304, 32, True)
    train = schedule(launch, **changes)
    found = estimate(base, method_at(method, "paper"), train, length=512, processes=2, packing=packing)
    assert (found.weights, found.trained, found.buffers, found.checkpoints, found.activations) == parts


def test_sharding_divides_what_it_says(tmp_path: Path) -> None:
    two, four = (needed("fft", schedule("zero3"), processes=processes) for processes in (2, 4))
    assert two.trained == 8_030_261_248 * 16 // 2
    assert four.trained == two.trained // 2
    assert needed("lora", schedule("zero3")).weights == needed("lora", schedule()).weights // 2
    assert needed("lora", schedule("zero2")).weights == needed("lora", schedule()).weights
    assert needed("lora", schedule("zero2")).trained < needed("lora", schedule()).trained
    alone = needed("lora", schedule(), processes=1)
    assert (alone.trained, alone.buffers) == (16 * 83_886_080, 0)  # float32: weights, gradients, two moments
    assert [stage(schedule(launch)) for launch in ("single", "ddp", "zero2", "zero3")] == [0, 0, 2, 3]
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 0}}')
    in_file = needed("fft", schedule(deepspeed=tmp_path / "zero.json"))
    assert in_file.buffers < needed("fft", schedule(deepspeed={"zero_optimization": {"stage": 3}})).buffers
    parts = str(two)
    assert parts.startswith(f"{two.total / 1e9:.1f} GB (")
    assert "trained 64.2" in parts
    assert "weights" not in parts  # nothing is frozen


def test_the_micro_batch_is_the_largest_that_fits_and_checkpointing_comes_where_memory_is_short() -> None:
    model, method = base_shape("llama3", "paper"), method_at("lora", "paper")
    train = schedule(micro_batch_size="auto", gradient_checkpointing="auto")

    def chosen(gpu_bytes: float, spec: TrainSpec = train) -> tuple[int, bool] | None:
        found = fitting(model, method, spec, length=512, processes=1, gpu_bytes=int(gpu_bytes))
        return found and (found.micro_batch_size, found.gradient_checkpointing)

    def total(rows: int, checkpointing: bool) -> int:
        spec = dataclasses.replace(train, gradient_checkpointing=checkpointing)
        return estimate(model, method, spec, length=512, processes=1, micro_batch=rows).total

    enough = ENOUGH_TOKENS // 512
    assert total(enough, True) < total(enough, False)
    assert chosen(total(32, False)) == (32, False)
    assert chosen(total(32, False) - 1) == (16, False)
    assert chosen(total(enough, False)) == (enough, False)
    assert total(16, True) < total(enough, False) - 1 < total(32, True)
    assert chosen(total(enough, False) - 1) == (16, True)
    assert chosen(total(1, True)) == (1, True)
    assert chosen(total(1, True) - 1) is None
    own = schedule(batch_size=24, micro_batch_size=9, gradient_checkpointing=True)
    assert chosen(80e9, own) == (8, True)  # 9 does not divide the batch
    assert chosen(total(4, True), own) == (4, True)
    small = schedule(batch_size=2, micro_batch_size="auto", gradient_checkpointing="auto")
    assert chosen(80e9, small) == (2, False)  # there are no more tokens


def test_decoding_holds_the_weights_and_a_cache_that_grows_with_the_answers() -> None:
    model, method = base_shape("llama3", "paper"), method_at("base", "paper")
    few, many = (inference(model, method, answers=size, length=2048, read=1024) for size in (8, 16))
    assert few.weights == 8_030_261_248 * 2
    assert many.buffers == 2 * few.buffers == 16 * 2048 * 32 * 2 * 8 * 128 * 2
    short, long = (inference(model, method, answers=8, length=0, read=tokens) for tokens in (1024, 2048))
    assert (short.buffers, long.total > short.total) == (0, True)
