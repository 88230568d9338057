"""Tables planned: what they share is one run, what does not fit is refused at once, and where their cells stand."""

import ctypes
import dataclasses
import io
import multiprocessing
import os
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from forks import all_ended, at_work_in
from rich.console import Console

from reproduction.cells.cell import distinct
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import cell_from_config, compose_cell
from reproduction.cli import shows_traceback
from reproduction.commands.listing import show, standings
from reproduction.commands.tables import Plan, Request, chosen_names, chosen_tables, known_tables, plan_all
from reproduction.commands.tuning import asked_pairs
from reproduction.preflight import NotReady, require
from reproduction.report.grid import GridError
from reproduction.running.table import fill

RATE = "train.learning_rate=0.01"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where nothing was ever run; the tiny world is exported there once."""
    return tmp_path_factory.mktemp("planning")


def cell_of(results: Path, experiment: str = "gsm8k_llama3", method: str = "idlora", *, seed: int = 0, more=()):
    return compose_cell(experiment, method, scale="tiny", seed=seed, overrides=[f"results_dir={results}", RATE, *more])


def requests(results: Path, *overrides: str) -> list[Request]:
    asked = [f"results_dir={results}", f'overrides=["{RATE}"]', *overrides]
    return Request.from_config(plain(compose("table", asked)))


def plan_for_ever(folder: Path) -> None:
    def compose_for_ever(*_, seed, **__):
        (folder / str(seed)).touch()
        ctypes.PyDLL(None).sleep(60)  # no thread of the interpreter runs meanwhile

    class Two:
        def jobs(self) -> dict:
            return {seed: (("experiment", "method", seed), "tiny", ()) for seed in range(2)}

    os.chdir(folder)
    with mock.patch("reproduction.commands.tables.compose_cell", compose_for_ever):
        plan_all([Two()])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a process with its parent on Linux alone")
def test_processes_that_compose_cells_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    command = multiprocessing.get_context("fork").Process(target=plan_for_ever, args=(tmp_path,))
    command.start()
    while not (tmp_path / "1").exists():
        assert command.is_alive()
        time.sleep(0.01)
    assert len(at_work_in(tmp_path)) > 2
    command.kill()
    command.join()
    all_ended(tmp_path, within=2)


def test_all_is_every_table_with_a_grid_and_a_table_that_is_none_is_refused() -> None:
    assert {"table1", "table2", "table3", "table7", "table8", "table_controls"} <= set(known_tables())
    assert not {"table4", "table5", "table6"} & set(known_tables())
    assert chosen_tables("all", "small") == known_tables()
    assert chosen_tables("all", "tiny") == [name for name in known_tables() if name != "table_longer"], "no cells there"
    assert chosen_tables(["table3", "table1", "table3"], "tiny") == ["table3", "table1"]
    with pytest.raises(ConfigError, match=r"no table=table9; the tables are table1, .*all"):
        chosen_tables(["table1", "table9"], "tiny")


def test_a_table_without_cells_at_a_scale_is_refused_by_name_in_one_sentence_with_the_way_out(results: Path) -> None:
    values = {"table": "table_longer", "scale": "tiny", "experiments": None, "methods": None}
    for ask in (
        lambda: plan_all(requests(results, "table=[table3,table_longer]", "scale=tiny")),
        lambda: [request.plan() for request in requests(results, "table=table_longer", "scale=paper")],
        lambda: asked_pairs(values),
    ):
        with pytest.raises(
            GridError, match=r"table_longer has no cells at scale=\w+: .* kind of scale small;"
        ) as refused:
            ask()
        assert not shows_traceback(refused.value)
        assert "\n" not in str(refused.value)
    assert requests(results, "table=table_longer", "scale=small")[0].grid().experiments == ("multitask_llama3_full",)


def test_experiments_and_methods_are_whole_names_of_the_tables_asked_for() -> None:
    known = ["lora", "idlora", "idlora_random"]
    assert chosen_names("idlora_random", known, what="methods") == ["idlora_random"]
    assert chosen_names(None, known, what="methods") == known
    assert chosen_names(["lora"], known, what="methods") == ["lora"]
    with pytest.raises(ConfigError, match="methods=lor is in none of the tables asked for; there are lora, idlora"):
        chosen_names("lor", known, what="methods")


def test_seeds_are_whole_numbers_one_or_a_list_of_them(results: Path) -> None:
    assert {each.seeds for each in requests(results, "table=table1", "seeds=0")} == {(0,)}
    assert {each.seeds for each in requests(results, "table=table1", "seeds=[0,2]")} == {(0, 2)}
    with pytest.raises(ConfigError, match="seeds=0,1 are no seeds"):
        requests(results, "table=table1", "seeds='0,1'")


def test_a_changed_setting_is_told_under_the_table_and_asked_for_by_the_command_that_fills_it(results: Path) -> None:
    (request,) = requests(results, "table=table8", "protocol=generated_0shot")
    assert f"every cell has {RATE}" in request.grid().notes[-1]
    first = request.gather(request.plan()).missing[0].command
    for flag in ("allow_code_execution=true", "protocol=generated_0shot", f"'overrides=[\"{RATE}\"]'"):
        assert flag in first


def test_a_table_of_some_benchmarks_has_their_columns_and_evaluates_its_cells_on_them_alone(results: Path) -> None:
    request, single = requests(results, "table=[table8,table1]", "benchmarks=heldout")
    grid, plan = request.grid(), request.plan()
    assert {column.benchmark for column in grid.columns} == {"heldout"}
    assert "Not run for this table: gsm8k, mmlu, commonsenseqa, humaneval." in grid.notes
    assert {protocol.benchmark for cell in plan.cells.values() for protocol in cell.protocols} == {"heldout"}
    assert "benchmarks=[heldout]" in request.gather(plan).missing[0].command
    assert single.grid().experiments == tuple(
        f"{data}_{base}" for base in ("llama3", "mistral") for data in ("gsm8k", "codealpaca", "saferpaca")
    )
    (code,) = requests(results, "table=table1", "benchmarks=[humaneval]")
    assert code.grid().experiments == ("codealpaca_llama3", "codealpaca_mistral")
    (wrong,) = requests(results, "table=table8", "benchmarks=[hexphi]")
    with pytest.raises(GridError, match="table8 shows nothing of benchmarks=hexphi; it shows gsm8k, mmlu"):
        wrong.grid()


def test_cells_that_take_alike_are_begun_seed_by_seed(results: Path, monkeypatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr("reproduction.running.table.run_jobs", lambda *_, names, **__: begun.extend(names))
    cells = [cell_of(results, seed=seed, method=method) for method in ("lora", "idlora") for seed in (1, 0)]
    fill(cells, folder=results / "order", workers=2)
    assert [title.endswith("/s1") for title in begun] == [False, False, True, True]


def test_a_seed_that_would_be_lost_is_refused(results: Path) -> None:
    assert cell_of(results, seed=3).method.arguments["seed"] == 3
    with pytest.raises(ConfigError, match=r"seed=3 among the overrides would be lost: give seeds="):
        cell_of(results, more=["seed=3"])
    with pytest.raises(ConfigError, match="holds the seed: write it as a value of its own"):
        cell_of(results, more=["method.label=run ${seed}"])


def test_tables_that_share_a_cell_have_one_run_of_it(results: Path) -> None:
    cells = [cell for each in requests(results, "table=[table2,table7]") for cell in each.plan().cells.values()]
    runs = distinct(cells)
    titles = [cell.title for cell in runs]
    assert len(titles) == len(set(titles)) == 2 * 7 + 9 - 3  # base, LoRA and ID-LoRA on the first base are in both
    assert titles.count("multitask_llama3/lora") == 1


def test_an_untuned_base_is_one_run_with_the_evaluations_of_all_its_tasks(results: Path) -> None:
    experiments = ("gsm8k_llama3", "saferpaca_llama3", "multitask_llama3")
    (base,) = distinct(cell_of(results, experiment, "base") for experiment in experiments)
    assert base.title == "pebble/base"
    asked = [protocol.benchmark for protocol in base.protocols if protocol.scoring != "loss"]
    assert asked == ["gsm8k", "hexphi", "hexphi_benign", "mmlu", "commonsenseqa", "humaneval"]
    sources = {protocol.source for protocol in base.protocols if protocol.scoring == "loss"}
    assert sources == {"gsm8k", "gsm8k_test", "saferpaca", "alpaca", "codealpaca", "humaneval"}


def test_a_seed_changes_what_is_seeded_and_nothing_else(results: Path) -> None:
    for method in ("idlora", "lora", "vera"):
        zero, three = (cell_of(results, method=method, seed=seed) for seed in (0, 3))
        assert three.train.seed == 3
        assert three.method.arguments.get("seed") == (3 if method == "idlora" else None)
        assert three.method.arguments.get("projection_prng_key") == (3 if method == "vera" else None)
        assert zero.run.name != three.run.name
        asked = ["experiment=gsm8k_llama3", f"method={method}", "scale=tiny", "seed=3", f"results_dir={results}", RATE]
        assert three == cell_from_config(compose("train", asked))
        assert dataclasses.replace(three, train=zero.train, method=zero.method) == zero


def test_more_seeds_are_planned_in_next_to_no_time(results: Path) -> None:
    cell_of(results)
    began = time.perf_counter()
    names = {cell_of(results, seed=seed).run.name for seed in range(100)}
    assert len(names) == 100
    assert time.perf_counter() - began < 5


def test_seeds_asked_for_are_those_of_every_table(results: Path) -> None:
    (request,) = requests(results, "table=table7", "seeds=[0,4]")
    assert {seed for _, _, seed in request.plan().cells} == {0, 4}
    assert request.grid().seeds == (0, 4)


def test_evaluations_are_named_by_benchmark_and_protocol_the_default_first(results: Path) -> None:
    (request,) = requests(results, "table=table7", "protocol=all")
    names = request.plan().evaluations
    mmlu = [protocol for benchmark, protocol in names if benchmark == "mmlu"]
    assert mmlu[0] == "likelihood_0shot"
    assert len(mmlu) == 5
    assert len(set(names.values())) == len(names)
    (usual,) = requests(results, "table=table7")
    assert usual.plan().evaluations.items() <= names.items()


def test_of_all_protocols_the_default_of_the_scale_stands_first(results: Path) -> None:
    more = [f"results_dir={results}", "protocol=all"]
    paper = compose_cell("multitask_llama3", "lora", scale="paper", seed=0, overrides=more)
    asked = [protocol.name for protocol in paper.protocols if protocol.benchmark == "mmlu"]
    assert asked[0] == "likelihood_5shot"
    assert len(asked) == 5
    sources = [protocol.source for protocol in paper.protocols if protocol.scoring == "loss"]
    assert sorted(sources) == ["codealpaca", "gsm8k_test", "humaneval", "safety"]  # Saferpaca has rows of Alpaca


def test_two_cells_that_mean_different_things_by_one_protocol_are_refused(results: Path) -> None:
    plan = Plan({
        ("gsm8k_llama3", "idlora", 0): cell_of(results),
        ("gsm8k_llama3", "lora", 0): cell_of(results, method="lora", more=["eval.gsm8k.limit=5"]),
    })  # fmt: skip
    with pytest.raises(ConfigError, match="gsm8k_llama3/lora/0 evaluates gsm8k under another protocol called 0shot"):
        plan.evaluations  # noqa: B018


def test_ranks_and_clusters_that_do_not_fit_are_refused_for_all_cells_at_once(results: Path) -> None:
    too_many = cell_of(results, more=["method.arguments.r=60"])
    odd = cell_of(results, "saferpaca_mistral", more=["method.arguments.r=15", "method.arguments.rank_boost=5"])
    uneven = cell_of(results, "saferpaca_llama3", "hydralora", more=["method.arguments.r=0"])
    fitting = cell_of(results, method="lora")
    with pytest.raises(NotReady) as refused:
        require([too_many, odd, uneven, fitting], scale="tiny", results_dir=results)
    said = str(refused.value)
    assert "gsm8k_llama3/idlora" in said
    assert "r=60" in said
    assert "saferpaca_mistral/idlora" in said
    assert "rank_boost=5" in said
    assert "saferpaca_llama3/hydralora" in said
    assert "gsm8k_llama3/lora cannot" not in said
    assert not too_many.run.folder.exists()
    large = compose_cell(
        "multitask_llama3", "idlora", scale="paper", seed=0,
        overrides=[f"results_dir={results}", "method.arguments.r=512"],
    )  # fmt: skip
    with pytest.raises(NotReady, match=r"LLaMA-3-8B: .*k_proj has 1024 rows.*r=512"):
        require([large], scale="paper", results_dir=results)
    require([fitting], scale="tiny", results_dir=results)


def test_a_list_says_of_every_run_where_it_stands_and_which_tables_it_serves(results: Path) -> None:
    lora, base = cell_of(results, method="lora"), cell_of(results, method="base")
    lora.run.start(lora.config)
    lora.run.fail("oom", "no memory left")
    base.run.start(base.config)
    base.run.finish({"parameters_total": 7})
    found = standings([("table1", [base, lora]), ("table2", [lora, cell_of(results)])])
    assert [(each.title, each.tables, each.state) for each in found] == [
        ("pebble/base", ("table1",), "to evaluate"),
        ("gsm8k_llama3/lora", ("table1", "table2"), "oom"),
        ("gsm8k_llama3/idlora", ("table2",), "never run"),
    ]
    assert found[0].missing[0] == "not evaluated on gsm8k (0shot)"
    assert set(found[0].missing[1:]) == {f"not evaluated on heldout ({source})" for source in ("gsm8k", "gsm8k_test")}
    assert found[1].missing == ("oom: no memory left",)
    out = io.StringIO()
    show(found, Console(file=out, width=120))
    assert "0 of 3 cells are done" in out.getvalue()
    assert "no memory left" in out.getvalue()


def test_no_workers_fill_nothing_and_where_no_number_is_given_as_many_do_as_fit(results: Path, monkeypatch) -> None:
    monkeypatch.setattr("reproduction.running.table.as_many_as_fit", lambda: -1)
    for workers, taken in ((0, 0), (None, -1)):
        with pytest.raises(ConfigError, match=f"workers={taken} "):
            fill([], folder=results, workers=workers)
