"""Answers on disk: known by all that they depend on and nothing else, asked for once, and never taken for another's."""

import dataclasses
import json

import pytest
import torch
from oracle import TOKENIZER, Oracle, small_model
from steps import ask
from texts import TEXTS, protocol, rows

from reproduction.data.templates import ALPACA, Template
from reproduction.evals import batching
from reproduction.evals.answers import STATUS, Shard, gather
from reproduction.evals.task import TEMPLATE, decoding
from reproduction.records import ANSWERS, META, AnswerLog, RecordError

ROWS = rows()
SAMPLED = protocol(temperature=1.0, samples=2)
OURS = Template("ours", "Answer.\n{{ instruction }}\n")


class Watched(Oracle):
    """Says "x", and remembers which prompts it read."""

    def __init__(self):
        super().__init__({}, default="x")
        self.read = []

    def forward(self, input_ids, attention_mask, past_key_values, **more):
        if past_key_values.get_seq_length() == 0:
            self.read += TOKENIZER.batch_decode(
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
    other = dataclasses.replace(asked, **change)
    assert decoding(other, ALPACA) == decoding(asked, ALPACA)  # after which a run names the folder
    ask(model, other, ROWS, tmp_path, batch_size=1)
    assert model.calls == calls > 0
    assert (answers / ANSWERS).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": 0.5}, r"temperature \(1\.0, here 0\.5\)"),
        ({"top_p": 0.5}, r"top_p \(1\.0, here 0\.5\)"),
        ({"seed": 1}, r"seed \(0, here 1\)"),
        ({"max_new_tokens": 13}, r"max_new_tokens \(12, here 13\)"),
        ({"layout": TEMPLATE}, "stops"),
        ({"scoring": "likelihood", "max_new_tokens": None, "samples": 1}, "scoring"),
    ],
)
def test_answers_that_were_decoded_otherwise_are_refused_with_the_file_and_the_way_out(
    change, told, model, tmp_path, answers
):
    ask(model, SAMPLED, ROWS, tmp_path)
    before, calls = contents(answers), model.calls
    other = dataclasses.replace(SAMPLED, **change)
    assert decoding(other, ALPACA) != decoding(SAMPLED, ALPACA)
    with pytest.raises(RecordError, match=rf"meta\.json is of answers with another {told}.*: move .* to ask again"):
        ask(model, other, ROWS, tmp_path)
    assert (contents(answers), model.calls) == (before, calls)


def test_another_templates_stop_strings_are_another_way_to_decode():
    asked = protocol(layout=TEMPLATE)
    assert decoding(asked, OURS) != decoding(asked, ALPACA)
    assert decoding(protocol(), OURS) == decoding(protocol(), ALPACA)  # in the raw layout no template has a say


def test_answers_of_another_model_or_context_are_refused_with_the_file_and_the_way_out(model, tmp_path, answers):
    ask(model, SAMPLED, ROWS, tmp_path, identity="one")
    before, calls = contents(answers), model.calls
    with pytest.raises(RecordError, match=r"another model's \(.*meta\.json has 'one', and this one is 'other'\): move"):
        ask(model, SAMPLED, ROWS, tmp_path, identity="other")
    model.config.max_position_embeddings = 512
    with pytest.raises(RecordError, match=r"meta\.json is of answers with another context \(100000, here 512\): move"):
        ask(model, SAMPLED, ROWS, tmp_path, identity="one")
    assert (contents(answers), model.calls) == (before, calls)


def test_attention_is_without_kernels_that_plan_for_every_size_while_a_model_is_asked_and_with_them_afterwards(model):
    for before in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(before)
        with batching.evaluating(model):
            assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.cudnn_sdp_enabled() == before
    torch.backends.cuda.enable_cudnn_sdp(True)


def test_answers_of_nobody_knows_which_model_are_refused(model, tmp_path, answers):
    ask(model, SAMPLED, ROWS, tmp_path)
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
    assert {(each["item_id"], each["sample"]) for each in log} == {(r["id"], s) for r in ROWS[:5] for s in range(3)}


@pytest.mark.parametrize(
    "asked", [SAMPLED, protocol(scoring="likelihood", max_new_tokens=None)], ids=["text", "letters"]
)
def test_an_unfinished_line_alone_is_asked_again_and_a_damaged_file_is_refused(asked, tmp_path, answers):
    model = small_model()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    before = {(each["item_id"], each["sample"]): {**each, "cost": 0} for each in ask(model, asked, ROWS, tmp_path)}
    whole = (answers / ANSWERS).read_bytes()
    (answers / ANSWERS).write_bytes(whole[:-5])
    steps = []
    after = ask(model, asked, ROWS, tmp_path, progress=lambda *step: steps.append(step))
    assert steps == [(1, 1)]
    assert {(each["item_id"], each["sample"]): {**each, "cost": 0} for each in after} == before
    (answers / ANSWERS).write_bytes(damaged := whole.replace(b"item/3", b"item/8", 1))
    calls.clear()
    with pytest.raises(RecordError, match=r"line \d+ of .*answers\.jsonl is damaged: remove that line"):
        ask(model, asked, ROWS, tmp_path)
    assert (answers / ANSWERS).read_bytes() == damaged
    assert not calls


