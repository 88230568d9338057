"""Overrides made from values are read back as these values by Hydra, by OmegaConf and through a shell."""

import itertools
import random
import shlex
from pathlib import Path

import pytest

from reproduction.cells.compose import compose, plain
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.cells.override import override, pasted
from reproduction.commands.tables import Request

NASTY = [
    "", " ", "a (1)", "a,b", "run=3", "Jürgen", "it's", 'the "big" one', "[x]", "{x}", "a:b", "a#b", "100%", "$HOME",
    "~", "${oc.env:HOME}", r"\${seed}", r"\\${a", "${", "a$", "\\", 'a\\"', "a\\", "null", "True", "nan", "-inf", "12",
    "1e3", " a ", "a\tb", "a\nb", "!x", "a|b", "*", "?", "<a>", "`a`", "@a", "a&b;c", "🙂", "${seed}",
]  # fmt: skip


ODD = "a (1), [b]={c} 'd' \"e\" #5%$f: ${g} Jürgen"


def made_up(count: int) -> list[str]:
    draw = random.Random(0)
    parts = [*"ab1 '\"\\$ {}[](),=:#%~!@&*?;|<>^`+-_./\tä🙂", "${", "\\\\", "\\${", "null"]
    return ["".join(draw.choices(parts, k=draw.randint(1, 9))) for _ in range(count)]


def test_whatever_a_text_is_it_is_read_back_as_it_was():
    texts = [*NASTY, *made_up(3000)]
    assert plain(compose("report", [override("overrides", texts)]))["overrides"] == texts


@pytest.mark.parametrize("value", [None, True, False, 0, -3, 0.5, 1e-9, [], [1, "1", None, "a,b"], "null", "1"])
def test_other_values_keep_their_type(value):
    found = plain(compose("report", [override("data_root", value)]))["data_root"]
    assert (type(found), found) == (type(value), value)


def test_only_what_needs_quotes_has_them():
    for text in ("results", "/a/b-c.d/e_f", "../x"):
        assert override("run", Path(text)) == f"run={text}"
    assert override("protocol", ["0shot", "b"]) == 'protocol=["0shot",b]'
    assert override("train.learning_rate", 2e-4) == "train.learning_rate=0.0002"


@pytest.mark.parametrize("text", NASTY[::4])
def test_a_command_that_is_pasted_asks_for_the_same(text):
    words = shlex.split(pasted("evaluate", {"run": text, "allow_code_execution": True}))
    assert words[:2] == ["python", "scripts/evaluate.py"]
    values = plain(compose("evaluate", words[2:]))
    assert (values["run"], values["allow_code_execution"]) == (text, True)


@pytest.mark.parametrize("name", [ODD, "${seed}"])
def test_a_cell_lies_where_a_table_was_asked_to_have_it(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    asked = {"scale": "paper", "results_dir": folder, "data_root": folder, "protocol": ["default", "5shot"]}
    asked["overrides"] = ["train.max_steps=2", override("wandb.project", name)]
    values = plain(compose("table", list(itertools.starmap(override, asked.items()))))
    (request,) = Request.from_config(values)
    key, job = next(iter(request.jobs().items()))
    cell = compose_cell(*key[:2], scale=job[1], seed=0, overrides=job[2])
    assert (cell.results_dir, cell.data_root, cell.tracking.wandb.project) == (folder, folder.resolve(), name)
    # The command that a report prints requests the missing cell.
    command = shlex.split(request.gather(_planned(request)).missing[0].command)
    again = plain(compose("table", command[2:]))
    assert {key: again[key] for key in asked} == {key: values[key] for key in asked}


def _planned(request: Request):
    class Nothing:
        runs = dict.fromkeys(request.grid().cells(), "none")
        evaluations = None

    return Nothing


def test_the_command_that_a_training_ends_with_evaluates_its_run(script, tmp_path):
    asked = ["experiment=gsm8k_llama3", "method=lora", "scale=tiny", "hparams=default"]
    asked += ["train.max_steps=1", "data.limit=16", "eval.heldout.limit=4"]
    done = script("train", *asked, override("results_dir", tmp_path / ODD))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("next: ")]
    config = compose("evaluate", shlex.split(line)[3:])
    assert Path(config.run) in (tmp_path / ODD / "tiny/runs").iterdir()
    assert [each.limit for each in eval_job_from_config(config).waiting if each.benchmark == "heldout"] == [4, 4]
