"""Projected costs of tables, from a probe of this machine or from measurements of other GPUs."""

import copy
import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.sizes import sort_of
from reproduction.commands.tables import Request, chosen_cells, plan_all
from reproduction.data.catalogue import CHARACTERS_A_TOKEN
from reproduction.preflight.measurements import measured_here, read_measured
from reproduction.preflight.plan import TOTAL, disk_lines, show, show_probed, sources, table_hours, unmeasured
from reproduction.preflight.probe import FILE, Probe, ProbedSpeeds, probes
from reproduction.preflight.workload import items_of, text_of, tokens_of
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
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


def cell_of(results: Path, experiment: str, method: str, *, scale: str = "tiny", more=("eval=gsm8k",)) -> Cell:
    rate = ["train.learning_rate=0.01"] if scale == "tiny" else []
    return compose_cell(experiment, method, scale=scale, seed=0, overrides=[f"results_dir={results}", *rate, *more])


@pytest.fixture(scope="module")
def cell(results: Path) -> Cell:
    return cell_of(results, "gsm8k_llama3", "lora")


@pytest.fixture(scope="module")
def cells(results: Path) -> dict[str, Cell]:
    """Return cells at the paper's scale, by method."""
    methods = ("base", "lora", "lora_half", "dora", "idlora", "idlora_k6")
    found = {method: cell_of(results, "gsm8k_llama3", method, scale="paper") for method in methods}
    return found | {"mistral": cell_of(results, "gsm8k_mistral", "lora", scale="paper")}


