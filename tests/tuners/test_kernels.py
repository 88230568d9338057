"""The Triton kernels against plain float64 references: on a GPU where there is one, else in Triton's interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import nn
from tuner_models import excite, logits, make_adapted, make_base, make_batch, make_config, trainable

from idlora.tuners import IdLoraConfig, IdLoraLinear
from idlora.tuners.idlora import kernels
from idlora.tuners.idlora.layer import ascending

pytest.importorskip("triton", reason="the kernels are written in Triton, which this platform has no package of")
from idlora.tuners.idlora.kernels import eager, fused, launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUTERS = ("dense", "inner_product", "uniform")
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}

on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered")


@pytest.fixture(autouse=True)
def poisoned_buffers():
    """Memory that nobody has written is NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(*shape, dtype=torch.float32, scale=1.0):
    return (scale * torch.randn(*shape, device=DEVICE)).to(dtype)


class Problem:
    """Random arguments of one update, and the update by the equations in float64."""

    def __init__(self, *, M, N, k, r, s, router, bias=False, mask=False, dtype=torch.float32):
        torch.manual_seed(M + N + k + r + s)
        self.base = draw(M, N, dtype=dtype).requires_grad_()
        self.pivots = torch.randperm(N, device=DEVICE)[: k * r].view(k, r).int()
        self.order = ascending(self.pivots)
        self.B = draw(N // s, r // s, scale=r**-0.5).requires_grad_()
        self.bias = draw(N, dtype=dtype) if bias else None
        self.mask = torch.rand(M, r, device=DEVICE) > 0.3 if mask else None
        shape = {"dense": (M, k), "inner_product": (r,), "uniform": (0,)}[router]
        self.route = draw(*shape, scale=1 if router == "dense" else r**-0.5).requires_grad_()
        self.router, self.s, self.scale = router, s, 0.7
        if router == "uniform":
            self.route = None

    def wrt(self):
        return [tensor for tensor in (self.base, self.B, self.route) if tensor is not None]

    def found(self, saves=True):
        return eager.Adapt.apply(
            self.base, self.pivots, self.order, self.B, self.bias, self.route, self.mask, self.router, self.scale, saves
        )

    def expected(self):
        """(y, the leaves in float64 that y was made from)."""
        base, B, route = (
            None if tensor is None else tensor.detach().double().requires_grad_()
            for tensor in (self.base, self.B, self.route)
        )
        x = base if self.bias is None else base - self.bias.double()
        x = torch.stack([x[:, rows.long()] for rows in self.pivots], dim=1)  # (M, k, r)
        if self.router == "dense":
            alpha = route.softmax(dim=1)
        else:
            alpha = x @ route if route is not None else torch.full_like(x[:, :, 0], 1 / x.shape[1])
        z = (alpha[:, :, None] * x).sum(1)
        if self.mask is not None:
            z = z * self.mask
        u = torch.cat([self.scale * chunk @ B.T for chunk in z.chunk(self.s, dim=1)], dim=1)
        return base + u, [tensor for tensor in (base, B, route) if tensor is not None]


def assert_close(found, expected, dtype):
    assert found.isfinite().all()
    error, size = (found.double() - expected).norm(), expected.norm()
    assert error <= TOLERANCE[dtype] * size + 1e-12, f"{error / size:.1e} away"


def check(problem):
    """The output and all gradients."""
    dtype = problem.base.dtype
    found, (expected, leaves) = problem.found(), problem.expected()
    assert (expected - leaves[0]).norm() > 0.05 * expected.norm()  # the update is there to be seen
    assert_close(found, expected, dtype)
    cotangent = draw(*found.shape, dtype=dtype)
    gradients = torch.autograd.grad(found, problem.wrt(), cotangent)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, leaves, cotangent.double()), strict=True):
        assert_close(gradient, reference, dtype)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(
    "sizes",
    [
        {"M": 5, "N": 24, "k": 3, "r": 4, "s": 2, "bias": True, "mask": True},
        {"M": 17, "N": 97 * 2, "k": 4, "r": 16, "s": 2},
        {"M": 33, "N": 60, "k": 2, "r": 10, "s": 1, "bias": True},
        {"M": 3, "N": 64, "k": 8, "r": 8, "s": 4, "mask": True},
        {"M": 2, "N": 2080, "k": 8, "r": 256, "s": 2},
        {"M": 1, "N": 36, "k": 1, "r": 36, "s": 3},
    ],
    ids=lambda sizes: "-".join(map(str, sizes.values())),
)
def test_an_update_and_its_gradients_are_those_of_the_equations(router, sizes):
    check(Problem(router=router, **sizes))


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(("k", "r"), [(4, 128), (2, 8), (8, 256)])
def test_half_precision_is_right_to_a_hundredth(k, r, router, dtype):
    check(Problem(M=1000, N=4096, k=k, r=r, s=2, router=router, mask=True, dtype=dtype))


