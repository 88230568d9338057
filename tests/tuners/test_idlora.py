"""Behaviour specific to ID-LoRA: pivots, counts, no copy of A, controls, routers."""

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from tuner_models import OURS, excite, logits, make_adapted, make_base, make_batch, make_config, save, trainable

from idlora import IdLoraConfig, select_pivots
from idlora.tuners import UnsetPivotsError
from idlora.tuners.common import RoutedLayer, record_routing
from idlora.tuners.idlora import clustering

UP = "model.layers.0.mlp.up_proj"
OWN_ROWS = ["gaussian", "orthonormal", "equal_norm"]


def layer_of(model, name=UP):
    return model.get_submodule(f"base_model.model.{name}")


# Pivots


@pytest.mark.parametrize("settings", [{}, {"selection": "serial"}, {"selection": "random", "seed": 3}])
def test_the_pivots_are_those_selected_from_the_weight(settings):
    model = make_adapted("idlora", **settings, adapter_seed=7)
    method, seed = settings.get("selection", "pmrc"), settings.get("seed", 0)
    assert len(model.adapted_layers()) == 14
    sizes = model.pivot_sizes()
    for name, layer in model.adapted_layers().items():
        expected = select_pivots(make_base().get_submodule(name).weight, 4, 4, method=method, seed=seed)
        assert torch.equal(layer.idlora_pivots["default"], expected)
        assert sizes[name]["share"] == 16 / layer.out_features
        assert ("clusters" in sizes[name]) == (method == "pmrc")
        if method == "pmrc":
            assert sum(sizes[name]["clusters"]) == layer.out_features
            assert min(sizes[name]["clusters"]) >= 4


def test_a_known_base_and_a_saved_adapter_are_not_clustered_again(tmp_path, monkeypatch):
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    done, real = [], clustering.cluster_rows
    monkeypatch.setattr(clustering, "cluster_rows", lambda *args, **more: done.append(1) or real(*args, **more))
    first = excite(make_adapted("idlora"))
    assert len(done) == 14
    seconds = first.pivot_seconds
    assert seconds > 0
    assert not first.pivots_cached
    second = make_adapted("idlora").base_model
    first.add_adapter("second", make_config("idlora"))
    assert (second.pivots_cached, second.pivot_seconds, first.pivot_seconds) == (True, seconds, 2 * seconds)
    assert second.pivot_sizes() == first.pivot_sizes() == first.pivot_sizes("second")
    assert second.peft_config["default"].base_fingerprint == first.peft_config["default"].base_fingerprint
    for name, layer in second.adapted_layers().items():
        assert torch.equal(layer.idlora_pivots["default"], layer_of(first, name).idlora_pivots["default"])
    monkeypatch.setenv("IDLORA_CACHE", "")
    folder = save(first, tmp_path)
    loaded = PeftModel.from_pretrained(make_base(), folder)
    make_base().load_adapter(folder)
    assert len(done) == 14
    assert loaded.pivot_seconds == 0
    assert "clusters" not in loaded.pivot_sizes()[UP]
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    assert not make_adapted("idlora", base_seed=1).base_model.pivots_cached


def test_a_new_adapter_from_a_saved_adapter_s_config_has_no_pivots_until_it_may_select_them(tmp_path):
    config = PeftConfig.from_pretrained(save(make_adapted("idlora"), tmp_path))
    model = get_peft_model(make_base(), config)
    with pytest.raises(UnsetPivotsError, match="init_weights=True"):
        logits(model)
    with pytest.raises(UnsetPivotsError, match="'default'"):
        model.save_pretrained(str(tmp_path / "again"))
    with pytest.raises(UnsetPivotsError):
        model.base_model.pivot_statistics()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_base()))
    config.init_weights = True
    assert logits(get_peft_model(make_base(), config)).isfinite().all()
    make_config("idlora").save_pretrained(str(tmp_path / "config"))  # a config never used on a model
    assert logits(get_peft_model(make_base(), PeftConfig.from_pretrained(str(tmp_path / "config")))).isfinite().all()


