"""The memory that a cell takes of a GPU: counted on one layer, held against what was measured."""

import csv
import dataclasses
import functools
from pathlib import Path

import pytest

from reproduction.cells.compose import compose, plain
from reproduction.commands.counts import base_shape, count_on, method_at
from reproduction.training import MethodSpec, ModelSpec, TrainSpec
from reproduction.training.memory import BUSY, Memory, anatomy, estimate, fitting, inference, stage

GIB = 2**30
METHODS = ("fft", "lora", "dora", "hydralora", "moelora", "idlora")
MEASURED = Path(__file__).resolve().parents[2] / "results" / "h200" / "training.csv"


@functools.cache
def deepspeed_config(launch: str) -> dict | None:
    return plain(compose("train", [f"launch={launch}", "scale=paper"]).launch)["deepspeed"]


def schedule(launch: str = "ddp", **changes) -> TrainSpec:
    """The paper's schedule under a launch of configs/launch."""
    deepspeed = deepspeed_config(launch)
    settings = {
        "learning_rate": 1e-4,
        "epochs": 1,
        "batch_size": 32,
        "micro_batch_size": 4,
        "gradient_checkpointing": True,
    }
    return TrainSpec(**(settings | {"deepspeed": deepspeed} | changes))


def needed(method: str, train: TrainSpec, *, base: str = "llama3", length: int = 1024, processes: int = 2) -> Memory:
    return estimate(base_shape(base, "paper"), method_at(method, "paper"), train, length=length, processes=processes)


@pytest.mark.parametrize(("base", "parameters"), [("llama3", 8_030_261_248), ("mistral", 7_241_732_096)])
def test_a_base_is_counted_whole_on_one_of_its_layers(base: str, parameters: int) -> None:
    body = anatomy(base_shape(base, "paper"), method_at("lora", "paper"))
    assert (body.parameters, body.layers, body.hidden) == (parameters, 32, 4096)


@pytest.mark.parametrize("method", [*METHODS, "vera", "idlora_inner", "lora_fa"])
def test_what_is_trained_is_what_the_count_of_the_whole_model_says(method: str) -> None:
    model, spec = base_shape("llama3_2_3b", "paper"), method_at(method, "paper")
    shallow = dataclasses.replace(model, shape={**model.shape, "num_hidden_layers": 3})
    assert anatomy(shallow, spec).trained == count_on(shallow, spec).parameters_trainable


def test_a_method_that_rescales_rows_is_known_by_its_vector() -> None:
    model = base_shape("llama3", "paper")
    dora, lora = (anatomy(model, method_at(name, "paper")) for name in ("dora", "lora"))
    assert (dora.rescaled, dora.remade) == (dora.outputs, 4096 * 14336)
    assert (lora.rescaled, lora.remade) == (0, 0)
    assert lora.inputs == 6 * 4096 + 14336
    assert anatomy(model, method_at("moelora", "paper")).inputs == 2 * lora.inputs  # a router beside A


def test_a_folder_gives_its_shape_by_itself(base: ModelSpec) -> None:
    body = anatomy(base, MethodSpec(name="full", label="full", kind="full"))
    assert (body.layers, body.hidden, body.trained) == (2, 32, body.parameters)


def test_measured_peaks_of_two_gpus_are_met_within_a_tenth() -> None:
    """LLaMA-3-8B's shape, micro-batches of 4 × 512 tokens, DeepSpeed with its own bucket sizes."""
    for method, zero, measured in (("lora", 2, 19.1), ("fft", 3, 68.5)):
        train = schedule(deepspeed={"zero_optimization": {"stage": zero}})
        assert needed(method, train, length=512).allocated / GIB == pytest.approx(measured, rel=0.1), method


@pytest.mark.skipif(
    not MEASURED.is_file(), reason="no training was measured on a GPU: results/h200/training.csv is not there"
)
def test_every_measured_training_is_met_within_a_fifth() -> None:
    models = {
        base_shape(base, "paper").label: base_shape(base, "paper") for base in ("llama3", "mistral", "llama3_2_3b")
    }
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


def test_every_method_fits_two_gpus_of_80_gb_at_sequences_of_1024() -> None:
    for method in METHODS:
        assert needed(method, schedule("zero3" if method == "fft" else "ddp")).total < 80e9, method


def test_the_peak_grows_with_the_tokens_and_shrinks_with_what_saves_memory() -> None:
    plain_run = needed("lora", schedule()).total
    assert needed("lora", schedule(micro_batch_size=8)).total > plain_run
    assert needed("lora", schedule(), length=2048).total > plain_run
    assert needed("lora", schedule(gradient_checkpointing=False)).total > 2 * plain_run
    assert needed("lora", schedule(liger_kernel=True)).total < plain_run
    assert needed("dora", schedule(liger_kernel=True)).total > needed("lora", schedule(liger_kernel=True)).total
    assert needed("moelora", schedule(liger_kernel=True)).total > needed("lora", schedule(liger_kernel=True)).total
    eager = dataclasses.replace(base_shape("llama3", "paper"), attention="eager")
    long = {"length": 4096, "processes": 2}
    squares = estimate(eager, method_at("lora", "paper"), schedule(liger_kernel=True), **long).total
    assert squares > needed("lora", schedule(liger_kernel=True), length=4096).total + 10e9


