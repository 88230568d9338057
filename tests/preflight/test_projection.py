"""Hours on GPUs that are not here: from what was measured, named with its card, and nothing where nothing was."""

import copy
import csv
import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.data.catalogue import CHARACTERS_A_TOKEN
from reproduction.preflight.probe import items_of, text_of
from reproduction.preflight.projection import (
    TOTAL,
    measured_here,
    project,
    read_measured,
    show,
    sources,
    tokens_of,
)  # fmt: skip
from reproduction.report.speed import write_speed

TRAINING = {
    "model": "LLaMA-3-8B", "method": "LoRA", "launch": "ddp", "processes": 2, "tokens_per_second": 10_000,
    "peak_memory_bytes": 30e9, "selection_seconds": 0, "device": "A card",
}  # fmt: skip
ANSWERED = {
    "model": "LLaMA-3-8B", "benchmark": "gsm8k", "protocol": "0shot", "weights": "random", "items": 100,
    "answers": 100, "seconds": 9.0, "prefill_seconds": 2.0, "decode_seconds": 8.0, "generated_tokens": 1000,
    "gpu_bytes": 40e9, "device": "A card",
}  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cell]:
    """Cells at the paper's scale, by method."""
    results = tmp_path_factory.mktemp("results")

    def cell(method: str, experiment: str = "gsm8k_llama3") -> Cell:
        asked = [f"results_dir={results}", "eval=gsm8k"]
        return compose_cell(experiment, method, scale="paper", seed=0, overrides=asked)

    found = {method: cell(method) for method in ("base", "lora", "lora_half", "dora", "idlora", "idlora_k6")}
    return found | {"mistral": cell("lora", "gsm8k_mistral")}