@pytest.mark.parametrize(("row", "message"), [(64, "pivot 64 .* 64 rows"), (None, "'default' has pivots that are the")])
def test_pivots_that_are_no_different_rows_are_refused(row, message):
    model = make_adapted("idlora", target_modules=[UP])
    pivots = layer_of(model).idlora_pivots["default"]
    pivots[0, 0] = pivots[1, 1] if row is None else row
    with pytest.raises(ValueError, match=message):
        logits(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 8}, r"self_attn\.k_proj has 24 rows.* num_clusters=4 times r=8 = 32"),
        ({"r": 5, "rank_boost": 5, "num_clusters": 2}, r"q_proj has 48 rows.* rank_boost=5"),
        ({"r": 24, "num_clusters": 1, "bases": "orthonormal", "target_modules": ["narrow"]}, "narrow has 20 columns"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_the_module_before_anything_changes(settings, message):
    base = make_base()
    base.add_module("narrow", nn.Linear(20, 40))
    keys = base.state_dict().keys()
    with pytest.raises(ValueError, match=message):
        get_peft_model(base, make_config("idlora", **settings))
    assert base.state_dict().keys() == keys
    assert all(parameter.requires_grad for parameter in base.parameters())


def test_a_weight_that_is_not_finite_is_named():
    base = make_base()
    base.get_submodule(UP).weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.up_proj: 1 of the weight's entries"):
        get_peft_model(base, make_config("idlora"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 5), ("num_clusters", 0), ("rank_boost", True), ("kmeans_starts", 0), ("router", "sparse"),
        ("selection", "best"), ("bases", "ones"), ("dropout_position", "output"), ("kmeans_backend", "cuml"),
        ("seed", -1), ("seed", 2**32),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named_with_their_value(name, value):
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
        make_config("idlora", **{name: value})


def test_it_takes_the_place_of_a_lora_config():
    config = IdLoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], bias="none", task_type="CAUSAL_LM"
    )
    assert (config.num_clusters, config.rank_boost, config.router, config.selection) == (4, 2, "dense", "pmrc")


# Sizes


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("idlora", {"r": 128}, 49_020_928),
        ("idlora", {"r": 128, "router": "inner_product"}, 44_068_864),
        ("hydralora", {"r": 16}, 89_718_784),
    ],
)
def test_the_counts_at_the_paper_s_scale_come_from_the_meta_device(method, settings, expected, tmp_path):
    shape = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        base = LlamaForCausalLM(shape)
    model = get_peft_model(base, make_config(method, lora_alpha=2 * settings["r"], **settings))
    trained, total = model.get_nb_trainable_parameters()
    assert trained == expected
    assert total - trained == 8_030_261_248
    if method == "idlora":
        if "router" not in settings:
            assert round(100 * trained / (total + model.frozen_copy_count()), 2) == 0.56
        with pytest.raises(UnsetPivotsError):
            model.save_pretrained(str(tmp_path))
        with pytest.raises(UnsetPivotsError, match="meta device"):
            layer_of(model)(torch.empty(2, 4096, device="meta"))


def test_no_copy_of_a_exists_in_the_adapter_or_in_the_graph():
    model = make_adapted("idlora").train()
    tensors = get_peft_model_state_dict(model)
    assert sum(t.numel() for t in tensors.values()) == model.get_nb_trainable_parameters()[0] + 14 * 16
    saved = []
    layer, h = layer_of(model), torch.randn(5, 48, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda tensor: tensor):
        layer(h)
    assert saved
    assert not any(shape in {(16, 48), (4, 4, 48), (48, 16)} for shape in saved)


def test_the_copies_that_the_paper_counts_are_counted_for_the_active_adapter():
    model = make_adapted("idlora")
    assert model.frozen_copy_count() == 16 * sum(layer.in_features for layer in model.adapted_layers().values())
    model.add_adapter("second", make_config("idlora", r=2, num_clusters=2, target_modules=["q_proj"]))
    model.set_adapter("second")
    assert model.frozen_copy_count() == 2 * 2 * 2 * 48


