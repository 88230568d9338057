"""ID-LoRA's controls: other frozen rows in place of W's, no router, and other ways to choose the rows."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from test_tuner_reference import K, R, assert_equal_with_gradients, idlora_by_the_equations, make_linear, randn
from tuner_models import excite, logits, make_adapted, make_base, make_batch, make_config, save, trainable

from idlora.tuners import BaseMismatchError, IdLoraConfig, IdLoraLinear, UnsetPivotsError

OWN_ROWS = ["gaussian", "orthonormal", "equal_norm"]
UP = "base_model.model.model.layers.0.mlp.up_proj"
VARIANTS = {
    "gaussian": {"bases": "gaussian"},
    "orthonormal": {"bases": "orthonormal"},
    "equal norm": {"bases": "equal_norm"},
    "uniform": {"router": "uniform"},
    "gaussian, inner product, dropped input": {
        "bases": "gaussian", "router": "inner_product", "lora_dropout": 0.2, "dropout_position": "input",
    },
    "pivoted QR, four chunks": {"selection": "pivoted_qr", "rank_boost": 4},
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def settings(request):
    """The settings that make a variant."""
    return VARIANTS[request.param]


def test_a_fresh_variant_changes_nothing_and_its_training_moves_what_it_declares(settings):
    model = make_adapted("idlora", **settings)
    assert torch.equal(logits(model), logits(make_base()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moving = trainable(model.train())
    optimizer = torch.optim.AdamW(moving.values(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        model(input_ids=make_batch(seed=step), labels=make_batch(seed=step)).loss.backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in moving), name
    assert not torch.equal(logits(model.eval()), logits(make_base()))


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_saved_variant_gives_the_same_logits_under_another_seed(settings, low_memory, tmp_path):
    model = excite(make_adapted("idlora", **settings))
    folder = save(model, tmp_path)
    torch.manual_seed(99)
    loaded = PeftModel.from_pretrained(make_base(), folder, low_cpu_mem_usage=low_memory)
    assert torch.equal(logits(loaded), logits(model))
    native = make_base()
    native.load_adapter(folder)
    assert torch.equal(logits(native), logits(model))
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), logits(make_base()))
    with pytest.raises(BaseMismatchError):
        PeftModel.from_pretrained(make_base(1), folder)


def test_variants_live_side_by_side_with_the_method_itself(settings):
    model = excite(make_adapted("idlora"))
    first = logits(model)
    model.add_adapter("variant", make_config("idlora", **settings))
    assert torch.equal(logits(model), first)
    model.set_adapter("variant")
    second = logits(excite(model, seed=5))
    assert not torch.allclose(second, first, atol=1e-2)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("variant")
    assert not any("variant" in name for name in model.state_dict())
    assert torch.equal(logits(copy.deepcopy(model)), first)


def make_layer(linear, **settings):
    config = IdLoraConfig(r=R, lora_alpha=2 * R, num_clusters=K, **settings)
    pivots = torch.randperm(linear.out_features, generator=torch.Generator().manual_seed(2))[: K * R].view(K, R).int()
    layer = IdLoraLinear(linear, "default", config, pivots=pivots)
    for seed, parameter in enumerate(filter(lambda p: p.requires_grad, layer.parameters()), start=3):
        parameter.data.copy_(randn(*parameter.shape, seed=seed))
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("s", [1, 2, 4])
@pytest.mark.parametrize("bases", OWN_ROWS)
def test_bases_of_their_own_follow_the_equations_with_another_matrix_for_a(bases, s, bias):
    linear = make_linear(bias)
    layer = make_layer(linear, bases=bases, rank_boost=s)
    A = layer.idlora_A["default"]
    B, T = layer.idlora_B["default"], layer.idlora_router["default"]
    h = randn(5, linear.in_features, seed=6).requires_grad_()
    rows = torch.arange(K * R).view(K, R)  # of the reference's "W", here A itself
    update = idlora_by_the_equations(h, A, None, rows, B, T, s, update_only=True)
    assert_equal_with_gradients(layer(h), linear(h) + update, (h, B, T))


@pytest.mark.parametrize("s", [1, 2, 4])
def test_the_uniform_mixture_is_the_mean_over_the_clusters(s):
    linear = make_linear(True)
    layer = make_layer(linear, router="uniform", rank_boost=s)
    assert list(layer.idlora_router) == []
    B, even = layer.idlora_B["default"], torch.zeros(K, linear.in_features, dtype=torch.float64)
    h = randn(5, linear.in_features, seed=6).requires_grad_()
    pivots = layer.idlora_pivots["default"]
    expected = idlora_by_the_equations(h, linear.weight, linear.bias, pivots, B, even, s)
    assert_equal_with_gradients(layer(h), expected, (h, B))


def test_gaussian_rows_have_the_pivots_norms_and_directions_of_their_own():
    model = make_adapted("idlora", bases="gaussian")
    rows = make_adapted("idlora")
    directions = []
    for name, layer in model.pivot_layers("default").items():
        weight = make_base().get_submodule(name).weight
        assert torch.equal(layer.idlora_pivots["default"], rows.pivot_layers("default")[name].idlora_pivots["default"])
        A = layer.idlora_A["default"]
        pivots = weight[layer.idlora_pivots["default"].flatten().long()]
        torch.testing.assert_close(A.norm(dim=1), pivots.norm(dim=1))
        cosines = torch.nn.functional.cosine_similarity(A, pivots)
        assert cosines.abs().mean() < 0.3
        directions.append(A[0, :48] / A[0, :48].norm())
    alike = torch.stack(directions) @ torch.stack(directions).T
    assert (alike - torch.eye(len(directions))).abs().max() < 0.7  # no two modules draw the same


def by_cluster(bases):
    """(P, A), each (k, r, in), of every module: its pivot rows, and what such bases have in their place."""
    for name, layer in make_adapted("idlora", bases=bases).pivot_layers("default").items():
        pivots = layer.idlora_pivots["default"]
        P = make_base().get_submodule(name).weight[pivots.long()]
        yield P, layer.idlora_A["default"].view(P.shape)


def test_orthonormal_rows_are_the_nearest_to_the_clusters_pivots_and_of_their_mean_norm():
    for P, A in by_cluster("orthonormal"):
        norms = P.norm(dim=-1).mean(dim=1)
        lengths = norms[:, None, None] ** 2 * torch.eye(P.shape[1])
        torch.testing.assert_close(A @ A.mT, lengths, atol=1e-5, rtol=1e-5)
        # A symmetric and positive A Pᵀ is what tells the polar factor from every other rotation of it.
        torch.testing.assert_close(A @ P.mT, P @ A.mT, atol=1e-5, rtol=1e-5)
        assert (torch.linalg.eigvalsh(A @ P.mT) > 0).all()
        span = torch.linalg.pinv(P) @ P
        torch.testing.assert_close(A @ span, A, atol=1e-4, rtol=1e-4)


def test_rows_of_equal_norm_keep_the_pivots_directions_at_the_modules_mean_norm():
    for P, A in by_cluster("equal_norm"):
        norms = P.norm(dim=-1)
        assert norms.std() > 0.01 * norms.mean()
        torch.testing.assert_close(A.norm(dim=-1), norms.mean().expand_as(norms))
        torch.testing.assert_close(torch.nn.functional.cosine_similarity(A, P, dim=-1), torch.ones_like(norms))


def test_more_orthonormal_rows_than_columns_are_refused_with_the_module():
    base = torch.nn.Sequential()
    base.add_module("q_proj", torch.nn.Linear(4, 20))
    config = IdLoraConfig(r=5, rank_boost=1, target_modules=["q_proj"], bases="orthonormal")
    with pytest.raises(ValueError, match=r"q_proj has 4 columns, too few for r=5 orthonormal rows: lower r"):
        get_peft_model(base, config)


@pytest.mark.parametrize("bases", OWN_ROWS)
def test_gaussian_rows_alone_follow_torch_s_seed_as_every_new_weight_does(bases):
    def rows(adapter_seed):
        return make_adapted("idlora", adapter_seed=adapter_seed, bases=bases).get_submodule(UP).idlora_A["default"]

    assert torch.equal(rows(1), rows(1))
    assert torch.equal(rows(1), rows(2)) == (bases != "gaussian")


@pytest.mark.parametrize("bases", OWN_ROWS)
def test_rows_of_their_own_are_stored_whole_and_trained_never(bases, tmp_path):
    model = make_adapted("idlora", bases=bases)
    plain = make_adapted("idlora")
    assert model.get_nb_trainable_parameters() == plain.get_nb_trainable_parameters()
    assert model.frozen_copy_count() == plain.frozen_copy_count() == 16 * (2 * (6 * 48 + 64))

    def stored(adapted, folder):
        return load_file(f"{save(adapted, tmp_path / folder)}/adapter_model.safetensors")

    extra = {name: t for name, t in stored(model, bases).items() if name.endswith("idlora_A")}
    assert sum(tensor.numel() for tensor in extra.values()) == model.frozen_copy_count()
    assert stored(plain, "rows").keys() == stored(model, bases).keys() - extra.keys()


@pytest.mark.parametrize("bases", OWN_ROWS)
def test_a_checkpoint_without_its_own_rows_gives_no_numbers_that_look_right(bases, tmp_path):
    folder = save(excite(make_adapted("idlora", bases=bases)), tmp_path)
    loaded = get_peft_model(make_base(), PeftModel.from_pretrained(make_base(), folder).peft_config["default"])
    with pytest.raises(UnsetPivotsError):
        logits(loaded)
    for name, layer in loaded.pivot_layers("default").items():
        layer.idlora_pivots["default"] = make_adapted("idlora").pivot_layers("default")[name].idlora_pivots["default"]
    assert logits(loaded).isnan().all()


@pytest.mark.parametrize("router", ["dense", "inner_product", "uniform"])
def test_each_router_trains_what_its_closed_form_says(router):
    router_parameters = {"dense": 4 * 2 * (6 * 48 + 64), "inner_product": 14 * 4, "uniform": 0}[router]
    model = make_adapted("idlora", router=router)
    rows = sum(layer.out_features for layer in model.pivot_layers("default").values())
    assert model.get_nb_trainable_parameters()[0] == rows * 4 // 4 + router_parameters
    found = sum(p.numel() for name, p in trainable(model).items() if "router" in name)
    assert found == router_parameters


@pytest.mark.parametrize("bases", OWN_ROWS)
def test_rows_of_their_own_on_a_half_precision_base_are_float32_as_the_rest_of_the_adapter_is(bases):
    model = make_adapted("idlora", base=make_base(dtype=torch.bfloat16), bases=bases)
    floating = {tensor.dtype for tensor in get_peft_model_state_dict(model).values() if tensor.is_floating_point()}
    assert floating == {torch.float32}
    loss = excite(model).train()(input_ids=make_batch(), labels=make_batch()).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in trainable(model).values())


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_any_number_of_clusters_works_down_to_using_every_row(k):
    model = make_adapted("idlora", num_clusters=k)  # k_proj and v_proj have 24 rows, and r is 4
    for layer in model.pivot_layers("default").values():
        pivots = layer.idlora_pivots["default"]
        assert pivots.shape == (k, 4)
        assert len(pivots.unique()) == 4 * k
    assert torch.equal(logits(model), logits(make_base()))
    assert (logits(excite(model)) - logits(make_base())).abs().max() > 1e-2
