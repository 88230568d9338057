"""Plans of tables: shared runs, immediate refusals, and the states of cells."""

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
from reproduction.commands.listing import show, standings
from reproduction.commands.tables import Plan, Request, chosen_names, chosen_tables, known_tables, plan_all
from reproduction.commands.tuning import asked_pairs
from reproduction.preflight import NotReady, require
from reproduction.report.grid import GridError
from reproduction.running.table import fill

RATE = "train.learning_rate=0.01"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder without runs, shared so that the tiny world is exported once."""
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
def test_processes_that_compose_cells_end_with_a_command_that_is_killed(tmp_path):
    command = multiprocessing.get_context("fork").Process(target=plan_for_ever, args=(tmp_path,))
    command.start()
    while not (tmp_path / "1").exists():
        assert command.is_alive()
        time.sleep(0.01)
    assert len(at_work_in(tmp_path)) > 2
    command.kill()
    command.join()
    all_ended(tmp_path, within=2)


def test_tables_experiments_methods_and_seeds_are_named_one_a_list_or_all(results):
    assert {"table1", "table2", "table3", "table7", "table8", "table_controls"} <= set(known_tables())
    assert not {"table4", "table5", "table6"} & set(known_tables())
    assert chosen_tables("all", "tiny") == [name for name in known_tables() if name != "table_longer"], "no cells there"
    assert chosen_tables(["table3", "table1", "table3"], "tiny") == ["table3", "table1"]
    known = ["lora", "idlora", "idlora_random"]
    assert chosen_names("idlora_random", known, what="methods") == ["idlora_random"]
    assert chosen_names(None, known, what="methods") == known
    assert {each.seeds for each in requests(results, "table=table1", "seeds=0")} == {(0,)}
    assert {each.seeds for each in requests(results, "table=table1", "seeds=[0,2]")} == {(0, 2)}
    for ask, words in (
        (lambda: chosen_tables(["table1", "table9"], "tiny"), "table=table9; .*table1"),
        (lambda: chosen_names("lor", known, what="methods"), "methods=lor .*; did you mean lora"),
        (lambda: requests(results, "table=table1", "seeds='0,1'"), "seeds=0,1 "),
    ):
        with pytest.raises(ConfigError, match=words):
            ask()


def test_a_table_without_cells_at_a_scale_is_refused(results):
    values = {"table": "table_longer", "scale": "tiny", "experiments": None, "methods": None}
    for ask in (
        lambda: plan_all(requests(results, "table=[table3,table_longer]", "scale=tiny")),
        lambda: asked_pairs(values),
    ):
        with pytest.raises(GridError, match=r"table_longer has no cells at scale=\w+"):
            ask()
    assert requests(results, "table=table_longer", "scale=small")[0].grid().experiments == ("multitask_llama3_full",)


def test_a_changed_setting_is_noted_under_the_table_and_asked_for_by_the_command_that_fills_it(results):
    ((request, plan),) = plan_all(requests(results, "table=table8", "protocol=generated_0shot"))
    assert f"every cell has {RATE}" in request.grid().notes[-1]
    first = request.gather(plan).missing[0].command
    for flag in ("allow_code_execution=true", "protocol=generated_0shot", f"'overrides=[\"{RATE}\"]'"):
        assert flag in first


def test_a_table_of_some_benchmarks_has_their_columns_and_evaluates_its_cells_on_them_alone(results):
    ((request, plan),) = plan_all(requests(results, "table=table8", "benchmarks=heldout"))
    assert {column.benchmark for column in request.grid().columns} == {"heldout"}
    assert {protocol.benchmark for cell in plan.cells.values() for protocol in cell.protocols} == {"heldout"}
    assert "benchmarks=[heldout]" in request.gather(plan).missing[0].command
    (code,) = requests(results, "table=table1", "benchmarks=[humaneval]")
    assert code.grid().experiments == ("codealpaca_llama3", "codealpaca_mistral")
    (wrong,) = requests(results, "table=table8", "benchmarks=[hexphi]")
    with pytest.raises(GridError, match="benchmarks=hexphi"):
        wrong.grid()


def test_cells_that_take_alike_are_begun_seed_by_seed_and_by_some_workers(results, monkeypatch):
    begun: list[str] = []
    monkeypatch.setattr("reproduction.running.table.run_jobs", lambda *_, names, **__: begun.extend(names))
    cells = [cell_of(results, seed=seed, method=method) for method in ("lora", "idlora") for seed in (1, 0)]
    fill(cells, folder=results / "order", workers=2)
    assert [title.endswith("/s1") for title in begun] == [False, False, True, True]
    monkeypatch.setattr("reproduction.running.table.as_many_as_fit", lambda: -1)
    for workers, taken in ((0, 0), (None, -1)):
        with pytest.raises(ConfigError, match=f"workers={taken} "):
            fill([], folder=results, workers=workers)


def test_tables_that_share_a_cell_have_one_run_of_it_for_each_seed_asked_for(results):
    planned = plan_all(requests(results, "table=[table3,table8]", "seeds=[0,4]"))
    keys = [{key for key in plan.cells if key[1] != "base"} for _, plan in planned]
    assert {seed for own in keys for _, _, seed in own} == {0, 4}
    assert ("multitask_llama3_2_3b", "idlora", 4) in keys[0] & keys[1]
    titles = [cell.title for cell in distinct(cell for _, plan in planned for cell in plan.cells.values())]
    assert len(titles) == len(set(titles)) == 1 + len(keys[0] | keys[1])


def test_an_untuned_base_is_one_run_with_the_evaluations_of_all_its_tasks(results):
    experiments = ("gsm8k_llama3", "saferpaca_llama3", "multitask_llama3")
    (base,) = distinct(cell_of(results, experiment, "base") for experiment in experiments)
    assert base.title == "pebble/base"
    asked = [protocol.benchmark for protocol in base.protocols if protocol.scoring != "loss"]
    assert asked == ["gsm8k", "hexphi", "hexphi_benign", "mmlu", "commonsenseqa", "humaneval"]
    sources = {protocol.source for protocol in base.protocols if protocol.scoring == "loss"}
    assert sources == {"gsm8k", "gsm8k_test", "saferpaca", "alpaca", "codealpaca", "humaneval"}


def test_a_seed_changes_what_is_seeded_and_nothing_else(results):
    for method in ("idlora", "lora", "vera"):
        zero, three = (cell_of(results, method=method, seed=seed) for seed in (0, 3))
        assert three.train.seed == 3
        assert three.method.arguments.get("seed") == (3 if method == "idlora" else None)
        assert three.method.arguments.get("projection_prng_key") == (3 if method == "vera" else None)
        assert zero.run.name != three.run.name
        asked = ["experiment=gsm8k_llama3", f"method={method}", "scale=tiny", "seed=3", f"results_dir={results}", RATE]
        assert three == cell_from_config(compose("train", asked))
        assert dataclasses.replace(three, train=zero.train, method=zero.method) == zero
    for lost in ("seed=3", "method.label=run ${seed}"):
        with pytest.raises(ConfigError, match="seed"):
            cell_of(results, more=[lost])


def test_of_all_protocols_the_default_of_the_scale_stands_first(results):
    ((_, plan),) = plan_all(requests(results, "table=table7", "protocol=all"))
    mmlu = [protocol for benchmark, protocol in plan.evaluations if benchmark == "mmlu"]
    assert (mmlu[0], len(mmlu)) == ("likelihood_0shot", 5)
    assert len(set(plan.evaluations.values())) == len(plan.evaluations)
    more = [f"results_dir={results}", "protocol=all"]
    paper = compose_cell("multitask_llama3", "lora", scale="paper", seed=0, overrides=more)
    assert next(each.name for each in paper.protocols if each.benchmark == "mmlu") == "likelihood_5shot"
    sources = [protocol.source for protocol in paper.protocols if protocol.scoring == "loss"]
    assert sorted(sources) == ["codealpaca", "gsm8k_test", "humaneval", "safety"]  # Saferpaca has rows of Alpaca


def test_two_cells_that_mean_different_things_by_one_protocol_are_refused(results):
    plan = Plan({
        ("gsm8k_llama3", "idlora", 0): cell_of(results),
        ("gsm8k_llama3", "lora", 0): cell_of(results, method="lora", more=["eval.gsm8k.limit=5"]),
    })  # fmt: skip
    with pytest.raises(ConfigError, match="gsm8k_llama3/lora/0 evaluates gsm8k under another protocol called 0shot"):
        plan.evaluations  # noqa: B018


def test_ranks_and_clusters_that_do_not_fit_are_refused_for_all_cells_at_once(results):
    too_many = cell_of(results, more=["method.arguments.r=60"])
    odd = cell_of(results, "saferpaca_mistral", more=["method.arguments.r=15", "method.arguments.rank_boost=5"])
    uneven = cell_of(results, "saferpaca_llama3", "hydralora", more=["method.arguments.r=0"])
    fitting = cell_of(results, method="lora")
    with pytest.raises(NotReady) as refused:
        require([too_many, odd, uneven, fitting], scale="tiny", results_dir=results)
    for words in ("gsm8k_llama3/idlora", "r=60", "saferpaca_mistral/idlora", "rank_boost=5", "saferpaca_llama3/hydra"):
        assert words in str(refused.value)
    assert "gsm8k_llama3/lora cannot" not in str(refused.value)
    assert not too_many.run.folder.exists()
    require([fitting], scale="tiny", results_dir=results)


def test_a_list_says_of_every_run_where_it_stands_and_which_tables_it_serves(results):
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
    assert found[1].missing == ("oom: no memory left",)
    out = io.StringIO()
    show(found, Console(file=out, width=120))
    assert "0 of 3 cells are done" in out.getvalue()
    assert "no memory left" in out.getvalue()