@pytest.mark.parametrize("k", [2, 6])
def test_any_number_of_clusters_works_down_to_using_every_row(k):
    model = make_adapted("idlora", num_clusters=k)  # k_proj and v_proj have 24 rows, and r is 4
    for layer in model.adapted_layers().values():
        assert layer.idlora_pivots["default"].shape == (k, 4)
        assert len(layer.idlora_pivots["default"].unique()) == 4 * k
    assert (logits(excite(model)) - logits(make_base())).abs().max() > 1e-2


# Bases of their own


def by_cluster(bases, **settings):
    """Return (P, A), each (k, r, in), of every module: its pivot rows, and the A of the given bases."""
    for name, layer in make_adapted("idlora", bases=bases, **settings).adapted_layers().items():
        P = make_base().get_submodule(name).weight[layer.idlora_pivots["default"].long()]
        yield P, layer.idlora_A["default"].view(P.shape)


def test_gaussian_rows_have_the_pivots_norms_and_directions_of_their_own():
    directions = []
    for P, A in by_cluster("gaussian"):
        torch.testing.assert_close(A.norm(dim=-1), P.norm(dim=-1))
        assert nn.functional.cosine_similarity(A, P, dim=-1).abs().mean() < 0.3
        directions.append(A[0, 0, :48] / A[0, 0, :48].norm())
    alike = torch.stack(directions) @ torch.stack(directions).T
    assert (alike - torch.eye(len(directions))).abs().max() < 0.7  # no two modules draw the same


def test_orthonormal_rows_are_the_nearest_to_the_clusters_pivots_and_of_their_mean_norm():
    for P, A in by_cluster("orthonormal"):
        lengths = P.norm(dim=-1).mean(dim=1)[:, None, None] ** 2 * torch.eye(P.shape[1])
        torch.testing.assert_close(A @ A.mT, lengths, atol=1e-5, rtol=1e-5)
        # A symmetric positive A Pᵀ distinguishes the polar factor from all its rotations.
        torch.testing.assert_close(A @ P.mT, P @ A.mT, atol=1e-5, rtol=1e-5)
        assert (torch.linalg.eigvalsh(A @ P.mT) > 0).all()


def test_rows_of_equal_norm_keep_the_pivots_directions_at_the_modules_mean_norm():
    for P, A in by_cluster("equal_norm"):
        norms = P.norm(dim=-1)
        torch.testing.assert_close(A.norm(dim=-1), norms.mean().expand_as(norms))
        torch.testing.assert_close(nn.functional.cosine_similarity(A, P, dim=-1), torch.ones_like(norms))


@pytest.mark.parametrize("bases", OWN_ROWS)
def test_rows_of_their_own_are_stored_whole_and_trained_never(bases, tmp_path):
    model, plain = make_adapted("idlora", bases=bases), make_adapted("idlora")
    assert model.get_nb_trainable_parameters() == plain.get_nb_trainable_parameters()
    assert model.frozen_copy_count() == plain.frozen_copy_count()
    for (_, one), (_, other) in zip(by_cluster(bases), by_cluster(bases, adapter_seed=2), strict=True):
        assert torch.equal(one, other) == (bases != "gaussian")
    on_disk = load_file(f"{save(model, tmp_path)}/adapter_model.safetensors")
    stored = {name: tensor for name, tensor in on_disk.items() if "idlora_A" in name}
    assert sum(tensor.numel() for tensor in stored.values()) == model.frozen_copy_count()
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    fresh = get_peft_model(make_base(), PeftConfig.from_pretrained(str(tmp_path)))
    assert all(layer.idlora_A["default"].isnan().all() for layer in fresh.adapted_layers().values())


# Routers


def test_the_dense_router_starts_even_and_the_inner_product_starts_away_from_zero():
    dense = layer_of(make_adapted("idlora")).idlora_router["default"]
    inner = layer_of(make_adapted("idlora", router="inner_product")).idlora_router["default"]
    assert torch.equal(dense, torch.zeros(4, 48))
    assert inner.shape == (4,)
    assert 0 < inner.abs().max() <= 0.5