@pytest.mark.parametrize("router", ROUTERS)
def test_any_order_of_the_visit_gives_the_same(router):
    problem = Problem(M=6, N=96, k=4, r=16, s=2, router=router)
    ascended = torch.autograd.grad(problem.found(), problem.wrt(), torch.ones_like(problem.base))
    shuffled = torch.randperm(64, device=DEVICE)
    problem.order = torch.stack([shuffled, shuffled.argsort()]).int()
    check(problem)
    for one, other in zip(
        torch.autograd.grad(problem.found(), problem.wrt(), torch.ones_like(problem.base)), ascended, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unset", [-1, 96])
def test_a_pivot_that_is_no_row_poisons_the_output(unset):
    problem = Problem(M=3, N=96, k=4, r=16, s=2, router="dense")
    problem.pivots[2, 5] = unset
    assert problem.found().isnan().any(dim=1).all()
    few = launch.adapt_few(
        problem.base, problem.pivots, problem.B, bias=None, route=problem.route, router="dense", scale=1.0
    )
    assert few.isnan().any(dim=1).all()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_few_tokens_get_the_same_output_in_one_launch(M, router, bias):
    problem = Problem(M=M, N=2 * 101, k=3, r=10, s=2, router=router, bias=bias)
    few = launch.adapt_few(
        problem.base, problem.pivots, problem.B, bias=problem.bias, route=problem.route, router=router,
        scale=problem.scale,
    )  # fmt: skip
    assert_close(few, problem.expected()[0], torch.float32)
    assert_close(problem.found(saves=False), problem.expected()[0], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=[on_gpu, pytest.mark.gpu])])
@pytest.mark.parametrize(("M", "features", "k"), [(5, 30, 3), (70, 300, 4), (40, 128, 8)])
def test_the_dense_router_and_its_gradients(M, features, k, dtype):
    h, T = draw(M, features, dtype=dtype).requires_grad_(), draw(k, features).requires_grad_()
    found, leaves = eager.Route.apply(h, T), [tensor.detach().double().requires_grad_() for tensor in (h, T)]
    expected, cotangent = leaves[0] @ leaves[1].T, draw(M, k)
    assert found.dtype == torch.float32
    assert_close(found, expected, torch.float16)  # products of half precision, with what the rounding of T left
    gradients = torch.autograd.grad(found, (h, T), cotangent)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, leaves, cotangent.double()), strict=True):
        assert_close(gradient, reference, dtype)


def test_no_tokens_give_no_output_and_gradients_of_zero():
    problem = Problem(M=0, N=24, k=3, r=4, s=2, router="inner_product")
    assert problem.found().shape == (0, 24)
    _, dB, dT = torch.autograd.grad(problem.found(), problem.wrt(), torch.ones(0, 24, device=DEVICE))
    assert not dB.any()
    assert not dT.any()
    assert fused.logits(draw(0, 9), draw(3, 9), 24).shape == (0, 3)


