"""Answers on disk: known by all that they depend on and nothing else, asked for once, and never taken for another's."""

import dataclasses
import json
import time

import pytest
import torch
from oracle import Oracle, small_model
from steps import ask
from texts import TEXTS, protocol, rows

from reproduction.data.templates import ALPACA, Template
from reproduction.evals import Protocol
from reproduction.evals.answers import STATUS, Shard, gather
from reproduction.evals.task import TEMPLATE, decoding
from reproduction.records import ANSWERS, META, AnswerLog, RecordError

ROWS = rows()
SAMPLED = protocol(temperature=1.0, samples=2)
LETTERS = protocol(scoring="likelihood", max_new_tokens=None)


class Watched(Oracle):
    """Says "x", and remembers which prompts it read."""

    def __init__(self):
        super().__init__({}, default="x")
        self.read = []

    def forward(self, input_ids, attention_mask, past_key_values, **more):
        if past_key_values.get_seq_length() == 0:
            self.read += self.tokenizer.batch_decode(
                [ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask, strict=True)]
            )
        return super().forward(input_ids, attention_mask, past_key_values=past_key_values, **more)


@pytest.fixture
def model() -> Watched:
    return Watched()


@pytest.fixture
def answers(tmp_path):
    """The folder of the answers."""
    return tmp_path / "answers"


def contents(folder) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told(folder) -> dict:
    return json.loads((folder / "answers" / "throughput.json").read_text())


def by_key(log) -> dict:
    return {(each["item_id"], each["sample"]): {**each, "cost": None} for each in log}


@pytest.mark.parametrize(
    ("asked", "change"),
    [
        (SAMPLED, {"protocol_version": 2}),
        (SAMPLED, {"name": "another", "judge": "another", "execution_seconds": 9.0}),
        (SAMPLED, {"limit": 3}),
        (SAMPLED, {"samples": 1}),
        (protocol(), {"seed": 1, "top_p": 0.5}),  # which greedy decoding does not read
    ],
)
def test_what_answers_do_not_depend_on_asks_for_none(asked, change, model, tmp_path, answers):
    ask(model, asked, ROWS, tmp_path)
    before, calls = (answers / ANSWERS).read_bytes(), model.calls
    ask(model, dataclasses.replace(asked, **change), ROWS, tmp_path, batch_size=1)
    assert model.calls == calls > 0
    assert (answers / ANSWERS).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"temperature": 0.5}, r"temperature \(1\.0, here 0\.5\)"),
        ({"top_p": 0.5}, "top_p"),
        ({"seed": 1}, "seed"),
        ({"max_new_tokens": 13}, "max_new_tokens"),
        ({"layout": TEMPLATE}, "stops"),
        ({"scoring": "likelihood", "max_new_tokens": None, "samples": 1}, "scoring"),
    ],
)
def test_answers_that_were_decoded_otherwise_are_refused_with_the_file(change, named, model, tmp_path, answers):
    ask(model, SAMPLED, ROWS, tmp_path)
    before, calls = contents(answers), model.calls
    other = dataclasses.replace(SAMPLED, **change)
    assert decoding(other, ALPACA) != decoding(SAMPLED, ALPACA)
    with pytest.raises(RecordError, match=rf"meta\.json .*another {named}"):
        ask(model, other, ROWS, tmp_path)
    assert (contents(answers), model.calls) == (before, calls)


def test_another_templates_stop_strings_are_another_way_to_decode_in_its_layout_alone():
    ours = Template("ours", "Answer.\n{{ instruction }}\n")
    assert decoding(protocol(layout=TEMPLATE), ours) != decoding(protocol(layout=TEMPLATE), ALPACA)
    assert decoding(protocol(), ours) == decoding(protocol(), ALPACA)


def test_answers_of_another_model_or_context_or_of_nobody_are_refused(model, tmp_path, answers):
    ask(model, SAMPLED, ROWS, tmp_path, identity="one")
    before, calls = contents(answers), model.calls
    with pytest.raises(RecordError, match=r"meta\.json has 'one', and this one is 'other'"):
        ask(model, SAMPLED, ROWS, tmp_path, identity="other")
    model.config.max_position_embeddings = 512
    with pytest.raises(RecordError, match=r"another context \(100000, here 512\)"):
        ask(model, SAMPLED, ROWS, tmp_path, identity="one")
    assert (contents(answers), model.calls) == (before, calls)
    (answers / META).unlink()
    with pytest.raises(RecordError, match=r"cannot read .*meta\.json"):
        ask(model, SAMPLED, ROWS, tmp_path)