def test_sharding_divides_what_it_says() -> None:
    two, four = (needed("fft", schedule("zero3"), processes=processes) for processes in (2, 4))
    assert two.trained == 8_030_261_248 * 16 // 2
    assert four.trained == two.trained // 2
    assert needed("lora", schedule("zero3")).weights == needed("lora", schedule()).weights // 2
    assert needed("lora", schedule("zero2")).weights == needed("lora", schedule()).weights
    assert needed("lora", schedule("zero2")).trained < needed("lora", schedule()).trained
    alone = needed("lora", schedule(), processes=1)
    assert (alone.trained, alone.buffers) == (16 * 83_886_080, 0)  # float32: weights, gradients, two moments
    assert [stage(schedule(launch)) for launch in ("single", "ddp", "zero2", "zero3")] == [0, 0, 2, 3]


def test_a_deepspeed_config_in_a_file_counts_as_one_in_the_config(tmp_path: Path) -> None:
    path = tmp_path / "zero.json"
    path.write_text('{"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 0}}')
    assert stage(schedule(deepspeed=path)) == 3
    assert (
        needed("fft", schedule(deepspeed=path)).buffers
        < needed("fft", schedule(deepspeed={"zero_optimization": {"stage": 3}})).buffers
    )


def test_the_micro_batch_is_the_largest_that_fits_and_divides_the_share() -> None:
    model, method, train = (
        base_shape("llama3", "paper"),
        method_at("lora", "paper"),
        schedule(batch_size=24, micro_batch_size=8),
    )

    def rows(gpu_bytes: float) -> int | None:
        found = fitting(model, method, train, length=1024, processes=2, gpu_bytes=int(gpu_bytes))
        return found and found.micro_batch_size

    def total(rows: int) -> int:
        return estimate(model, method, train, length=1024, processes=2, micro_batch=rows).total

    assert rows(80e9) == 6  # of a share of 12: 8 and 7 do not divide it
    assert rows(total(4)) == 4
    assert rows(total(4) - 1) == 3
    assert rows(total(1)) == 1
    assert rows(total(1) - 1) is None


def test_what_is_auto_is_all_rows_without_checkpointing_until_memory_is_short() -> None:
    model, method = base_shape("llama3", "paper"), method_at("lora", "paper")
    train = schedule(micro_batch_size="auto", gradient_checkpointing="auto")

    def chosen(gpu_bytes: float) -> tuple[int, bool] | None:
        found = fitting(model, method, train, length=512, processes=1, gpu_bytes=int(gpu_bytes))
        return found and (found.micro_batch_size, found.gradient_checkpointing)

    def total(rows: int, checkpointing: bool) -> int:
        spec = dataclasses.replace(train, gradient_checkpointing=checkpointing)
        return estimate(model, method, spec, length=512, processes=1, micro_batch=rows).total

    enough = BUSY // 512
    assert total(enough, True) < total(enough, False)
    assert chosen(total(32, False)) == (32, False)
    assert chosen(total(32, False) - 1) == (16, False)
    assert chosen(total(enough, False)) == (enough, False)
    assert total(16, True) < total(enough, False) - 1 < total(32, True)
    assert chosen(total(enough, False) - 1) == (16, True)
    assert chosen(total(1, True) - 1) is None
    assert schedule(micro_batch_size="auto", batch_size=24).division(2) == (12, 1)
    small = schedule(batch_size=2, micro_batch_size="auto", gradient_checkpointing="auto")
    found = fitting(model, method, small, length=512, processes=1, gpu_bytes=80 * 10**9)
    assert (found.micro_batch_size, found.gradient_checkpointing) == (2, False)  # there are no more tokens to have


def test_decoding_holds_the_weights_and_a_cache_that_grows_with_the_answers() -> None:
    model, method = base_shape("llama3", "paper"), method_at("base", "paper")
    few, many = (inference(model, method, answers=size, length=2048, read=1024) for size in (8, 16))
    assert few.weights == 8_030_261_248 * 2
    assert many.buffers == 2 * few.buffers == 16 * 2048 * 32 * 2 * 8 * 128 * 2
    assert inference(model, method, answers=8, length=0, read=2048).buffers == 0
    assert (
        inference(model, method, answers=8, length=0, read=2048).total
        > inference(model, method, answers=8, length=0, read=1024).total
    )


def test_the_estimate_says_its_parts() -> None:
    said = str(needed("fft", schedule("zero3")))
    assert said.startswith(f"{needed('fft', schedule('zero3')).total / 1e9:.1f} GB (")
    assert "trained 64.2" in said
    assert "weights" not in said  # nothing is frozen
