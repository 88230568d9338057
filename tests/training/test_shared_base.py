"""One base in memory for one cell after another."""

import logging

import pytest
import torch
from cells import METHODS, furthest, run, saved_weights, schedule

from reproduction.training import build_adapted, build_base, load_finished, train
from reproduction.training.bases import SharedBase

ADAPTERS = [name for name, method in METHODS.items() if method.kind == "peft"]
SPEC = schedule(gradient_checkpointing=True)


def trained(shared, base, method, tokenized, folder):
    model, tokenizer = shared.take(base)
    model = build_adapted(model, method, SPEC.seed)
    train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=SPEC, base=base, folder=folder)
    return model


def test_cells_that_share_a_base_end_as_they_do_by_themselves(base, tokenized, tmp_path):
    shared, seen = SharedBase(), set()
    for name in [*ADAPTERS, ADAPTERS[0]]:
        model = trained(shared, base, METHODS[name], tokenized, tmp_path / name)
        seen.add(id(model.get_base_model()))
        run(tmp_path / "alone" / name, base, METHODS[name], tokenized, SPEC)
        assert furthest(saved_weights(tmp_path / name), saved_weights(tmp_path / "alone" / name)) == 0
        shared.give_back(model)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_base_comes_back_as_it_was_built(name, base, tokenized, tmp_path):
    shared = SharedBase()
    shared.give_back(trained(shared, base, METHODS[name], tokenized, tmp_path))
    evaluated, _ = load_finished(tmp_path, base, METHODS[name], take=shared.take)
    shared.give_back(evaluated)
    model, _ = shared.take(base)
    fresh, _ = build_base(base)
    assert [*model.state_dict()] == [*fresh.state_dict()]
    assert not any(module._forward_hooks for module in model.modules())
    assert not model.training
    ids = torch.arange(3, 20)[None]
    assert torch.equal(model(input_ids=ids).logits, fresh(input_ids=ids).logits)


def test_a_base_that_a_cell_has_changed_is_loaded_anew(base, caplog):
    shared = SharedBase()
    model, _ = shared.take(base)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    with caplog.at_level(logging.WARNING):
        shared.give_back(model)
    assert "has changed its base small" in caplog.text
    assert shared.take(base)[0] is not model


def test_another_base_takes_the_place_of_the_one_that_is_kept(base, other_base):
    shared = SharedBase()
    first, _ = shared.take(base)
    shared.give_back(first)
    second, _ = shared.take(other_base)
    assert second is not first
    shared.give_back(first)  # no longer what was taken
    shared.give_back(second)
    assert shared.take(other_base)[0] is second


def test_a_fully_tuned_model_is_no_base(base):
    shared = SharedBase()
    taken, _ = shared.take(base)
    stranger, _ = build_base(base)
    shared.give_back(stranger)
    assert shared.take(base)[0] not in (taken, stranger)


def test_a_base_given_back_in_training_mode_is_lent_in_evaluation_mode(base):
    shared = SharedBase()
    model, _ = shared.take(base)
    shared.give_back(model.train())
    again, _ = shared.take(base)
    assert again is model
    assert not again.training