def test_what_cannot_be_asked_is_refused_before_anything_is_written(model, tmp_path, answers):
    for asked, given, told in (
        (SAMPLED, [], "texts has no rows"),
        (SAMPLED, ROWS * 2, "same id"),
        (protocol(max_new_tokens=100_000), ROWS, "context of 100000"),
    ):
        with pytest.raises(ValueError, match=told):
            ask(model, asked, given, tmp_path)
    assert not answers.exists()


class Stopped(Exception):
    pass


def full_memory():
    torch.empty(1 << 60)  # torch's own words


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Stopped("no more"), {"state": "failed", "reason": "Stopped: no more"}),
        (RuntimeError("shapes differ"), {"state": "failed", "reason": "RuntimeError: shapes differ"}),
        (MemoryError(), {"state": "oom", "reason": "MemoryError: "}),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            {"state": "oom", "reason": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"},
        ),
        (full_memory, {"state": "oom"}),
        (KeyboardInterrupt(), {"state": "interrupted"}),
    ],
    ids=["failed", "runtime", "memory", "gpu memory", "torch", "interrupted"],
)
def test_what_ends_the_asking_early_is_told_until_all_is_answered(error, status, model, tmp_path, answers):
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
    told = json.loads((answers / STATUS).read_text())
    assert status.items() <= told.items()
    ask(model, SAMPLED, ROWS, tmp_path)
    assert sorted(contents(answers)) == [ANSWERS, META, "throughput.json"]


def test_a_status_that_cannot_be_written_does_not_hide_what_went_wrong(model, tmp_path, answers):
    def progress(done, total):
        (answers / STATUS).mkdir()
        raise Stopped("no more")

    with pytest.raises(Stopped, match="no more"):
        ask(model, SAMPLED, ROWS, tmp_path, progress=progress)


@pytest.mark.parametrize("scoring", ["generated", "likelihood"])
def test_the_model_answers_without_dropout_and_is_left_in_the_mode_it_came_in(scoring, tmp_path):
    model, found = small_model(attention_dropout=0.5), []
    asked = protocol(scoring=scoring, max_new_tokens=12 if scoring == "generated" else None)
    for training in (True, False):
        model.train(training)
        found.append([{**each, "cost": 0} for each in ask(model, asked, ROWS, tmp_path / str(training))])
        assert model.training is training
    assert found[0] == found[1]


# Shares


def answered(path, *numbers: int) -> None:
    AnswerLog(path).append(
        {"item_id": f"item/{n}", "prompt_hash": "p", "sample": 0, "raw": f"answer {n}"} for n in numbers
    )


def test_shares_are_put_together_once_however_often_that_was_cut_short(tmp_path):
    path = tmp_path / ANSWERS
    answered(path, 0, 1)
    answered(Shard(0, 2).file(path), 1, 2)  # 1 was put in before the file could be taken away
    answered(Shard(1, 2).file(path), 4)
    with Shard(1, 2).file(path).open("a") as file:
        file.write('{"item_id": "item/5", "sam')  # as a kill leaves it
    assert [each["raw"] for each in gather(tmp_path)] == [f"answer {n}" for n in (0, 1, 2, 4)]
    assert list(gather(tmp_path)) == list(AnswerLog(path))
    assert [each.name for each in tmp_path.iterdir()] == [ANSWERS]


def test_a_damaged_share_is_refused_by_its_name_and_nothing_is_taken_away(tmp_path):
    answered(Shard(0, 2).file(tmp_path / ANSWERS), 1, 2)
    part = Shard(1, 2).file(tmp_path / ANSWERS)
    answered(part, 3, 4)
    part.write_bytes(part.read_bytes().replace(b"answer 3", b"answer 8"))
    with pytest.raises(RecordError, match=r"line 1 of .*answers\.1\.jsonl is damaged"):
        gather(tmp_path)
    assert part.exists()
    assert len(AnswerLog(tmp_path / ANSWERS)) == 2


def test_where_nothing_was_answered_nothing_is_written(tmp_path):
    assert len(gather(tmp_path)) == 0
    assert not list(tmp_path.iterdir())


def test_shares_answer_all_between_them_and_each_tells_how_much_of_it_is_its_own(model, tmp_path, answers):
    totals = []
    for index in range(3):
        ask(
            model, protocol(), ROWS, tmp_path, share=Shard(index, 3), batch_size=2,
            progress=lambda done, total: totals.append((done, total)),
        )  # fmt: skip
    assert totals == [(2, 3), (3, 3), (2, 2), (2, 2)]
    assert sorted(model.read) == sorted(TEXTS)
    assert not (answers / ANSWERS).exists()
    assert len(gather(answers)) == len(TEXTS)
