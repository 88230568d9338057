"""Selection of a cell's runs: exactly those of the requested config, finished, readable and of the same items."""

import dataclasses

import numpy as np
import pytest

from reproduction.records import read_json, run_name, write_json
from reproduction.report import GridError, collect_metrics, latex, markdown
from reproduction.report.cells import pair

META = "eval/gsm8k-0badcafe/meta.json"


def reasons(table):
    return [each.reason for each in table.missing]


def test_a_missing_cell_is_a_dash_and_names_the_command_that_fills_it(world, few):
    table = world(grid=few).fill(skip=[("codealpaca_llama3", "idlora")]).table()
    command = (
        "python scripts/table.py table=table1 scale=tiny 'experiments=[codealpaca_llama3]' 'methods=[idlora]' "
        "allow_code_execution=true"
    )
    assert [each.command for each in table.missing] == [command]
    entries = next(row.entries for row in table.rows if row.method == "idlora")
    assert (entries["pass@5"], entries["gsm8k"] is None) == (None, False)
    assert "| — |" in markdown(table)
    assert f"`{command}`" in markdown(table)
    assert "---" in latex(table)


def test_an_empty_folder_gives_a_table_of_dashes(world):
    made = world()
    table = made.table()
    assert len(table.missing) == len(made.grid.cells()) == 36
    assert all(each is None for row in table.rows for each in row.entries.values())
    assert "No cell has a value yet" in markdown(table)


@pytest.mark.parametrize("state", ["oom", "failed", "interrupted"])
def test_a_run_that_is_not_done_is_never_read_as_a_result(problems, state):
    made = problems(base=[0] * 9, lora=[1, 0, 0] * 3, idlora=[1, 1, 0] * 3)
    assert made.table().missing == []
    status = made.run("gsm8k_llama3", "idlora", benchmarks=[]).folder / "status.json"
    status.write_text(status.read_text().replace('"done"', f'"{state}"').replace('"reason": ""', '"reason": "why"'))
    table = made.table()
    assert reasons(table) == [f"{state}: why"]
    assert table.rows[-1].entries["gsm8k"] is None


def test_an_evaluation_that_is_not_finished_is_missing_and_so_is_the_run_of_a_changed_config(problems):
    made = problems(base=[0] * 9, lora=[1, 0, 0] * 3, idlora=[1, 1, 0] * 3)
    changed = made.config("gsm8k_llama3", "idlora", train={"learning_rate": 5e-3, "epochs": 1})
    runs = made.made().runs | {("gsm8k_llama3", "idlora", 0): run_name(changed)}
    assert reasons(made.table(runs=runs)) == ["never run"]
    next(made.root.glob("pebble-gsm8k-idlora-*/eval/*/DONE")).unlink()
    assert reasons(made.table()) == ["not evaluated on gsm8k"]


def test_a_column_shows_the_protocol_that_it_names_and_else_the_first(problems):
    made = problems(base=[1] * 5, lora=[1] * 5, idlora=[1] * 5)
    for method in made.grid.methods:
        run = made.run("gsm8k_llama3", method, benchmarks=[])
        made.evaluate(run, "gsm8k", np.zeros((5, 1), dtype=int), digest="5shot", protocol={"name": "5shot"})
    names = {("gsm8k", "0shot"): "gsm8k-0badcafe", ("gsm8k", "5shot"): "gsm8k-5shot"}
    assert [row.entries["gsm8k"].value for row in made.table(evaluations=names).rows] == [100.0] * 3
    made.grid = dataclasses.replace(made.grid, columns=(dataclasses.replace(made.grid.columns[0], protocol="5shot"),))
    assert [row.entries["gsm8k"].value for row in made.table(evaluations=names).rows] == [0.0] * 3
    del names["gsm8k", "5shot"]
    assert set(reasons(made.table(evaluations=names))) == {"not evaluated on gsm8k under 5shot"}


def test_runs_that_were_evaluated_on_other_data_are_refused(problems):
    made = problems(lora=[1] * 5, idlora=[1] * 5)
    outcomes = np.ones((5, 1), dtype=int)
    made.evaluate(made.run("gsm8k_llama3", "idlora", benchmarks=[]), "gsm8k", outcomes, data_digest="other")
    with pytest.raises(GridError, match="other data as gsm8k-0badcafe"):
        made.table()


@pytest.mark.parametrize("change", ["one item less", "other content"])
def test_runs_that_saw_other_items_are_not_paired(problems, change):
    made = problems(lora=[1] * 20, idlora=[1] * 20)
    outcomes = np.ones((20 - (change == "one item less"), 1), dtype=int)
    run = made.run("gsm8k_llama3", "idlora", benchmarks=[])
    made.evaluate(run, "gsm8k", outcomes, edited=change == "other content")
    with pytest.raises(GridError, match="did not see the same gsm8k items: 1 differ"):
        made.table()


def test_items_are_paired_by_id_whatever_the_order_of_the_files(world, few):
    rows = []
    for name in ("straight", "shuffled"):
        made = world(grid=few, name=name)
        for method in ("lora", "idlora"):
            run, outcomes = made.run("gsm8k_llama3", method, benchmarks=[]), made.draw("gsm8k_llama3", method, "gsm8k")
            made.evaluate(run, "gsm8k", outcomes, shuffle=(name, method) == ("shuffled", "idlora"))
        cells = made.gather().cells
        rows.append(pair(cells["llama3", "idlora", "gsm8k"], cells["llama3", "lora", "gsm8k"]))
    np.testing.assert_array_equal(*rows)
    assert not np.array_equal(rows[0], np.sort(rows[0]))  # shuffled, so pairing by position would fail


def changed(file: str, **values):
    return lambda path: write_json(path.parent / file, read_json(path.parent / file) | values)


DAMAGES = {
    "config.json": (lambda path: path.write_text('{"experiment": "gsm'), "config.json is not JSON"),
    "a config without a kind": (changed("config.json", method={"name": "lora"}), "a run's config needs 'kind'"),
    "a count of nothing": (changed("resources.json", parameters_total=0), "cannot be used (ZeroDivisionError"),
    "status.json": (lambda path: path.write_bytes(b"\x00" * 40), "status.json is not JSON"),
    "counts that lack": (
        lambda path: write_json(path.parent / "resources.json", {"parameters_trainable": 7}),
        "resources.json lacks parameters_router, parameters_total, frozen_copies",
    ),
    META: (lambda path: path.write_text("{}"), "meta.json lacks benchmark, items, protocol"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_one_damaged_run_is_named_and_the_rest_of_the_table_is_made(problems, tmp_path, caplog, kind):
    damage, sentence = DAMAGES[kind]
    made = problems(base=[0] * 9, lora=[1, 0, 0] * 3, idlora=[1, 1, 0] * 3)
    run = made.run("gsm8k_llama3", "lora", benchmarks=[])
    damage(run.folder / kind)
    table = made.table()
    (missing,) = table.missing
    assert sentence in missing.reason
    assert missing.cell == ("gsm8k_llama3", "lora", 0)
    assert [row.method for row in table.rows if row.entries["gsm8k"]] == ["base", "idlora"]
    rows = collect_metrics(made.root, tmp_path / "metrics.csv", scale="tiny")
    assert [(row["run"], row["status"]) for row in rows if row["status"] != "done"] == [(run.name, "damaged")]
    assert sentence in caplog.text
