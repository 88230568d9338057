"""A letter's log-probability is what the model says after the prompt, however it is tokenised, batched and resumed."""

import copy
import json

import pytest
import torch
from letter_tokenizers import TOKENIZERS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from oracle import TOKENIZER, VOCABULARY, small_model
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from idlora.data.templates import eval_choices, eval_prompt
from idlora.evals import asking, likelihood
from idlora.evals.items import Prompt
from idlora.evals.likelihood import loglikelihoods

CHOICES = ["one", "two", "three", "four"]
ROWS = [{"id": f"item/{n}", "question": "What is it?" + " Say." * n, "choices": CHOICES[: 2 + n % 3]} for n in range(7)]


def asked(template: str = "raw", rows=ROWS) -> tuple[list[Prompt], list[list[str]]]:
    prompts = [Prompt(row, eval_prompt("mmlu", row, template)) for row in rows]
    return prompts, [eval_choices("mmlu", row, template) for row in rows]


def scores(model, tmp_path, tokenizer=TOKENIZER, *, template="raw", batch_size=3, name="answers.jsonl", progress=None):
    prompts, choices = asked(template)
    return loglikelihoods(
        model, tokenizer, prompts, choices=choices, batch_size=batch_size, path=tmp_path / name, progress=progress
    )


def flat(nested: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for some in nested for value in some], dtype=torch.float64)


def harness(model, tokenizer, template: str) -> list[list[float]]:
    """lm-eval's own numbers for the same texts."""
    start = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=4096, add_bos_token=start)
    prompts, choices = asked(template)
    requests = [
        Instance("loglikelihood", {}, (prompt.text, choice), 0)
        for prompt, some in zip(prompts, choices, strict=True)
        for choice in some
    ]
    found = iter(lm.loglikelihood(requests, disable_tqdm=True))
    return [[next(found)[0] for _ in some] for some in choices]


def absolute_positions() -> GPT2LMHeadModel:
    """A model that sees how far a batch shifts a text, as a rotary one does not."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2)).double()


@torch.no_grad()
def one_by_one(model, tokenizer, template: str) -> list[list[float]]:
    """Each text alone through the model, and the sum from where an item's texts begin to differ from its prompt."""
    results = []
    for prompt, some in zip(*asked(template), strict=True):
        alone = tokenizer(prompt.text)["input_ids"]
        whole = [tokenizer(prompt.text + choice)["input_ids"] for choice in some]
        start = 0
        while start < len(alone) and all(ids[start] == alone[start] for ids in whole):
            start += 1
        results.append([])
        for ids in whole:
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            results[-1].append(sum(float(logprobs[at - 1, ids[at]]) for at in range(start, len(ids))))
    return results


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_letters_after_answer_have_the_numbers_of_lm_evals_own_model(name, kind, tmp_path):
    tokenizer = TOKENIZERS[name]()
    model = small_model(kind, vocab_size=len(tokenizer))
    ours, theirs = flat(scores(model, tmp_path, tokenizer)), flat(harness(model, tokenizer, "raw"))
    assert (ours - theirs).abs().max() < 1e-4
    assert ours.std() > 0.1


