"""The template of a run: part of what it is, recorded whole, and what everything that asks its model goes by."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.cells.from_config import compose_cell, eval_job_from_config, template_of
from reproduction.commands.pivots import Inspection, _prompts
from reproduction.data import encode_prompts, load_rows
from reproduction.data.templates import ALPACA, TEMPLATE_VERSION
from reproduction.preflight.workload import text_of
from reproduction.report import load_grid
from reproduction.running.train import train_cell
from reproduction.training import build_data
from reproduction.training.spec import DataSpec

CHAT = """\
{{ bos_token }}{% for message in messages %}
<|{{ message.role }}|>
{{ message.content }}<|end|>
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}

"""
PROMPT = "<|user|>\n{}<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jinja"
    path.write_text(CHAT)
    return path


@pytest.fixture
def cell(results: Path) -> Callable[..., Cell]:
    def compose(*overrides: str, experiment: str = "gsm8k_llama3") -> Cell:
        asked = [f"results_dir={results}", "hparams=default", *overrides]  # another template's rate was never searched
        return compose_cell(experiment, "lora", scale="tiny", seed=0, overrides=asked)

    return compose


def test_the_runs_of_the_committed_results_are_the_ones_that_the_configs_make_today(repository, results) -> None:
    with (repository / "results" / "reference" / "tiny" / "metrics.csv").open(newline="") as file:
        committed = {row["run"] for row in csv.DictReader(file)}
    grid = load_grid(repository / "experiments/table1").at("tiny")
    pairs = {(experiment, method) for experiment, method, _ in grid.cells()}
    made = {
        compose_cell(*pair, scale="tiny", seed=seed, overrides=[f"results_dir={results}"]).run.name
        for pair in pairs
        for seed in range(3)
    }
    assert len(made) == 2 + 2 * 3 * 5 * 3  # an untuned base is one run; three tasks, five methods, three seeds
    assert made <= committed


def test_a_run_of_ours_has_its_version_in_its_config_and_nothing_else(cell) -> None:
    assert cell().data.prompt_template == ALPACA
    recorded = cell().config["data"]
    assert recorded["template_version"] == TEMPLATE_VERSION
    assert recorded["template"] is None


def test_a_users_template_makes_another_run_by_its_text_and_by_nothing_else(cell, chat, tmp_path) -> None:
    run = cell(f"template.path={chat}").run.name
    assert run != cell().run.name
    copy = tmp_path / "copy.txt"
    copy.write_text(CHAT)
    assert cell(f"template.path={copy}").run.name == run
    assert cell(f"template.path={chat}", "template.name=mine").run.name == run
    copy.write_text(CHAT.replace("<|end|>", "<|fin|>"))
    assert cell(f"template.path={copy}").run.name != run


def test_a_run_keeps_the_whole_text_and_the_name_and_not_our_version(cell, chat) -> None:
    recorded = cell(f"template.path={chat}").config["data"]
    assert recorded["template"] == {"label": "chat", "source": CHAT}
    assert "template_version" not in recorded
    assert cell(f"template.path={chat}", "template.name=mine").config["data"]["template"]["label"] == "mine"


def test_a_file_is_read_anew_for_each_cell(cell, chat) -> None:
    before = cell(f"template.path={chat}")
    chat.write_text(CHAT.replace("<|end|>", "<|fin|>"))
    assert cell(f"template.path={chat}").run.name != before.run.name


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["template.path=none.jinja"], "Template none.jinja cannot be read"),
        (["template.name=mine"], "template.name=mine has no file: give template.path"),
        (["template=mine"], "mine"),
    ],
)
def test_a_template_that_is_not_there_is_refused(overrides, sentence, cell) -> None:
    with pytest.raises(ConfigError, match=sentence):
        cell(*overrides)


def test_a_file_that_is_no_template_is_refused_before_anything_runs(cell, chat) -> None:
    chat.write_text("{{ instruction }")
    with pytest.raises(ConfigError, match=r"chat\.jinja is no Jinja: line 1"):
        cell(f"template.path={chat}")


def test_a_model_is_evaluated_under_the_template_it_is_given_and_a_run_under_its_own(chat) -> None:
    assert template_of(plain(compose("evaluate"))) == ALPACA
    asked = plain(compose("evaluate", [f"template.path={chat}", "template.name=mine"]))
    assert (template_of(asked).name, template_of(asked).source) == ("mine", CHAT)
    with pytest.raises(ConfigError, match="a run has its own template"):
        eval_job_from_config(compose("evaluate", ["run=somewhere", f"template.path={chat}"]))


@pytest.mark.parametrize("experiment", ["codealpaca_llama3", "multitask_llama3"])
def test_what_is_planned_is_counted_under_the_cells_template(experiment, cell, chat) -> None:
    own, ours = (cell(*more, experiment=experiment) for more in ([f"template.path={chat}"], []))
    assert text_of(own).rows == text_of(ours).rows
    assert text_of(own).characters < text_of(ours).characters  # a shorter preamble


def test_every_part_of_a_mixture_and_what_is_held_out_of_it_has_the_runs_template(cell, chat) -> None:
    mixed = cell(f"template.path={chat}", "data.limit=24", "data.validation_rows=8", experiment="multitask_llama3")
    tokenizer = AutoTokenizer.from_pretrained(mixed.model.path_or_id)
    training, held_out = build_data(mixed.data, tokenizer, root=mixed.data_root)
    assert len({id.split("/")[0] for id in training.ids}) == 3
    for row in [*training.rows, *held_out.rows]:
        assert tokenizer.decode(row["input_ids"]).startswith("<s><|user|>\n")


def test_a_run_trains_on_its_templates_prompts_and_keeps_to_them_when_the_file_is_gone(
    cell, chat, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    trained = cell(f"template.path={chat}", "train.max_steps=2", "data.limit=32", "train.learning_rate=0.01")
    train_cell(trained)
    chat.unlink()

    rows = {row["id"]: row for row in load_rows("gsm8k", "train", root=trained.data_root)}
    tokenizer = AutoTokenizer.from_pretrained(trained.model.path_or_id)
    (kept,) = (tmp_path / "cache" / "tokenized").glob("*.npz")  # what it was trained on
    with np.load(kept) as arrays:
        ids = bytes(arrays["ids"]).decode()
        lengths, prompts = arrays["lengths"], arrays["prompts"]
        starts = np.cumsum(lengths) - lengths
        asked = [arrays["input_ids"][start : start + n].tolist() for start, n in zip(starts, prompts, strict=True)]
    expected = [PROMPT.format(rows[id]["question"].strip()) for id in json.loads(ids)]
    assert [tokenizer.decode(each, skip_special_tokens=True) for each in asked] == expected
    assert asked == encode_prompts(tokenizer, expected)
    assert all(each.count(tokenizer.bos_token_id) == 1 for each in asked)

    recorded = trained.run.config["data"]
    assert parse_dataclass(DataSpec, recorded, where="data").prompt_template == trained.data.prompt_template
    inspection = Inspection.from_config(
        compose(
            "pivots", [f"run={trained.run.folder}", "scale=tiny", f"results_dir={trained.results_dir}", "prompts=3"]
        )
    )
    seen = [tokenizer.decode(each[0], skip_special_tokens=True) for each in _prompts(inspection, tokenizer)]
    assert len(seen) == 3
    assert all(each.startswith("<|user|>\n") and each.endswith("<|end|>\n<|assistant|>\n") for each in seen)
