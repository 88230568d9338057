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


def scores(model, tokenizer=TOKENIZER, *, layout=RAW, batch_size=3, prompts=None) -> torch.Tensor:
    """All choices' log-probabilities, in the order of the prompts."""
    prompts = prompts or asked(layout)
    asking = Likelihood(model, tokenizer, prompts, protocol=None, stops=())
    records = [r for batch in asking.batches([(p, [0]) for p in prompts], batch_size) for r in asking.answer(batch)]
    found = {record["item_id"]: record["logprobs"] for record in records}
    assert [len(found[prompt.item_id]) for prompt in prompts] == [len(prompt.choices) for prompt in prompts]
    return torch.tensor([value for prompt in prompts for value in found[prompt.item_id]], dtype=torch.float64)


def harness(model, tokenizer) -> torch.Tensor:
    """lm-eval's own numbers for the same texts, in the raw layout."""
    start = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=4096, add_bos_token=start)
    pairs = [(prompt.text, choice) for prompt in asked() for choice in prompt.choices]
    found = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
    return torch.tensor([logprob for logprob, _ in found], dtype=torch.float64)


def absolute_positions() -> GPT2LMHeadModel:
    """A model that sees how far a batch shifts a text, as a rotary one does not."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2)).double().eval()


MODELS = [small_model(), small_model("mistral"), absolute_positions()]


@torch.no_grad()
def sums(model, sequences) -> torch.Tensor:
    """Return, for each (ids, start), the sum of log-probabilities from start on, without batching."""
    found = []
    for ids, start in sequences:
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(float(logprobs[at - 1, ids[at]]) for at in range(start, len(ids))))
    return torch.tensor(found, dtype=torch.float64)


def one_by_one(model, tokenizer, prompts=None) -> torch.Tensor:
    """Each raw text alone, from where an item's texts begin to differ from its prompt."""
    sequences = []
    for prompt in prompts or asked():
        alone = tokenizer(prompt.text)["input_ids"]
        whole = [tokenizer(prompt.text + choice)["input_ids"] for choice in prompt.choices]
        start = 0
        while start < len(alone) and all(ids[start] == alone[start] for ids in whole):
            start += 1
        sequences += [(ids, start) for ids in whole]
    return sums(model, sequences)


