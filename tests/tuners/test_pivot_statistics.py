"""Pivot statistics against values computed by hand."""

import math

import pytest
import torch
from tuner_models import excite, make_adapted, make_base, make_batch, make_config

from idlora import select_pivots
from idlora.tuners.idlora.clustering import METHODS
from idlora.tuners.idlora.inspection import effective_rank

UP = "model.layers.0.mlp.up_proj"


def test_the_effective_rank_counts_equal_singular_values_and_little_of_small_ones():
    assert effective_rank(torch.eye(5, 8)) == pytest.approx(5)
    assert effective_rank(3 * torch.ones(4, 6)) == pytest.approx(1)
    assert effective_rank(torch.zeros(4, 6)) == 0
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 3**0.75)  # p = 3/4, 1/4
    assert 2 < effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.01]))) < 2.1


def test_a_fresh_adapter_has_the_numbers_of_its_pivots_and_none_of_an_update():
    model = make_adapted("idlora")
    found = model.base_model.pivot_statistics()
    assert found.keys() == model.adapted_layers().keys()
    up, weight = found[UP], make_base().get_submodule(UP).weight.detach()
    assert (up.rows, up.columns, up.k, up.r) == (64, 48, 4, 4)
    assert sum(up.cluster_sizes) == 64
    assert min(up.cluster_sizes) >= 4
    pivots = select_pivots(weight, 4, 4).flatten().tolist()
    others = [row for row in range(64) if row not in pivots]
    norms = weight.norm(dim=1)
    assert up.norm_ratio == pytest.approx(float(norms[pivots].mean() / norms[others].mean()), rel=1e-5)
    for method in METHODS:
        picked = select_pivots(weight, 4, 4, method=method).flatten().tolist()
        assert up.overlaps[method] == len(set(pivots) & set(picked)) / 16
    assert up.overlaps["pmrc"] == 1 > up.overlaps["serial"]
    assert up.mixture_rank == pytest.approx(effective_rank(weight[pivots].view(4, 4, 48).mean(0)))
    assert (up.update_rank, up.update_effective_rank, up.router_entropy) == (None, None, None)


def test_where_all_rows_are_pivots_there_are_no_others_to_compare_with():
    found = make_adapted("idlora", num_clusters=6).base_model.pivot_statistics()
    assert found["model.layers.0.self_attn.k_proj"].norm_ratio is None
    assert found[UP].norm_ratio is not None


@pytest.mark.parametrize(
    "settings", [{"rank_boost": 4}, {"router": "inner_product"}, {"router": "uniform"}, {"bases": "gaussian"}], ids=str
)
def test_update_and_entropy_are_those_of_the_tokens_that_ran(settings):
    model = excite(make_adapted("idlora", **settings))
    batches = [make_batch(rows=1, length=length, seed=length) for length in (3, 8)]
    layer, seen = model.adapted_layers()[UP], []
    handle = layer.register_forward_pre_hook(lambda layer, given: seen.append(layer.alpha("default", given[0])[0]))
    found = model.base_model.pivot_statistics(batches)[UP]
    handle.remove()
    alpha = torch.cat(seen).double()
    assert len(alpha) == 11
    A = layer.frozen_rows("default").double().view(4, 4, 48)
    B = layer.idlora_B["default"].detach().double()
    s = settings.get("rank_boost", 2)
    update = 2 * torch.block_diag(*[B] * s) @ torch.einsum("k,kri->ri", alpha.mean(0), A)
    assert update.shape == (64, 48)
    assert found.update_effective_rank == pytest.approx(effective_rank(update), rel=1e-6)
    assert found.update_rank == torch.linalg.matrix_rank(update) == 4 < 4 * 4  # r, and not k·r
    if settings.get("router") == "inner_product":
        assert found.router_entropy is None
    else:
        entropy = -(alpha * alpha.log()).sum(1).mean() / math.log(4)
        assert found.router_entropy == pytest.approx(float(entropy))


def test_the_numbers_are_of_the_adapter_asked_for_and_leave_the_model_as_it_was():
    model = make_adapted("idlora", kmeans_backend="k_means_constrained")
    model.add_adapter("second", make_config("idlora", selection="largest_norm", r=2, target_modules=["up_proj"]))
    found = model.base_model.pivot_statistics(adapter_name="second")
    assert {name.rpartition(".")[2] for name in found} == {"up_proj"}
    assert found[UP].r == 2
    assert found[UP].overlaps["largest_norm"] == 1 > found[UP].overlaps["pmrc"]
    assert found[UP].norm_ratio > 1
    assert model.base_model.pivot_statistics()[UP].overlaps["pmrc"] == 1  # with the same backend
    assert not any(module._forward_pre_hooks for module in model.modules())
