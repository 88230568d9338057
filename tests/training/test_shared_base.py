"""Sharing of one base model in memory by successive cells."""

import torch
from cells import METHODS, furthest, logits, run, saved_weights, schedule

from reproduction.training import build_adapted, build_base, load_finished, train
from reproduction.training.build import SharedBase

SPEC = schedule(gradient_checkpointing=True, max_steps=2)


def test_cells_that_share_a_base_end_as_they_do_by_themselves_and_leave_it_as_it_was(base, tokenized, tmp_path):
    shared, seen = SharedBase(), set()
    fresh, _ = build_base(base)
    adapters = [name for name, method in METHODS.items() if method.kind == "peft"]
    for number, name in enumerate([*adapters, adapters[0]]):
        model, tokenizer = shared.take(base)
        seen.add(id(model))
        model, folder = build_adapted(model, METHODS[name], SPEC.seed), tmp_path / str(number)
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=SPEC, base=base, folder=folder)
        shared.give_back(model)
        shared.give_back(load_finished(folder, base, METHODS[name], take=shared.take)[0].train())
        again, _ = shared.take(base)
        assert not again.training
        assert [*again.state_dict()] == [*fresh.state_dict()]
        assert not any(module._forward_hooks for module in again.modules())
        assert torch.equal(logits(again), logits(fresh))
        shared.give_back(again)
    assert len(seen) == 1
    run(tmp_path / "alone", base, METHODS[adapters[0]], tokenized, SPEC)
    assert furthest(saved_weights(folder), saved_weights(tmp_path / "alone")) == 0


def test_another_base_replaces_the_one_that_is_kept_and_a_stranger_is_not_kept(base, other_base):
    shared = SharedBase()
    first, _ = shared.take(base)
    shared.give_back(first)
    second, _ = shared.take(other_base)
    assert second is not first
    shared.give_back(first)  # not the base taken last
    assert shared.take(other_base)[0] not in (first, second)
    shared.give_back(build_base(base)[0])
    assert shared.take(other_base)[0] is not second
