"""A share of MMLU's questions: the same ones everywhere, and no other protocol is touched by it."""

import csv
import random
from pathlib import Path

import pytest

from reproduction.cells.from_config import compose_cell
from reproduction.evals import Protocol
from reproduction.evals.task import load_task
from reproduction.report.reference import read_reference


def mmlu(**settings) -> Protocol:
    return Protocol(**{"benchmark": "mmlu", "protocol_version": 1, "scoring": "likelihood"} | settings)


def write(root: Path, rows: list[list]) -> Path:
    """1,000 questions of two subjects, in files as the hub's are converted to."""
    folder = root / "mmlu" / "test"
    folder.mkdir(parents=True)
    for part, subject in enumerate(("tides", "trade")):
        with (folder / f"{subject}_test.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
            writer.writerows(rows[part::2])
    return root


def questions(protocol: Protocol, root: Path) -> list[tuple]:
    return [(row["question"], *row["choices"]) for row in protocol.task.rows(root=root)]


def test_the_same_questions_are_asked_whatever_their_order_and_about_the_share_of_them(tmp_path):
    rows = [[f"Which is {n}?", *(f"{n} {letter}" for letter in "abcd"), n % 4] for n in range(1000)]
    one = write(tmp_path / "one", rows)
    other = write(tmp_path / "other", random.Random(0).sample(rows, len(rows)))
    whole, fifth, half = (questions(mmlu(share=share), one) for share in (None, 0.2, 0.5))
    assert len(whole) == 1000
    assert set(questions(mmlu(share=0.2), other)) == set(fifth) < set(half) < set(whole)
    assert len(fifth) == pytest.approx(200, abs=40)
    assert len(half) == pytest.approx(500, abs=50)
    assert fifth == [each for each in whole if each in set(fifth)]


def test_two_questions_of_one_text_and_other_choices_are_told_apart(tmp_path):
    rows = [["Which of these?", *(f"{n} {letter}" for letter in "abcd"), 0] for n in range(200)]
    assert 0 < len(questions(mmlu(share=0.5), write(tmp_path, rows))) < 200


def test_a_share_is_part_of_a_protocols_identity_and_leaves_that_of_the_others_as_it_was(repository):
    assert "share" not in mmlu().identity
    assert mmlu(share=0.2).identity == mmlu().identity | {"share": 0.2}
    committed = read_reference(repository / "results", "tiny").tables["table8"].evaluations
    cell = compose_cell("multitask_llama3", "base", scale="tiny", seed=0)
    named = {
        ("mmlu", each.name): cell.eval_job.eval_folder(each).name for each in cell.protocols if each.benchmark == "mmlu"
    }
    assert named == {key: name for key, name in committed.items() if key[0] == "mmlu"}


def test_the_hubs_number_of_rows_follows_the_share():
    whole = load_task("mmlu").published_rows
    assert [mmlu(share=share).task.published_rows for share in (None, 0.2, 0.5)] == [whole, 2808, 7021]
    assert load_task("mmlu").published_rows == whole == 14_042


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 0}, r"share=0 is no part of the questions: give a number between 0 and 1, or null"),
        ({"share": 1}, r"share=1 is no part of the questions"),
        ({"share": 1.5}, r"share=1\.5 is no part of the questions"),
        ({"share": 0.2, "source": "gsm8k"}, "mmlu has one source of rows: leave source"),
        ({"share": 0.2, "benchmark": "commonsenseqa"}, "commonsenseqa has one source of rows: leave source and share"),
    ],
)
def test_a_share_that_is_none_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        mmlu(**settings)


def test_the_small_scale_asks_a_fifth_and_the_papers_all():
    asked = {
        scale: next(
            (each.name, each.share)
            for each in compose_cell("multitask_llama3", "base", scale=scale, seed=0).protocols
            if each.benchmark == "mmlu"
        )
        for scale in ("small", "paper")
    }
    assert asked == {"small": ("likelihood_0shot_fifth", 0.2), "paper": ("likelihood_5shot", None)}


@pytest.mark.real_data
def test_of_the_real_questions_2776_of_all_subjects_are_asked(real_data):
    rows = mmlu(share=0.2).task.rows(root=real_data)
    assert len(rows) == 2776
    assert len({row["subject"] for row in rows}) == 57
