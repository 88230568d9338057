"""The mixture: which rows of each part are in it, and that cutting, digests and preflight see its parts."""

import dataclasses
import json
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.resolve_paths import data_digest
from reproduction.data import (
    DataError,
    asked,
    limit,
    load_mixture,
    load_rows,
    mixture_examples,
    to_examples,
    validation,
)
from reproduction.data.splits import is_held_out, place
from reproduction.preflight import NotReady, require
from reproduction.training import DataSpec, build_data

PARTS = {"alpaca": 1.0, "gsm8k": 1.0, "codealpaca": 0.5}


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


def test_a_mixture_holds_each_parts_share_of_training_rows_one_part_after_the_other(root: Path) -> None:
    rows = load_mixture(PARTS, root=root)
    assert [row["part"] for row in rows] == ["alpaca"] * 20 + ["gsm8k"] * 10 + ["codealpaca"] * 20
    assert all(row["id"].startswith(f"{row['part']}/train/") for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert not any("test" in row.get("question", "") for row in rows)


def test_a_half_is_spread_over_its_part_and_is_always_the_same(root: Path) -> None:
    def half() -> list[str]:
        return [row["id"] for row in load_mixture({"codealpaca": 0.5}, root=root)]

    chosen = [int(name.split("/")[-1]) for name in half()]
    assert chosen == sorted(chosen)
    assert min(chosen) < 10 < 30 < max(chosen)
    assert half() == half()


def test_which_rows_a_part_gives_does_not_depend_on_the_other_parts(root: Path) -> None:
    alone = {row["id"] for row in load_mixture({"codealpaca": 0.5}, root=root)}
    among = {row["id"] for row in load_mixture(PARTS, root=root) if row["part"] == "codealpaca"}
    assert alone == among


def test_each_part_is_put_as_it_would_be_alone(root: Path) -> None:
    rows = load_mixture(PARTS, root=root)
    examples = {example.id: example for example in mixture_examples(rows)}
    assert list(examples) == [row["id"] for row in rows]
    for part in ("alpaca", "gsm8k"):
        for alone in to_examples(part, load_rows(part, "train", root=root)):
            mixed = examples[f"{part}/{alone.id}"]
            assert (mixed.prompt, mixed.response) == (alone.prompt, alone.response)
    assert examples["gsm8k/train/3"].prompt != examples["alpaca/train/3"].prompt


def test_validation_rows_and_limit_cut_a_mixture_across_its_parts(root: Path) -> None:
    spec = DataSpec(name="multitask", max_length=512, parts=PARTS, validation_rows=8, limit=24)
    kept, held = build_data(spec, byte_tokenizer(), root=root)
    assert (len(kept), len(held)) == (24, 8)
    assert not set(kept.ids) & set(held.ids)
    assert {name.split("/")[0] for name in kept.ids} == set(PARTS)
    rest, apart = validation(load_mixture(PARTS, root=root), 8, lambda row: asked(row["part"], row))
    assert held.ids == [row["id"] for row in apart]
    assert kept.ids == [row["id"] for row in limit(rest, 24)]


def test_a_missing_part_is_one_sentence_that_names_its_folder(root: Path) -> None:
    (root / "alpaca" / "alpaca.json").unlink()
    (root / "alpaca").rmdir()
    with pytest.raises(DataError, match=r"No folder .*alpaca: .*\.$") as refused:
        load_mixture(PARTS, root=root)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("parts", "word"), [({}, "empty"), ({"gsm8k": 0.0}, "gsm8k is 0"), ({"gsm8k": 1.5}, "1.5"),
                                             ({"gsm8k": 2.0, "alpaca": 0.5}, "alpaca is 0.5")])  # fmt: skip
def test_shares_outside_zero_and_one_are_refused(parts: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DataSpec(name="mine", max_length=9, parts=parts)


def test_a_share_that_keeps_nothing_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="keeps 0 of the 10 rows of gsm8k"):
        load_mixture({"gsm8k": 0.01}, root=root)


def test_rows_held_out_are_in_no_mixture_and_a_share_is_still_of_all_rows(root: Path) -> None:
    whole, cut = ({row["id"] for row in load_mixture(PARTS, root=root, held_out=share)} for share in (0.0, 0.3))
    assert cut < whole
    codes = load_mixture({"codealpaca": 0.5}, root=root, held_out=0.3)
    assert len(codes) == 20
    assert codes == load_mixture({"codealpaca": 0.5}, root=root)


