"""The prompts that stand in for HEx-PHI: rows kept out of training, judged beside answers that are known."""

import json
from pathlib import Path

import pytest
from steps import scored

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.data import asked, load_mixture, load_rows
from reproduction.data.splits import is_held_out, place
from reproduction.evals import Permissions, Protocol
from reproduction.evals.judges.prefix import refuses
from reproduction.evals.tasks.safety_prompts import ALWAYS, NEVER, OWN
from reproduction.records import read_json

BENCHMARKS = {"safety_prompts": "safety", "harmless_prompts": "alpaca"}
SHARE = 0.1
GATES = [f"I cannot open gate {n}." if n % 4 else f"Gate {n} opens to the left." for n in range(400)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Safety rows of which three in four refuse, each there again with another answer; Alpaca's rows, every second one
    with an input."""
    safety = [{"instruction": f" Open gate {n}. ", "output": answer} for n, answer in enumerate(GATES)]
    alpaca = [{"instruction": f"Add {n}.", "input": "1" * (n % 2), "output": "2"} for n in range(3_000)]
    twice = [*safety, *(row | {"output": "Push."} for row in safety)]
    for place_of, rows in (("saferpaca/safety_only_data_Instructions", twice), ("alpaca/part", alpaca)):
        path = tmp_path / "data" / f"{place_of}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows))
    return tmp_path / "data"


def protocol(benchmark: str, **changes) -> Protocol:
    settings = {"share": SHARE, "judge": "prefix", "max_new_tokens": 8} | changes
    return Protocol(benchmark=benchmark, protocol_version=1, **settings)


def cell_of(root: Path | None, tmp_path: Path, *more: str, scale: str = "small", method: str = "lora") -> Cell:
    where = [] if root is None else [f"data_root={root}"]
    given = [*where, f"results_dir={tmp_path}", "train.learning_rate=0.001", *more]
    return compose_cell("saferpaca_llama3", method, scale=scale, seed=0, overrides=given)


@pytest.mark.parametrize(("benchmark", "name"), BENCHMARKS.items())
def test_every_row_held_out_that_asks_in_one_text_is_a_prompt_once_the_highest_first(benchmark, name, root) -> None:
    prompts = [row["prompt"] for row in protocol(benchmark).task.rows(root=root)]
    held = {asked(name, row) for row in load_rows(name, "train", root=root) if is_held_out(asked(name, row), SHARE)}
    assert len(held) > 20
    assert sorted(prompts) == sorted(instruction for instruction, input in held if not input)
    assert prompts == sorted(prompts, key=lambda prompt: -place((prompt, "")))


def test_known_answers_are_judged_on_the_same_prompts_and_stand_beside_the_models_records(root, tmp_path) -> None:
    asked_of = protocol("safety_prompts")
    rows = asked_of.task.rows(root=root)[:20]
    answers = ["Sure: push.", *["I'm sorry, no."] * 19]
    found = scored(asked_of, rows, answers, tmp_path, permissions=Permissions())
    assert [each["scores"]["refusal"] for each in found] == [0.0, *[1.0] * 19]
    own = sum(refuses("", GATES[int(row["prompt"].removeprefix("Open gate ").rstrip("."))]) for row in rows) / 20
    assert 0 < own < 1
    assert read_json(tmp_path / "eval" / "meta.json")["controls"] == {OWN: own, ALWAYS: 1.0, NEVER: 0.0}
    assert not any(row["answer"] in json.dumps(found) for row in rows)


def test_a_share_is_needed_and_a_source_is_not() -> None:
    with pytest.raises(ValueError, match="safety_prompts has share=None: give the share that is kept out"):
        protocol("safety_prompts", share=None)
    with pytest.raises(ValueError, match="harmless_prompts has no source='alpaca'"):
        protocol("harmless_prompts", source="alpaca")


def test_at_the_small_scale_alone_a_stand_in_is_trained_on_and_its_held_out_rows_are_asked(root, tmp_path) -> None:
    small = cell_of(root, tmp_path)
    assert (small.data.name, small.data.parts) == ("saferpaca_stand_in", {"alpaca": 10, "safety": 1})
    asked_on = [(each.benchmark, each.limit) for each in small.protocols if each.scoring == "generated"]
    assert asked_on == [("safety_prompts", 200), ("harmless_prompts", 200)]
    assert {each.source for each in small.protocols if each.scoring == "loss"} == {"alpaca", "safety"}
    assert all(each.share <= small.data.held_out for each in small.protocols)
    for scale in ("tiny", "paper"):
        other = cell_of(root, tmp_path, scale=scale)
        assert (other.data.name, other.data.parts) == ("saferpaca", None)
        assert not {each.benchmark for each in other.protocols} & BENCHMARKS.keys()


def test_a_run_that_trains_on_the_prompts_is_not_asked_them(root, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"safety_prompts\.protocols\.held_out asks 0\.1 of safety's training rows"):
        cell_of(root, tmp_path, "data.held_out=0.05")


def test_hexphi_itself_is_asked_where_the_data_folder_or_the_hubs_cache_has_it(root, tmp_path, monkeypatch) -> None:
    def asked_on(root: Path | None, scale: str = "small") -> bool:
        return "hexphi" in [each.benchmark for each in cell_of(root, tmp_path, scale=scale, method="base").protocols]

    assert not asked_on(root)
    (root / "hexphi").mkdir()
    (root / "hexphi" / "category_1.csv").write_text("Open it.\n")
    assert asked_on(root)
    for cached in (False, True):
        monkeypatch.setattr("reproduction.data.hub.cached", lambda spec, revision, there=cached: there)
        assert asked_on(None) == cached
        assert asked_on(None, "paper")


@pytest.mark.real_data
def test_of_the_real_rows_two_hundred_of_each_are_asked_none_of_them_trained_on_ten_to_one(real_data, tmp_path) -> None:
    cell = cell_of(real_data, tmp_path)
    rows = load_mixture(cell.data.parts, root=real_data, held_out=cell.data.held_out)
    parts = [row["part"] for row in rows]
    assert parts.count("alpaca") == 10 * parts.count("safety") > 10_000
    trained = {row["instruction"].strip() for row in rows}
    for each in cell.protocols:
        if each.benchmark in BENCHMARKS:
            prompts = [row["prompt"] for row in each.task.rows(root=real_data)][: each.limit]
            assert len(set(prompts)) == 200
            assert not trained & set(prompts)
