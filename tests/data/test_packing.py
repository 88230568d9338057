"""Several examples in one row: nothing is lost or cut, and a model sees each as if it stood alone."""

import json
import random

import pytest
import torch
from byte_tokenizer import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from reproduction.data import Example, TokenizedSet, pack, tokenize
from reproduction.training import DataSpec, build_data

IGNORED = -100


def made_of(lengths: list[int]) -> TokenizedSet:
    """Examples of these lengths with tokens of their own, the first half of each a prompt."""
    rows, start = [], 0
    for length in lengths:
        ids = list(range(start, start + length))
        rows.append({"input_ids": ids, "labels": [IGNORED] * max(1, length // 2) + ids[max(1, length // 2) :]})
        start += length
    return TokenizedSet(rows, [f"gsm8k/train/{index}" for index in range(len(lengths))], truncated=3)


def examples_of(row: dict[str, list[int]]) -> list[dict[str, list[int]]]:
    """The examples of a packed row, cut where the positions start anew."""
    starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
    ends = [*starts[1:], len(row["input_ids"])]
    return [{name: row[name][a:b] for name in row} for a, b in zip(starts, ends, strict=True)]


def test_every_example_is_in_one_row_whole_with_its_labels_and_positions_of_its_own():
    draw = random.Random(0)
    alone = made_of([draw.randint(2, 60) for _ in range(500)])
    packed = pack(alone, 64)
    held = [example for row in packed.rows for example in examples_of(row)]
    by_id = dict(zip(alone.ids, alone.rows, strict=True))
    assert sorted(packed.ids) == sorted(alone.ids)
    for id, example in zip(packed.ids, held, strict=True):
        assert {name: example[name] for name in ("input_ids", "labels")} == by_id[id]
        assert example["position_ids"] == list(range(len(example["input_ids"])))
    assert max(len(row["input_ids"]) for row in packed.rows) <= 64
    assert len(packed) < 0.6 * len(alone)
    assert pack(alone, 64) == packed


def test_an_example_goes_where_the_least_room_is_left_and_of_equals_into_the_earliest():
    packed = pack(made_of([6, 7, 6, 3, 4, 4, 5]), 10)
    assert packed.ids == [f"gsm8k/train/{n}" for n in (0, 4, 1, 3, 2, 5, 6)]
    assert [len(row["input_ids"]) for row in packed.rows] == [10, 10, 10, 5]


def test_the_first_label_of_every_example_is_masked_even_where_it_has_no_prompt():
    ids = [1, 2, 3]
    packed = pack(TokenizedSet([{"input_ids": ids, "labels": ids}] * 2, ["a", "b"]), 6)
    assert packed.rows[0]["labels"] == [IGNORED, 2, 3, IGNORED, 2, 3]


def test_the_account_counts_rows_examples_and_how_full_the_rows_are():
    report = pack(made_of([6, 4, 5]), 10).report()
    assert (report["rows"], report["examples"], report["tokens"], report["fill_share"]) == (2, 3, 15, 0.75)
    assert (report["truncated"], report["sources"]) == (3, {"gsm8k/train": 3})
    assert "fill_share" not in made_of([6]).report()


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match=r"gsm8k/train/1 has 11 tokens, and a row takes 10"):
        pack(made_of([6, 11]), 10)
    with pytest.raises(ValueError, match="packed already"):
        pack(pack(made_of([6]), 10), 10)


def test_a_config_packs_the_training_set_and_never_the_rows_held_out(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    rows = [json.dumps({"question": f"{n}?", "answer": f"#### {n}"}) + "\n" for n in range(20)]
    (tmp_path / "gsm8k" / "train.jsonl").write_text("".join(rows))
    spec = DataSpec(name="gsm8k", max_length=512, validation_rows=4, packing=True)
    training, held = build_data(spec, byte_tokenizer(), root=tmp_path)
    assert len(training) < len(training.ids) == 16
    assert all("position_ids" in row for row in training.rows)
    assert len(held) == len(held.ids) == 4
    assert not any("position_ids" in row for row in held.rows)


MODELS = [(LlamaForCausalLM, LlamaConfig), (MistralForCausalLM, MistralConfig), (Qwen2ForCausalLM, Qwen2Config)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("model_class", "config_class"), MODELS)
def test_a_model_gives_each_example_of_a_batch_of_packs_the_logits_that_it_has_alone(
    model_class, config_class, attention
):
    tokenizer = byte_tokenizer()
    made = [
        Example(id=str(n), prompt=f"Say {n}: " + "x" * (5 * n % 17), response="y" * (3 * n % 11 + 1)) for n in range(9)
    ]
    packed = pack(tokenize(made, tokenizer, max_length=48), 48)
    assert len(packed) >= 3
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=attention,
    )  # fmt: skip
    model = model_class(config).eval()
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