@pytest.mark.parametrize(("router", "degree"), [("inner_product", 2), ("dense", 1), ("uniform", 1)])
def test_the_update_by_the_inner_product_is_quadratic_in_the_input(router, degree):
    layer = layer_of(excite(make_adapted("idlora", router=router, target_modules=[UP])))
    h = 1000 * torch.randn(5, 48, generator=torch.Generator().manual_seed(0))  # so large that the softmax is one-hot
    layer.double(), (h := h.double())
    torch.testing.assert_close(
        layer(10 * h) - layer.base_layer(10 * h), 10**degree * (layer(h) - layer.base_layer(h)), rtol=1e-3, atol=1
    )


def diverges(router, **settings):
    """Return whether one of eight SGD trainings of two adapted layers ends in a NaN or infinite loss."""
    for seed in range(8):
        torch.manual_seed(seed)
        base = nn.Sequential()
        base.add_module("lower", nn.Linear(16, 32))
        base.add_module("upper", nn.Linear(32, 16))
        config = IdLoraConfig(r=4, lora_alpha=8, target_modules=["lower", "upper"], router=router, selection="serial")
        model = get_peft_model(base, config)
        x, goal = 2 * torch.randn(32, 16), torch.randn(32, 16)
        optimizer = torch.optim.SGD(trainable(model).values(), lr=0.5)
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(x) - goal).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(trainable(model).values(), settings.get("clip", float("inf")))
            optimizer.step()
        if not loss.isfinite():
            return True
    return False


def test_two_layers_in_a_row_diverge_by_the_inner_product_alone_and_not_with_clipped_gradients():
    assert diverges("inner_product")
    assert not diverges("inner_product", clip=1.0)
    assert not diverges("dense")


# What routers do


def routing_of(model, *batches, adapter_name="default"):
    with model.base_model.record_router_entropy(adapter_name) as entropy:
        for batch in batches:
            model(input_ids=batch)
    return entropy()


@pytest.mark.parametrize("method", OURS)
def test_the_router_entropy_is_the_mean_over_layers_and_tokens_and_touches_nothing(method):
    model = excite(make_adapted(method)).train()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, RoutedLayer)}
    batches = [make_batch(rows=rows, length=length, seed=length) for rows, length in ((1, 3), (2, 8))]
    inputs = {name: [] for name in layers}
    handles = [
        layer.register_forward_hook(lambda _, given, __, name=name: inputs[name].append(given[0].flatten(0, -2)))
        for name, layer in layers.items()
    ]
    expected_logits = [model(input_ids=batch).logits for batch in batches]
    for handle in handles:
        handle.remove()
    each = []
    for name, layer in layers.items():
        alpha = layer.alpha("default", torch.cat(inputs[name])).detach().double()
        each.append(float(-(alpha * alpha.log()).sum(-1).mean() / torch.tensor(alpha.shape[-1]).log()))
    assert routing_of(model, *batches) == pytest.approx(sum(each) / len(each), rel=1e-5)
    with record_routing(layers, "default") as recorded:
        found = [model(input_ids=batch).logits for batch in batches]
    assert all(torch.equal(*pair) for pair in zip(found, expected_logits, strict=True))
    assert not any(layer._forward_pre_hooks for layer in layers.values())
    assert {one.tokens for one in recorded.values()} == {19}
    assert not any(one.entropy.requires_grad or one.alpha.requires_grad for one in recorded.values())


def test_an_entropy_exists_for_distributions_over_several_experts_that_ran():
    for settings, expected in (({"router": "uniform"}, 1), ({"router": "inner_product"}, None), ({}, 1)):
        assert routing_of(make_adapted("idlora", **settings), make_batch()) == (expected and pytest.approx(expected))
    assert routing_of(make_adapted("hydralora", num_experts=1), make_batch()) is None
    model = make_adapted("moelora")
    assert routing_of(model) is None
    model.add_adapter("second", make_config("moelora", target_modules=["up_proj"]))
    model.set_adapter("second")
    assert 0 < routing_of(model, make_batch(), adapter_name="second") <= 1
