"""An override that is made from a value says that value, to Hydra, to OmegaConf and through a shell."""

import itertools
import random
import shlex
import subprocess
import sys
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


def made_up(count: int) -> list[str]:
    draw = random.Random(0)
    parts = [*"ab1 '\"\\$ {}[](),=:#%~!@&*?;|<>^`+-_./\tä🙂", "${", "\\\\", "\\${", "null"]
    return ["".join(draw.choices(parts, k=draw.randint(1, 9))) for _ in range(count)]


def test_whatever_a_text_is_it_is_read_back_as_it_was():
    texts = [*NASTY, *made_up(3000)]
    assert plain(compose("report", [override("overrides", texts)]))["overrides"] == texts


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_the_same_where_another_key_takes_it_over(text):
    values = plain(compose("page", [override("results_dir", text)]))
    assert values["results_dir"] == text
    assert values["output"] == f"{text}/tiny/report.html"


@pytest.mark.parametrize("value", [None, True, False, 0, -3, 0.5, 1e-9, [], [1, "1", None, "a,b"], "null", "1"])
def test_other_values_keep_their_type(value):
    found = plain(compose("report", [override("data_root", value)]))["data_root"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["results", "/a/b-c.d/e_f", "../x"])
def test_what_needs_no_quotes_has_none(text):
    assert override("run", Path(text)) == f"run={text}"


@pytest.mark.parametrize("text", NASTY)
def test_a_command_that_is_pasted_asks_for_the_same(text):
    words = shlex.split(pasted("evaluate", {"run": text, "allow_code_execution": True}))
    assert words[:2] == ["python", "scripts/evaluate.py"]
    values = plain(compose("evaluate", words[2:]))
    assert (values["run"], values["allow_code_execution"]) == (text, True)


@pytest.mark.parametrize("name", [name for name in NASTY if name.strip(" ~") and "\n" not in name])
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
    # What a report says is missing is asked for by the command that it prints.
    command = shlex.split(request.gather(_planned(request)).missing[0].command)
    again = plain(compose("table", command[2:]))
    assert {key: again[key] for key in asked} == {key: values[key] for key in asked}


def _planned(request: Request):
    class Nothing:
        runs = dict.fromkeys(request.grid().cells(), "none")
        evaluations = None

    return Nothing


def test_the_rates_and_protocols_of_a_script_s_own_files_are_written_the_same_way():
    assert override("protocol", ["0shot", "b"]) == 'protocol=["0shot",b]'
    assert override("train.learning_rate", 2e-4) == "train.learning_rate=0.0002"


ODD = "a (1), [b]={c} 'd' \"e\" #5%$f: ${g} Jürgen"


@pytest.mark.parametrize(
    ("script", "fewer", "said"),
    [
        ("tune", ["table=table1", "experiments=gsm8k_llama3", "methods=lora"], "workers=0 is no number of processes"),
        ("validate", ["benchmarks=[gsm8k]"], f"{ODD}/data/gsm8k is not there"),
    ],
)
def test_a_script_that_composes_cells_takes_any_folder(repository, tmp_path, script, fewer, said):
    (tmp_path / ODD / "data").mkdir(parents=True)
    folders = {"results_dir": tmp_path / ODD, "data_root": tmp_path / ODD / "data"}
    done = ran(repository, script, "scale=tiny", *itertools.starmap(override, folders.items()), "workers=0", *fewer)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr, "it is refused after its cells were composed"


def test_the_command_that_a_training_ends_with_evaluates_its_run(repository, tmp_path):
    asked = ["experiment=gsm8k_llama3", "method=lora", "scale=tiny", "hparams=default"]
    asked += ["train.max_steps=1", "data.limit=16", "eval.heldout.limit=4"]
    done = ran(repository, "train", *asked, override("results_dir", tmp_path / ODD))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("next: ")]
    config = compose("evaluate", shlex.split(line)[3:])
    assert Path(config.run) in (tmp_path / ODD / "tiny/runs").iterdir()
    assert [each.limit for each in eval_job_from_config(config).waiting if each.benchmark == "heldout"] == [4, 4]


def ran(repository: Path, script: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, repository / "scripts" / f"{script}.py", *overrides]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
