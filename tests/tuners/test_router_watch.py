"""How evenly routers mix, seen in the forward passes of a training without touching them."""

import math

import pytest
import torch
from tuner_models import excite, logits, make_adapted, make_batch, make_config, trainable

from idlora.tuners.common import RoutedLayer, watched_mixtures


def watched(model, *batches):
    with model.base_model.watched_routers() as evenness:
        for batch in batches:
            model(input_ids=batch)
    return evenness()


@torch.no_grad()
def expected(model, batches):
    """Mean over layers of the mean entropy over tokens, from what enters each layer."""
    layers = [module for module in model.modules() if isinstance(module, RoutedLayer)]
    inputs = {layer: [] for layer in layers}
    handles = [layer.register_forward_hook(lambda layer, given, _: inputs[layer].append(given[0])) for layer in layers]
    for batch in batches:
        logits(model, batch)
    for handle in handles:
        handle.remove()
    each = []
    for layer, seen in inputs.items():
        router = next(p for name, p in layer.named_parameters() if "router" in name)
        h = torch.cat([one.flatten(0, -2) for one in seen])
        alpha = (h @ router.T).softmax(-1).double()
        each.append(float(-(alpha * alpha.log()).sum(-1).mean()) / math.log(len(router)))
    return sum(each) / len(layers)


def test_evenness_is_the_mean_over_layers_of_each_one_s_mean_over_tokens(our_method):
    model = excite(make_adapted(our_method))
    batches = [make_batch(rows=rows, length=length, seed=length) for rows, length in ((1, 3), (2, 8))]
    found = watched(model, *batches)
    assert found == pytest.approx(expected(model, batches), rel=1e-5)
    assert 0 < found < 1 - 1e-3
    assert watched(model, batches[0]) != pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "evenness"),
    [({"router": "uniform"}, 1), ({"bases": "gaussian"}, 1), ({"router": "inner_product"}, None), ({}, 1)],
    ids=str,
)
def test_only_shares_have_an_evenness(settings, evenness):
    assert watched(make_adapted("idlora", **settings), make_batch()) == (evenness and pytest.approx(evenness))


def test_a_single_expert_and_a_model_that_did_not_run_have_none():
    assert watched(make_adapted("hydralora", num_experts=1), make_batch()) is None
    assert watched(make_adapted("hydralora")) is None


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_the_same_to_the_bit_and_nothing_stays_behind(our_method, checkpointing):
    settings = {"lora_dropout": 0.4} | ({"dropout_position": "input"} if our_method == "idlora" else {})

    def step(watch):
        model = excite(make_adapted(our_method, **settings)).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        torch.manual_seed(5)
        found = None
        if watch:
            with model.base_model.watched_routers() as evenness:
                loss = model(input_ids=make_batch(), labels=make_batch()).loss
                loss.backward()
            found = evenness()
        else:
            loss = model(input_ids=make_batch(), labels=make_batch()).loss
            loss.backward()
        hooks = sum(len(module._forward_pre_hooks) for module in model.modules() if isinstance(module, RoutedLayer))
        gradients = {name: parameter.grad for name, parameter in trainable(model).items()}
        return found, [loss.detach(), torch.rand(3), *gradients.values()], hooks

    (found, followed, hooks), (_, alone, _) = step(True), step(False)
    assert 0 < found < 1
    assert hooks == 0
    assert all(torch.equal(*pair) for pair in zip(followed, alone, strict=True))


def test_the_adapter_asked_for_is_looked_at():
    model = make_adapted("moelora")
    model.add_adapter("second", make_config("moelora", target_modules=["up_proj"]))
    model.set_adapter("second")
    with model.base_model.watched_routers("second") as evenness:
        model(input_ids=make_batch())
    assert 0 < evenness() <= 1


def test_what_is_added_up_holds_no_graph(our_method):
    model = excite(make_adapted(our_method)).train()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, RoutedLayer)}
    with watched_mixtures(layers, "default") as mixtures:
        assert model(input_ids=make_batch()).logits.requires_grad
    assert mixtures.keys() == layers.keys()
    assert not any(mixture.entropy.requires_grad or mixture.alpha.requires_grad for mixture in mixtures.values())
