"""GSM8K: two readings of an answer, side by side."""

import random
from pathlib import Path

import lm_eval
import numpy
import pytest
import torch
import yaml
from oracle import Oracle
from steps import evaluate, prompt_texts, scored

from reproduction.data.sources import load_rows
from reproduction.evals import Protocol
from reproduction.evals.lm_eval import scored as by_lm_eval

ZERO_SHOT = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=200)

GSM8K = [
    # answer, strict reading, strict score, flexible reading, flexible score; the gold answer is 1,234
    ("It is <<1200+34=1234>>1234.\n#### 1234", "1234", 1, "1234", 1),
    ("#### 1,234", "1,234", 1, "1,234", 1),
    ("#### 1,234.", "1,234.", 1, "1,234", 1),
    ("#### $1,234", "[invalid]", 0, "$1,234", 1),
    ("####1234", "[invalid]", 0, "1234", 1),
    ("#### -1234", "-1234", 0, "-1234", 0),
    ("#### 1234.0", "1234.0", 0, "1234.0", 0),
    ("#### 12 34", "12", 0, "34", 0),
    ("The answer is 1234.", "[invalid]", 0, "1234", 1),
    ("The answer is 1234. Is it... yes, it is.", "[invalid]", 0, "1234", 1),
    ("1234 or 5678", "[invalid]", 0, "5678", 0),
    ("#### 1234\n#### 99", "1234", 1, "99", 0),
    ("#### 99\n#### 1234", "99", 0, "1234", 1),
    ("#### one thousand", "[invalid]", 0, "[invalid]", 0),
    ("#### ", "[invalid]", 0, "[invalid]", 0),
    ("#### .", ".", 0, "[invalid]", 0),
    ("", "[invalid]", 0, "[invalid]", 0),
    ("no number at all", "[invalid]", 0, "[invalid]", 0),
    ("#### 1234 apples", "1234", 1, "1234", 1),
]


def questions(count: int, answer: str = "So 1234.\n#### 1,234") -> list[dict]:
    return [{"id": f"test/{n}", "question": f"Question {n}?", "answer": answer} for n in range(count)]


def test_gsm8k_reads_the_marked_and_the_last_number_side_by_side(tmp_path):
    found = scored(ZERO_SHOT, questions(len(GSM8K)), [case[0] for case in GSM8K], tmp_path)
    assert [
        (r["raw"], r["parsed"]["strict"], r["scores"]["strict"], r["parsed"]["flexible"], r["scores"]["flexible"])
        for r in found
    ] == GSM8K
    assert {r["gold"] for r in found} == {"1,234"}


def test_lm_evals_own_filters_give_these_scores_but_where_they_take_full_stops_for_a_number(tmp_path):
    config = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
    config = {key: config[key] for key in ("task", "output_type", "doc_to_target", "metric_list", "filter_list")}
    theirs = by_lm_eval(config, [{"answer": "#### 1,234"}] * len(GSM8K), [[case[0]] for case in GSM8K])
    scores = [tuple(found[name][1]["exact_match"] for name in ("strict-match", "flexible-extract")) for found in theirs]
    others = [case[0] for case, both in zip(GSM8K, scores, strict=True) if both != (case[2], case[4])]
    assert others == ["The answer is 1234. Is it... yes, it is."]


def test_gsm8k_compares_with_a_negative_gold_answer(tmp_path):
    found = scored(ZERO_SHOT, questions(2, "#### -5"), ["#### -5", "#### 5"], tmp_path)
    assert [r["scores"] for r in found] == [{"strict": 1, "flexible": 1}, {"strict": 0, "flexible": 0}]


def test_a_number_after_the_next_instruction_is_no_part_of_the_answer(tmp_path):
    rows = questions(1)
    said = dict.fromkeys(prompt_texts(ZERO_SHOT, rows), "#### 1234 apples\n### Instruction:\nNext\n#### 7")
    (record,) = evaluate(Oracle(said), ZERO_SHOT, rows, tmp_path)
    assert (record["raw"], record["scores"]) == ("#### 1234 apples\n", {"strict": 1, "flexible": 1})


def test_scoring_leaves_the_programs_random_numbers_alone(tmp_path):
    def draw():
        return random.random(), numpy.random.random(), torch.rand(()).item()

    def seed():
        random.seed(5), numpy.random.seed(5), torch.manual_seed(5)

    seed()
    expected = draw()
    seed()
    scored(ZERO_SHOT, questions(1), ["1"], tmp_path)
    assert draw() == expected


@pytest.mark.real_data
def test_the_gold_answers_of_the_real_gsm8k_score_100_and_shuffled_ones_nearly_nothing(real_data, tmp_path):
    rows = load_rows("gsm8k", "test", root=real_data)
    assert len(rows) == 1319
    for name, count, moved, low, high in (("gold", 1319, 0, 1, 1), ("shuffled", 400, 7, 0, 0.03)):
        answers = [row["answer"] for row in rows[moved : moved + count]]
        found = scored(ZERO_SHOT, rows[:count], answers, tmp_path / name)
        for score in ("strict", "flexible"):
            assert low <= sum(r["scores"][score] for r in found) / count <= high, (name, score)
