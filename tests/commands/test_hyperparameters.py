"""Tables 4 and 5: the configs have the paper's values, and a change of either is detected."""

import csv
import runpy
import sys

import pytest
import yaml

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.commands.hyperparameters import hyperparameters
from reproduction.paths import CONFIGS
from reproduction.report.hyperparameters import DIFFERS, Hyperparameter, differing, summary

TABLES = {"table4": (48, 6), "table5": (18, 2)}
"""Number of values and experiments of each table."""


def test_every_config_has_the_papers_hyperparameters_or_says_that_the_paper_is_silent():
    printed = set()
    for table, (values, experiments) in TABLES.items():
        found = hyperparameters(table)
        assert differing(found) == [], summary(found)
        names = {each.experiment for each in found}
        assert (len(found), len(names)) == (values, experiments)
        printed |= names
    for name in printed:  # epochs are not cut short
        assert compose("train", [f"experiment={name}", "scale=paper"]).train.max_steps is None
    texts = {path.stem: path.read_text() for path in (CONFIGS / "experiment").glob("*.yaml")}
    built_on = {name: set(map(str, yaml.safe_load(text)["defaults"])) & printed for name, text in texts.items()}
    silent = [name for name in texts.keys() - printed if not built_on[name]]
    assert silent
    assert all("(open)" in texts[name] and "our choice" in texts[name] for name in silent)


@pytest.mark.parametrize(
    ("value", "printed", "agrees"),
    [
        (64, "128", False),
        (6e-5, "5e-5", False),
        ("sgd", "AdamW", False),
        (["q_proj", "v_proj"], "q;k;v", False),
        (None, "2", False),
        (5e-05, "5e-5", True),
        (2.0, "2", True),
        ("adamw_torch", "AdamW", True),
        (["v_proj", "q_proj"], "q;v", True),
    ],
)
def test_a_value_agrees_in_any_spelling_and_else_differs(value, printed, agrees):
    row = Hyperparameter(experiment="e", name="n", key="train.n", value=value, printed=printed)
    assert (row.agree != DIFFERS) == agrees


def test_the_config_is_read_and_not_the_papers_file(monkeypatch, tmp_path):
    (tmp_path / "table4").mkdir()
    monkeypatch.setattr("reproduction.commands.hyperparameters.EXPERIMENTS", tmp_path)
    paper = tmp_path / "table4" / "paper.csv"
    paper.write_text("experiment,hyperparameter,value,source\ngsm8k_llama3,epochs,7,changed\n")
    (row,) = hyperparameters("table4")
    assert (row.value, row.printed, row.agree) == (3, "7", DIFFERS)
    paper.write_text("experiment,hyperparameter,value,source\ngsm8k_llama3,momentum,0.9,changed\n")
    for table, word in (("table4", "momentum"), ("table1", "table1")):
        with pytest.raises(ConfigError, match=word):
            hyperparameters(table)


def test_the_command_prints_the_table_that_it_writes(repository, tmp_path, monkeypatch, capsys):
    script = repository / "scripts" / "hyperparameters.py"
    monkeypatch.setattr(sys, "argv", [str(script), "table=table5", f"results_dir={tmp_path}"])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| multitask_mistral | learning_rate | `train.learning_rate` | 5e-05 | 5e-5 | same |" in printed
    table, document, latex = ((tmp_path / "counts" / f"table5.{kind}").read_text() for kind in ("csv", "md", "tex"))
    assert document in printed
    assert len(list(csv.DictReader(table.splitlines()))) == document.count("| same |") == TABLES["table5"][0]
    assert "multitask" in latex