@pytest.mark.parametrize("layout", ["raw", TEMPLATE])
def test_a_row_that_changed_is_asked_again_and_no_other(layout, model, tmp_path):
    asked = protocol(layout=layout)
    ask(model, asked, ROWS, tmp_path)
    model.read.clear()
    others = [{**row, "note": "no part of a prompt"} for row in ROWS]
    others[3]["text"] = "What is 3 + 3?"
    log = ask(model, asked, others, tmp_path)
    assert len(model.read) == 1
    assert "What is 3 + 3?" in model.read[0]
    assert len(log) == len(ROWS) + 1


def test_more_samples_and_a_higher_limit_ask_for_what_is_new(model, tmp_path):
    ask(model, dataclasses.replace(SAMPLED, limit=4), ROWS, tmp_path)
    steps = []
    more = dataclasses.replace(SAMPLED, samples=3, limit=5)
    log = ask(model, more, ROWS, tmp_path, batch_size=1, progress=lambda *step: steps.append(step))
    assert steps == [(n + 1, 7) for n in range(7)]  # a third sample of four rows, and three of the fifth
    assert by_key(log).keys() == {(row["id"], sample) for row in ROWS[:5] for sample in range(3)}


@pytest.mark.parametrize("asked", [SAMPLED, LETTERS], ids=["text", "letters"])
def test_an_unfinished_line_alone_is_asked_again_and_a_damaged_file_is_refused(asked, tmp_path, answers):
    model, steps = small_model(), []
    before = by_key(ask(model, asked, ROWS, tmp_path))
    whole = (answers / ANSWERS).read_bytes()
    (answers / ANSWERS).write_bytes(whole[:-5])
    after = ask(model, asked, ROWS, tmp_path, progress=lambda *step: steps.append(step))
    assert steps == [(1, 1)]
    assert by_key(after) == before
    (answers / ANSWERS).write_bytes(damaged := whole.replace(b"item/3", b"item/8", 1))
    with pytest.raises(RecordError, match=r"line \d+ of .*answers\.jsonl is damaged"):
        ask(model, asked, ROWS, tmp_path)
    assert (answers / ANSWERS).read_bytes() == damaged


def test_what_cannot_be_asked_is_refused_before_anything_is_written(model, tmp_path, answers):
    for asked, given, sentence in (
        (SAMPLED, [], "texts has no rows"),
        (SAMPLED, ROWS * 2, "same id"),
        (protocol(max_new_tokens=100_000), ROWS, "max_new_tokens=100000 .*context of 100000"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ask(model, asked, given, tmp_path)
    assert not answers.exists()


def full_memory():
    torch.empty(1 << 60)  # torch's own words


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("shapes differ"), {"state": "failed", "reason": "RuntimeError: shapes differ"}),
        (MemoryError(), {"state": "oom", "reason": "MemoryError: "}),
        (torch.OutOfMemoryError("CUDA out of memory."), {"state": "oom"}),
        (full_memory, {"state": "oom"}),
        (KeyboardInterrupt(), {"state": "interrupted"}),
    ],
    ids=["runtime", "memory", "gpu memory", "torch", "interrupted"],
)
def test_what_ends_the_asking_early_stands_in_the_status_until_all_is_answered(error, status, model, tmp_path, answers):
    def end(*_, **__):
        if callable(error):
            error()
        raise error

    for training in (True, False):
        model.train(training)
        hook = model.register_forward_pre_hook(end)
        with pytest.raises(RuntimeError if callable(error) else type(error)):
            ask(model, SAMPLED, ROWS, tmp_path)
        hook.remove()
        assert model.training is training
    assert status.items() <= json.loads((answers / STATUS).read_text()).items()
    ask(model, SAMPLED, ROWS, tmp_path)
    assert sorted(contents(answers)) == [ANSWERS, META, "throughput.json"]


def test_a_status_that_cannot_be_written_does_not_hide_what_went_wrong(model, tmp_path, answers):
    def progress(done, total):
        (answers / STATUS).mkdir()
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        ask(model, SAMPLED, ROWS, tmp_path, progress=progress)


@pytest.mark.parametrize("asked", [protocol(), LETTERS], ids=["text", "letters"])
def test_the_model_answers_without_dropout_and_cudnns_plans_and_is_left_in_the_mode_it_came_in(asked, tmp_path):
    model, found, planned = small_model(attention_dropout=0.5), [], []
    model.register_forward_pre_hook(lambda *_: planned.append(torch.backends.cuda.cudnn_sdp_enabled()))
    for training in (True, False):
        model.train(training)
        found.append(by_key(ask(model, asked, ROWS, tmp_path / str(training))))
        assert model.training is training
    assert found[0] == found[1]
    assert not any(planned)
    assert torch.backends.cuda.cudnn_sdp_enabled()


