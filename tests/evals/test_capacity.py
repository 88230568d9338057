"""As many answers stand side by side as a GPU's memory holds, and every process that shares them finds as many."""

import json
from types import SimpleNamespace

import pytest
import torch
from oracle import small_model
from steps import ask
from texts import TEXTS, protocol, rows

from reproduction.evals import capacity
from reproduction.evals.answers import Shard
from reproduction.evals.capacity import (
    CPU_ROWS,
    MOST_ROWS,
    answers_side_by_side,
    key_value_bytes,
    logits_at_once,
    shared_rows,
    texts_side_by_side,
)


def on_gpu(model, monkeypatch, *memory: int, allowed: float = 1.0):
    """The model as it looks where GPUs of so many bytes are visible."""
    found = [SimpleNamespace(total_memory=each) for each in memory]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: allowed)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: found[number])
    return SimpleNamespace(
        config=model.config, dtype=model.dtype, device=torch.device("cuda"), parameters=model.parameters
    )


def test_a_token_takes_the_keys_and_values_of_every_layer():
    model = small_model()
    cache = model(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
    held = sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))
    assert key_value_bytes(model) == held / 3


def test_what_fits_follows_from_the_smallest_gpus_memory_beside_the_weights(monkeypatch):
    model = small_model()
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    each = key_value_bytes(model) * 100 + capacity.LOGIT_BYTES * model.config.vocab_size
    room = weights + int(10.5 * each / capacity.KEPT_SHARE)
    for memory in ((room,), (room, 10**12), (10**12, room)):
        assert answers_side_by_side(on_gpu(model, monkeypatch, *memory), length=100) == 10
    assert answers_side_by_side(on_gpu(model, monkeypatch, room), length=1000) < 10
    assert answers_side_by_side(on_gpu(model, monkeypatch, 2 * room, allowed=0.5), length=100) == 10
    assert answers_side_by_side(on_gpu(model, monkeypatch, weights // 2), length=100) == 1
    assert answers_side_by_side(on_gpu(model, monkeypatch, 10**15), length=100) == MOST_ROWS
    assert answers_side_by_side(model, length=100) == CPU_ROWS
    logits = weights + 10 * 640 * (model.dtype.itemsize + 12) + 10
    assert logits_at_once(on_gpu(model, monkeypatch, logits)) == 640
    assert logits_at_once(model) == 2**27
    assert logits_at_once(on_gpu(model, monkeypatch, weights // 2)) == 1
    assert texts_side_by_side(on_gpu(model, monkeypatch, 10**12)) == MOST_ROWS
    assert texts_side_by_side(model) == CPU_ROWS
    copies = weights + 10 * 7 * 50 * key_value_bytes(model) + 10
    assert shared_rows(on_gpu(model, monkeypatch, copies), length=50) == 7


@pytest.mark.parametrize("asked", [{}, {"samples": 3, "temperature": 1.0}])
def test_without_a_batch_size_every_share_has_work_and_together_they_give_all_answers(asked, tmp_path):
    model, counts = small_model(), []
    whole = ask(model, protocol(**asked), rows(), tmp_path / "whole", batch_size=3)
    for index in range(2):
        ask(model, protocol(**asked), rows(), tmp_path / "cut", batch_size=None, share=Shard(index, 2))
    for file in (tmp_path / "cut" / "answers").glob("answers*.jsonl"):
        counts.append(len([json.loads(line) for line in file.read_text().splitlines()]))
    assert len(counts) == 2
    assert min(counts) > 0
    assert sum(counts) == len(list(whole)) == len(TEXTS) * asked.get("samples", 1)


def test_alone_and_without_a_batch_size_all_answers_are_one_batch(tmp_path):
    model, read = small_model(), []
    model.register_forward_pre_hook(lambda _, args, given: read.append(len(given["input_ids"])), with_kwargs=True)
    ask(model, protocol(), rows(), tmp_path, batch_size=None)
    assert read[0] == len(TEXTS)
