"""What tables will take: projected from a probe that is run once, told without one where a GPU is missing."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.sizes import sort_of
from reproduction.commands.tables import Request, chosen_cells, plan_all
from reproduction.preflight.plan import TOTAL, disk_lines, shares, show, unmeasured
from reproduction.preflight.probe import FILE, Probe, Text, items_of, probes, text_of


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


def cell_of(results: Path, experiment: str, method: str, *, scale: str = "tiny", more=()) -> Cell:
    rate = ["train.learning_rate=0.01"] if scale == "tiny" else []
    return compose_cell(experiment, method, scale=scale, seed=0, overrides=[f"results_dir={results}", *rate, *more])


@pytest.fixture(scope="module")
def cell(results: Path) -> Cell:
    return cell_of(results, "gsm8k_llama3", "lora", more=["eval=gsm8k"])


def printed(found) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=120))
    return out.getvalue()


def test_a_text_is_counted_where_it_lies_and_known_of_the_hubs_sets(results: Path, cell: Cell) -> None:
    here = text_of(cell)
    assert here.rows == 0.9 * 1280  # the rest is held out
    assert 100 < here.characters / here.rows < 400
    mixture = text_of(cell_of(results, "multitask_llama3", "lora", scale="paper"))
    assert mixture.rows == 52_002 + 7_473 + 20_022 // 2
    assert mixture.characters == pytest.approx(52_002 * 464 + 7_473 * 619 + 10_011 * 405)
    cut = dataclasses.replace(cell, data=dataclasses.replace(cell.data, limit=128, validation_rows=10))
    assert text_of(cut).rows == 128
    assert text_of(cut).characters == pytest.approx(here.characters / 9)
    (protocol,) = cell.protocols
    seven = dataclasses.replace(protocol, limit=7)
    assert (items_of(cell, protocol), items_of(cell, seven)) == (180, 7)
    hub = dataclasses.replace(cell, data_root=None)
    assert (items_of(hub, protocol), items_of(hub, seven)) == (1319, 7)
    measured = {each.name: each for each in cell_of(results, "gsm8k_llama3", "lora").protocols}
    assert items_of(cell, measured["gsm8k"]) == pytest.approx(128, abs=20)
    assert (items_of(hub, measured["gsm8k"]), items_of(hub, measured["gsm8k_test"])) == (747, 1319)


def test_training_is_projected_by_steps_or_by_epochs_over_the_cells_own_text(cell: Cell) -> None:
    own = text_of(cell)
    probe = Probe(
        text=Text(own.rows, own.characters / 2), row=0.1, rows=1000, once=5.0
    )  # measured on a text half as long
    steps = dataclasses.replace(cell, train=dataclasses.replace(cell.train, max_steps=30, batch_size=8))
    assert probe.training(steps) == pytest.approx(5 + 30 * 8 * 0.1 * 2)
    packed = dataclasses.replace(steps, data=dataclasses.replace(cell.data, packing=True))
    assert probe.training(packed) == pytest.approx(5 + 30 * 8 * 0.1)
    epochs = dataclasses.replace(cell, train=dataclasses.replace(cell.train, max_steps=None, epochs=3))
    assert probe.training(epochs) == pytest.approx(5 + 3 * 1000 * 0.1 * 2)
    base = dataclasses.replace(cell, method=dataclasses.replace(cell.method, kind="none", peft_type=None, arguments={}))
    assert probe.training(base) == 0


def test_an_evaluation_is_projected_by_its_items_samples_and_tokens(cell: Cell) -> None:
    (protocol,) = cell.protocols
    probe = Probe(text=Text(1, 1.0), answers={(protocol.benchmark, protocol.name): (0.5, 0.01)})
    assert probe.evaluation(cell) == pytest.approx(180 * (0.5 + 0.01 * protocol.max_new_tokens))


def test_a_probe_is_run_once_and_its_figures_are_kept(results: Path, cell: Cell) -> None:
    found = probes([cell], results=results / "tiny", mode="kept")
    assert list(found) == [sort_of(cell)] == ["pebble/peft/LORA"]
    probe = found[sort_of(cell)]
    assert probe.failed is None
    assert probe.row > 0
    assert probe.rows == pytest.approx(0.9 * 1280, abs=20)
    assert all(seconds > 0 for seconds in probe.answers["gsm8k", "0shot"])
    kept = json.loads((results / "tiny" / FILE).read_text())
    assert kept["device"] == "cpu"
    assert [path.name for path in (results / "tiny").iterdir() if path.name.startswith(".probe")] == []
    assert not cell.run.folder.exists()
    other_rank = cell_of(results, "gsm8k_llama3", "lora_half", more=["eval=gsm8k"])
    before = (results / "tiny" / FILE).stat().st_mtime_ns
    assert probes([cell, other_rank], results=results / "tiny", mode="kept") == found
    assert (results / "tiny" / FILE).stat().st_mtime_ns == before
    said = printed(shares({"one": [cell], "two": [cell, other_rank]}, found))
    assert TOTAL in said
    assert "CPU-hours: training" in said
    assert "measured on cpu" in said


def test_what_fails_in_a_probe_is_told_and_leaves_its_cells_without_hours(results: Path, cell: Cell) -> None:
    failed = {sort_of(cell): Probe(text=Text(1, 1.0), failed="OutOfMemory: too large")}
    (share,) = shares({"one": [cell]}, failed)
    assert (share.waiting, share.unknown, share.seconds) == (1, 1, 0)
    assert "—" in printed([share])
    assert unmeasured([cell], failed) == ["not measured: pebble/peft/LORA: OutOfMemory: too large"]


def test_a_run_that_tables_share_counts_once_in_all(cell: Cell) -> None:
    probe = Probe(text=text_of(cell), row=0.1, rows=100, answers={("gsm8k", "0shot"): (0.1, 0.1)})
    one, two, total = shares({"one": [cell], "two": [cell]}, {sort_of(cell): probe})
    assert one.seconds == two.seconds == total.seconds > 0
    assert (total.cells, total.waiting, total.unknown) == (1, 1, 0)


def test_without_a_gpu_the_papers_scale_has_cells_and_disk_and_no_hours(results: Path) -> None:
    values = plain(
        compose("plan", ["scale=paper", "table=[table3,table7]", f"results_dir={results}", "methods=[base,lora]"])
    )
    planned = plan_all(Request.from_config(values))
    tables = chosen_cells(planned, values)
    cells = [each for table in tables.values() for each in table]
    assert [len(table) for table in tables.values()] == [2, 2]
    figures = probes(cells, results=results / "paper", mode="kept")
    assert figures == {}
    assert unmeasured(cells, figures) == ["hours need a GPU: 4 cells have weights in bfloat16"]
    assert not (results / "paper" / FILE).exists()
    lines = disk_lines(cells, results_dir=results)
    assert any("the model meta-llama/Llama-3.2-3B" in line and "6.4 GB" in line for line in lines)
    assert "are downloads" in lines[0]
    (told,) = disk_lines([dataclasses.replace(cells[0], model=None)], results_dir=results)
    assert told.startswith("disk: this could not be checked (")


def test_plans_of_many_requests_are_those_of_each(results: Path) -> None:
    values = plain(compose("plan", ["scale=tiny", "table=[table3]", f"results_dir={results}"]))
    (request,) = Request.from_config(values)
    assert plan_all([request]) == [(request, request.plan())]


def test_a_mode_that_is_none_is_refused(results: Path, cell: Cell) -> None:
    assert probes([cell], results=results / "elsewhere", mode="none") == {}
    with pytest.raises(ConfigError, match="probe=always is no way to get figures: choose kept, fresh, none"):
        probes([cell], results=results, mode="always")