@pytest.mark.parametrize("template", ["raw", "alpaca"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_letters_in_either_template_have_the_numbers_of_each_text_alone(name, template, tmp_path):
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    found = scores(model, tmp_path, tokenizer, template=template, batch_size=100)
    assert (flat(found) - flat(one_by_one(model, tokenizer, template))).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["bytes", "bpe", "sentencepiece", "melting"])
def test_at_the_start_of_a_line_letters_stand_to_each_other_as_in_lm_eval(name, tmp_path):
    # lm-eval moves the line break to the letter's side, which adds the same to every letter. With a tokenizer like
    # LLaMA-3's it loses the break (":\n" is one token), so there only the texts alone are a reference.
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    pairs = zip(scores(model, tmp_path, tokenizer, template="alpaca"), harness(model, tokenizer, "alpaca"), strict=True)
    for ours, theirs in pairs:
        assert max(abs((a - ours[0]) - (b - theirs[0])) for a, b in zip(ours, theirs, strict=True)) < 1e-4


@pytest.mark.parametrize(
    ("name", "rows"), [("bytes", 1), ("bpe", 1), ("llama3", 1), ("sentencepiece", 1), ("melting", 2)]
)
def test_all_letters_of_an_item_come_from_one_forward_pass_wherever_their_tokens_allow(name, rows, tmp_path):
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    sizes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    scores(model, tmp_path, tokenizer, template="alpaca", batch_size=3)
    assert sizes == [3 * rows, 3 * rows, rows]


@pytest.mark.parametrize("model", [small_model(), absolute_positions()], ids=["rotary", "absolute"])
def test_the_batch_has_no_say_in_a_score(model, tmp_path):
    together = flat(scores(model, tmp_path, batch_size=100, name="together"))
    assert (flat(scores(model, tmp_path, batch_size=1, name="alone")) - together).abs().max() < 1e-5


@pytest.mark.parametrize("model", [small_model(), small_model("mistral"), absolute_positions()])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu(model, tmp_path, monkeypatch):
    expected = flat(scores(model, tmp_path, name="cpu"))
    monkeypatch.setattr(likelihood, "SHARED_TOKENS", 4)
    monkeypatch.setattr(asking, "PREFILL_TOKENS", 100)
    found = flat(scores(copy.deepcopy(model).cuda(), tmp_path, name="gpu"))
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("model", [small_model(), small_model("mistral"), absolute_positions()])
def test_a_beginning_that_items_have_in_common_is_read_once_and_the_scores_stay(model, tmp_path, monkeypatch):
    def asked_of(subject: str) -> list[tuple[Prompt, list[str]]]:
        shown = f"{subject} is asked about here. " * 3
        rows = [{"id": f"{subject}/{n}", "question": "Why?" + " Say." * n, "choices": CHOICES} for n in range(4)]
        texts = [(row, shown + eval_prompt("mmlu", row, "raw")) for row in rows]
        return [(Prompt(row, text), eval_choices("mmlu", row, "raw")) for row, text in texts]

    together = [*asked_of("Law"), *asked_of("Art")]
    read = []
    hook = model.register_forward_pre_hook(lambda *given: read.append(given[2]["input_ids"].numel()), with_kwargs=True)

    def found(name: str) -> tuple[torch.Tensor, int]:
        read.clear()
        prompts, choices = zip(*together, strict=True)
        path = tmp_path / name
        numbers = loglikelihoods(model, TOKENIZER, prompts, choices=choices, batch_size=3, path=path)
        return flat(numbers), sum(read)

    expected, all_tokens = found("each")
    monkeypatch.setattr(likelihood, "_reads_once", lambda model: True)
    monkeypatch.setattr(likelihood, "SHARED_TOKENS", 40)
    monkeypatch.setattr(likelihood, "passes", lambda some, device: (some[at : at + 2] for at in range(0, len(some), 2)))
    numbers, tokens = found("once")
    hook.remove()
    assert (numbers - expected).abs().max() < 1e-5
    sliding = getattr(model.config, "sliding_window", None) is not None  # of 16: nothing can be shared
    assert tokens > 0.9 * all_tokens if sliding else tokens < 0.8 * all_tokens


def test_an_adapter_is_asked_with_its_adapter(tmp_path):
    base = small_model()
    plain = flat(scores(base, tmp_path, name="plain"))
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).double()
    found = scores(model, tmp_path, name="adapted")
    assert (flat(found) - plain).abs().max() > 1e-3
    assert (flat(found) - flat(one_by_one(model, TOKENIZER, "raw"))).abs().max() < 1e-4


class Stopped(Exception):
    pass


def without_costs(path) -> list[dict]:
    answers = [json.loads(line) for line in path.open()]
    return [{key: value for key, value in answer.items() if key != "cost"} for answer in answers]


@pytest.mark.parametrize("cut", [0, 10, 300], ids=["whole", "in a line", "in a batch"])
def test_an_interrupted_run_goes_on_with_the_missing_batches_and_ends_the_same(cut, tmp_path):
    def stop(done, total):
        if done >= 4:
            raise Stopped

    model = small_model()
    expected = scores(model, tmp_path, name="whole", batch_size=2)
    with pytest.raises(Stopped):
        scores(model, tmp_path, batch_size=2, progress=stop)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[: -cut or None])  # as a kill leaves it
    kept = path.read_bytes()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    assert scores(model, tmp_path, batch_size=2) == expected
    assert without_costs(path) == without_costs(tmp_path / "whole")
    assert path.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert len(calls) == (2 if cut == 0 else 3)


def test_numbers_of_other_prompts_are_not_taken_for_these(tmp_path):
    model = small_model()
    first = scores(model, tmp_path)
    second = scores(model, tmp_path, template="alpaca")
    assert first != second == scores(model, tmp_path, template="alpaca", name="fresh")


def test_the_model_answers_without_dropout_and_is_left_in_the_mode_it_came_in(tmp_path):
    model = small_model(attention_dropout=0.5)
    found = []
    for training in (True, False):
        model.train(training)
        found.append(scores(model, tmp_path, name=str(training)))
        assert model.training is training
    assert found[0] == found[1]


def test_what_cannot_be_asked_is_refused_in_a_sentence(tmp_path):
    def ask(prompts, choices, **changes):
        model = small_model(**changes)
        loglikelihoods(model, TOKENIZER, prompts, choices=choices, batch_size=1, path=tmp_path / "x")

    with pytest.raises(ValueError, match="nothing to answer"):
        ask([], [])
    with pytest.raises(ValueError, match="same id"):
        ask(asked()[0][:1] * 2, asked()[1][:1] * 2)
    with pytest.raises(ValueError, match=r"\[' A', ''\] of item/0 cannot be told apart"):
        ask(asked()[0][:1], [[" A", ""]])
    with pytest.raises(ValueError, match=r"\[' A', ' A'\] of item/0 cannot be told apart"):
        ask(asked()[0][:1], [[" A", " A"]])
    with pytest.raises(ValueError, match=r"context of 20: take its row out"):
        ask(*asked(), max_position_embeddings=20)
    assert not (tmp_path / "x").exists()


def test_the_log_holds_every_letters_number(tmp_path):
    found = scores(small_model(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").open()]
    by_item = {line["item_id"]: line["loglikelihoods"] for line in lines}
    assert [by_item[row["id"]] for row in ROWS] == found
    assert all(value < 0 for some in found for value in some)
