"""Cutting and mixing training sets: which rows are held out, validated on and trained on, and what runs see of it."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.cells.resolve_paths import data_digest, datasets
from reproduction.commands.pivots import Inspection
from reproduction.data import (
    DataError,
    instruction_of,
    limit,
    load_mixture,
    load_rows,
    mixture_examples,
    to_examples,
    validation,
)
from reproduction.data.splits import VALIDATION, is_held_out, lowest, place
from reproduction.preflight import NotReady, require
from reproduction.training import DataSpec, build_data

PARTS = {"alpaca": 1.0, "gsm8k": 1.0, "codealpaca": 0.5}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"id": f"train/{n}", "question": f"What is {n} + {n}?"} for n in range(400)]
ASKED = partial(instruction_of, "gsm8k")


def instructions(name: str, count: int) -> str:
    return json.dumps([{"instruction": f"{name} {n}", "input": "", "output": f"done {n}"} for n in range(count)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count in (("alpaca", 20), ("codealpaca", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text(instructions(name, count))
    (tmp_path / "gsm8k").mkdir()
    for split in ("train", "test"):
        lines = [json.dumps({"question": f"{split} {n}?", "answer": f"#### {n}"}) + "\n" for n in range(10)]
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text("".join(lines))
    return tmp_path


def cell(*overrides: str, scale: str = "tiny", experiment: str = "multitask_llama3"):
    return compose_cell(experiment, "lora", scale=scale, seed=0, overrides=["train.learning_rate=0.001", *overrides])


# Cuts


def test_a_prompt_falls_uniformly_and_always_alike() -> None:
    places = [place(ASKED(row)) for row in ROWS]
    assert 0 <= min(places) < 0.02 < 0.98 < max(places) < 1
    assert sum(places) / len(places) == pytest.approx(0.5, abs=0.05)
    assert place(("Name three.", "")) == 0.4631228592667207  # on every machine, whatever the version of this code
    assert place(("a", "b")) != place(("ab", ""))


def test_a_larger_share_holds_out_the_same_rows_and_more_and_the_lowest_are_farthest_from_them() -> None:
    held = {share: {row["id"] for row in ROWS if is_held_out(ASKED(row), share)} for share in (0.0, 0.05, 0.2)}
    assert held[0.0] == set() < held[0.05] < held[0.2]
    assert len(held[0.2]) == pytest.approx(80, abs=25)
    half = lowest(ROWS, 200, ASKED)
    assert half == [row for row in ROWS if row in half]
    assert max(place(ASKED(row)) for row in half) < min(place(ASKED(row)) for row in ROWS if row not in half)


def test_a_validation_slice_is_disjoint_complete_and_independent_of_the_order_and_of_those_held_out() -> None:
    rest, apart = validation(ROWS, 40, ASKED)
    assert len(apart) == 40
    assert sorted(map(str, rest + apart)) == sorted(map(str, ROWS))
    assert validation(ROWS[::-1], 40, ASKED)[1] == apart[::-1]
    assert validation(ROWS, 0, ASKED) == (ROWS, [])
    both = [row for row in ROWS if is_held_out(ASKED(row), 0.5) and place(ASKED(row), VALIDATION) >= 0.5]
    assert len(both) == pytest.approx(100, abs=30)
    for count in (-1, 400):
        with pytest.raises(ValueError, match=f"Cannot set {count} of 400"):
            validation(ROWS, count, ASKED)


def test_rows_that_ask_the_same_stay_together_on_one_side() -> None:
    twice = [*ROWS, *(row | {"id": f"again/{row['id']}"} for row in ROWS)]
    rest, apart = validation(twice, 41, ASKED)
    assert not set(map(ASKED, rest)) & set(map(ASKED, apart))
    with pytest.raises(ValueError, match="leaves none: too many of them ask the same"):
        validation([ROWS[0]] * 5, 2, ASKED)


def test_a_limit_keeps_the_order_and_reaches_every_part_of_the_set() -> None:
    some = limit(ROWS, 50)
    assert len(some) == 50
    assert some == [row for row in ROWS if row in some]
    assert any(row in ROWS[350:] for row in some)
    assert limit(ROWS, None) == ROWS == limit(ROWS, 1000)
    with pytest.raises(ValueError, match="to 0 rows"):
        limit(ROWS, 0)


# Mixtures


def test_a_mixture_holds_each_parts_share_of_training_rows_each_put_as_it_would_be_alone(root: Path) -> None:
    rows = load_mixture(PARTS, root=root)
    assert [row["part"] for row in rows] == ["alpaca"] * 20 + ["gsm8k"] * 10 + ["codealpaca"] * 20
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row for row in rows if row["part"] == "codealpaca"] == load_mixture({"codealpaca": 0.5}, root=root)
    examples = {example.id: example for example in mixture_examples(rows)}
    assert list(examples) == [row["id"] for row in rows]
    for part in ("alpaca", "gsm8k"):
        for alone in to_examples(part, load_rows(part, "train", root=root)):
            assert examples[f"{part}/{alone.id}"] == dataclasses.replace(alone, id=f"{part}/{alone.id}")


def test_rows_held_out_are_in_no_mixture_and_a_share_is_still_of_all_rows(root: Path) -> None:
    whole, cut = ({row["id"] for row in load_mixture(PARTS, root=root, held_out=share)} for share in (0.0, 0.3))
    assert cut < whole
    codes = load_mixture({"codealpaca": 0.5}, root=root, held_out=0.3)
    assert len(codes) == 20
    assert codes == load_mixture({"codealpaca": 0.5}, root=root)
    with pytest.raises(ValueError, match="keeps 0 of the 10 rows of gsm8k"):
        load_mixture({"gsm8k": 0.01}, root=root)


@pytest.mark.parametrize(("proportions", "counts"), [((10, 1), (20, 2)), ((1, 4), (10, 40)), ((1, 40), (1, 40))])
def test_proportions_give_as_many_rows_as_the_sets_allow(proportions, counts, root: Path) -> None:
    parts = [
        row["part"] for row in load_mixture(dict(zip(("alpaca", "codealpaca"), proportions, strict=True)), root=root)
    ]
    assert (parts.count("alpaca"), parts.count("codealpaca")) == counts


def test_proportions_hold_among_the_rows_that_are_not_held_out_and_a_set_that_is_too_small_is_refused(root) -> None:
    rows = load_mixture({"codealpaca": 15, "alpaca": 1}, root=root, held_out=0.42)  # 15 / 26 * 26 < 15 in a float
    parts = [row["part"] for row in rows]
    assert 0 < parts.count("codealpaca") == 15 * parts.count("alpaca") < 40
    assert not any(is_held_out(instruction_of(row["part"], row), 0.42) for row in rows)
    with pytest.raises(ValueError, match=r"'gsm8k': 10.* rows are too few for the proportions"):
        load_mixture({"gsm8k": 11, "alpaca": 1}, root=root)


def test_a_run_cuts_its_mixture_across_the_parts_and_packs_the_training_rows_alone(root: Path) -> None:
    spec = DataSpec(name="multitask", max_length=512, parts=PARTS, validation_rows=8, limit=24, packing=True)
    training, apart = build_data(spec, byte_tokenizer(), root=root)
    assert (len(training.ids), len(apart), len(apart.ids)) == (24, 8, 8)
    assert len(training) < 24
    assert {name.split("/")[0] for name in training.ids} == set(PARTS)
    assert all("position_ids" in row for row in training.rows)
    assert not any("position_ids" in row for row in apart.rows)
    rest, held = validation(load_mixture(PARTS, root=root), 8, lambda row: instruction_of(row["part"], row))
    assert apart.ids == [row["id"] for row in held]
    assert sorted(training.ids) == sorted(row["id"] for row in limit(rest, 24))
    single = DataSpec(name="gsm8k", max_length=512)
    assert build_data(single, byte_tokenizer(), root=root)[0].ids == [f"train/{n}" for n in range(10)]


@pytest.mark.parametrize(("parts", "word"), [({}, "empty"), ({"gsm8k": 0.0}, "gsm8k is 0"), ({"gsm8k": 1.5}, "1.5"),
                                             ({"gsm8k": 2.0, "alpaca": 0.5}, "alpaca is 0.5")])  # fmt: skip
def test_shares_outside_zero_and_one_are_refused(parts: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DataSpec(name="mine", max_length=9, parts=parts)


# Runs


def test_a_runs_mixture_is_identified_by_its_shares_and_by_the_contents_of_every_part(root: Path, tmp_path) -> None:
    where = [f"data_root={root}", f"results_dir={tmp_path / 'results'}", "eval=gsm8k"]
    ours = cell(*where)
    assert (ours.data.name, ours.data.parts) == ("multitask", PARTS)
    names = {ours.run.name, cell(*where, "data.parts.codealpaca=0.25").run.name}
    for part in ("alpaca/alpaca.json", "codealpaca/codealpaca.json"):
        (root / part).write_text(instructions("other", 30))
        names.add(cell(*where).run.name)
    assert len(names) == 4
    assert all(data_digest(part, root) in cell(*where).data.digest for part in PARTS)
    with pytest.raises(ConfigError, match="no data set alpacca"):
        cell(*where, "+data.parts.alpacca=1.0")
    (root / "codealpaca" / "codealpaca.json").unlink()
    with pytest.raises(NotReady, match="data set codealpaca"):
        require([cell(*where)], scale="tiny", results_dir=tmp_path)


def test_a_run_and_its_evaluations_carry_the_revision_that_is_used() -> None:
    pinned, other = cell(scale="paper"), cell(f"revisions.gsm8k={COMMIT}", scale="paper")
    assert f"openai/gsm8k@{compose('train').revisions.gsm8k}" in pinned.data.digest.split("+")
    assert f"openai/gsm8k@{COMMIT}" in other.data.digest.split("+")
    assert "openai/gsm8k@main" in cell("revisions.gsm8k=null", scale="paper").data.digest.split("+")
    assert pinned.run.name != other.run.name
    changed = {
        (each.benchmark, each.name)
        for each in pinned.protocols
        if pinned.eval_job.eval_folder(each).name != other.eval_job.eval_folder(each).name
    }
    assert changed == {("gsm8k", "0shot"), ("heldout", "gsm8k_test")}
    saferpaca = cell(f"revisions.saferpaca={COMMIT}", scale="paper", experiment="saferpaca_llama3").data.digest
    assert re.match(rf"https://.*/{COMMIT}/data/", saferpaca)
    named = ["scale=paper", f"revisions.gsm8k={COMMIT}"]
    assert eval_job_from_config(compose("evaluate", [*named, "eval=gsm8k"])).revisions["gsm8k"] == COMMIT
    assert Inspection.from_config(compose("pivots", named)).revisions["gsm8k"] == COMMIT
    spec = DataSpec(name="saferpaca", max_length=64, parts={"saferpaca": 1.0})
    with pytest.raises(DataError, match=rf"could not be loaded from https://\S*/{COMMIT}/data/"):
        build_data(spec, byte_tokenizer(), root=None, revisions={"saferpaca": COMMIT})


def test_every_data_set_of_the_hub_is_pinned_and_a_revision_that_cannot_be_is_refused_with_its_key() -> None:
    pinned = compose("train").revisions
    assert set(pinned) == {name for name, spec in datasets().items() if spec.source("main")}
    assert all(re.fullmatch("[0-9a-f]{40}", pinned[name]) for name in pinned if datasets()[name].url is None)
    for override in (f"+revisions.hexphi_benign={COMMIT}", "revisions.gsm8k=1234567"):
        with pytest.raises(ConfigError, match=override.lstrip("+").split("=")[0]):
            cell(override, scale="paper")


def test_a_local_folder_has_two_names_no_revisions_and_no_part_in_the_runs_name(tmp_path) -> None:
    tiny = cell()
    link = tmp_path / "linked"
    link.symlink_to(tiny.data_root.resolve())
    for override in (f"data.root={link}", f"data_root={link}", f"revisions.gsm8k={COMMIT}"):
        named = cell(override)
        assert (named.data_root.resolve(), named.run.name) == (tiny.data_root.resolve(), tiny.run.name)
    for name in ("data.root", "data_root"):
        with pytest.raises(ConfigError, match="data_root=nowhere is no folder"):
            cell(f"{name}=nowhere")