@pytest.fixture
def by_kernels(monkeypatch):
    """Lets the layer use the kernels where it runs, and counts how often it does."""
    calls = []

    def usable(tensor):
        calls.append(tensor)
        return True

    monkeypatch.setattr(kernels, "usable", usable)
    return calls


def small_batch():
    return make_batch(1, 5).to(DEVICE)  # an interpreted kernel takes milliseconds a token


def small_model(**settings):
    return excite(make_adapted("idlora", target_modules=["q_proj", "down_proj"], **settings)).to(DEVICE)


def model_gradients(model, *, seed=0):
    torch.manual_seed(seed)
    model.zero_grad()
    model(input_ids=small_batch(), labels=small_batch()).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("router", ROUTERS)
def test_a_model_gets_the_same_logits_and_gradients_with_and_without_the_kernels(router, monkeypatch):
    model, batch = small_model(router=router), small_batch()
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)
    plain_logits, plain = logits(model, batch), model_gradients(model)
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    assert (plain_logits - logits(make_base().to(DEVICE), batch)).abs().max() > 1e-2
    torch.testing.assert_close(logits(model, batch), plain_logits, rtol=1e-4, atol=1e-4)
    for name, gradient in model_gradients(model).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-5, msg=name)
    with model.disable_adapter():
        assert torch.equal(logits(model, batch), logits(make_base().to(DEVICE), batch))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_draws_the_same_dropout_again(use_reentrant, by_kernels):
    model = small_model(lora_dropout=0.3).train()
    expected = model_gradients(model)
    assert by_kernels
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    found = model_gradients(model)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(model_gradients(model, seed=1)[name], expected[name])


def make_layer(**settings):
    linear = nn.Linear(12, 32, bias=True, device=DEVICE).requires_grad_(False)
    pivots = torch.randperm(32)[:24].view(3, 8).int()
    layer = IdLoraLinear(linear, "default", IdLoraConfig(r=8, num_clusters=3, **settings), pivots=pivots.to(DEVICE))
    return excite(layer)


def test_dropout_drops_entries_of_z_and_enlarges_the_others(by_kernels):
    layer, h = make_layer(lora_dropout=0.4).train(), draw(9, 12)
    torch.manual_seed(3)
    found = layer(h)
    torch.manual_seed(3)
    mask = (torch.rand(9, 8, device=DEVICE) >= 0.4) / 0.6
    assert 0 < (mask == 0).sum() < mask.numel() / 2
    layer.dropout["default"] = Times(mask)
    expected = layer.base_layer(h) + layer.update("default", h, layer.base_layer(h))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(layer.eval()(h), expected, atol=1e-3)


class Times(nn.Module):
    """Multiplies by a given mask, in the place of a dropout that draws one."""

    p = 0.0

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, z):
        return z * self.mask


def test_inputs_may_have_any_shape_and_strides(by_kernels):
    layer, h = make_layer(), draw(4, 12, 5).transpose(1, 2)
    assert not h.is_contiguous()
    torch.testing.assert_close(layer(h).flatten(0, 1), layer(h.reshape(20, 12)))
    cotangent = draw(4, 32, 5).transpose(1, 2)
    found = torch.autograd.grad(layer(h), layer.idlora_B["default"], cotangent)
    expected = torch.autograd.grad(layer(h), layer.idlora_B["default"], cotangent.contiguous())
    torch.testing.assert_close(found, expected)


def test_a_gradient_that_others_read_too_is_left_alone(by_kernels):
    layer, h = make_layer(), draw(6, 12).requires_grad_()
    y = layer(h)
    kept = draw(6, 32)
    before = kept.clone()
    torch.autograd.backward(y, kept)
    assert torch.equal(kept, before)


@pytest.mark.parametrize("settings", [{"dropout_position": "input", "lora_dropout": 0.1}, {"bases": "gaussian"}])
def test_what_the_kernels_cannot_do_is_done_without_them(settings, monkeypatch):
    layer = make_layer(**settings).train()
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    assert not layer.fuses("default", draw(2, 12))
    assert layer.eval().fuses("default", draw(2, 12)) == ("bases" not in settings)
    layer = make_layer()
    assert layer.fuses("default", draw(2, 12))
    layer.base_layer.bias.requires_grad_(True)
    assert not layer.fuses("default", draw(2, 12))


