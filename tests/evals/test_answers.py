"""Answers of several processes become one file: nothing lost, nothing twice, wherever putting them together was cut."""

from idlora.evals.answers import Share, gather, open_log
from idlora.evals.items import Prompt, record
from idlora.records import ItemLog

PROMPTS = [Prompt({"id": f"item/{n}"}, f"text {n}") for n in range(6)]


def answered(path, *numbers: int) -> None:
    ItemLog(path).append(
        record(PROMPTS[n], 0, f"answer {n}", parsed=None, gold=None, scores={"generated": 1.0}) for n in numbers
    )


def test_shares_are_put_together_once_however_often_that_was_cut_short(tmp_path):
    path = tmp_path / "answers.jsonl"
    answered(path, 0, 1)
    answered(Share(0, 2).file(path), 1, 2)  # 1 was put in before the file could be taken away
    answered(Share(1, 2).file(path), 4)
    with Share(1, 2).file(path).open("a") as file:
        file.write('{"item_id": "item/5", "sam')  # as a kill leaves it
    gather(path)
    assert [answer["raw"] for answer in open_log(path, PROMPTS)] == [f"answer {n}" for n in (0, 1, 2, 4)]
    assert [each.name for each in tmp_path.iterdir()] == ["answers.jsonl"]


def test_without_shares_nothing_is_written(tmp_path):
    gather(tmp_path / "answers.jsonl")
    assert not list(tmp_path.iterdir())
