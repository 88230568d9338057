"""Rebuilding the committed reference from its records, byte for byte; the old one stays until the new is whole."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_audit_claims import WITHOUT_TORCH

from reproduction.records import RecordError
from reproduction.report import collect_metrics, write_significance, write_table
from reproduction.report.rebuild import make_reference, rebuild
from reproduction.report.reference import read_reference, reference_folder

BESIDE = ("counts", "theory", "h200")
"""Results without a scale."""


@pytest.fixture(scope="module")
def results(repository: Path, full, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/ with a reference of one benchmark of Table 1, and results without a scale; read only."""
    results = tmp_path_factory.mktemp("kept") / "results"
    results.mkdir()
    for name in BESIDE:
        (results / name).symlink_to(repository / "results" / name)
    full.keep(results, repository / "experiments", benchmarks=("gsm8k",))
    return results


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    return shutil.copytree(results, tmp_path / "results", symlinks=True)


def differing(one: Path, other: Path) -> list[str]:
    """Return the files that differ between the folders or exist in only one."""
    names = {path.relative_to(root).as_posix() for root in (one, other) for path in root.rglob("*") if path.is_file()}
    _, unlike, absent = filecmp.cmpfiles(one, other, sorted(names), shallow=False)
    return unlike + absent


def test_it_has_the_columns_that_were_run_and_gives_the_same_bytes_again(repository, copy, tmp_path):
    folder = reference_folder(copy, "tiny")
    made = {"metrics.csv", "provenance.json", "report.html", "reference.json", "tables", "significance", "figures"}
    assert {path.name for path in folder.iterdir()} == made | {"records"}
    header = (folder / "tables" / "table1.csv").read_text().splitlines()[0]
    assert "gsm8k_ci_low" in header
    assert "pass@1" not in header
    assert not list((folder / "records").glob("humaneval*"))
    note = "Not run for this table: humaneval, hexphi, hexphi_benign, heldout."
    assert note in (folder / "tables" / "table1.md").read_text()
    page = (folder / "report.html").read_text()
    assert "results/reference/tiny/significance/table1.csv" in page
    assert 'id="table2"' not in page, "a table that the reference does not have"
    before = shutil.copytree(folder, tmp_path / "before")
    rebuild(copy, repository / "experiments", scale="tiny")
    assert not differing(before, folder)


def test_its_tables_and_metrics_are_those_of_the_runs_themselves(results, full, tmp_path):
    folder = reference_folder(results, "tiny")
    table = type(full)(full.root, full.made(("gsm8k",)).cut(full.grid, scale="tiny")).table()
    write_table(table, tmp_path / "tables")
    write_significance(table.filled, tmp_path / "significance" / "table1.csv", table.comparisons)
    for name in ("tables", "significance"):
        assert not differing(tmp_path / name, folder / name)
    collect_metrics(full.root, tmp_path / "metrics.csv", scale="tiny")
    ours, theirs = (
        {line for line in (place / "metrics.csv").read_text().splitlines() if ",gsm8k-" in line}
        for place in (folder, tmp_path)
    )
    assert ours == theirs


@pytest.mark.parametrize("scale", ["tiny", "small"])
def test_the_committed_reference_is_made_by_its_records_where_no_training_package_can_be_imported(
    scale, repository, tmp_path
):
    committed = reference_folder(repository / "results", scale)
    folder = reference_folder(tmp_path / "results", scale)
    folder.mkdir(parents=True)
    shutil.copytree(committed / "records", folder / "records")
    shutil.copy(committed / "reference.json", folder)
    for name in BESIDE:
        (tmp_path / "results" / name).symlink_to(repository / "results" / name)
    other = {"tiny": "small", "small": "tiny"}[scale]  # a page shows both
    reference_folder(tmp_path / "results", other).symlink_to(reference_folder(repository / "results", other))
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), repository / "scripts" / "rebuild.py"]
    command += ["--results", tmp_path / "results", "--scale", scale]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert not differing(committed, folder)
    assert {path.name for path in (tmp_path / "results").iterdir()} == {*BESIDE, "reference"}


def without_a_run(folder: Path) -> str:
    value = json.loads((folder / "reference.json").read_text())
    value["tables"]["table1"]["runs"]["gsm8k_llama3"]["lora"] = ["pebble-gsm8k-lora-s0-other"]
    (folder / "reference.json").write_text(json.dumps(value))
    return "lack pebble-gsm8k-lora-s0-other, seed 0 of gsm8k_llama3 with lora in table1"


def changed(folder: Path) -> str:
    path = folder / "records" / "runs.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return "runs.jsonl.zst is missing or not as it was made: `git checkout"


def added(folder: Path) -> str:
    (folder / "records" / "more.jsonl.zst").write_bytes(b"")
    return "more.jsonl.zst is none of the records: delete it"


def cut(folder: Path) -> str:
    path = folder / "reference.json"
    path.write_bytes(path.read_bytes()[:-9])
    return "reference.json is missing or not as it was made"


def absent(folder: Path) -> str:
    (folder / "reference.json").unlink()
    return "there is no reference of scale=tiny: "


@pytest.mark.parametrize("damage", [without_a_run, changed, added, cut, absent])
def test_records_that_are_damaged_or_lack_something_are_refused_and_nothing_changes(damage, repository, copy, tmp_path):
    folder = reference_folder(copy, "tiny")
    sentence = damage(folder)
    before = shutil.copytree(folder, tmp_path / "before")
    with pytest.raises(RecordError) as refused:
        rebuild(copy, repository / "experiments", scale="tiny")
    assert sentence in str(refused.value)
    assert not differing(before, folder)
    assert not list(copy.glob(".reference-*"))


def test_an_interrupt_leaves_the_old_one_whole_whenever_it_comes(repository, copy, tmp_path, monkeypatch):
    folder = reference_folder(copy, "tiny")
    before = shutil.copytree(folder, tmp_path / "before")

    def interrupted(new: Path) -> None:
        (new / "reference.json").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_reference(copy, repository / "experiments", scale="tiny", put=interrupted)
    assert not differing(before, folder)
    moved = os.replace

    def late(source: Path, target: Path) -> None:
        if Path(target) == folder and Path(source).name == "tiny":
            raise KeyboardInterrupt  # between the two renames
        moved(source, target)

    monkeypatch.setattr("reproduction.report.rebuild._build", lambda *_: None)  # faster
    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(KeyboardInterrupt):
        rebuild(copy, repository / "experiments", scale="tiny")
    assert not differing(before, folder)
    assert read_reference(copy, "tiny").tables["table1"].seeds == (0,)