def measured(folder: Path, *training: dict, answered=(ANSWERED,), gpus: int = 2, memory_gb: float = 80):
    folder.mkdir(exist_ok=True)
    with (folder / "training.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TRAINING)
        writer.writeheader()
        writer.writerows(TRAINING | each for each in training)
    write_speed(answered, folder)
    return read_measured([folder], gpus=gpus, memory_gb=memory_gb)


def test_training_is_the_tokens_of_its_epochs_at_the_measured_rate_on_all_gpus(cells, tmp_path) -> None:
    found, cell = measured(tmp_path, {}, {"method": "ID-LoRA", "selection_seconds": 7}), cells["lora"]
    tokens = text_of(cell).characters / CHARACTERS_A_TOKEN["llama"]["gsm8k"]
    assert tokens_of(cell) == pytest.approx(tokens)
    assert tokens_of(cells["mistral"]) == pytest.approx(tokens * 3.47 / 2.83)
    assert found.training_seconds(cell) == pytest.approx(2 * tokens * cell.train.epochs / 10_000)
    chosen = found.training_seconds(cells["idlora"])
    assert chosen == pytest.approx(2 * (7 + tokens * cells["idlora"].train.epochs / 10_000))
    steps = dataclasses.replace(cell, train=dataclasses.replace(cell.train, max_steps=10))
    share = 10 * cell.train.batch_size / text_of(cell).rows
    assert found.training_seconds(steps) == pytest.approx(2 * tokens * share / 10_000)
    assert found.training_seconds(cells["base"]) == 0


def test_another_rank_or_number_of_clusters_takes_what_its_method_takes_and_another_method_nothing(
    cells, tmp_path
) -> None:
    found = measured(tmp_path, {}, {"method": "ID-LoRA", "tokens_per_second": 5_000})
    assert found.training_seconds(cells["lora_half"]) == found.training_seconds(cells["lora"])
    assert found.training_seconds(cells["idlora_k6"]) == pytest.approx(2 * found.training_seconds(cells["lora"]))
    assert found.training_seconds(cells["dora"]) is None
    own = measured(tmp_path, {}, {"method": cells["lora_half"].method.label, "tokens_per_second": 5_000})
    assert own.training_seconds(cells["lora_half"]) == pytest.approx(2 * own.training_seconds(cells["lora"]))
    assert found.training_seconds(cells["mistral"]) is None


def test_an_evaluation_is_its_items_and_tokens_at_the_measured_seconds_of_its_base(cells, tmp_path) -> None:
    found, (protocol,) = measured(tmp_path, {}), cells["lora"].protocols
    expected = items_of(cells["lora"], protocol) * (2 / 100 + 8 / 1000 * protocol.max_new_tokens)
    assert found.evaluation_seconds(cells["lora"], protocol) == pytest.approx(expected)
    three = copy.copy(protocol)
    object.__setattr__(three, "samples", 3)  # which this benchmark would not allow
    assert found.evaluation_seconds(cells["lora"], three) == pytest.approx(3 * expected)
    more = measured(tmp_path / "more", {}, answered=[ANSWERED | {"answers": 200}])
    halved = items_of(cells["lora"], protocol) * (2 / 200 + 8 / 1000 * protocol.max_new_tokens)
    assert more.evaluation_seconds(cells["lora"], protocol) == pytest.approx(halved)
    assert found.evaluation_seconds(cells["mistral"], protocol) is None


@pytest.mark.parametrize(
    ("training", "answered", "says"),
    [
        ({"peak_memory_bytes": 81e9}, {}, "training LLaMA-3-8B with LoRA took 81.0 GB on A card, and 80 GB"),
        ({}, {"gpu_bytes": 99e9}, "evaluating LLaMA-3-8B on gsm8k took 99.0 GB"),
        ({"processes": 1}, {}, None),
    ],
)
def test_what_took_more_memory_or_other_gpus_does_not_count(training, answered, says, cells, tmp_path) -> None:
    found, cell = measured(tmp_path, training, answered=[ANSWERED | answered]), cells["lora"]
    unknown = found.training_seconds(cell) is None or found.evaluation_seconds(cell, cell.protocols[0]) is None
    assert unknown
    assert [line for line in found.refused if says and says in line] or says is None


def test_of_several_folders_the_first_that_has_a_figure_counts(cells, tmp_path) -> None:
    measured(tmp_path / "b", {"tokens_per_second": 1}, {"method": "DoRA"})
    measured(tmp_path / "a", {})
    found = read_measured([tmp_path / "a", tmp_path / "b"], gpus=2, memory_gb=80)
    assert found.training["LLaMA-3-8B", "LoRA"]["tokens_per_second"] == "10000"
    assert found.training["LLaMA-3-8B", "DoRA"]["source"].endswith("b/training.csv")


def test_tables_share_their_runs_and_every_figure_is_told_with_its_card_and_file(cells, tmp_path) -> None:
    found = measured(tmp_path, {})
    asked = [cells["base"], cells["lora"], cells["mistral"]]
    one, two, total = shares = project({"one": asked[:2], "two": asked}, found)
    assert (one.waiting, two.waiting, total.waiting) == (2, 3, 3)
    assert one.missing == ()
    assert two.missing == total.missing
    assert len(two.missing) == 2  # Mistral: its training and its evaluation
    assert one.training == total.training > 0
    assert one.evaluation == total.evaluation > 0
    out = io.StringIO()
    show(shares, found, Console(file=out, width=140))
    assert TOTAL in out.getvalue()
    assert f"{(one.training + one.evaluation) / 2 / 3600:.1f}" in out.getvalue()
    lines = "\n".join(sources(asked, shares, found))
    assert f"training LLaMA-3-8B with LoRA: 10,000 tokens/s on 2 × A card (ddp; {tmp_path / 'training.csv'})" in lines
    assert "LLaMA-3-8B on gsm8k 0shot: 100 answers, prompts 2.0 s, new tokens 8.0 s on 1 × A card" in lines
    assert "training Mistral-7B with LoRA (1 cell)" in lines
    assert "evaluating Mistral-7B on gsm8k 0shot (1 cell)" in lines


def test_numbers_that_are_none_are_refused() -> None:
    for asked in ({"gpus": 0, "memory_gb": 80}, {"gpus": 2, "memory_gb": -1}, {"gpus": "two", "memory_gb": 80}):
        with pytest.raises(ConfigError, match="is none to plan for"):
            measured_here(None, **asked)


def test_the_committed_measurements_answer_a_plan_without_a_gpu(repository: Path) -> None:
    asked = ["scale=paper", "gpus=2", "memory_gb=80", "table=[table3,table7]", "allow_code_execution=true"]
    command = [sys.executable, "scripts/plan.py", *asked]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "h on 2 GPUs" in done.stdout
    assert "training LLaMA-3-8B with ID-LoRA: 13,866 tokens/s on 2 × NVIDIA H200 (ddp; results/h200/training.csv)" in (
        " ".join(done.stdout.split())
    )
    assert "disk: " in done.stdout
