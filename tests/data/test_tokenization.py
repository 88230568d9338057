"""Ids and labels of examples, alone and several in a row: what the loss sees, what is cut, what is counted."""

import random

import pytest
import torch
from byte_tokenizer import byte_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from reproduction.data import DataError, Example, TokenizedSet, encode_prompts, pack, tokenize
from reproduction.data.tokenization import IGNORED

TOKENIZER = byte_tokenizer()


def examples(*pairs: tuple[str, str]) -> list[Example]:
    return [
        Example(id=f"set/{index}", prompt=prompt, response=response) for index, (prompt, response) in enumerate(pairs)
    ]


def test_the_loss_sees_the_response_and_its_end_and_nothing_else():
    (row,) = tokenize(examples(("Ask:\n", "Yes")), TOKENIZER, max_length=32).rows
    assert TOKENIZER.decode(row["input_ids"]) == "Ask:\nYes</s>"
    seen = TOKENIZER("Yes</s>", add_special_tokens=False)["input_ids"]
    assert row["labels"] == [IGNORED] * (len(row["input_ids"]) - len(seen)) + seen


@pytest.mark.parametrize("added", ["", "<s> ", "<s> <s> "])
def test_the_start_token_stands_once_although_a_prompt_writes_it_out_or_the_tokenizer_adds_it_twice(added):
    starting = byte_tokenizer()
    starting.backend_tokenizer.post_processor = TemplateProcessing(single=f"{added}$A", special_tokens=[("<s>", 1)])
    ask = starting("Ask", add_special_tokens=False)["input_ids"]
    plain, written, within = encode_prompts(starting, ["Ask", "<s>Ask", "<s>Ask<s><s>"])
    assert (plain, written, within) == ([1, *ask] if added else ask, [1, *ask], [1, *ask, 1, 1])
    row = tokenize(examples(("<s>Ask", "Yes")), starting, max_length=32).rows[0]
    assert (row["input_ids"].count(1), row["labels"][0]) == (1, IGNORED)


def test_what_does_not_fit_is_cut_or_left_out_and_counted_and_a_prompt_stays_whole():
    given = [("12345", "abcdef"), ("12345", "abcd"), ("1234567890", "a"), ("1", "")]
    tokenized = tokenize(examples(*given), TOKENIZER, max_length=10, max_cut_share=1)
    assert [TOKENIZER.decode(row["input_ids"]) for row in tokenized.rows] == ["12345abcde", "12345abcd</s>"]
    assert tokenized.ids == ["set/0", "set/1"]
    assert tokenized.report() == {
        "rows": 2, "examples": 2, "tokens": 20, "response_tokens": 10, "truncated": 1, "dropped_empty": 1,
        "dropped_long": 1, "sources": {"set": 2},
    }  # fmt: skip


FITS = [("1", "a")] * 19


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([("12345", "abcdefgh")] * 2, r"2 of 21 examples \(9\.5%\) do not fit in max_length=10.*longest has 14 "),
        ([("1234567890", "a")] * 2, r"2 of 21 examples \(9\.5%\) do not fit .*longest has 12 "),
        ([("1", "")] * 2, r"2 of 21 examples \(9\.5%\) have an empty response.*set/19"),
    ],
)
def test_more_than_a_twentieth_cut_or_left_out_is_refused(given, sentence):
    assert len(tokenize(examples(*FITS, given[0]), TOKENIZER, max_length=10)) >= 19
    with pytest.raises(DataError, match=sentence):
        tokenize(examples(*FITS, *given), TOKENIZER, max_length=10)


def test_what_leaves_nothing_to_train_on_and_a_tokenizer_without_an_end_token_are_refused():
    with pytest.raises(DataError, match="None of the 1 examples has a response"):
        tokenize(examples(("1", "")), TOKENIZER, max_length=10)
    with pytest.raises(DataError, match=r"No prompt leaves room .* max_length=3"):
        tokenize(examples(("123", "a")), TOKENIZER, max_length=3, max_cut_share=1)
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        tokenize(examples(("1", "a")), endless, max_length=10)


# Packing


