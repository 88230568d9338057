"""The fast layers against plain dense references, written from the equations with every matrix made explicit."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from idlora.tuners import (
    HydraLoraConfig,
    HydraLoraLinear,
    IdLoraConfig,
    IdLoraLinear,
    MoeLoraConfig,
    MoeLoraLinear,
)

IN, OUT, K, R = 10, 24, 3, 4
SCALE = 2.0  # α/r
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_linear(bias):
    linear = nn.Linear(IN, OUT, bias=bias, dtype=torch.float64).requires_grad_(False)
    linear.weight.copy_(randn(OUT, IN, seed=0))
    if bias:
        linear.bias.copy_(randn(OUT, seed=1))
    return linear


def make_idlora(linear, **settings):
    config = IdLoraConfig(r=R, lora_alpha=SCALE * R, num_clusters=K, **settings)
    pivots = torch.randperm(OUT, generator=torch.Generator().manual_seed(2))[: K * R].view(K, R).int()
    layer = IdLoraLinear(linear, "default", config, pivots=pivots)
    for seed, parameter in enumerate((layer.idlora_B["default"], layer.idlora_router["default"]), start=3):
        parameter.data.copy_(randn(*parameter.shape, seed=seed))
    return layer


def idlora_by_the_equations(h, W, b, pivots, B, T, s, *, drop_h=None, drop_z=None, update_only=False):
    """Eq. 3 (s = 1) and 4 for one token after another: u, or u - W h alone, from explicit A_i."""
    outputs = []
    for t, h_t in enumerate(h):
        adapter_input = h_t if drop_h is None else h_t * drop_h[t]
        A = [W[pivots[i].tolist()] for i in range(len(pivots))]
        x = [A_i @ adapter_input for A_i in A]
        alpha = (T @ h_t).softmax(0) if T.dim() == 2 else [T @ x_i for x_i in x]
        u = 0 if update_only else W @ h_t if b is None else W @ h_t + b
        for alpha_i, x_i in zip(alpha, x, strict=True):
            x_i = x_i if drop_z is None else x_i * drop_z[t]
            u = u + SCALE * alpha_i * torch.cat([B @ x_ij for x_ij in x_i.chunk(s)])
        outputs.append(u)
    return torch.stack(outputs)


def assert_equal_with_gradients(found, expected, wrt):
    torch.testing.assert_close(found, expected, **EXACT)
    cotangent = randn(*found.shape, seed=9)
    gradients = [torch.autograd.grad(output, wrt, cotangent) for output in (found, expected)]
    for found_gradient, expected_gradient in zip(*gradients, strict=True):
        assert expected_gradient.abs().max() > 1e-3
        torch.testing.assert_close(found_gradient, expected_gradient, **EXACT)


@pytest.mark.parametrize(
    ("router", "s", "bias"), list(itertools.product(["dense", "inner_product"], [1, 2, 4], [True, False]))
)
def test_idlora_equals_the_equations_forward_and_backward(router, s, bias):
    linear = make_linear(bias)
    layer = make_idlora(linear, router=router, rank_boost=s)
    B, T = layer.idlora_B["default"], layer.idlora_router["default"]
    assert B.shape == (OUT // s, R // s)
    assert T.shape == ((K, IN) if router == "dense" else (R,))
    h = randn(5, IN, seed=6).requires_grad_()
    expected = idlora_by_the_equations(h, linear.weight, linear.bias, layer.idlora_pivots["default"], B, T, s)
    assert (expected - linear(h)).abs().max() > 0.1
    assert_equal_with_gradients(layer(h), expected, (h, B, T))


@pytest.mark.parametrize("router", ["dense", "inner_product"])
def test_idlora_takes_any_leading_shape(router):
    layer = make_idlora(make_linear(True), router=router)
    h = randn(6, IN, seed=6)
    expected = layer(h)
    torch.testing.assert_close(layer(h.view(2, 3, IN)), expected.view(2, 3, OUT), **EXACT)
    torch.testing.assert_close(layer(h[0]), expected[0], **EXACT)
    assert layer(h[:0]).shape == (0, OUT)


@pytest.mark.parametrize("router", ["dense", "inner_product"])
def test_dropout_draws_one_mask_and_draws_it_on_z(router):
    linear = make_linear(True)
    layer = make_idlora(linear, router=router, lora_dropout=0.4).train()
    B, T = layer.idlora_B["default"], layer.idlora_router["default"]
    h = randn(5, IN, seed=6).requires_grad_()
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(5, R, dtype=torch.float64), 0.4)
    torch.manual_seed(0)
    found = layer(h)
    pivots = layer.idlora_pivots["default"]
    expected = idlora_by_the_equations(h, linear.weight, linear.bias, pivots, B, T, 2, drop_z=mask)
    assert_equal_with_gradients(found, expected, (h, B, T))
    assert not torch.allclose(found, layer.eval()(h))


@pytest.mark.parametrize("router", ["dense", "inner_product"])
def test_dropout_on_the_input_leaves_the_dense_router_its_whole_input(router):
    linear = make_linear(True)
    layer = make_idlora(linear, router=router, lora_dropout=0.4, dropout_position="input").train()
    B, T, pivots = layer.idlora_B["default"], layer.idlora_router["default"], layer.idlora_pivots["default"]
    h = randn(5, IN, seed=6).requires_grad_()
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(5, IN, dtype=torch.float64), 0.4)
    torch.manual_seed(0)
    found = layer(h)
    expected = idlora_by_the_equations(h, linear.weight, linear.bias, pivots, B, T, 2, drop_h=mask)
    assert_equal_with_gradients(found, expected, (h, B, T))
    undropped = idlora_by_the_equations(h, linear.weight, linear.bias, pivots, B, T, 2)
    torch.testing.assert_close(layer.eval()(h), undropped, **EXACT)
    assert not torch.allclose(found, undropped)


def test_idlora_reads_the_rows_of_a_transposed_layer_too():
    linear = make_linear(True)
    transposed = Conv1D(OUT, IN).double().requires_grad_(False)
    transposed.weight.copy_(linear.weight.T)
    transposed.bias.copy_(linear.bias)
    h = randn(5, IN, seed=6)
    for settings in ({}, {"lora_dropout": 0.4, "dropout_position": "input"}):
        outputs = []
        for base in (linear, transposed):
            layer = make_idlora(base, **settings).train()
            torch.manual_seed(0)
            outputs.append(layer(h))
        torch.testing.assert_close(*outputs, **EXACT)


def test_the_same_z_gets_the_same_output_whichever_cluster_it_comes_from():
    layer = make_idlora(make_linear(False))
    h = randn(5, IN, seed=6)
    layer.idlora_router["default"].data.zero_()
    before = layer(h)
    layer.idlora_pivots["default"].copy_(layer.idlora_pivots["default"].flip(0))
    torch.testing.assert_close(layer(h), before, **EXACT)  # an even mixture does not know the clusters' order
    layer.idlora_router["default"].data.copy_(randn(K, IN, seed=7))
    routed = layer(h)
    layer.idlora_pivots["default"].copy_(layer.idlora_pivots["default"].flip(0))
    assert not torch.allclose(layer(h), routed)


@pytest.mark.parametrize("bias", [True, False])
def test_hydralora_equals_its_equation_forward_and_backward(bias):
    linear = make_linear(bias)
    layer = HydraLoraLinear(linear, "default", HydraLoraConfig(r=R, lora_alpha=SCALE * R, lora_dropout=0.4)).train()
    A, B, T = (getattr(layer, f"hydralora_{name}")["default"] for name in ("A", "B", "router"))
    for seed, parameter in enumerate((A, B, T)):
        parameter.data = randn(*parameter.shape, seed=seed)
    h = randn(5, IN, seed=6).requires_grad_()
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(5, IN, dtype=torch.float64), 0.4)
    torch.manual_seed(0)
    found = layer(h)
    rows = []
    for h_t, mask_t in zip(h, mask, strict=True):
        alpha = (T @ h_t).softmax(0)
        rows.append(linear(h_t) + SCALE * sum(alpha[i] * (B[:, i] @ (A @ (h_t * mask_t))) for i in range(3)))
    assert_equal_with_gradients(found, torch.stack(rows), (h, A, B, T))


EXPERTS = {"hydralora": (HydraLoraLinear, HydraLoraConfig), "moelora": (MoeLoraLinear, MoeLoraConfig)}


@pytest.mark.parametrize("method", EXPERTS)
def test_experts_start_as_lora_does_and_grow_apart(method):
    layer_class, config_class = EXPERTS[method]
    torch.manual_seed(0)
    config = config_class(r=R)
    layer = layer_class(make_linear(False), "default", config)
    A, B, T = (getattr(layer, f"{method}_{name}")["default"] for name in ("A", "B", "router"))
    assert torch.equal(B, torch.zeros(OUT, config.num_experts, R))
    bound = IN**-0.5  # of Kaiming's uniform draw as LoRA makes it, whichever the number of experts
    for drawn in (A, T):
        assert 0.8 * bound < drawn.abs().max() <= bound
    layer(randn(5, IN, seed=6)).square().sum().backward()
    assert (B.grad[:, 0] - B.grad[:, 1]).norm() > 1e-2 * B.grad[:, 0].norm()


@pytest.mark.parametrize("kind", ["idlora", *EXPERTS])
def test_the_router_stays_in_float32_under_autocast(kind):
    linear = nn.Linear(IN, OUT)
    if kind == "idlora":
        layer = IdLoraLinear(linear, "default", IdLoraConfig(r=R), pivots=torch.arange(4 * R).view(4, R).int())
    else:
        layer_class, config_class = EXPERTS[kind]
        layer = layer_class(linear, "default", config_class(r=R))
    router = getattr(layer, f"{kind}_router")["default"]
    nn.init.normal_(router)
    h = torch.randn(5, IN)
    seen = []
    handle = torch.Tensor.softmax

    def spy(logits, *args, **kwargs):
        seen.append(logits)
        return handle(logits, *args, **kwargs)

    torch.Tensor.softmax = spy
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(h)
    finally:
        torch.Tensor.softmax = handle
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0], F.linear(h, router), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_moelora_equals_its_equation_forward_and_backward(bias):
    linear = make_linear(bias)
    layer = MoeLoraLinear(linear, "default", MoeLoraConfig(r=R, lora_alpha=SCALE * R, lora_dropout=0.4)).train()
    A, B, T = (getattr(layer, f"moelora_{name}")["default"] for name in ("A", "B", "router"))
    for seed, parameter in enumerate((A, B, T)):
        parameter.data = randn(*parameter.shape, seed=seed)
    experts = A.view(4, R, IN)
    h = randn(5, IN, seed=6).requires_grad_()
    torch.manual_seed(0)
    mask = F.dropout(torch.ones(5, IN, dtype=torch.float64), 0.4)
    torch.manual_seed(0)
    found = layer(h)
    rows = []
    for h_t, mask_t in zip(h, mask, strict=True):
        alpha = (T @ h_t).softmax(0)
        rows.append(linear(h_t) + SCALE * sum(alpha[i] * (B[:, i] @ (experts[i] @ (h_t * mask_t))) for i in range(4)))
    assert_equal_with_gradients(found, torch.stack(rows), (h, A, B, T))
