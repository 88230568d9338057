"""A letter's log-probability is what the model says after the prompt, however it is tokenized and batched."""

import copy
import dataclasses
import re

import pytest
import torch
from letter_tokenizers import TOKENIZERS
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from oracle import TOKENIZER, VOCABULARY, small_model
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from reproduction.data import Example, tokenize
from reproduction.data.templates import ALPACA
from reproduction.data.tokenization import IGNORED
from reproduction.evals import Protocol, batching, likelihood
from reproduction.evals.items import Prompt
from reproduction.evals.likelihood import Likelihood
from reproduction.evals.prompts import Prompts
from reproduction.evals.task import RAW, TEMPLATE

CHOICES = ["one", "two", "three", "four"]
ROWS = [
    {"id": f"item/{n}", "question": "What is it?" + " Say." * n, "choices": CHOICES[: 2 + n % 3], "subject": "things"}
    for n in range(7)
]


def asked(layout: str = RAW, rows=ROWS) -> list[Prompt]:
    settings = Protocol(benchmark="mmlu", protocol_version=1, scoring="likelihood", layout=layout)
    return Prompts(rows, [], protocol=settings, template=ALPACA).fitting(lambda some: [True] * len(some))


def scores(model, tokenizer=TOKENIZER, *, layout=RAW, batch_size=3, prompts=None) -> list[list[float]]:
    prompts = prompts or asked(layout)
    asking = Likelihood(model, tokenizer, prompts, protocol=None, stops=())
    batches = asking.batches([(prompt, [0]) for prompt in prompts], batch_size)
    found = {record["item_id"]: record["logprobs"] for batch in batches for record in asking.answer(batch)}
    return [found[prompt.item_id] for prompt in prompts]


def flat(nested: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for some in nested for value in some], dtype=torch.float64)


def harness(model, tokenizer) -> list[list[float]]:
    """lm-eval's own numbers for the same texts, in the raw layout."""
    start = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=4096, add_bos_token=start)
    pairs = [(prompt.text, choice) for prompt in asked() for choice in prompt.choices]
    found = iter(lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True))
    return [[next(found)[0] for _ in prompt.choices] for prompt in asked()]


def absolute_positions() -> GPT2LMHeadModel:
    """A model that sees how far a batch shifts a text, as a rotary one does not."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2)).double().eval()


@torch.no_grad()
def sums(model, sequences) -> list[float]:
    """Of each (ids, start) the sum of the log-probabilities from there on, alone through the model."""
    found = []
    for ids, start in sequences:
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(float(logprobs[at - 1, ids[at]]) for at in range(start, len(ids))))
    return found


def one_by_one(model, tokenizer, prompts=None) -> list[list[float]]:
    """Each raw text alone, from where an item's texts begin to differ from its prompt."""
    results = []
    for prompt in prompts or asked():
        alone = tokenizer(prompt.text)["input_ids"]
        whole = [tokenizer(prompt.text + choice)["input_ids"] for choice in prompt.choices]
        start = 0
        while start < len(alone) and all(ids[start] == alone[start] for ids in whole):
            start += 1
        results.append(sums(model, [(ids, start) for ids in whole]))
    return results


def as_trained(model, tokenizer) -> list[list[float]]:
    """What training's loss sees of each letter as a response in the template, without the end token."""
    results = []
    for prompt in asked(TEMPLATE):
        examples = [Example(choice, prompt.text, choice) for choice in prompt.choices]
        rows = tokenize(examples, tokenizer, max_length=4096).rows
        results.append(sums(model, [(row["input_ids"][:-1], row["labels"].count(IGNORED)) for row in rows]))
    return results


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_letters_in_the_raw_layout_have_the_numbers_of_lm_eval_and_of_each_text_alone(name, kind):
    tokenizer = TOKENIZERS[name]()
    model = small_model(kind, vocab_size=len(tokenizer))
    ours = flat(scores(model, tokenizer))
    assert (ours - flat(harness(model, tokenizer))).abs().max() < 1e-4
    assert (ours - flat(one_by_one(model, tokenizer))).abs().max() < 1e-4
    assert ours.std() > 0.1


@pytest.mark.parametrize("name", ["melting", "llama3"])
def test_a_letter_that_melts_into_the_end_of_a_text_is_scored_with_it(name):
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    prompts = [dataclasses.replace(prompt, apart=False) for prompt in asked(TEMPLATE)]  # which end in a line break
    found = flat(scores(model, tokenizer, prompts=prompts))
    assert (found - flat(one_by_one(model, tokenizer, prompts))).abs().max() < 1e-4


@pytest.mark.parametrize("name", TOKENIZERS)
def test_letters_in_the_template_have_the_numbers_that_training_sees(name):
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    found = flat(scores(model, tokenizer, layout=TEMPLATE, batch_size=100))
    assert (found - flat(as_trained(model, tokenizer))).abs().max() < 1e-4
    assert found.std() > 0.1


@pytest.mark.parametrize("agreed", [1, 8, 10_000])  # the last is never reached: all is tokenized again
@pytest.mark.parametrize("name", TOKENIZERS)
def test_of_a_long_prompt_the_ending_alone_is_tokenized_with_each_choice_and_the_tokens_are_those_of_the_whole(
    name, agreed, monkeypatch
):
    tokenizer = TOKENIZERS[name]()
    prompts = [
        dataclasses.replace(prompt, apart=False) for layout in (RAW, TEMPLATE) for prompt in asked(layout)
    ]  # those of the template end in a line break
    monkeypatch.setattr(likelihood, "ENDING", 10**9)
    expected = list(likelihood._encode(tokenizer, prompts))
    monkeypatch.setattr(likelihood, "ENDING", 40)
    monkeypatch.setattr(likelihood, "AGREED", agreed)
    assert min(len(prompt.text) for prompt in prompts) > 40
    assert list(likelihood._encode(tokenizer, prompts)) == expected


