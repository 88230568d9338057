"""Where a command's data come from: a folder under either of its names, or the hub's data sets at pinned commits."""

import re

import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.cells.resolve_paths import data_digest, datasets
from reproduction.commands.pivots import Inspection
from reproduction.data.catalogue import DataError
from reproduction.training import DataSpec, build_data

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cell(*overrides: str, scale: str = "paper", experiment: str = "multitask_llama3"):
    overrides = (*overrides, "train.learning_rate=0.001")
    return compose_cell(experiment, "lora", scale=scale, seed=0, overrides=overrides)


def test_every_data_set_of_the_hub_has_a_revision_and_those_of_the_hub_proper_a_commit():
    pinned = compose("train").revisions
    assert set(pinned) == {name for name, spec in datasets().items() if spec.source("main")}
    assert all(re.fullmatch("[0-9a-f]{40}", pinned[name]) for name in pinned if datasets()[name].url is None)


def test_a_run_and_its_evaluations_carry_the_revision_that_is_used():
    pinned, other = cell(), cell(f"revisions.gsm8k={COMMIT}")
    assert f"openai/gsm8k@{compose('train').revisions.gsm8k}" in pinned.data.digest.split("+")
    assert f"openai/gsm8k@{COMMIT}" in other.data.digest.split("+")
    assert pinned.run.name != other.run.name
    assert pinned.eval_job.revisions == pinned.revisions
    changed = {
        (each.benchmark, each.name)
        for each in pinned.protocols
        if pinned.eval_job.eval_folder(each).name != other.eval_job.eval_folder(each).name
    }
    assert changed == {("gsm8k", "0shot"), ("heldout", "gsm8k_test")}


@pytest.mark.parametrize("newest", ["main", "null"])
def test_the_newest_can_be_asked_for(newest):
    assert "openai/gsm8k@main" in cell(f"revisions.gsm8k={newest}").data.digest.split("+")


def test_the_file_that_is_on_no_hub_is_fetched_at_its_revision_too():
    digest = cell(f"revisions.saferpaca={COMMIT}", experiment="saferpaca_llama3").data.digest
    assert digest.startswith("https://")
    assert f"/safety-tuned-llamas/{COMMIT}/data/" in digest


def test_evaluating_and_inspecting_take_the_same_revisions():
    asked = ["scale=paper", f"revisions.gsm8k={COMMIT}"]
    assert eval_job_from_config(compose("evaluate", [*asked, "eval=gsm8k"])).revisions["gsm8k"] == COMMIT
    assert Inspection.from_config(compose("pivots", asked)).revisions["gsm8k"] == COMMIT


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (f"+revisions.gsm9k={COMMIT}", r"revisions\.gsm9k is of no data set of the hub; they are gsm8k, "),
        (f"+revisions.hexphi_benign={COMMIT}", r"revisions\.hexphi_benign is of no data set of the hub"),
        ("revisions.gsm8k=1234567", r"revisions\.gsm8k=1234567 is a number: put the commit in quotes"),
    ],
)
def test_a_revision_that_cannot_be_is_refused_with_its_key(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        cell(override)


def test_a_local_folder_has_no_revisions(tmp_path):
    pinned = cell(scale="tiny")
    moved = cell(f"revisions.gsm8k={COMMIT}", scale="tiny")
    assert (moved.data.digest, moved.run.name) == (pinned.data.digest, pinned.run.name)
    assert data_digest("gsm8k", moved.data_root, revisions={"gsm8k": COMMIT}) == data_digest("gsm8k", moved.data_root)


def test_the_folder_has_two_names_and_neither_is_part_of_the_run(tmp_path):
    tiny = cell(scale="tiny")
    link = tmp_path / "linked"
    link.symlink_to(tiny.data_root.resolve())
    for override in (f"data.root={link}", f"data_root={link}", f"data.root={tiny.data_root}"):
        named = cell(override, scale="tiny")
        assert named.data_root == tiny.data_root.resolve()
        assert named.run.name == tiny.run.name
        assert "root" not in named.config["data"]
    assert cell(f"data.root={tiny.data_root}").data.digest == tiny.data.digest


def test_a_folder_that_is_none_is_refused_under_either_name():
    for name in ("data.root", "data_root"):
        with pytest.raises(ConfigError, match="data_root=nowhere is no folder"):
            cell(f"{name}=nowhere", scale="tiny")


@pytest.mark.parametrize("parts", [None, {"saferpaca": 1.0}])
def test_the_training_rows_are_read_at_the_revision_alone_or_in_a_mixture(parts):
    spec = DataSpec(name="saferpaca", max_length=64, parts=parts)
    with pytest.raises(DataError, match=rf"could not be loaded from https://\S*/{COMMIT}/data/"):
        build_data(spec, byte_tokenizer(), root=None, revisions={"saferpaca": COMMIT})
