"""MMLU, CommonsenseQA and GSM8K score, item by item, what lm-eval's own evaluation of the same model does."""

import re
from pathlib import Path

import lm_eval
import pytest
import torch
import yaml
from byte_tokenizer import byte_tokenizer
from datasets import Dataset
from letter_tokenizers import bpe
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from oracle import small_model
from steps import ask, evaluate, judge, prompt_texts

from reproduction.data.templates import ALPACA
from reproduction.evals import Protocol
from reproduction.evals.multiple_choice import LETTERS
from reproduction.evals.task import stops

ITEMS = 16


def random_model(tokenizer, seed: int = 0):
    """What it says depends on all of its prompt: it attends sharply, and to what it attends it gives weight."""
    model = small_model(seed=seed, vocab_size=len(tokenizer))
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 3
        layer.self_attn.o_proj.weight.data *= 8
    return model


def harness(model, tokenizer, documents: list[dict], **config) -> dict[str, list[dict]]:
    """Filter → what lm-eval's `simple_evaluate` logs of each document; "prompt" is its text."""
    own = {
        "task": "theirs", "custom_dataset": lambda **_: {"test": Dataset.from_list(documents)}, "test_split": "test",
        "doc_to_text": "prompt", "num_fewshot": 0,
    }  # fmt: skip
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=4096), tasks=[own | config],
        task_manager=TaskManager(include_defaults=False), log_samples=True, bootstrap_iters=0,
        random_seed=None, numpy_random_seed=None, torch_random_seed=None,
    )  # fmt: skip
    samples = sorted(found["samples"]["theirs"], key=lambda sample: sample["doc_id"])
    return {name: [s for s in samples if s["filter"] == name] for name in {s["filter"] for s in samples}}


def quiz(number: int, *, split: str, benchmark: str) -> dict:
    letters, own = ("ABCD", {"subject": "tides"}) if benchmark == "mmlu" else (LETTERS, {})
    answer = letters[number * 7 % len(letters)]
    choices = [f"about {number * place} {'miles' * (number % 3)}" for place, _ in enumerate(letters)]
    question = f"How far is {number}?" + " Say." * (number % 5)
    return {"id": f"{split}/{number}", "question": question, "choices": choices, "answer": answer, **own}


@pytest.mark.parametrize(
    ("benchmark", "layout", "shots"), [("mmlu", "raw", 2), ("mmlu", "template", 0), ("commonsenseqa", "raw", 0)]
)
def test_the_letters_likelihoods_give_every_item_the_score_of_lm_eval(benchmark, layout, shots, tmp_path):
    tokenizer = bpe()
    model = random_model(tokenizer)
    settings = Protocol(benchmark=benchmark, protocol_version=1, scoring="likelihood", layout=layout, num_fewshot=shots)
    rows = [quiz(n, split="test", benchmark=benchmark) for n in range(ITEMS)]
    shown = [quiz(n, split="shown", benchmark=benchmark) for n in range(20, 24)]
    ours = evaluate(model, settings, rows, tmp_path, tokenizer=tokenizer, shown=shown)
    documents = [
        {"prompt": text, "choices": settings.task.choices(row, layout), "gold": LETTERS.index(row["answer"])}
        for row, text in zip(rows, prompt_texts(settings, rows, shown), strict=True)
    ]
    (theirs,) = harness(
        model, tokenizer, documents, output_type="multiple_choice", doc_to_choice="choices", doc_to_target="gold",
        target_delimiter="",
    ).values()  # fmt: skip
    our_numbers, their_numbers = (
        torch.tensor(some) - torch.tensor(some)[:, :1]  # lm-eval counts a prompt's last line break to its choice
        for some in (
            [list(record["loglikelihoods"].values()) for record in ours],
            [[logprob for logprob, _ in sample["filtered_resps"]] for sample in theirs],
        )
    )
    outcomes = [record["scores"]["acc"] for record in ours]
    assert outcomes == [sample["acc"] for sample in theirs]
    assert 0 < sum(outcomes) < ITEMS
    assert len({record["parsed"] for record in ours}) > 1
    assert (our_numbers - their_numbers).abs().max() < 1e-4


SAID = ["#### ", "### Instruction:", "Ask", " ", "-", *"0123456789"]


def speaker(tokenizer):
    """A random model that says numbers, marked or not, stop strings and the end token, and nothing else."""
    model = random_model(tokenizer, seed=7)
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[[tokenizer.eos_token_id, *(tokenizer(text)["input_ids"][0] for text in SAID)]] = False
    model.lm_head.weight.data[silent] = 0
    return model


@pytest.mark.parametrize("shots", [0, 2])
def test_generated_answers_to_gsm8k_score_as_under_lm_evals_own_filters(shots, tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(SAID[:3])
    model = speaker(tokenizer)
    settings = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=24, num_fewshot=shots)
    rows = [{"id": f"test/{n}", "question": "How many? " * (n % 7) + f"And {n}?"} for n in range(40)]
    shown = [{"id": f"train/{n}", "question": f"Count {n}.", "answer": f"Done.\n#### {n}"} for n in range(2)]
    texts = prompt_texts(settings, rows, shown)
    said = {
        each["item_id"]: each["raw"] for each in ask(model, settings, rows, tmp_path, tokenizer=tokenizer, shown=shown)
    }
    for n, row in enumerate(rows):  # three of four gold answers are the first marked number, or the last one of all
        numbers = re.findall(r"#### (\d+)", said[row["id"]]) if n % 2 else re.findall(r"\d+", said[row["id"]])[-1:]
        row["answer"] = f"So.\n#### {numbers[0] if numbers and n % 4 else 777}"
    ours = judge(settings, rows, tmp_path, shown=shown)

    installed = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
    theirs = harness(
        model, tokenizer, [{"prompt": text, "answer": row["answer"]} for text, row in zip(texts, rows, strict=True)],
        **{key: installed[key] for key in ("output_type", "doc_to_target", "metric_list", "filter_list")},
        generation_kwargs={
            "until": stops(settings, ALPACA), "do_sample": False, "max_gen_toks": settings.max_new_tokens,
        },
    )  # fmt: skip
    for name, filtered in (("strict", "strict-match"), ("flexible", "flexible-extract")):
        samples = theirs[filtered]
        assert [record["raw"] for record in ours] == [sample["resps"][0][0] for sample in samples]
        outcomes = [record["scores"][name] for record in ours]
        assert outcomes == [sample["exact_match"] for sample in samples]
        assert 0 < sum(outcomes) < len(rows)
        assert [record["parsed"][name] for record in ours] == [sample["filtered_resps"][0] for sample in samples]