def test_two_active_adapters_add_their_updates_without_the_kernels(by_kernels):
    model = small_model()
    model.add_adapter("second", make_config("idlora", target_modules=["q_proj", "down_proj"]))
    model.to(DEVICE)
    model.base_model.set_adapter(["default", "second"])
    excite(model)
    both = logits(model, small_batch())
    assert not by_kernels
    model.base_model.set_adapter(["default"])
    assert not torch.allclose(logits(model, small_batch()), both, atol=1e-3)
    assert by_kernels


def test_pivots_written_over_in_place_are_seen_at_once(by_kernels):
    layer, h = make_layer(), draw(3, 12)
    before = layer(h)
    layer.idlora_pivots["default"].copy_(layer.idlora_pivots["default"].flip(1))
    assert not torch.allclose(layer(h), before, atol=1e-3)
    torch.testing.assert_close(layer(h), layer.base_layer(h) + layer.update("default", h, layer.base_layer(h)))


def test_the_order_is_made_when_pivots_are_loaded():
    layer, other = make_layer(), make_layer()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.idlora_order["default"], ascending(layer.idlora_pivots["default"]))


@pytest.mark.parametrize("router", ROUTERS)
def test_the_plain_layer_compiles_without_a_break(router):
    layer = make_layer(router=router).cpu()
    h = torch.randn(5, 12)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(h), layer(h))


def test_the_kernels_compile_for_the_gpus_of_today():
    """In a process of its own, where they are not interpreted; no GPU is needed for it."""
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "compiled"


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"lora_dropout": 0.0, "router": "inner_product"}, {"router": "uniform"}])
def test_compiled_layers_train_as_eager_ones_do(settings):
    model = excite(make_adapted("idlora", base=make_base(hidden_size=96, intermediate_size=128), **settings))
    model.to(DEVICE).train()
    expected = model_gradients(model)
    torch._dynamo.reset()
    for layer in model.get_submodule("base_model.model.model.layers"):
        layer.compile(fullgraph=True)
    found = model_gradients(model)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5, msg=name)


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("router", ROUTERS)
def test_a_compiled_backward_leaves_a_shared_gradient_alone(router):
    """y is added to itself in two ways, so that its gradient is read by more than the layer."""
    layer, skip = make_layer(router=router), nn.Linear(12, 32, device=DEVICE)

    def function(h):
        return (layer(h) + skip(h)).sin()

    h = draw(64, 12).requires_grad_()
    cotangent = draw(64, 32)
    wrt = [h, skip.weight, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    expected = torch.autograd.grad(function(h), wrt, cotangent)
    found = torch.autograd.grad(torch.compile(function, fullgraph=True)(h), wrt, cotangent)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@on_gpu
@pytest.mark.gpu
def test_a_cuda_graph_follows_pivots_that_change_after_its_capture():
    layer, h = make_layer(), draw(2, 12)
    with torch.no_grad():
        layer(h)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(h)
        layer.idlora_pivots["default"].copy_(layer.idlora_pivots["default"].flip(1))
        graph.replay()
        torch.testing.assert_close(y, layer(h))


@on_gpu
@pytest.mark.gpu
def test_autocast_runs_the_kernels_in_its_type():
    model = excite(get_peft_model(make_base(), make_config("idlora")), size=0.1).to(DEVICE)
    batch = make_batch().to(DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        lowered = logits(model, batch)
    assert 0 < (lowered - logits(model, batch)).norm() / logits(model, batch).norm() < 0.1
    h = draw(8, 48, dtype=torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert fused.logits(h, draw(4, 48), 48).dtype == torch.float32
    assert F.linear(h, draw(4, 48)).dtype == torch.float32
