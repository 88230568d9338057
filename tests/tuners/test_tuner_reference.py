"""The layers against plain dense references, written from the equations with explicit matrices."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from idlora.tuners import REGISTRY, IdLoraConfig, IdLoraLinear
from idlora.tuners.common import ExpertsConfig

IN, OUT, K, R = 10, 24, 3, 4
SCALE = 2.0  # α/r
EXACT = {"rtol": 1e-10, "atol": 1e-10}
EXPERTS = {
    name: (method.model_cls.tuner_layer_cls, method.config_cls, method.config_cls().num_experts)
    for name, method in REGISTRY.items()
    if issubclass(method.config_cls, ExpertsConfig)
}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_linear(bias=True):
    linear = nn.Linear(IN, OUT, bias=bias, dtype=torch.float64).requires_grad_(False)
    linear.weight.copy_(randn(OUT, IN, seed=0))
    if bias:
        linear.bias.copy_(randn(OUT, seed=1))
    return linear


def draw_parameters(layer):
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    for seed, parameter in enumerate(parameters, start=3):
        parameter.data = randn(*parameter.shape, seed=seed)
    return parameters


def make_idlora(linear, **settings):
    config = IdLoraConfig(r=R, lora_alpha=SCALE * R, num_clusters=K, **settings)
    pivots = torch.randperm(OUT, generator=torch.Generator().manual_seed(2))[: K * R].view(K, R).int()
    layer = IdLoraLinear(linear, "default", config, pivots=pivots)
    draw_parameters(layer)
    return layer


def idlora_by_the_equations(layer, h, *, drop_h=None, drop_z=None):
    """Compute Eq. 3 (s = 1) and 4 token by token, from explicit A_i."""
    linear, pivots = layer.base_layer, layer.idlora_pivots["default"]
    W = linear.weight.T if isinstance(linear, Conv1D) else linear.weight
    B, T = layer.idlora_B["default"], layer.idlora_router.get("default")
    A = [W[rows.tolist()] for rows in pivots]
    if "default" in layer.idlora_A:
        A = layer.idlora_A["default"].view(K, R, IN)
    outputs = []
    for t, h_t in enumerate(h):
        x = [A_i @ (h_t if drop_h is None else h_t * drop_h[t]) for A_i in A]
        alpha = [1 / K] * K if T is None else (T @ h_t).softmax(0) if T.dim() == 2 else [T @ x_i for x_i in x]
        u = linear(h_t)
        for alpha_i, x_i in zip(alpha, x, strict=True):
            x_i = x_i if drop_z is None else x_i * drop_z[t]
            u = u + SCALE * alpha_i * torch.cat([B @ x_ij for x_ij in x_i.chunk(OUT // len(B))])
        outputs.append(u)
    return torch.stack(outputs)


def assert_equal_with_gradients(found, expected, wrt):
    torch.testing.assert_close(found, expected, **EXACT)
    cotangent = randn(*found.shape, seed=9)
    gradients = [torch.autograd.grad(output, wrt, cotangent) for output in (found, expected)]
    for found_gradient, expected_gradient in zip(*gradients, strict=True):
        assert expected_gradient.abs().max() > 1e-3
        torch.testing.assert_close(found_gradient, expected_gradient, **EXACT)


def check(layer, **masks):
    h = randn(5, IN, seed=6).requires_grad_()
    torch.manual_seed(0)
    found = layer(h)
    expected = idlora_by_the_equations(layer, h, **masks)
    assert (expected - layer.base_layer(h)).abs().max() > 0.1
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    assert_equal_with_gradients(found, expected, (h, *trained))


@pytest.mark.parametrize(
    ("router", "s", "bias"), list(itertools.product(["dense", "inner_product", "uniform"], [1, 2, 4], [True, False]))
)
def test_idlora_equals_the_equations_forward_and_backward(router, s, bias):
    layer = make_idlora(make_linear(bias), router=router, rank_boost=s)
    assert layer.idlora_B["default"].shape == (OUT // s, R // s)
    shapes = {"dense": [(K, IN)], "inner_product": [(R,)], "uniform": []}
    assert [parameter.shape for parameter in layer.idlora_router.values()] == shapes[router]
    check(layer)
    h = randn(6, IN, seed=6)
    torch.testing.assert_close(layer(h.view(2, 3, IN)), layer(h).view(2, 3, OUT), **EXACT)
    torch.testing.assert_close(layer(h[0]), layer(h)[0], **EXACT)
    assert layer(h[:0]).shape == (0, OUT)


@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize("bases", ["gaussian", "orthonormal", "equal_norm"])
def test_bases_of_their_own_follow_the_equations_with_another_matrix_for_a(bases, s):
    layer = make_idlora(make_linear(), bases=bases, rank_boost=s)
    layer.idlora_A["default"] = layer.idlora_A["default"].double()
    check(layer)


@pytest.mark.parametrize("router", ["dense", "inner_product"])
@pytest.mark.parametrize("position", ["bottleneck", "input"])
def test_dropout_draws_one_mask_on_z_or_on_h_and_leaves_the_router_its_whole_input(position, router):
    layer = make_idlora(make_linear(), router=router, lora_dropout=0.4, dropout_position=position).train()
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(5, R if position == "bottleneck" else IN, dtype=torch.float64), 0.4)
    check(layer, **{"drop_z" if position == "bottleneck" else "drop_h": mask})
    check(layer.eval())


def test_idlora_reads_the_rows_of_a_transposed_layer_too():
    transposed, linear = Conv1D(OUT, IN).double().requires_grad_(False), make_linear()
    transposed.weight.copy_(linear.weight.T)
    transposed.bias.copy_(linear.bias)
    check(make_idlora(transposed))
    layer = make_idlora(transposed, lora_dropout=0.4, dropout_position="input").train()
    torch.manual_seed(0)
    check(layer, drop_h=F.dropout(torch.ones(5, IN, dtype=torch.float64), 0.4))


def test_a_copy_of_the_rows_gives_the_same_output():
    layer, h = make_idlora(make_linear()), randn(5, IN, seed=6)
    expected = layer(h)
    layer.copy_frozen("default")
    assert layer.idlora_A["default"].shape == (K * R, IN)
    torch.testing.assert_close(layer(h), expected, **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("method", EXPERTS)
def test_experts_equal_their_equation_forward_and_backward(method, bias):
    linear, (layer_class, config_class, n) = make_linear(bias), EXPERTS[method]
    layer = layer_class(linear, "default", config_class(r=R, lora_alpha=SCALE * R, lora_dropout=0.4)).train()
    A, B, T = draw_parameters(layer)
    experts = A.view(-1, R, IN).expand(n, R, IN)
    h = randn(5, IN, seed=6).requires_grad_()
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(5, IN, dtype=torch.float64), 0.4)
    torch.manual_seed(0)
    found = layer(h)
    rows = []
    for h_t, mask_t in zip(h, mask, strict=True):
        alpha = (T @ h_t).softmax(0)
        rows.append(linear(h_t) + SCALE * sum(alpha[i] * (B[:, i] @ (experts[i] @ (h_t * mask_t))) for i in range(n)))
    assert_equal_with_gradients(found, torch.stack(rows), (h, A, B, T))


@pytest.mark.parametrize("method", EXPERTS)
def test_experts_start_as_lora_does_and_grow_apart(method):
    layer_class, config_class, n = EXPERTS[method]
    torch.manual_seed(0)
    layer = layer_class(make_linear(False), "default", config_class(r=R))
    A, B, T = (getattr(layer, name)["default"] for name in layer_class.adapter_layer_names)
    assert torch.equal(B, torch.zeros(OUT, n, R))
    bound = IN**-0.5  # of LoRA's Kaiming-uniform initialisation, for any number of experts
    for drawn in (A, T):
        assert 0.8 * bound < drawn.abs().max() <= bound
    layer(randn(5, IN, seed=6)).square().sum().backward()
    assert (B.grad[:, 0] - B.grad[:, 1]).norm() > 1e-2 * B.grad[:, 0].norm()


@pytest.mark.parametrize("kind", ["dense", "inner_product", *EXPERTS])
def test_routing_weights_stay_in_float32_under_autocast(kind):
    linear = nn.Linear(IN, OUT)
    if kind in EXPERTS:
        layer_class, config_class, _ = EXPERTS[kind]
        layer = layer_class(linear, "default", config_class(r=R))
    else:
        config = IdLoraConfig(r=R, router=kind)
        layer = IdLoraLinear(linear, "default", config, pivots=torch.arange(4 * R).view(4, R).int())
    nn.init.normal_(next(p for name, p in layer.named_parameters() if "router" in name))
    h = torch.randn(5, IN)
    expected = layer.alpha("default", h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.alpha("default", h)
        assert layer(h).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    tolerance = 0.05 if kind == "inner_product" else 1e-6  # its x is an output of the base layer, in bfloat16
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
