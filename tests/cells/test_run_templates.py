"""The template of a run: part of its identity, recorded in full, and used by every evaluation of its model."""

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
        asked = [f"results_dir={results}", "hparams=default", *overrides]  # other templates have no tuned rate
        return compose_cell(experiment, "lora", scale="tiny", seed=0, overrides=asked)

    return compose


def test_the_runs_of_the_committed_results_are_the_ones_that_the_configs_make_today(repository, results) -> None:
    with (repository / "results" / "reference" / "tiny" / "metrics.csv").open(newline="") as file:
        committed = {row["run"] for row in csv.DictReader(file)}
    grid = load_grid(repository / "experiments/table1").at("tiny")
    pairs = sorted({(experiment, method) for experiment, method, _ in grid.cells()})[::5]  # every task, every method
    made = {
        compose_cell(*pair, scale="tiny", seed=seed, overrides=[f"results_dir={results}"]).run.name
        for pair in pairs
        for seed in range(3)
    }
    assert len(made) > len(pairs)
    assert made <= committed


def test_a_template_is_part_of_a_run_by_its_text_alone(cell, chat, tmp_path) -> None:
    ours = cell()
    assert ours.data.prompt_template == ALPACA
    assert (ours.config["data"]["template_version"], ours.config["data"]["template"]) == (TEMPLATE_VERSION, None)
    own = cell(f"template.path={chat}")
    assert own.config["data"]["template"] == {"label": "chat", "source": CHAT}
    assert "template_version" not in own.config["data"]
    copy = tmp_path / "copy.txt"
    copy.write_text(CHAT)
    named = cell(f"template.path={chat}", "template.name=mine")
    assert named.config["data"]["template"]["label"] == "mine"
    assert cell(f"template.path={copy}").run.name == named.run.name == own.run.name != ours.run.name
    chat.write_text(CHAT.replace("<|end|>", "<|fin|>"))
    assert cell(f"template.path={chat}").run.name != own.run.name


@pytest.mark.parametrize(
    ("override", "value"),
    [("template.path=none.jinja", "none.jinja"), ("template.name=mine", "template.name=mine"),
     ("template=mine", "mine"), ("template.path={chat}", "chat.jinja")],
)  # fmt: skip
def test_what_is_no_template_is_refused_before_anything_runs(override, value, cell, chat) -> None:
    chat.write_text("{{ instruction }")
    with pytest.raises(ConfigError, match=value):
        cell(override.format(chat=chat))


def test_a_model_is_evaluated_under_the_template_it_is_given_and_a_run_under_its_own(chat) -> None:
    assert template_of(plain(compose("evaluate"))) == ALPACA
    asked = plain(compose("evaluate", [f"template.path={chat}", "template.name=mine"]))
    assert (template_of(asked).name, template_of(asked).source) == ("mine", CHAT)
    with pytest.raises(ConfigError, match=r"template\.path"):
        eval_job_from_config(compose("evaluate", ["run=somewhere", f"template.path={chat}"]))


def test_every_part_of_a_mixture_and_what_is_held_out_of_it_has_the_runs_template(cell, chat) -> None:
    mixed = cell(f"template.path={chat}", "data.limit=24", "data.validation_rows=8", experiment="multitask_llama3")
    whole = (cell(*more, experiment="multitask_llama3") for more in ([f"template.path={chat}"], []))
    own, ours = map(text_of, whole)  # the count of a plan
    assert own.rows == ours.rows
    assert own.characters < ours.characters  # a shorter preamble
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