# Shards


def answered(path, *numbers: int) -> None:
    AnswerLog(path).append(
        {"item_id": f"item/{n}", "prompt_hash": "p", "sample": 0, "raw": f"answer {n}"} for n in numbers
    )


def test_shards_are_put_together_once_however_often_that_was_cut_short(tmp_path):
    assert len(gather(tmp_path)) == 0
    assert not list(tmp_path.iterdir())
    path = tmp_path / ANSWERS
    answered(path, 0, 1)
    answered(Shard(0, 2).file(path), 1, 2)  # 1 was put in before the file could be removed
    answered(Shard(1, 2).file(path), 4)
    with Shard(1, 2).file(path).open("a") as file:
        file.write('{"item_id": "item/5", "sam')  # as a kill leaves it
    assert [each["raw"] for each in gather(tmp_path)] == [f"answer {n}" for n in (0, 1, 2, 4)]
    assert list(gather(tmp_path)) == list(AnswerLog(path))
    assert [each.name for each in tmp_path.iterdir()] == [ANSWERS]
    answered(part := Shard(1, 2).file(path), 7)
    part.write_bytes(part.read_bytes().replace(b"answer 7", b"answer 8"))
    with pytest.raises(RecordError, match=r"line 1 of .*answers\.1\.jsonl is damaged"):
        gather(tmp_path)
    assert part.exists()


@pytest.mark.parametrize("batch_size", [2, None])
def test_shards_answer_all_between_them_and_each_tells_how_much_of_it_is_its_own(batch_size, model, tmp_path, answers):
    totals = []
    for index in range(3):
        ask(
            model, protocol(), ROWS, tmp_path, share=Shard(index, 3), batch_size=batch_size,
            progress=lambda done, total: totals.append((done, total)),
        )  # fmt: skip
    assert totals == ([(2, 3), (3, 3), (2, 2), (2, 2)] if batch_size else [(3, 3), (3, 3), (1, 1)])
    assert sorted(model.read) == sorted(TEXTS)
    assert not (answers / ANSWERS).exists()
    assert len(gather(answers)) == len(TEXTS)


# What it took


def test_tokens_seconds_and_empty_answers_of_all_batches_are_added_up(tmp_path):
    said = ["", " \n", "12345", "1", "é", "", "3"]
    began = time.perf_counter()
    log = ask(Oracle(dict(zip(TEXTS, said, strict=True))), protocol(), ROWS, tmp_path, batch_size=3)
    pairs = {f"item/{n}": (len(a.encode()), len(b.encode())) for n, (a, b) in enumerate(zip(TEXTS, said, strict=True))}
    assert {each["item_id"]: (each["prompt_tokens"], each["tokens"]) for each in log} == pairs
    found = told(tmp_path)
    assert (found["answers"], found["empty"], found["shortened"], found["gpu_bytes"]) == (7, 3, 0, 0)
    assert (found["prompt_tokens"], found["generated_tokens"]) == tuple(map(sum, zip(*pairs.values(), strict=True)))
    seconds = found["prefill_seconds"] + found["decode_seconds"]
    assert 0 < seconds < time.perf_counter() - began
    assert found["tokens_per_second"] == pytest.approx(found["generated_tokens"] / seconds, rel=0.01)


@pytest.mark.parametrize("asked", [protocol(), LETTERS], ids=["text", "letters"])
def test_an_interrupted_evaluation_is_told_as_one(asked, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    ask(small_model(), asked, ROWS, tmp_path / "whole", batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        ask(small_model(), asked, ROWS, tmp_path / "cut", batch_size=3, progress=stop)
    ask(small_model(), asked, ROWS, tmp_path / "cut", batch_size=3)
    whole, cut = told(tmp_path / "whole"), told(tmp_path / "cut")
    for name in ("answers", "empty", "prompt_tokens", "generated_tokens"):
        assert cut[name] == whole[name]
    assert whole["tokens_per_second"] > 0 < whole["prompt_tokens"]


def test_prompts_that_leave_worked_examples_out_are_counted(tmp_path):
    items = [{"id": f"test/{n}", "question": "How many?", "answer": f"#### {n}"} for n in range(7)]
    shown, model = (
        [{**row, "id": f"train/{n}"} for n, row in enumerate(items)],
        small_model(max_position_embeddings=400),
    )
    for shots, shortened in ((1, 0), (5, 2)):
        asked = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=20, num_fewshot=shots)
        ask(model, asked, items[:2], tmp_path / str(shots), shown=shown)
        assert told(tmp_path / str(shots))["shortened"] == shortened
