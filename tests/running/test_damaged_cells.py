"""A cell whose folder cannot be read is reported as failed; the other cells of its table run."""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.cells.cell import Cell, unfinished
from reproduction.commands.listing import show, standings
from reproduction.preflight import require
from reproduction.running import table
from reproduction.running.table import fill
from reproduction.system.atomic import ENDING, HOST


@pytest.fixture
def two(tiny: Cell, tmp_path: Path) -> list[Cell]:
    """Return a cell that never ran, and one whose status was overwritten."""
    waiting = dataclasses.replace(tiny, results_dir=tmp_path)
    damaged = dataclasses.replace(waiting, train=dataclasses.replace(waiting.train, seed=1))
    damaged.run.start(damaged.config)
    (damaged.run.folder / "status.json").write_bytes(b"\xff" * 30)
    return [waiting, damaged]


def test_a_table_is_filled_but_for_a_damaged_run_which_is_told(two, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(table, "run_jobs", lambda function, cells, **_: asked.extend(cells))
    left = tmp_path / "tiny" / "runs" / f".config.json.{HOST}-01234567{ENDING}"
    left.touch()
    require(two, scale="tiny", results_dir=tmp_path)
    outcome = fill(two, folder=tmp_path / "tiny", workers=1)
    assert asked == unfinished(two) == two[:1]
    assert not left.exists(), "a writer that died left it"
    assert list(outcome.failed) == [two[1].title]
    assert "status.json is not JSON" in outcome.failed[two[1].title]
    assert "delete its folder and run the cell again" in outcome.failed[two[1].title]


def test_the_list_says_which_run_is_damaged(two, capsys):
    first, second = standings([("table1", two)])
    assert (first.state, second.state) == ("never run", "damaged")
    show([first, second], Console(width=200))
    assert "status.json is not JSON" in capsys.readouterr().out.replace("\n", "")
