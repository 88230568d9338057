"""Decoding says what the model says, however it is batched, padded, interrupted and resumed."""

import json
from types import SimpleNamespace

import pytest
import torch
from oracle import TOKENIZER, VOCABULARY, Oracle, small_model
from peft import LoraConfig, get_peft_model

from idlora.evals import Protocol, evaluate
from idlora.evals.generation import generate
from idlora.evals.items import Prompt
from idlora.evals.protocol import Permissions

TEXTS = [
    "a",
    "Count to ten: one, two",
    "def f(x):",
    "What is 2 + 2? Say a number.",
    "…é…",
    "The same length!",
    "  spaces ",
]


def prompts(texts=TEXTS):
    return [Prompt({"id": f"item/{number}", "text": text}, text) for number, text in enumerate(texts)]


def protocol(**changes) -> Protocol:
    settings = {"benchmark": "humaneval", "protocol_version": 1, "max_new_tokens": 12} | changes
    return Protocol(**settings)


def answers(model, tmp_path, asked=None, *, batch_size=3, name="answers.jsonl", stop=(), progress=None, **changes):
    return generate(
        model, TOKENIZER, asked or prompts(), protocol=protocol(**changes), stop=stop, batch_size=batch_size,
        path=tmp_path / name, progress=progress,
    )  # fmt: skip


def alone(model, text: str, max_new_tokens: int) -> str:
    """What transformers' own greedy search says to one prompt, without padding or batch."""
    inputs = TOKENIZER(text, return_tensors="pt")
    found = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return TOKENIZER.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_greedy_answers_are_those_of_transformers_one_by_one(kind, batch_size, tmp_path):
    model = small_model(kind)
    found = answers(model, tmp_path, batch_size=batch_size, max_new_tokens=40)  # beyond the sliding window of 16
    assert [text for (text,) in found] == [alone(model, text, 40) for text in TEXTS]
    assert len({text for (text,) in found}) > 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_what_the_cpu_says_and_draws_the_same_samples_twice(tmp_path):
    expected = answers(small_model(), tmp_path, name="cpu", max_new_tokens=40)
    model = small_model().cuda()
    assert answers(model, tmp_path, name="gpu", max_new_tokens=40) == expected
    first, second = (answers(model, tmp_path, name=n, temperature=1.0, samples=3, batch_size=6) for n in "12")
    assert first == second
    assert all(len(set(texts)) == 3 for texts in first)


def test_an_adapter_is_decoded_with_its_adapter(tmp_path):
    base = small_model()
    plain = answers(base, tmp_path, name="plain")
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).double()
    found = answers(model, tmp_path, name="adapted")
    assert found != plain
    assert [text for (text,) in found] == [alone(model, text, 12) for text in TEXTS]


def test_answers_of_different_length_end_where_they_should_while_others_go_on(tmp_path):
    wanted = {text: "x" * (1 + 7 * number) + "é." for number, text in enumerate(TEXTS)}
    found = answers(Oracle(wanted), tmp_path, batch_size=100, max_new_tokens=64)
    assert [text for (text,) in found] == list(wanted.values())


def test_an_answer_is_no_longer_than_allowed(tmp_path):
    assert answers(Oracle({}, default="0123456789"), tmp_path, max_new_tokens=4) == [["0123"]] * len(TEXTS)


def test_an_answer_ends_before_the_first_stop_string(tmp_path):
    wanted = {
        "a": "one\ndef two\nclass three",
        "b": "no stop here",
        "c": "\ndef at once",
        "d": "x" * 30 + "\nclass",
    }
    oracle = Oracle(wanted)
    found = answers(oracle, tmp_path, prompts(list(wanted)), stop=("\nclass", "\ndef"), max_new_tokens=200)
    assert [text for (text,) in found] == ["one", "no stop here", "", "x" * 30]


def test_of_several_stop_strings_the_first_in_the_answer_counts(tmp_path):
    assert answers(Oracle({}, default="a.c.b.c"), tmp_path, prompts(["x"]), stop=("b", "c")) == [["a."]]


def test_decoding_ends_soon_after_every_answer_has_its_stop(tmp_path):
    oracle = Oracle({}, default="abc\ndef " + "y" * 150)
    answers(oracle, tmp_path, batch_size=100, stop=("\ndef",), max_new_tokens=150)
    assert oracle.calls < 20


def test_the_spaces_an_answer_begins_with_survive(tmp_path):
    assert answers(Oracle({}, default="    return 1"), tmp_path)[0] == ["    return 1"]


