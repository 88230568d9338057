"""The committed reference made from finished cells, and a user's own commands next to it."""

import csv
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from reproduction.cells.cell import Cell, distinct
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.override import override
from reproduction.cli import NotComplete
from reproduction.commands import reference
from reproduction.commands.pivots import Inspection
from reproduction.commands.reference import REFERENCES, keep_reference, reference_requests
from reproduction.commands.tables import Request, known_tables, plan_all, report_statistics, report_tables
from reproduction.paths import EXPERIMENTS
from reproduction.records import find_runs, write_items, write_json
from reproduction.report import intervals
from reproduction.report.rebuild import rebuild
from reproduction.report.reference import read_reference, reference_folder

FILES = (
    "tables/table8.csv", "tables/table8.md", "tables/clusters.csv", "significance/table8.csv", "metrics.csv",
)  # fmt: skip


def requests(results: Path, root: str = "report", **changes) -> list[Request]:
    values = plain(compose(root, ["scale=tiny"])) | {"results_dir": str(results), "table": "table8"} | changes
    return reference_requests(values) if root == "reference" else Request.from_config(values)


def finish(cells: Iterable[Cell]) -> None:
    """Write the records of finished cells, with invented scores and no adapter."""
    draw = random.Random(0)
    for number, cell in enumerate(distinct(cells)):
        if not cell.run.done:
            cell.run.start(cell.config)
            cell.run.finish({
                "parameters_trainable": 5000 + number, "parameters_router": 0, "parameters_total": 1_000_000,
                "frozen_copies": 48,
            })  # fmt: skip
        for protocol in cell.eval_job.waiting:
            folder, rows = cell.eval_job.eval_folder(protocol), protocol.task.rows(root=cell.data_root)
            name = "passed" if protocol.samples > 1 else "acc" if protocol.scoring == "likelihood" else "strict"
            more = {}
            if protocol.scoring == "loss":
                name, more = "nats_per_token", {"weights": {"nats_per_token": 7}}
            asked = {"name": protocol.name, "judge": protocol.judge}
            about = {"benchmark": protocol.benchmark, "items": len(rows), "samples": protocol.samples}
            write_json(folder / "meta.json", about | {"protocol": asked, "unit": protocol.task.unit})
            write_items(
                folder,
                [
                    {
                        "item_id": row["id"], "item_hash": "0a", "prompt_hash": "0b", "sample": sample, "raw": "RAW",
                        "parsed": None, "gold": None, "scores": {name: float(draw.random() < 0.2 + 0.04 * number)},
                    }
                    | more
                    for row in rows
                    for sample in range(protocol.samples)
                ],
            )  # fmt: skip


def contents(folder: Path) -> Mapping[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Intervals from a tenth of the draws: no number is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 1000)
        forget_draws()
        yield
    forget_draws()


def forget_draws() -> None:
    intervals._drawn.cache_clear()
    intervals._bootstrap.cache_clear()


