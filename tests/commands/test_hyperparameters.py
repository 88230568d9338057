"""Tables 4 and 5: the configs have the paper's values, a change of either is seen, and our copies are the paper's."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.commands.hyperparameters import hyperparameters
from reproduction.paths import CONFIGS
from reproduction.report.hyperparameters import DIFFERS, Hyperparameter, differing, summary, write


@pytest.fixture(scope="module")
def tables() -> dict[str, list[Hyperparameter]]:
    return {table: hyperparameters(table) for table in ("table4", "table5")}


@pytest.mark.parametrize(("table", "values", "experiments"), [("table4", 48, 6), ("table5", 18, 2)])
def test_every_config_has_the_papers_hyperparameters(table: str, values: int, experiments: int, tables) -> None:
    found = tables[table]
    assert differing(found) == [], summary(found)
    assert len(found) == values
    assert len({each.experiment for each in found}) == experiments


def test_every_experiment_is_in_one_of_the_two_tables_or_built_on_one_or_says_that_the_paper_is_silent(tables) -> None:
    printed = {each.experiment for found in tables.values() for each in found}
    texts = {path.stem: path.read_text() for path in (CONFIGS / "experiment").glob("*.yaml")}
    built_on = {name: set(map(str, yaml.safe_load(text)["defaults"])) & printed for name, text in texts.items()}
    silent = [name for name in texts.keys() - printed if not built_on[name]]
    assert silent
    for name in silent:
        assert "(open)" in texts[name]
        assert "our choice" in texts[name]


def test_epochs_are_not_cut_short_at_the_papers_scale(tables) -> None:
    for experiment in {each.experiment for found in tables.values() for each in found}:
        config = compose("train", [f"experiment={experiment}", "scale=paper"])
        assert config.train.max_steps is None


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (64, "128"),
        (6e-5, "5e-5"),
        ("sgd", "AdamW"),
        ("adafactor", "AdamW"),
        (["q_proj", "v_proj"], "q;k;v"),
        (["q_proj", "k_proj", "v_proj"], "q;v"),
        (None, "2"),
    ],
)
def test_a_value_that_is_not_the_papers_differs(value: object, printed: str) -> None:
    row = Hyperparameter(experiment="e", name="n", key="train.n", value=value, printed=printed)
    assert row.agree == DIFFERS
    assert f"e train.n: {row.text}, printed {printed}" in summary([row])


@pytest.mark.parametrize(
    ("value", "printed"),
    [(128, "128"), (5e-05, "5e-5"), (2.0, "2"), ("adamw_torch", "AdamW"), (["v_proj", "q_proj"], "q;v")],
)
def test_a_value_that_is_the_papers_in_another_spelling_agrees(value: object, printed: str) -> None:
    assert Hyperparameter(experiment="e", name="n", key="k", value=value, printed=printed).agree == "same"


def changed_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    (tmp_path / "table4").mkdir()
    (tmp_path / "table4" / "paper.csv").write_text(f"experiment,hyperparameter,value,source\n{line}\n")
    monkeypatch.setattr("reproduction.commands.hyperparameters.EXPERIMENTS", tmp_path)


def test_the_config_is_read_and_not_the_papers_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed_paper(monkeypatch, tmp_path, "gsm8k_llama3,epochs,7,changed")
    (row,) = hyperparameters("table4")
    assert (row.value, row.printed, row.agree) == (3, "7", DIFFERS)


@pytest.mark.parametrize(("table", "word"), [("table4", "momentum"), ("table1", "no hyperparameters")])
def test_what_no_config_key_holds_is_refused(table, word, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed_paper(monkeypatch, tmp_path, "gsm8k_llama3,momentum,0.9,changed")
    with pytest.raises(ConfigError, match=word):
        hyperparameters(table)


def test_all_three_files_hold_every_value(tables, tmp_path: Path) -> None:
    found = tables["table5"]
    table, document, latex = (path.read_text() for path in write("table5", "Title", found, folder=tmp_path))
    assert len(list(csv.DictReader(table.splitlines()))) == len(found)
    assert document.count("| same |") == len(found)
    assert latex.count("\\\\") == 1 + len({each.name for each in found})


def test_the_command_prints_the_table_that_it_writes(repository: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    script = repository / "scripts" / "hyperparameters.py"
    monkeypatch.setattr(sys, "argv", [str(script), "table=table5", f"results_dir={tmp_path}"])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| multitask_mistral | learning_rate | `train.learning_rate` | 5e-05 | 5e-5 | same |" in printed
    assert (tmp_path / "counts" / "table5.md").read_text() in printed


# The paper's tables as they were transcribed once, beside the checkout where they are: ours must be the same numbers.

BASES = {"llama3_8b": "llama3", "mistral_7b": "mistral", "llama3.2_3b": "llama3_2_3b"}
VARIANTS = {"PMRC+RB": "", "w/o RB": "_no_rb", "SS+RB": "_serial", "RS+RB": "_random", "": ""}
SIZES = {
    "lora": {"4": "_eighth", "8": "_quarter", "16": "_half", "32": ""},
    "idlora": {"32": "_quarter", "64": "_half", "128": "", "256": "_double"},
}


@pytest.fixture(scope="module")
def transcribed(repository: Path) -> Path:
    folder = repository.parent / "shared" / "paper" / "tables"
    if not folder.is_dir():
        pytest.skip("no transcription of the paper's tables beside the checkout")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def method_of(row: dict[str, str]) -> str:
    if "k" in row:
        return "idlora" if row["k"] == "4" else f"idlora_k{row['k']}"
    method = row["method"]
    if "rank" in row:
        return method + SIZES[method][row["rank"]]
    return method + VARIANTS[row.get("variant", "")]


@pytest.mark.parametrize("table", [1, 2, 3, 7, 8])
def test_our_copy_of_the_scores_is_the_transcribed_table(table: int, transcribed: Path, repository: Path) -> None:
    expected = {}
    for row in rows_of(transcribed / f"table{table}.csv"):
        marked = (row.get("significant") or "").split(";")
        for column in row.keys() - {"base_model", "method", "variant", "rank", "k", "significant"}:
            key = (BASES[row["base_model"]], method_of(row), column.removeprefix("humaneval_"))
            expected[key] = (row[column], "yes" if column in marked else "")
    ours = rows_of(repository / "experiments" / f"table{table}" / "paper.csv")
    found = {(row["base"], row["method"], row["column"]): (row["value"], row["dagger"]) for row in ours}
    assert len(found) == len(ours)
    assert found == expected


@pytest.mark.parametrize(("table", "prefix"), [(4, ""), (5, "multitask_")])
def test_our_copy_of_the_hyperparameters_is_the_transcribed_table(table, prefix, transcribed, repository) -> None:
    expected = {
        (prefix + column, row["hyperparameter"]): value
        for row in rows_of(transcribed / f"table{table}.csv")
        for column, value in row.items()
        if column != "hyperparameter"
    }
    ours = rows_of(repository / "experiments" / f"table{table}" / "paper.csv")
    assert {(row["experiment"], row["hyperparameter"]): row["value"] for row in ours} == expected


def test_our_copy_of_the_counts_is_the_transcribed_table(transcribed: Path, repository: Path) -> None:
    expected = {
        (BASES[row["base_model"]], row["rank"], method): printed
        for row in rows_of(transcribed / "table6.csv")
        for method, printed in row.items()
        if method not in ("base_model", "rank")
    }
    ours = rows_of(repository / "experiments" / "table6" / "paper.csv")
    assert {(row["base"], row["rank"], row["method"]): row["printed"] for row in ours} == expected