def made_of(*lengths: int) -> TokenizedSet:
    """Examples of these lengths with tokens of their own, the first half of each a prompt."""
    rows, start = [], 0
    for length in lengths:
        ids, prompt = list(range(start, start + length)), max(1, length // 2)
        rows.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
        start += length
    return TokenizedSet(rows, [f"gsm8k/train/{index}" for index in range(len(lengths))], truncated=3)


def examples_of(row: dict[str, list[int]]) -> list[dict[str, list[int]]]:
    """The examples of a packed row, cut where the positions start anew."""
    starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
    ends = [*starts[1:], len(row["input_ids"])]
    return [{name: row[name][a:b] for name in row} for a, b in zip(starts, ends, strict=True)]


def test_every_example_is_in_one_row_whole_with_its_labels_and_positions_of_its_own():
    draw = random.Random(0)
    alone = made_of(*[draw.randint(2, 60) for _ in range(500)])
    packed = pack(alone, 64)
    held = [example for row in packed.rows for example in examples_of(row)]
    by_id = dict(zip(alone.ids, alone.rows, strict=True))
    assert sorted(packed.ids) == sorted(alone.ids)
    for id, example in zip(packed.ids, held, strict=True):
        assert {name: example[name] for name in ("input_ids", "labels")} == by_id[id]
        assert example["position_ids"] == list(range(len(example["input_ids"])))
    assert max(len(row["input_ids"]) for row in packed.rows) <= 64
    assert len(packed) < 0.6 * len(alone)


def test_an_example_goes_where_the_least_room_is_left_and_of_equals_into_the_earliest():
    packed = pack(made_of(6, 7, 6, 3, 4, 4, 5), 10)
    assert packed.ids == [f"gsm8k/train/{n}" for n in (0, 4, 1, 3, 2, 5, 6)]
    assert [len(row["input_ids"]) for row in packed.rows] == [10, 10, 10, 5]
    report = packed.report()
    assert (report["rows"], report["examples"], report["fill_share"], report["truncated"]) == (4, 7, 0.875, 3)


def test_the_first_label_of_every_packed_example_is_masked_and_what_cannot_be_packed_is_refused():
    ids = [1, 2, 3]
    packed = pack(TokenizedSet([{"input_ids": ids, "labels": ids}] * 2, ["a", "b"]), 6)
    assert packed.rows[0]["labels"] == [IGNORED, 2, 3, IGNORED, 2, 3]
    with pytest.raises(ValueError, match="packed already"):
        pack(packed, 6)
    with pytest.raises(ValueError, match=r"gsm8k/train/1 has 11 tokens, and a row takes 10"):
        pack(made_of(6, 11), 10)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("classes", [(LlamaForCausalLM, LlamaConfig), (MistralForCausalLM, MistralConfig)])
def test_a_model_gives_each_example_of_a_batch_of_packs_the_logits_that_it_has_alone(classes, attention):
    pairs = [(f"Say {n}: " + "x" * (5 * n % 17), "y" * (3 * n % 11 + 1)) for n in range(9)]
    packed = pack(tokenize(examples(*pairs), TOKENIZER, max_length=48), 48)
    assert len(packed) >= 3
    torch.manual_seed(0)
    config = classes[1](
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=attention,
    )  # fmt: skip
    model = classes[0](config).eval()
    width = max(len(row["input_ids"]) for row in packed.rows) + 3
    batch = {
        name: torch.tensor([row[name] + [0] * (width - len(row[name])) for row in packed.rows])
        for name in ("input_ids", "position_ids")
    }
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits
        leaking = model(**batch, use_cache=False, attention_mask=torch.ones_like(batch["input_ids"])).logits
        differences = []
        for row, logits, leaked in zip(packed.rows, together, leaking, strict=True):
            start = 0
            for example in examples_of(row):
                end = start + len(example["input_ids"])
                alone = model(torch.tensor([example["input_ids"]])).logits[0]
                torch.testing.assert_close(logits[start:end], alone, atol=1e-5, rtol=0)
                differences.append((leaked[start:end] - alone).abs().max())
                start = end
    assert max(differences) > 0.01  # the same call with an attention mask attends across the examples
