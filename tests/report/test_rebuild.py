"""The committed reference is made from its records alone, byte for byte; an old one stays until a new one is whole."""

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

from reproduction.records import RecordError, find_runs
from reproduction.report import build_table, collect_metrics, write_significance, write_table
from reproduction.report.rebuild import make_reference, rebuild
from reproduction.report.reference import read_reference, reference_folder

MADE = {
    "metrics.csv",
    "provenance.json",
    "report.html",
    "reference.json",
    "tables",
    "significance",
    "figures",
    "records",
}

BESIDE = ("counts", "theory", "h200")
"""What depends on no scale."""


@pytest.fixture(scope="module")
def results(repository: Path, full, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/ with a reference of Table 1, of made-up runs, and what depends on no scale; read only."""
    results = tmp_path_factory.mktemp("kept") / "results"
    results.mkdir()
    for name in BESIDE:
        (results / name).symlink_to(repository / "results" / name)
    full.keep(results, repository / "experiments")
    return results


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    return shutil.copytree(results, tmp_path / "results", symlinks=True)


def differing(one: Path, other: Path) -> list[str]:
    """The files that are not the same in both folders, or in one of them alone."""
    names = {path.relative_to(root).as_posix() for root in (one, other) for path in root.rglob("*") if path.is_file()}
    _, unlike, absent = filecmp.cmpfiles(one, other, sorted(names), shallow=False)
    return unlike + absent


def script(repository: Path, results: Path, scale: str = "tiny") -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), repository / "scripts" / "rebuild.py"]
    command += ["--results", results, "--scale", scale]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=repository)


def test_it_is_what_the_runs_themselves_give(results: Path, full, tmp_path: Path) -> None:
    made = full.made()
    table = build_table(full.grid, full.root, scale="tiny", expected=made.runs, evaluations=made.evaluations)
    write_table(table, tmp_path / "tables")
    write_significance(table.filled, tmp_path / "significance" / "table1.csv", comparisons=table.comparisons)
    collect_metrics(full.root, tmp_path / "metrics.csv", scale="tiny")
    folder = reference_folder(results, "tiny")
    assert {path.name for path in folder.iterdir()} == MADE
    assert not differing(tmp_path / "tables", folder / "tables")
    assert not differing(tmp_path / "significance", folder / "significance")
    assert (folder / "metrics.csv").read_bytes() == (tmp_path / "metrics.csv").read_bytes()
    assert json.loads((folder / "provenance.json").read_text())["runs"] == len(find_runs(full.root))
    page = (folder / "report.html").read_text()
    assert "results/reference/tiny/significance/table1.csv" in page
    assert "make reference" in page


@pytest.mark.parametrize("scale", ["tiny", "small"])
def test_the_committed_reference_is_made_by_its_records_where_no_training_package_can_be_imported(
    scale: str, repository: Path, tmp_path: Path
) -> None:
    committed = reference_folder(repository / "results", scale)
    folder = reference_folder(tmp_path / "results", scale)
    folder.mkdir(parents=True)
    shutil.copytree(committed / "records", folder / "records")
    shutil.copy(committed / "reference.json", folder)
    for name in BESIDE:
        (tmp_path / "results" / name).symlink_to(repository / "results" / name)
    if scale != "small":
        reference_folder(tmp_path / "results", "small").symlink_to(reference_folder(repository / "results", "small"))
    done = script(repository, tmp_path / "results", scale)
    assert done.returncode == 0, done.stderr
    assert not differing(committed, folder)
    left = {path.name for path in (tmp_path / "results").iterdir()}
    assert left == {*BESIDE, "reference"}


def test_a_reference_of_fewer_benchmarks_has_their_columns_alone_and_names_the_others(
    repository: Path, full, copy: Path, tmp_path: Path
) -> None:
    folder = full.keep(copy, repository / "experiments", benchmarks=("heldout",))
    made = read_reference(copy, "tiny").tables["table1"]
    assert made == full.made(("heldout",)) != full.made()
    (header, *_) = (folder / "tables" / "table1.csv").read_text().splitlines()
    assert "loss_gsm8k_ci_low" in header
    assert "pass@1" not in header
    assert not list((folder / "records").glob("humaneval*"))
    words = (folder / "tables" / "table1.md").read_text()
    assert "Not run for this table: gsm8k, humaneval, hexphi, hexphi_benign." in words
    assert "Scores are percent" not in words
    page = (folder / "report.html").read_text()
    assert 'id="table1-held-out-loss"' in page
    assert 'id="table1-scores"' not in page
    assert 'id="table2"' not in page, "a table that the reference does not have"
    before = shutil.copytree(folder, tmp_path / "before")
    rebuild(copy, repository / "experiments", scale="tiny")
    assert not differing(before, folder)


def without_a_run(folder: Path) -> str:
    told = json.loads((folder / "reference.json").read_text())
    told["tables"]["table1"]["runs"]["gsm8k_llama3"]["lora"] = ["pebble-gsm8k-lora-s0-other"]
    (folder / "reference.json").write_text(json.dumps(told))
    return "lack pebble-gsm8k-lora-s0-other, seed 0 of gsm8k_llama3 with lora in table1"


def changed(folder: Path) -> str:
    path = folder / "records" / "runs.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return "runs.jsonl.zst is missing or not as it was made: `git checkout"


def missing(folder: Path) -> str:
    next((folder / "records").glob("gsm8k-*")).unlink()
    return ".jsonl.zst is missing or not as it was made: `git checkout"


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


@pytest.mark.parametrize("damage", [without_a_run, changed, missing, added, cut, absent])
def test_records_that_are_damaged_or_lack_something_are_told_in_one_sentence_and_nothing_changes(
    damage, repository: Path, copy: Path, tmp_path: Path
) -> None:
    folder = reference_folder(copy, "tiny")
    sentence = damage(folder)
    before = shutil.copytree(folder, tmp_path / "before")
    done = script(repository, copy)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not differing(before, folder)
    assert not list(copy.glob(".reference-*"))


def test_an_interrupt_leaves_the_old_one_whole_whenever_it_comes(
    repository: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            raise KeyboardInterrupt  # the old one is aside, the new one not yet in its place
        moved(source, target)

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(KeyboardInterrupt):
        rebuild(copy, repository / "experiments", scale="tiny")
    assert not differing(before, folder)
    assert read_reference(copy, "tiny").tables["table1"].seeds == (0,)


def test_a_scale_without_a_reference_has_none(results: Path, repository: Path) -> None:
    assert read_reference(results, "paper") is None
    with pytest.raises(RecordError, match="there is no reference of scale=paper"):
        rebuild(results, repository / "experiments", scale="paper")
