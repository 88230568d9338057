"""What answers took is told beside them, adds up over their batches, and is no part of what is compared."""

import json

import pytest
from oracle import Oracle, small_model
from steps import ask, prompt_texts
from texts import TEXTS, protocol, rows

from reproduction.evals import Protocol

ROWS, ASKED = rows(), protocol()
GSM8K = [{"id": f"test/{n}", "question": "How many?" + " Say." * n, "answer": f"#### {n}"} for n in range(7)]


def told(model, folder, *, asked=ASKED, rows=ROWS, batch_size=3, **more) -> dict:
    ask(model, asked, rows, folder, batch_size=batch_size, **more)
    return json.loads((folder / "answers" / "throughput.json").read_text())


def test_tokens_seconds_and_empty_answers_of_all_batches_are_added_up(tmp_path):
    answers = ["", " \n", "12345", "1", "2", "", "3"]
    found = told(Oracle(dict(zip(TEXTS, answers, strict=True))), tmp_path)
    assert (found["answers"], found["empty"], found["shortened"]) == (7, 3, 0)
    assert found["generated_tokens"] == sum(map(len, answers))
    assert found["prompt_tokens"] == sum(len(text.encode()) for text in TEXTS)
    seconds = found["prefill_seconds"] + found["decode_seconds"]
    assert 0 < seconds < 60
    assert found["tokens_per_second"] == pytest.approx(found["generated_tokens"] / seconds, rel=0.01)
    assert found["gpu_bytes"] == 0


def test_every_answer_tells_its_tokens(tmp_path):
    answers = ["", "12345", "é", "1", "2", "", "3"]
    log = ask(Oracle(dict(zip(TEXTS, answers, strict=True))), protocol(), rows(), tmp_path)
    found = {each["item_id"]: (each["prompt_tokens"], each["tokens"]) for each in log}
    expected = zip(TEXTS, answers, strict=True)
    assert found == {f"item/{n}": (len(a.encode()), len(b.encode())) for n, (a, b) in enumerate(expected)}


@pytest.mark.parametrize(
    "asked", [protocol(), protocol(scoring="likelihood", max_new_tokens=None)], ids=["text", "letters"]
)
def test_an_interrupted_evaluation_is_told_as_one(asked, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, total):
        raise Stopped

    whole = told(small_model(), tmp_path / "whole", asked=asked)
    with pytest.raises(Stopped):
        told(small_model(), tmp_path / "cut", asked=asked, progress=stop)
    cut = told(small_model(), tmp_path / "cut", asked=asked)
    for name in ("answers", "empty", "prompt_tokens", "generated_tokens"):
        assert cut[name] == whole[name]
    assert whole["tokens_per_second"] > 0 < whole["prompt_tokens"]


def test_prompts_that_leave_worked_examples_out_are_counted(tmp_path):
    def asked(shots: int) -> Protocol:
        return Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=20, num_fewshot=shots)

    shown = [{**row, "id": f"train/{n}"} for n, row in enumerate(GSM8K)]
    longest = max(map(len, prompt_texts(asked(0), GSM8K)))
    model = small_model(max_position_embeddings=3 * longest)
    for shots, shortened in ((1, 0), (5, 2)):
        settings = {"asked": asked(shots), "rows": GSM8K[:2], "shown": shown}
        assert told(model, tmp_path / str(shots), **settings)["shortened"] == shortened