def measured(folder: Path, *training: dict, answered=(ANSWERED,)):
    folder.mkdir(exist_ok=True)
    with (folder / "training.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TRAINING)
        writer.writeheader()
        writer.writerows(TRAINING | each for each in training)
    write_speed(answered, folder)
    return read_measured([folder], gpus=2, memory_gb=80)


def test_a_text_is_counted_where_it_lies_and_known_of_the_hubs_sets(results: Path, cell: Cell) -> None:
    here = text_of(cell)
    assert here.rows == 0.9 * 1280  # the rest is held out
    assert 100 < here.characters / here.rows < 400
    mixture = text_of(cell_of(results, "multitask_llama3", "lora", scale="paper", more=()))
    assert mixture.rows == 52_002 + 7_473 + 20_022 // 2
    assert mixture.characters == pytest.approx(52_002 * 464 + 7_473 * 619 + 10_011 * 405)
    cut = text_of(dataclasses.replace(cell, data=dataclasses.replace(cell.data, limit=128, validation_rows=10)))
    assert (cut.rows, cut.characters) == (128, pytest.approx(here.characters / 9))
    (protocol,) = cell.protocols
    seven, hub = dataclasses.replace(protocol, limit=7), dataclasses.replace(cell, data_root=None)
    assert (items_of(cell, protocol), items_of(cell, seven)) == (180, 7)
    assert (items_of(hub, protocol), items_of(hub, seven)) == (1319, 7)
    held_out = {each.name: each for each in cell_of(results, "gsm8k_llama3", "lora", more=()).protocols}
    assert items_of(cell, held_out["gsm8k"]) == pytest.approx(128, abs=20)
    assert (items_of(hub, held_out["gsm8k"]), items_of(hub, held_out["gsm8k_test"])) == (747, 1319)


def test_a_probe_projects_steps_or_epochs_over_the_cells_own_text_and_all_answers(cell: Cell) -> None:
    own, (protocol,) = text_of(cell), cell.protocols
    half = (own.rows, own.characters / 2)  # the probe was measured on a text half as long
    probe = Probe(text=half, row=0.1, rows=1000, once=5.0, answers={"gsm8k 0shot": (0.5, 0.01)})
    speeds = ProbedSpeeds({sort_of(cell): probe})
    steps = dataclasses.replace(cell, train=dataclasses.replace(cell.train, max_steps=30, batch_size=8))
    assert speeds.training(steps) == pytest.approx(5 + 30 * 8 * 0.1 * 2)
    packed = dataclasses.replace(steps, data=dataclasses.replace(cell.data, packing=True))
    assert speeds.training(packed) == pytest.approx(5 + 30 * 8 * 0.1)
    epochs = dataclasses.replace(cell, train=dataclasses.replace(cell.train, max_steps=None, epochs=3))
    assert speeds.training(epochs) == pytest.approx(5 + 3 * 1000 * 0.1 * 2)
    base = dataclasses.replace(cell, method=dataclasses.replace(cell.method, kind="none", peft_type=None, arguments={}))
    assert speeds.training(base) == 0
    assert speeds.evaluation(cell, protocol) == pytest.approx(180 * (0.5 + 0.01 * protocol.max_new_tokens))
    one, two, total = table_hours({"one": [cell], "two": [cell]}, speeds)
    assert (
        one.seconds
        == two.seconds
        == total.seconds
        == pytest.approx(speeds.training(cell) + speeds.evaluation(cell, protocol))
    )
    assert (total.name, total.cells, total.waiting, total.unknown) == (TOTAL, 1, 1, 0)


def test_a_probe_is_run_once_and_its_figures_are_kept(results: Path, cell: Cell, capsys, jobs_here) -> None:
    found = probes([cell], results=results / "tiny", mode="kept")
    assert list(found) == [sort_of(cell)] == ["pebble/peft/LORA"]
    probe = found[sort_of(cell)]
    assert probe.failed is None
    assert probe.row > 0
    assert probe.rows == pytest.approx(0.9 * 1280, abs=20)
    assert all(seconds > 0 for seconds in probe.answers["gsm8k 0shot"])
    assert json.loads((results / "tiny" / FILE).read_text())["device"] == "cpu"
    assert not list((results / "tiny").glob(".probe*"))
    assert not cell.run.folder.exists()
    other_rank = cell_of(results, "gsm8k_llama3", "lora_half")
    before = (results / "tiny" / FILE).stat().st_mtime_ns
    again = probes([cell, other_rank], results=results / "tiny", mode="kept")
    assert json.dumps(dataclasses.asdict(again[sort_of(cell)])) == json.dumps(dataclasses.asdict(probe))
    assert (results / "tiny" / FILE).stat().st_mtime_ns == before
    show_probed(table_hours({"one": [cell], "two": [cell, other_rank]}, ProbedSpeeds(again)), Console(width=120))
    printed = capsys.readouterr().out
    assert "CPU-h: training" in printed
    assert "measured on cpu" in printed
    assert probes([cell], results=results / "elsewhere", mode="none") == {}
    with pytest.raises(ConfigError, match="probe=always"):
        probes([cell], results=results, mode="always")


def test_what_fails_in_a_probe_is_told_and_leaves_its_cells_without_hours(cell: Cell, capsys) -> None:
    failed = {sort_of(cell): Probe(text=(1, 1.0), failed="OutOfMemory: too large")}
    (hours,) = table_hours({"one": [cell]}, ProbedSpeeds(failed))
    assert (hours.waiting, hours.unknown, hours.seconds) == (1, 1, 0)
    show_probed([hours], Console(width=120))
    assert "—" in capsys.readouterr().out
    assert unmeasured([cell], failed) == ["not measured: pebble/peft/LORA: OutOfMemory: too large"]


def test_without_a_gpu_the_papers_scale_has_cells_and_disk_and_no_hours(results: Path) -> None:
    asked = ["scale=paper", "table=[table3,table7]", f"results_dir={results}", "methods=[base,lora]"]
    values = plain(compose("plan", asked))
    planned = plan_all(requests := Request.from_config(values))
    assert [request for request, _ in planned] == requests
    tables = chosen_cells(planned, values)
    cells = [each for table in tables.values() for each in table]
    assert [len(table) for table in tables.values()] == [2, 2]
    figures = probes(cells, results=results / "paper", mode="kept")
    assert figures == {}
    assert unmeasured(cells, figures) == ["hours need a GPU: 4 cells have weights in bfloat16"]
    assert not (results / "paper" / FILE).exists()
    lines = disk_lines(cells, results_dir=results)
    assert any("the model meta-llama/Llama-3.2-3B" in line and "6.4 GB" in line for line in lines)
    (line,) = disk_lines([dataclasses.replace(cells[0], model=None)], results_dir=results)
    assert line.startswith("disk: this could not be checked (")


def test_measured_training_is_the_tokens_of_its_epochs_at_the_rate_of_its_method(cells, tmp_path) -> None:
    found, cell = measured(tmp_path, {}, {"method": "ID-LoRA", "selection_seconds": 7}), cells["lora"]
    tokens = text_of(cell).characters / CHARACTERS_A_TOKEN["llama"]["gsm8k"]
    assert tokens_of(cell) == pytest.approx(tokens)
    assert tokens_of(cells["mistral"]) == pytest.approx(tokens * 3.47 / 2.83)
    assert found.training(cell) == pytest.approx(2 * tokens * cell.train.epochs / 10_000)
    chosen = 2 * (7 + tokens * cells["idlora"].train.epochs / 10_000)
    assert found.training(cells["idlora"]) == found.training(cells["idlora_k6"]) == pytest.approx(chosen)
    steps = dataclasses.replace(cell, train=dataclasses.replace(cell.train, max_steps=10))
    share = 10 * cell.train.batch_size / text_of(cell).rows
    assert found.training(steps) == pytest.approx(2 * tokens * share / 10_000)
    assert found.training(cells["base"]) == 0
    assert found.training(cells["lora_half"]) == found.training(cell)  # another rank
    assert found.training(cells["dora"]) is found.training(cells["mistral"]) is None
    own = measured(tmp_path, {}, {"method": cells["lora_half"].method.label, "tokens_per_second": 5_000})
    assert own.training(cells["lora_half"]) == pytest.approx(2 * own.training(cell))


def test_a_measured_evaluation_is_its_items_and_tokens_at_the_seconds_of_its_base(cells, tmp_path) -> None:
    found, (protocol,) = measured(tmp_path, {}), cells["lora"].protocols
    expected = items_of(cells["lora"], protocol) * (2 / 100 + 8 / 1000 * protocol.max_new_tokens)
    assert found.evaluation(cells["lora"], protocol) == pytest.approx(expected)
    three = copy.copy(protocol)
    object.__setattr__(three, "samples", 3)  # which this benchmark would not allow
    assert found.evaluation(cells["lora"], three) == pytest.approx(3 * expected)
    assert found.evaluation(cells["mistral"], protocol) is None


@pytest.mark.parametrize(
    ("training", "answered", "reason"),
    [({"peak_memory_bytes": 81e9}, {}, "took 81.0 GB"), ({}, {"gpu_bytes": 99e9}, "took 99.0 GB"),
     ({"processes": 1}, {}, None)],
)  # fmt: skip
def test_what_took_more_memory_or_other_gpus_does_not_count(training, answered, reason, cells, tmp_path) -> None:
    found, cell = measured(tmp_path, training, answered=[ANSWERED | answered]), cells["lora"]
    assert None in (found.training(cell), found.evaluation(cell, cell.protocols[0]))
    assert [reason in line for line in found.refused.values()] == [True] * (reason is not None)
    assert (reason or "without a measurement") in "\n".join(sources([cell], found))


def test_every_figure_is_told_with_its_card_and_file_and_the_first_folder_that_has_it(cells, tmp_path, capsys) -> None:
    measured(tmp_path / "b", {"tokens_per_second": 1}, {"method": "DoRA"})
    measured(tmp_path / "a", {})
    found = read_measured([tmp_path / "a", tmp_path / "b"], gpus=2, memory_gb=80)
    asked = [cells["base"], cells["lora"], cells["mistral"], cells["dora"]]
    one, two, total = hours = table_hours({"one": asked[:2], "two": asked}, found)
    assert (one.waiting, two.waiting, total.waiting) == (2, 4, 4)
    assert (one.unknown, two.unknown, total.unknown) == (0, 1, 1)
    show(hours, Console(width=140), device="GPU", devices=2)
    assert f"{one.seconds / 2 / 3600:.2f}" in capsys.readouterr().out
    lines = "\n".join(sources(asked, found))
    assert f"training LLaMA-3-8B with LoRA: 10,000 tokens/s on 2 × A card (ddp; {tmp_path / 'a/training.csv'})" in lines
    assert f"{tmp_path / 'b/training.csv'}" in lines  # DoRA's
    assert "LLaMA-3-8B on gsm8k 0shot: 100 answers, prompts 2.0 s, new tokens 8.0 s on 1 × A card" in lines
    assert "training Mistral-7B with LoRA (1 cell)" in lines
    assert "evaluating Mistral-7B on gsm8k 0shot (1 cell)" in lines


@pytest.mark.parametrize("folders", ["nowhere", ["results/h200", "nowhere"]])
def test_a_folder_without_measurements_is_refused(folders) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        measured_here(folders, gpus=2, memory_gb=80)


def test_the_committed_measurements_answer_a_plan_without_a_gpu(repository: Path, script, monkeypatch) -> None:
    monkeypatch.chdir(repository)
    asked = ["scale=paper", "gpus=2", "memory_gb=80", "table=table2", "methods=[idlora]", "allow_code_execution=true"]
    done = script("plan", *asked)
    assert done.returncode == 0, done.stderr
    assert "h on 2 GPUs" in done.stdout
    assert re.search(r"\nat least [\d.]+ hours on 2 GPUs of 80 GB: 2 of 2 trainings and \d+ of \d+ eval", done.stdout)
    line = "training LLaMA-3-8B with ID-LoRA: 13,866 tokens/s on 2 × NVIDIA H200 (ddp; results/h200/training.csv)"
    assert line in " ".join(done.stdout.split())
    assert "disk: " in done.stdout