def as_trained(model, tokenizer) -> torch.Tensor:
    """Return the training loss's log-probability of each letter as a response, without the end token."""
    examples = [Example(choice, prompt.text, choice) for prompt in asked(TEMPLATE) for choice in prompt.choices]
    rows = tokenize(examples, tokenizer, max_length=4096).rows
    return sums(model, [(row["input_ids"][:-1], row["labels"].count(IGNORED)) for row in rows])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_letters_have_the_numbers_of_lm_eval_and_of_each_text_alone_and_in_the_template_those_of_training(name):
    tokenizer = TOKENIZERS[name]()
    model, sizes = small_model("mistral" if name == "bytes" else "llama", vocab_size=len(tokenizer)), []
    hook = model.register_forward_pre_hook(
        lambda _, args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    raw, template = scores(model, tokenizer), scores(model, tokenizer, layout=TEMPLATE)
    hook.remove()
    rows = 2 if name == "melting" else 1  # of an item: its " A" is one token there and " B" two
    assert sizes == [3 * rows, 3 * rows, rows, 3, 3, 1]
    assert (raw - harness(model, tokenizer)).abs().max() < 1e-4
    assert (raw - one_by_one(model, tokenizer)).abs().max() < 1e-4
    assert (template - as_trained(model, tokenizer)).abs().max() < 1e-4
    assert min(raw.std(), template.std()) > 0.1
    assert max(raw.max(), template.max()) < 0


@pytest.mark.parametrize("name", ["melting", "llama3"])
def test_a_letter_that_melts_into_the_end_of_a_text_is_scored_with_it(name):
    tokenizer = TOKENIZERS[name]()
    model = small_model(vocab_size=len(tokenizer))
    prompts = [dataclasses.replace(prompt, apart=False) for prompt in asked(TEMPLATE)]  # which end in a line break
    found = scores(model, tokenizer, prompts=prompts)
    assert (found - one_by_one(model, tokenizer, prompts)).abs().max() < 1e-4


@pytest.mark.parametrize("agreed", [1, 8, 10_000])  # the last is never reached: all is tokenized again
@pytest.mark.parametrize("name", TOKENIZERS)
def test_of_a_long_prompt_the_ending_alone_is_tokenized_with_each_choice_and_the_tokens_are_those_of_the_whole(
    name, agreed, monkeypatch
):
    tokenizer = TOKENIZERS[name]()
    prompts = [dataclasses.replace(prompt, apart=False) for layout in (RAW, TEMPLATE) for prompt in asked(layout)]
    monkeypatch.setattr(likelihood, "ENDING", 10**9)
    expected = list(likelihood._encode(tokenizer, prompts))
    monkeypatch.setattr(likelihood, "ENDING", 40)
    monkeypatch.setattr(likelihood, "AGREED", agreed)
    assert list(likelihood._encode(tokenizer, prompts)) == expected


@pytest.mark.parametrize("model", MODELS)
def test_the_batch_has_no_say_in_a_score(model):
    assert (scores(model, batch_size=1) - scores(model, batch_size=100)).abs().max() < 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_a_beginning_that_items_have_in_common_is_read_once_and_the_scores_stay(model, monkeypatch):
    rows = [{"id": f"{s}/{n}", "question": "Why?" + " Say." * n, "choices": CHOICES, "subject": s}
            for s in ("Law", "Art") for n in range(4)]  # fmt: skip
    prompts = [
        dataclasses.replace(p, text=f"{p.row['subject']} is asked about. " * 3 + p.text) for p in asked(rows=rows)
    ]
    read = []
    hook = model.register_forward_pre_hook(lambda *given: read.append(given[2]["input_ids"].numel()), with_kwargs=True)
    expected, all_tokens = scores(model, prompts=prompts), sum(read)
    read.clear()
    monkeypatch.setattr(likelihood, "_shares_prefixes", lambda model: True)
    monkeypatch.setattr(likelihood, "SHARED_TOKENS", 40)
    monkeypatch.setattr(
        batching, "passes", lambda some, device, most: (some[at : at + 2] for at in range(0, len(some), 2))
    )
    found, tokens = scores(model, prompts=prompts), sum(read)
    hook.remove()
    assert (found - expected).abs().max() < 1e-5
    assert (scores(model, prompts=prompts[:1]) - expected[:4]).abs().max() < 1e-5  # all of it is in common
    sliding = getattr(model.config, "sliding_window", None) is not None  # of 16: nothing can be shared
    assert tokens > 0.9 * all_tokens if sliding else tokens < 0.8 * all_tokens


def test_an_adapter_is_asked_with_its_adapter():
    base = small_model()
    plain = scores(base)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).double()
    assert (scores(model) - plain).abs().max() > 1e-3
    assert (scores(model) - one_by_one(model, TOKENIZER)).abs().max() < 1e-4


@pytest.mark.parametrize("apart", [True, False])
def test_choices_that_cannot_be_told_apart_and_prompts_that_do_not_fit_are_refused(apart):
    prompt = dataclasses.replace(asked()[0], apart=apart)
    for choices in ((" A", ""), (" A", " A")):
        with pytest.raises(ValueError, match=f"{re.escape(str(choices))} of item/0"):
            scores(small_model(), prompts=[dataclasses.replace(prompt, choices=choices)])
    longest = len(prompt.text.encode()) + 1  # of a choice's two tokens the last is only predicted
    scores(small_model(max_position_embeddings=longest), prompts=[prompt])
    with pytest.raises(ValueError, match=rf"context of {longest - 1}"):
        scores(small_model(max_position_embeddings=longest - 1), prompts=[prompt])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu(model, monkeypatch):
    expected = scores(model)
    monkeypatch.setattr(likelihood, "SHARED_TOKENS", 4)
    monkeypatch.setattr(batching, "PREFILL_TOKENS", 100)
    assert (scores(copy.deepcopy(model).cuda()) - expected).abs().max() < 1e-4