def test_samples_differ_and_are_the_same_in_every_run(tmp_path):
    model = small_model()
    sampled = {"temperature": 1.0, "samples": 4}
    first = answers(model, tmp_path, name="1", **sampled)
    torch.manual_seed(99)  # the program's own generator has no say
    assert answers(model, tmp_path, name="2", **sampled) == first
    assert answers(model, tmp_path, name="3", **sampled, seed=1) != first
    assert all(len(set(texts)) == 4 for texts in first)


def test_sampling_leaves_the_programs_own_random_numbers_alone(tmp_path):
    model = small_model()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    answers(model, tmp_path, temperature=1.0)
    assert torch.equal(torch.rand(3), expected)


def test_more_samples_than_fit_in_a_batch_are_split_and_still_differ(tmp_path):
    found = answers(small_model(), tmp_path, batch_size=2, temperature=1.0, samples=5)
    assert all(len(set(texts)) == 5 for texts in found)


def test_a_small_nucleus_at_any_temperature_is_greedy(tmp_path):
    model = small_model()
    greedy = answers(model, tmp_path, name="greedy")
    assert answers(model, tmp_path, name="nucleus", temperature=1.0, top_p=1e-6) == greedy
    assert answers(model, tmp_path, name="whole", temperature=1.0) != greedy


class Dice(Oracle):
    """Says A, B or C with probabilities 0.5, 0.3 and 0.2, whatever it is asked."""

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        keys = torch.zeros(*input_ids.shape, 1, 1).transpose(1, 2)
        past_key_values.update(keys, keys, 0)
        logits = torch.full((len(input_ids), 1, VOCABULARY), -torch.inf)
        logits[..., TOKENIZER("ABC")["input_ids"]] = torch.tensor([0.5, 0.3, 0.2]).log()
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"temperature": 1.0}, (0.5, 0.3, 0.2)),
        ({"temperature": 0.5}, (0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38)),
        ({"temperature": 1.0, "top_p": 0.7}, (0.625, 0.375, 0)),
        ({"temperature": 0.0, "samples": 1}, (1, 0, 0)),
    ],
)
def test_samples_follow_temperature_and_nucleus(settings, shares, tmp_path):
    drawn = answers(
        Dice({}), tmp_path, prompts(["a"]), batch_size=200, max_new_tokens=20, **{"samples": 100} | settings
    )
    said = "".join(drawn[0])
    for letter, share in zip("ABC", shares, strict=True):
        assert abs(said.count(letter) / len(said) - share) < 0.04  # 2,000 draws: four standard deviations


class Stopped(Exception):
    pass


def interrupted_after(batches: int):
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == batches:
            raise Stopped

    return progress


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples": 2}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("cut", [0, 10, 300], ids=["whole", "in a line", "in a batch"])
def test_an_interrupted_run_goes_on_with_the_missing_batches_and_ends_the_same(settings, cut, tmp_path):
    model = small_model()
    expected = answers(model, tmp_path, name="whole", batch_size=2, **settings)
    with pytest.raises(Stopped):
        answers(model, tmp_path, batch_size=2, progress=interrupted_after(2), **settings)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[: -cut or None])  # as a kill leaves it
    kept = path.read_bytes()
    seen = []
    assert answers(model, tmp_path, batch_size=2, progress=lambda *step: seen.append(step), **settings) == expected
    assert path.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert seen[-1] == (len(TEXTS) * settings.get("samples", 1),) * 2


def test_finished_batches_are_not_decoded_again(tmp_path):
    oracle = Oracle({}, default="x")
    answers(oracle, tmp_path)
    calls = oracle.calls
    assert calls > 0
    answers(oracle, tmp_path)
    assert oracle.calls == calls


def test_answers_to_other_prompts_are_not_taken_for_these(tmp_path):
    answers(Oracle({}, default="old"), tmp_path)
    changed = prompts([text + "?" for text in TEXTS])
    assert answers(Oracle({}, default="new"), tmp_path, changed) == [["new"]] * len(TEXTS)


def test_the_model_is_left_in_the_mode_it_came_in(tmp_path):
    model = small_model()
    for training in (True, False):
        model.train(training)
        answers(model, tmp_path, name=str(training))
        assert model.training is training


