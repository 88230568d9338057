"""Timed steps: each phase's step does its work and leaves the model unchanged."""

import shutil

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from small import REFERENCE, adapter, scenario
from transformers import DynamicCache

from reproduction.benchmark.measure import summarise
from reproduction.benchmark.models import build_base, with_variant
from reproduction.benchmark.run import measure
from reproduction.benchmark.workload import decoder_layers, token_ids, workload

ROWS = {"peft_type": "IDLORA", "num_clusters": 2, "r": 4, "lora_alpha": 8}


@pytest.fixture
def base(plan):
    return build_base(plan(), 2)


def snapshot(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def last_logits(model, asked) -> torch.Tensor:
    """Return the head's output in one step of a scenario."""
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _, __, output: seen.append(output))
    with workload(model, asked, 0) as (step, _):
        step()
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("variant", [adapter(), adapter(merged=True), adapter(**ROWS)], ids=["low", "merged", "rows"])
def test_after_a_variant_the_base_is_what_it_was_to_the_bit(base, plan, variant) -> None:
    before, kinds = snapshot(base), [type(module) for module in base.modules()]
    assert same(before, snapshot(build_base(plan(), 2)))
    phases = [scenario("prefill"), scenario("decode")]
    if not variant.merged:
        phases += [scenario("train"), scenario("train", checkpointing=True)]
    with with_variant(base, variant, 0) as found:
        assert [type(module) for module in base.modules()] != kinds
        for each in phases:
            measure(found, each, plan())
    assert same(before, snapshot(base))
    assert [type(module) for module in base.modules()] == kinds
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert not any(module._forward_hooks for module in base.modules())
    assert not base.training
    assert [layer.self_attn.layer_idx for layer in decoder_layers(base)] == [0, 1]


def test_every_way_of_computing_gives_the_same_logits_and_the_copies_are_counted(base) -> None:
    found, weights = {}, {}
    for way in ("own", "plain", "copied"):
        with with_variant(base, adapter(way=way, **ROWS), 0) as measured:
            found[way], weights[way] = last_logits(measured.model, scenario("prefill")), measured.weights_bytes
            layers = [module for module in measured.model.modules() if isinstance(module, BaseTunerLayer)]
            assert [layer.kernels_enabled for layer in layers] == [way == "own"] * 4
            assert [layer.needs_rows("default") for layer in layers] == [way == "copied"] * 4
    untuned = last_logits(base, scenario("prefill"))
    assert (found["own"] - untuned).abs().max() > 1e-3
    assert torch.equal(found["plain"], found["own"])  # without a GPU "own" is plain
    assert torch.allclose(found["copied"], found["own"], atol=1e-5)
    assert weights["copied"] - weights["plain"] == 4 * 4 * 2 * 4 * 32  # layers x bytes x k·r rows of the input's width


def test_a_way_that_a_method_does_not_know_is_refused(base) -> None:
    with pytest.raises(ValueError, match=r"low.way is 'plain'"), with_variant(base, adapter(way="plain"), 0):
        pass
    hydra = adapter(way="copied", peft_type="HYDRALORA")
    with pytest.raises(NotImplementedError), with_variant(base, hydra, 0):
        pass


def test_nothing_that_is_trained_stays_at_zero_but_what_is_merged(base) -> None:
    for variant, zeros in ((adapter(), False), (adapter(**ROWS), False), (adapter(merged=True), True)):
        with with_variant(base, variant, 0) as found:
            trained = [p for name, p in found.model.named_parameters() if "lora_" in name]
            assert len(trained) >= 8
            assert any(not parameter.any() for parameter in trained) == zeros


def test_an_adapter_has_the_dtype_that_is_asked_for_and_its_bytes_follow(base) -> None:
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        with with_variant(base, adapter(adapter_dtype=dtype), 0) as found:
            assert found.facts["adapter_dtype"] == dtype
            sizes[dtype] = found.facts["trainable_bytes"]
            frozen = [*base.buffers(), *(p for p in base.parameters() if not p.requires_grad)]
            assert found.weights_bytes == sizes[dtype] + sum(each.nbytes for each in frozen)
    assert sizes["float32"] == 2 * sizes["bfloat16"]


def test_a_training_step_reaches_every_trained_number_and_the_embeddings_and_moves_nothing(base) -> None:
    with with_variant(base, adapter(), 0) as found:
        trained = {name: p for name, p in found.model.named_parameters() if p.requires_grad}
        before = {name: p.detach().clone() for name, p in trained.items()}
        grads, at_the_start = {}, []
        for name, parameter in trained.items():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: grads.update({name: p.grad.clone()}))
        with workload(found.model, scenario("train"), 0) as (step, _):
            found.model.get_input_embeddings().register_forward_hook(lambda _, __, out: at_the_start.append(out))
            step()
        assert at_the_start[0].grad.any()
        assert grads.keys() == trained.keys()
        assert all(grad.any() for grad in grads.values())
        assert all(torch.equal(before[name], parameter) for name, parameter in trained.items())
        assert not any(parameter.grad is not None for parameter in trained.values())


def test_activations_are_recomputed_where_the_scenario_says_and_nowhere_else(base) -> None:
    calls = []
    decoder_layers(base)[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    for asked, times in ((scenario("train"), 1), (scenario("train", checkpointing=True), 2), (scenario("train"), 1)):
        calls.clear()
        with workload(base, asked, 0) as (step, _):
            assert base.training
            step()
        assert len(calls) == times


def test_prefill_gives_the_last_positions_logits_alone(base) -> None:
    asked = scenario("prefill", batch=3, length=8)
    found = last_logits(base, asked)
    with torch.no_grad():
        whole = base(input_ids=token_ids(base, (3, 8), 0)).logits
    assert found.shape == (3, 1, 128)
    assert torch.allclose(found, whole[:, -1:], atol=1e-5)


def test_a_decoded_token_sees_all_of_the_cache_at_the_last_position(base) -> None:
    asked = scenario("decode", batch=3, length=8)
    with workload(base, asked, 0) as (step, _):
        caches = [layer.cache.layers[0] for layer in base.model.layers]
        held = [(each.keys[:, :, :-1].clone(), each.values[:, :, :-1].clone()) for each in caches]
        seen = []
        hook = base.lm_head.register_forward_hook(lambda _, __, output: seen.append(output))
        step()
        step()
        hook.remove()
        assert all(keys.any(dim=-1).all() for keys, _ in held)
    cache = DynamicCache()
    for place, (keys, values) in enumerate(held):
        cache.update(keys, values, place)
    with torch.no_grad():
        expected = base(input_ids=token_ids(base, (3, 1), 0), past_key_values=cache).logits
    assert torch.allclose(seen[0], expected, atol=1e-5)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++")
def test_compiled_layers_share_one_graph_and_are_eager_again_afterwards(base, plan) -> None:
    asked = scenario("decode", compiled=True, layers=2)
    with with_variant(base, REFERENCE, 0) as found:
        result = measure(found, asked, plan())
        assert (result["graphs"], result["graph_breaks"]) == (1, 0)
        assert result["compile_seconds"] > result["median_ms"] / 1000
        assert all(layer._compiled_call_impl is None for layer in decoder_layers(base))


def test_times_are_summed_up_by_median_and_quartiles() -> None:
    expected = {"median_ms": 3, "q1_ms": 2, "q3_ms": 4, "min_ms": 1, "repeats": 5, "spread": pytest.approx(2 / 3)}
    assert summarise([1.0, 2.0, 3.0, 4.0, 50.0]) == expected