def test_an_ending_that_has_other_tokens_than_the_prompt_up_to_its_choices_is_not_taken_for_it():
    prompt, agreed = [1, 2, 3, *range(10, 20)], list(range(10, 20))
    assert likelihood._parted(prompt, [9, *agreed], [9, *agreed, 5], [9, *agreed, 6]) == (13, [[5], [6]])
    assert likelihood._parted(prompt, [9, *agreed], [9, *agreed[:-1], 5], [9, *agreed, 6]) == (12, [[5], [19, 6]])
    for start in (1, 3):  # what agrees begins too near to what the first choice changes
        ending = [9] * start + agreed[-5:]
        assert likelihood._parted(prompt, ending, [*ending, 5], [*ending, 6]) == (None, [])
    assert likelihood._parted(prompt, prompt, [*prompt, 5], [*prompt, 6]) == (13, [[5], [6]])


def test_a_letter_is_another_token_after_a_text_than_by_itself():
    # Which is why the test above would fail if prompt and choice were tokenized together there, and the one before it
    # if they were tokenized apart.
    tokenizer, (prompt, *_) = TOKENIZERS["sentencepiece"](), asked(TEMPLATE)
    together, alone = tokenizer(prompt.text + "A")["input_ids"], tokenizer("A", add_special_tokens=False)["input_ids"]
    assert together[-1] != alone[-1]


@pytest.mark.parametrize("layout", [RAW, TEMPLATE])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_all_letters_of_an_item_come_from_one_forward_pass_wherever_their_tokens_allow(name, layout):
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    sizes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    scores(model, tokenizer, layout=layout, batch_size=3)
    rows = 2 if (name, layout) == ("melting", RAW) else 1  # " A" is one token there and " B" two
    assert sizes == [3 * rows, 3 * rows, rows]


@pytest.mark.parametrize("model", [small_model(), absolute_positions()], ids=["rotary", "absolute"])
def test_the_batch_has_no_say_in_a_score(model):
    together = flat(scores(model, batch_size=100))
    assert (flat(scores(model, batch_size=1)) - together).abs().max() < 1e-5


@pytest.mark.parametrize("model", [small_model(), small_model("mistral"), absolute_positions()])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu(model, monkeypatch):
    expected = flat(scores(model))
    monkeypatch.setattr(likelihood, "SHARED_TOKENS", 4)
    monkeypatch.setattr(batching, "PREFILL_TOKENS", 100)
    found = flat(scores(copy.deepcopy(model).cuda()))
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("model", [small_model(), small_model("mistral"), absolute_positions()])
def test_a_beginning_that_items_have_in_common_is_read_once_and_the_scores_stay(model, monkeypatch):
    def about(subject: str) -> list[Prompt]:
        rows = [{"id": f"{subject}/{n}", "question": "Why?" + " Say." * n, "choices": CHOICES} for n in range(4)]
        prompts = asked(rows=[{**row, "subject": subject} for row in rows])
        return [
            dataclasses.replace(prompt, text=f"{subject} is asked about here. " * 3 + prompt.text) for prompt in prompts
        ]

    read = []
    hook = model.register_forward_pre_hook(lambda *given: read.append(given[2]["input_ids"].numel()), with_kwargs=True)

    def found() -> tuple[torch.Tensor, int]:
        read.clear()
        numbers = scores(model, prompts=[*about("Law"), *about("Art")])
        return flat(numbers), sum(read)

    expected, all_tokens = found()
    monkeypatch.setattr(likelihood, "_reads_once", lambda model: True)
    monkeypatch.setattr(likelihood, "SHARED_TOKENS", 40)
    monkeypatch.setattr(
        likelihood, "passes", lambda some, device, most: (some[at : at + 2] for at in range(0, len(some), 2))
    )
    numbers, tokens = found()
    hook.remove()
    assert (numbers - expected).abs().max() < 1e-5
    sliding = getattr(model.config, "sliding_window", None) is not None  # of 16: nothing can be shared
    assert tokens > 0.9 * all_tokens if sliding else tokens < 0.8 * all_tokens


def test_an_adapter_is_asked_with_its_adapter():
    base = small_model()
    plain = flat(scores(base))
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).double()
    found = scores(model)
    assert (flat(found) - plain).abs().max() > 1e-3
    assert (flat(found) - flat(one_by_one(model, TOKENIZER))).abs().max() < 1e-4


@pytest.mark.parametrize("apart", [True, False])
def test_choices_that_cannot_be_told_apart_and_prompts_that_do_not_fit_are_refused_in_a_sentence(apart):
    prompt = dataclasses.replace(asked()[0], apart=apart)
    for choices in ((" A", ""), (" A", " A")):
        with pytest.raises(ValueError, match=f"{re.escape(str(choices))} of item/0 cannot be told apart"):
            scores(small_model(), prompts=[dataclasses.replace(prompt, choices=choices)])
    with pytest.raises(ValueError, match=r"context of 20: take its row out"):
        scores(small_model(max_position_embeddings=20), prompts=[prompt])


def test_every_choice_has_a_number_and_the_tokens_read_are_told():
    prompts = asked()
    asking = Likelihood(small_model(), TOKENIZER, prompts, protocol=None, stops=())
    records = asking.answer((prompts, [0]))
    assert [len(record["logprobs"]) for record in records] == [len(row["choices"]) for row in ROWS]
    assert all(value < 0 for record in records for value in record["logprobs"])
    assert [record["prompt_tokens"] for record in records] == [len(prompt.text.encode()) for prompt in prompts]