def test_what_cannot_be_asked_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="nothing to answer"):
        generate(small_model(), TOKENIZER, [], protocol=protocol(), batch_size=1, path=tmp_path / "x")
    with pytest.raises(ValueError, match="same id"):
        answers(small_model(), tmp_path, prompts(["a"]) * 2)
    with pytest.raises(ValueError, match=r"context of 4096"):
        answers(small_model(), tmp_path, max_new_tokens=4096)


# Whole evaluations


ROWS = [
    {
        "id": f"test/{n}",
        "question": f"What is {n} + 1?" + " Think." * n,
        "answer": f"It is <<{n}+1={n + 1}>>.\n#### {n + 1}",
    }
    for n in range(9)
]
COMPLETE = ["DONE", "items.jsonl", "meta.json", "throughput.json"]
GSM8K = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=20)


def gsm8k(model, folder, rows=ROWS, settings=GSM8K, **changes):
    return evaluate(
        model=model, tokenizer=TOKENIZER, protocol=settings, rows=rows, folder=folder, batch_size=4,
        permissions=Permissions(), **changes,
    )  # fmt: skip


def test_an_interrupted_evaluation_ends_with_the_records_it_would_have_had(tmp_path):
    model = small_model()
    whole = gsm8k(model, tmp_path / "whole")
    with pytest.raises(Stopped):
        gsm8k(model, tmp_path / "cut", progress=interrupted_after(1))
    assert not (tmp_path / "cut" / "DONE").exists()
    assert gsm8k(model, tmp_path / "cut") == tmp_path / "cut"
    for name in ("meta.json", "items.jsonl", "DONE"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in whole.iterdir()) == COMPLETE


def ending(error: BaseException):
    def progress(done, total):
        raise error

    return progress


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
        (KeyboardInterrupt(), {"state": "interrupted"}),
    ],
    ids=["failed", "runtime", "memory", "gpu memory", "interrupted"],
)
def test_an_evaluation_that_ends_early_says_why_until_it_is_complete(error, status, tmp_path):
    model = small_model()
    with pytest.raises(type(error)):
        gsm8k(model, tmp_path, progress=ending(error))
    assert json.loads((tmp_path / "status.json").read_text()) == status
    gsm8k(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == COMPLETE


def test_torchs_own_words_for_a_full_memory_are_recognised(tmp_path):
    def progress(done, total):
        torch.empty(1 << 60)

    with pytest.raises(RuntimeError):
        gsm8k(small_model(), tmp_path, progress=progress)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "oom"


def test_a_status_that_cannot_be_written_does_not_hide_what_went_wrong(tmp_path):
    def progress(done, total):
        (tmp_path / "status.json").mkdir()
        raise Stopped("no more")

    with pytest.raises(Stopped, match="no more"):
        gsm8k(small_model(), tmp_path, progress=progress)


def test_an_evaluation_that_is_refused_leaves_a_complete_folder_alone(tmp_path):
    gsm8k(small_model(), tmp_path)
    with pytest.raises(ValueError, match="another protocol"):
        gsm8k(small_model(), tmp_path, rows=ROWS[:3])
    assert not (tmp_path / "status.json").exists()


def test_a_complete_evaluation_is_not_run_again(tmp_path):
    folder = gsm8k(small_model(), tmp_path / "eval")
    before = (folder / "items.jsonl").read_bytes()
    assert gsm8k(None, folder) == folder
    assert (folder / "items.jsonl").read_bytes() == before


def test_records_that_were_tampered_with_are_made_again(tmp_path):
    folder = gsm8k(small_model(), tmp_path / "eval")
    before = (folder / "items.jsonl").read_bytes()
    (folder / "items.jsonl").write_bytes(before.replace(b'"strict": 0.0', b'"strict": 1.0'))
    gsm8k(small_model(), folder)
    assert (folder / "items.jsonl").read_bytes() == before


def test_a_folder_of_another_evaluation_is_refused(tmp_path):
    gsm8k(small_model(), tmp_path / "eval")
    with pytest.raises(ValueError, match="holds an evaluation of another protocol or data"):
        gsm8k(small_model(), tmp_path / "eval", rows=ROWS[:3])


def test_meta_says_what_was_asked(tmp_path):
    limited = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=20, limit=3)
    meta = json.loads((gsm8k(small_model(), tmp_path / "eval", settings=limited) / "meta.json").read_text())
    assert meta["benchmark"] == "gsm8k"
    assert meta["items"] == 3
    assert meta["samples"] == 1
    assert meta["protocol"]["max_new_tokens"] == 20