@pytest.fixture(scope="module")
def kept(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a read-only results/ in which Table 8 is finished for seeds 0 and 1 and is the reference."""
    results = tmp_path_factory.mktemp("kept") / "results"
    results.mkdir()
    for name in ("counts", "theory", "h200"):
        (results / name).symlink_to(repository / "results" / name)
    planned = plan_all(requests(results, seeds=[0, 1]))
    finish(cell for _, plan in planned for cell in plan.cells.values())
    keep_reference(planned)
    return results


@pytest.fixture
def own(kept: Path, tmp_path: Path) -> Path:
    """Return a writable copy of `kept`."""
    return shutil.copytree(kept, tmp_path / "results", symlinks=True)


def test_the_reference_of_the_embedded_scale_has_every_table_with_three_seeds_at_least(tmp_path: Path) -> None:
    asked = {request.table: request.grid().seeds for request in requests(tmp_path, "reference")}
    papers = {path.parent.name for path in EXPERIMENTS.glob("table*/paper.csv")}
    assert papers & {*known_tables("tiny")} < asked.keys() <= {*known_tables("tiny")}
    assert all(seeds == tuple(range(len(seeds))) and len(seeds) >= 3 for seeds in asked.values())
    assert asked == {name: tuple(own["seeds"]) for name, own in yaml.safe_load(REFERENCES.read_text())["tiny"].items()}
    with pytest.raises(ConfigError, match=r"scale=paper has no reference; .*reference\.yaml has those of tiny, small"):
        requests(tmp_path, "reference", scale="paper")


def test_a_seed_that_lacks_benchmarks_is_planned_without_them(tmp_path: Path) -> None:
    (own,) = requests(tmp_path, seeds=[0, 1], fewer={"gsm8k": [0], "mmlu": [0]})
    shown = own.grid().benchmarks("multitask_llama3_2_3b", "tiny")
    evals = {key[2]: next(each for each in job[2] if each.startswith("eval=")) for key, job in own.jobs().items()}
    fewer = [name for name in shown if name not in ("gsm8k", "mmlu")]
    assert evals == {0: override("eval", shown), 1: override("eval", fewer)}
    (whole,) = requests(tmp_path, seeds=[0, 1])
    assert not [each for job in whole.jobs().values() for each in job[2] if each.startswith("eval=")]


def test_the_reference_of_the_small_scale_has_fewer_seeds_where_it_says_so(tmp_path: Path) -> None:
    asked = {request.table: request for request in requests(tmp_path, "reference", scale="small")}
    assert {name: request.fewer for name, request in asked.items()} == {
        name: {key: tuple(seeds) for key, seeds in own.get("fewer", {}).items()}
        for name, own in yaml.safe_load(REFERENCES.read_text())["small"].items()
    }
    left_out = {name for name, seeds in asked["table_longer"].fewer.items() if not seeds}
    assert left_out
    assert left_out.isdisjoint(method for _, method, _ in asked["table_longer"].jobs())


def test_finished_cells_become_the_reference_and_its_records_alone_make_it_again(
    kept: Path, own: Path, repository: Path
) -> None:
    folder = reference_folder(own, "tiny")
    found = read_reference(own, "tiny").tables["table8"]
    assert found.seeds == (0, 1)
    assert set(found.runs.values()) == {run.name for run in find_runs(own / "tiny" / "runs")}
    shutil.rmtree(own / "tiny")
    for name in FILES:
        (folder / name).unlink()
    rebuild(own, repository / "experiments", scale="tiny")
    assert contents(folder) == contents(reference_folder(kept, "tiny"))
    rows = list(csv.DictReader((folder / "tables" / "table8.csv").open(newline="")))
    assert {row["seeds"] for row in rows} == {"2"}
    assert not (own / "tiny").exists()


def test_nothing_is_written_where_a_cell_is_missing(own: Path) -> None:
    before = contents(reference_folder(own, "tiny"))
    with pytest.raises(NotComplete, match=r"4 cells of the reference are missing, such as .*/s2 \(never run\)"):
        keep_reference(plan_all(requests(own, seeds=[0, 1, 2])))
    assert contents(reference_folder(own, "tiny")) == before


def test_the_controls_have_the_pivots_of_every_base_and_of_their_own_first_run(tmp_path: Path) -> None:
    planned = plan_all(requests(tmp_path, table=["table2", "table_controls"], seeds=[0, 1]))
    out = tmp_path / "tiny" / "pivots.csv"
    asked = list(reference._inspections(planned, out))
    run = next(plan.cells["multitask_llama3_2_3b", "idlora", 0].run for _, plan in planned[1:])
    assert [(each.model.name, each.run, each.seed) for each in asked] == [
        ("gravel", run.folder, 0), ("pebble", None, 0), ("cobble", None, 0), ("gravel", None, 0),
    ]  # fmt: skip
    assert [each.data and each.data.limit for each in asked] == [64, None, None, None]
    by_command = compose("pivots", ["scale=tiny", "model=llama3_2_3b", f"results_dir={tmp_path}"])
    assert asked[3] == Inspection.from_config(by_command)
    assert not list(reference._inspections(planned[:1], out))


def test_own_values_stand_beside_the_reference_until_they_are_of_other_runs(own: Path, capsys) -> None:
    report_tables(plan_all(requests(own)), committed=own)
    text = (own / "tiny" / "tables" / "table8.md").read_text()
    assert text.count("; ref ") == 5 * 12  # methods x columns
    assert "ref: what the committed reference prints there (seeds 0, 1; `results/reference/tiny`)." in text
    assert "what the committed reference prints" in capsys.readouterr().out.replace("\n", " ")
    changed = plan_all(requests(own, overrides=["train.learning_rate=0.5"]))
    finish(cell for _, plan in changed for cell in plan.cells.values())
    report_tables(changed, committed=own)
    text = (own / "tiny" / "tables" / "table8.md").read_text()
    rows = [line for line in text.splitlines() if "; ref " in line]
    assert len(rows) == 2  # scores, losses
    told = "nothing about training can change an untuned base"
    assert all(row.startswith("| Gravel | Base (untuned) |") for row in rows), told
    assert "Of 48 of these values the committed reference (`results/reference/tiny`) is of other runs" in text


def test_a_report_with_gaps_leaves_a_fuller_table_its_tests_and_the_metrics(own: Path, capsys) -> None:
    report_tables(plan_all(requests(own, seeds=[0, 1])), committed=own)
    before = contents(own / "tiny")
    runs = shutil.move(own / "tiny" / "runs", own / "elsewhere")
    with pytest.raises(NotComplete, match=r"\d cells of table8 are missing"):
        report_tables(plan_all(requests(own)), committed=own)
    gaps = plan_all(requests(own, seeds=[0, 1], allow_missing=True))
    capsys.readouterr()
    report_tables(gaps, committed=own)
    report_statistics(gaps)
    assert capsys.readouterr().out.replace("\n", " ").count("nothing written: ") == 3  # table, metrics; tests
    assert contents(own / "tiny") == before
    for name in ("tables/table8.csv", "significance/table8.csv"):  # either is enough to keep the other from being made
        gone = own / "tiny" / name
        gone.unlink()
        report_tables(gaps, committed=own)
        assert not gone.exists()
        gone.write_bytes(before[name])
    shutil.move(runs, own / "tiny" / "runs")
    for run in find_runs(own / "tiny" / "runs"):
        if run.config["seed"] == 1:
            shutil.rmtree(run.folder)
    report_tables(plan_all(requests(own)), committed=own)  # complete: written although it has fewer seeds
    after = contents(own / "tiny")
    assert all(after[name] != before[name] for name in FILES)


def test_another_tables_report_without_cells_leaves_the_metrics(own: Path) -> None:
    report_tables(plan_all(requests(own)), committed=own)
    before = contents(own / "tiny")
    shutil.rmtree(own / "tiny" / "runs")
    report_tables(plan_all(requests(own, table="table3", allow_missing=True)), committed=own)
    assert contents(own / "tiny") == before
    assert (own / "tiny" / "tables" / "table3.csv").is_file()


def test_git_sees_the_reference_and_what_depends_on_no_scale_and_nothing_of_a_users_own(repository: Path) -> None:
    def ignored(*paths: str) -> set[str]:
        done = subprocess.run(
            ["git", "check-ignore", "--no-index", *paths], cwd=repository, capture_output=True, text=True
        )
        if done.returncode == 128:
            pytest.skip("this copy has no git")
        return set(done.stdout.split())

    own = {
        f"results/{name}"
        for scale in ("tiny", "paper", "mine")
        for name in (
            f"{scale}/runs/a/config.json", f"{scale}/metrics.csv", f"{scale}/tables/table1.md", f"{scale}/report.html",
            f"{scale}/figures/figure4.png", f"{scale}/pivots.csv", f"{scale}/probe.json", f"{scale}/.lock",
            "cpu/benchmark.csv", "sweeps/a", ".reference-tiny-x/results",
        )
    }  # fmt: skip
    seen = {
        "results/reference/tiny/records/runs.jsonl.zst", "results/reference/tiny/tables/table1.md",
        "results/counts/table6.md", "results/audit/audit.md", "results/theory/theory.md", "results/h200/benchmark.csv",
    }  # fmt: skip
    assert ignored(*own, *seen) == own