@pytest.mark.parametrize(("proportions", "counts"), [((10, 1), (20, 2)), ((1, 4), (10, 40)), ((1, 40), (1, 40))])
def test_proportions_take_as_many_rows_as_both_sets_allow_those_that_fall_lowest(root, proportions, counts) -> None:
    rows = load_mixture(dict(zip(("alpaca", "codealpaca"), proportions, strict=True)), root=root)
    assert [row["part"] for row in rows] == ["alpaca"] * counts[0] + ["codealpaca"] * counts[1]
    for name, count in zip(("alpaca", "codealpaca"), counts, strict=True):
        lowest = sorted(place(asked(name, row)) for row in load_rows(name, "train", root=root))[:count]
        assert sorted(place(asked(name, row)) for row in rows if row["part"] == name) == lowest


def test_proportions_hold_among_the_rows_that_are_not_held_out_and_are_refused_where_a_set_is_too_small(root) -> None:
    rows = load_mixture({"codealpaca": 15, "alpaca": 1}, root=root, held_out=0.42)  # 15 / 26 * 26 < 15 in a float
    parts = [row["part"] for row in rows]
    assert 0 < parts.count("codealpaca") == 15 * parts.count("alpaca") < 40
    assert not any(is_held_out(asked(row["part"], row), 0.42) for row in rows)
    with pytest.raises(ValueError, match=r"'gsm8k': 10.* rows are too few for the proportions"):
        load_mixture({"gsm8k": 11, "alpaca": 1}, root=root)


@pytest.fixture
def cell(root: Path, tmp_path: Path):
    def compose(*overrides: str, scale: str = "tiny"):
        common = [f"data_root={root}", f"results_dir={tmp_path / 'results'}", "train.learning_rate=0.001", "eval=gsm8k"]
        return compose_cell("multitask_llama3", "lora", scale=scale, seed=0, overrides=[*common, *overrides])

    return compose


def test_the_multitask_experiments_train_on_the_papers_mixture(cell) -> None:
    for scale in ("tiny", "paper"):
        assert (cell(scale=scale).data.name, cell(scale=scale).data.parts) == ("multitask", PARTS)


def test_a_mixture_is_identified_by_its_shares_and_by_the_contents_of_every_part(cell, root: Path) -> None:
    names = {cell().run.name, cell("data.parts.codealpaca=0.25").run.name}
    assert len(names) == 2
    for part in ("alpaca/alpaca.json", "codealpaca/codealpaca.json"):
        (root / part).write_text(instructions("other", 30))
        names.add(cell().run.name)
    assert len(names) == 4
    assert all(data_digest(part, root) in cell().data.digest for part in PARTS)


def test_preflight_names_the_part_that_is_missing(cell, root: Path, tmp_path: Path) -> None:
    (root / "codealpaca" / "codealpaca.json").unlink()
    with pytest.raises(NotReady, match="data set codealpaca") as refused:
        require([cell()], scale="tiny", results_dir=tmp_path)
    assert "multitask" not in str(refused.value)
    assert "data set alpaca" not in str(refused.value)


def test_a_part_that_is_no_data_set_is_refused_by_name(cell) -> None:
    with pytest.raises(ConfigError, match="no data set alpacca"):
        cell("+data.parts.alpacca=1.0")


def test_a_single_data_set_keeps_its_rows_ids(root: Path) -> None:
    single = DataSpec(name="gsm8k", max_length=512)
    assert single.sources == ("gsm8k",)
    assert build_data(single, byte_tokenizer(), root=root)[0].ids == [f"train/{n}" for n in range(10)]
    mixed = dataclasses.replace(single, parts={"gsm8k": 1.0})
    assert build_data(mixed, byte_tokenizer(), root=root)[0].ids == [f"gsm8k/train/{n}" for n in range(10)]


@pytest.mark.real_data
def test_the_real_files_give_all_of_alpaca_and_gsm8k_and_half_of_codealpaca(real_data: Path) -> None:
    rows = load_mixture(PARTS, root=real_data)
    counts = {part: sum(row["part"] == part for row in rows) for part in PARTS}
    assert counts == {"alpaca": 13354, "gsm8k": 7473, "codealpaca": 20022 // 2}
    assert len(mixture_examples(rows)) == sum(counts.values())
