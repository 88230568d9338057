"""What an evaluation took is told beside its records, adds up over its batches, and is no part of what is compared."""

import json

import pytest
from oracle import TOKENIZER, Oracle, small_model

from idlora.data.templates import eval_prompt
from idlora.evals import Permissions, Protocol, evaluate

ROWS = [{"id": f"test/{n}", "question": "How many?" + " Say." * n, "answer": f"#### {n}"} for n in range(7)]


def told(model, folder, rows=ROWS, *, shots=0, **changes) -> dict:
    settings = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=20, num_fewshot=shots)
    evaluate(
        model=model, tokenizer=TOKENIZER, protocol=settings, rows=rows, folder=folder, batch_size=3,
        permissions=Permissions(), fewshot_rows=[{**row, "id": f"train/{n}"} for n, row in enumerate(ROWS)], **changes,
    )  # fmt: skip
    return json.loads((folder / "throughput.json").read_text())


def test_tokens_seconds_and_empty_answers_of_all_batches_are_added_up(tmp_path):
    prompts = [eval_prompt("gsm8k", row, "alpaca") for row in ROWS]
    answers = ["", " \n", "12345", "1", "2", "", "3"]
    found = told(Oracle(dict(zip(prompts, answers, strict=True))), tmp_path)
    assert (found["answers"], found["empty"], found["shortened"]) == (7, 3, 0)
    assert found["generated_tokens"] == sum(map(len, answers))
    assert found["prompt_tokens"] == sum(len(prompt.encode()) for prompt in prompts)
    seconds = found["prefill_seconds"] + found["decode_seconds"]
    assert 0 < seconds < 60
    assert found["tokens_per_second"] == pytest.approx(found["generated_tokens"] / seconds, rel=0.01)
    assert found["gpu_bytes"] == 0


def test_an_interrupted_evaluation_is_told_as_one(tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, total):
        raise Stopped

    whole = told(small_model(), tmp_path / "whole")
    with pytest.raises(Stopped):
        told(small_model(), tmp_path / "cut", progress=stop)
    cut = told(small_model(), tmp_path / "cut")
    for name in ("answers", "prompt_tokens", "generated_tokens"):
        assert cut[name] == whole[name] > 0


def test_prompts_that_leave_worked_examples_out_are_counted(tmp_path):
    lengths = [len(eval_prompt("gsm8k", row, "alpaca")) for row in ROWS]
    model = small_model(max_position_embeddings=3 * max(lengths))
    assert told(model, tmp_path / "few", ROWS[:2], shots=1)["shortened"] == 0
    assert told(model, tmp_path / "many", ROWS[:2], shots=5)["shortened"] == 2
