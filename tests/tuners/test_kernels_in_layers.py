"""The ID-LoRA layer with kernels against plain PyTorch, on a GPU if there is one, else interpreted."""

import pytest
import torch
from peft import PeftModel
from torch import nn
from tuner_models import (
    DEVICE,
    ROUTERS,
    draw,
    excite,
    gradients,
    logits,
    make_adapted,
    make_base,
    make_batch,
    make_config,
    on_gpu,
)

from idlora.tuners import IdLoraConfig, IdLoraLinear
from idlora.tuners.idlora import kernels
from idlora.tuners.idlora.layer import ascending

pytest.importorskip("triton", reason="the kernels are written in Triton, which this platform has no package of")
from idlora.tuners.idlora.kernels import fused, launch, ops


@pytest.fixture
def by_kernels(monkeypatch):
    """Enable the kernels on the test device and record their arguments."""
    calls, real = [], fused.adapt
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    monkeypatch.setattr(fused, "adapt", lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    return calls


def plainly(layer, h):
    """Compute the layer's output without the kernels."""
    base_output = layer.base_layer(h)
    return base_output + layer.update("default", h, base_output)


def small_batch():
    return make_batch(1, 5).to(DEVICE)  # an interpreted kernel takes milliseconds a token


def small_model(**settings):
    return excite(make_adapted("idlora", target_modules=["q_proj", "down_proj"], **settings)).to(DEVICE)


def make_layer(*, excited=True, dtype=torch.float32, **settings):
    linear = nn.Linear(12, 32, bias=True, device=DEVICE, dtype=dtype).requires_grad_(False)
    pivots = torch.randperm(32)[:24].view(3, 8).int()
    layer = IdLoraLinear(linear, "default", IdLoraConfig(r=8, num_clusters=3, **settings), pivots=pivots.to(DEVICE))
    return excite(layer) if excited else layer


@pytest.mark.parametrize("router", ROUTERS)
def test_a_model_gets_the_same_logits_and_gradients_with_and_without_the_kernels(router, by_kernels, tmp_path):
    model, batch = small_model(router=router, lora_dropout=0.3).eval(), small_batch()
    found_logits, found = logits(model, batch), gradients(model, batch)
    assert by_kernels
    for layer in model.adapted_layers().values():
        layer.kernels_enabled = False
    by_kernels.clear()
    plain_logits, plain = logits(model, batch), gradients(model, batch)
    assert not by_kernels
    assert (plain_logits - logits(make_base().to(DEVICE), batch)).abs().max() > 1e-2
    torch.testing.assert_close(found_logits, plain_logits, rtol=1e-4, atol=1e-4)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-5, msg=name)
    with model.disable_adapter():
        assert torch.equal(logits(model, batch), logits(make_base().to(DEVICE), batch))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_base(), tmp_path).to(DEVICE)
    torch.testing.assert_close(logits(loaded, batch), plain_logits, rtol=1e-4, atol=1e-4)


def test_a_mixed_batch_gives_each_row_what_the_kernels_give_its_adapter_alone(by_kernels):
    model = small_model().eval()
    model.add_adapter("second", make_config("idlora", target_modules=["q_proj"]))
    model.set_adapter("second")
    excite(model, seed=5)
    batch, expected = make_batch(2, 3).to(DEVICE), []
    for row, name in enumerate(("second", "default")):
        model.set_adapter(name)
        expected.append(logits(model, batch)[row])
    assert by_kernels
    by_kernels.clear()
    with torch.no_grad():
        found = model(input_ids=batch, adapter_names=["second", "default"]).logits
    assert not by_kernels, "rows of several adapters do not go through the kernels"
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_draws_the_same_dropout_again(use_reentrant, by_kernels):
    def seeded(seed=0):
        torch.manual_seed(seed)
        return gradients(model, small_batch())

    model = small_model(lora_dropout=0.3).train()
    expected = seeded()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    found = seeded()
    assert by_kernels
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(seeded(1)[name], expected[name])


class Times(nn.Module):
    """Multiplication by a given mask, in place of random dropout."""

    p = 0.0

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, z):
        return z * self.mask


def test_dropout_drops_entries_of_z_and_enlarges_the_others(by_kernels):
    layer, h = make_layer(lora_dropout=0.4).train(), draw(9, 12)
    torch.manual_seed(3)
    found = layer(h)
    torch.manual_seed(3)
    mask = (torch.rand(9, 8, device=DEVICE) >= 0.4) / 0.6
    layer.dropout.eval()  # `eval` on the dropout module is respected
    torch.testing.assert_close(layer(h), plainly(layer, h), rtol=1e-4, atol=1e-5)
    layer.dropout["default"] = Times(mask)
    expected = plainly(layer, h)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(layer.eval()(h), expected, atol=1e-3)


LAYOUTS = {
    "slice of positions": lambda: draw(4, 5, 12)[:, -1:],
    "slice of features": lambda: draw(7, 20)[:, :12],
    "transposed": lambda: draw(12, 40).T,
    "expanded": lambda: draw(1, 12).expand(6, 12),
    "one token": lambda: draw(12),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_pivots_and_gradients_may_have_any_shape_and_strides(layout, router, grad, by_kernels):
    layer, h = make_layer(router=router), LAYOUTS[layout]()
    layer.idlora_pivots["default"] = layer.idlora_pivots["default"].T.contiguous().T
    with torch.set_grad_enabled(grad):
        found, expected = layer(h), plainly(layer, h)
        assert len(by_kernels) == 1
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, layer.base_layer(h), atol=1e-2)
        if grad:
            cotangent = draw(*found.shape[::-1]).permute(*reversed(range(found.dim())))
            before = cotangent.clone()
            wrt = [parameter for parameter in layer.parameters() if parameter.requires_grad]
            for one, other in zip(
                torch.autograd.grad(found, wrt, cotangent), torch.autograd.grad(expected, wrt, cotangent), strict=True
            ):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
            assert torch.equal(cotangent, before), "others may read it too"


class Strided(nn.Linear):
    """A linear layer with unusual strides of its output."""

    def forward(self, h):
        return super().forward(h).T.contiguous().T


def test_the_base_layer_s_output_may_have_any_strides(by_kernels):
    layer, h = make_layer(), draw(5, 12)
    expected = layer(h)
    layer.base_layer.__class__ = Strided
    torch.testing.assert_close(layer(h), expected)
    assert len(by_kernels) == 2


def test_a_fresh_adapter_changes_nothing_in_half_precision_either(by_kernels):
    """α_i x_i is quadratic in the input and overflows float16: the kernels do not support this combination."""
    for router, can_use_kernels in {"dense": True, "inner_product": False}.items():
        layer = make_layer(excited=False, router=router, dtype=torch.float16)
        for parameters in (layer.idlora_B, layer.idlora_router):
            parameters.float()  # as PEFT does for adapters of a base in half precision
        h = draw(3, 12, dtype=torch.float16, scale=3000)
        assert layer.base_layer(h).abs().max() > 700
        assert torch.equal(layer(h), layer.base_layer(h))
        assert layer.can_use_kernels("default", h) == can_use_kernels


@pytest.mark.parametrize("settings", [{"dropout_position": "input", "lora_dropout": 0.1}, {"bases": "gaussian"}])
def test_what_the_kernels_cannot_do_is_done_without_them(settings, by_kernels, monkeypatch):
    layer = make_layer(**settings).train()
    assert not layer.can_use_kernels("default", draw(2, 12))
    assert layer.eval().can_use_kernels("default", draw(2, 12)) == ("bases" not in settings)
    layer = make_layer()  # two chunks a token
    assert layer.can_use_kernels("default", draw(2, 12))
    layer.base_layer.bias.requires_grad_(True)
    assert not layer.can_use_kernels("default", draw(2, 12))
    layer.base_layer.bias.requires_grad_(False)
    monkeypatch.setattr(kernels.limits, "MOST_CHUNKS", 8)
    assert layer.can_use_kernels("default", draw(2, 2, 12))
    assert not layer.can_use_kernels("default", draw(5, 12))
    monkeypatch.setattr(kernels.limits, "MOST_CLUSTERS", 2)
    assert not layer.can_use_kernels("default", draw(2, 12))


def test_two_active_adapters_add_their_updates_without_the_kernels(by_kernels):
    model = small_model()
    model.add_adapter("second", make_config("idlora", target_modules=["q_proj", "down_proj"]))
    model.to(DEVICE)
    model.base_model.set_adapter(["default", "second"])
    logits(excite(model), small_batch())
    assert not by_kernels


# Pivots that change, and the order in which they are visited


def test_a_layer_that_first_infers_can_train_afterwards(by_kernels):
    layer, h = make_layer(), draw(3, 12)
    layer.idlora_checked.clear()
    with torch.inference_mode():
        layer(h)
    layer(h).sum().backward()
    assert layer.idlora_B["default"].grad.abs().max() > 0


@pytest.mark.filterwarnings("ignore:the adapter 'default' gets other pivots")
def test_pivots_that_are_overwritten_are_seen_at_once_and_their_order_lies_where_a_graph_reads_it(by_kernels):
    layer, other, h = make_layer(), make_layer(), draw(3, 12)
    before, held = layer(h), layer.idlora_order["default"]
    place = held.data_ptr()
    layer.idlora_pivots["default"].copy_(layer.idlora_pivots["default"].flip(1))
    assert not torch.allclose(layer(h), before, atol=1e-3)
    torch.testing.assert_close(layer(h), plainly(layer, h))
    layer.load_state_dict(other.state_dict())
    assert layer.idlora_order["default"].data_ptr() == place
    assert torch.equal(layer.idlora_order["default"], ascending(other.idlora_pivots["default"]))


def test_the_order_survives_a_move_to_a_device_without_memory():
    layer, other = make_layer(), make_layer()
    layer.to("meta")
    assert not layer.idlora_order
    layer.to_empty(device=DEVICE)  # uninitialised memory: no pivots, and no error yet
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.idlora_order["default"], other.idlora_order["default"])


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


# The compiler


@pytest.mark.parametrize("router", ROUTERS)
def test_the_plain_layer_compiles_without_a_break(router):
    layer, h = make_layer(router=router).cpu(), torch.randn(5, 12)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(h), layer(h))


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"router": "inner_product"}, {"router": "uniform"}])
def test_compiled_layers_train_as_eager_ones_do(settings):
    model = excite(make_adapted("idlora", base=make_base(hidden_size=96, intermediate_size=128), **settings))
    model.to(DEVICE).train()
    expected = gradients(model, small_batch())
    torch._dynamo.reset()
    for layer in model.get_submodule("base_model.model.model.layers"):
        layer.compile(fullgraph=True)
    for name, gradient in gradients(model, small_batch()).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5, msg=name)


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("layer_first", [True, False])
def test_a_compiled_backward_leaves_a_shared_gradient_alone(router, layer_first):
    """y has two consumers, so that other functions read its gradient before or after the layer does."""
    layer, skip = make_layer(router=router), nn.Linear(12, 32, device=DEVICE)

    def function(h):
        if layer_first:
            return (layer(h) + skip(h)).sin()
        return skip(h) + layer(h.tanh())

    h, cotangent = draw(64, 12).requires_grad_(), draw(64, 32)
    wrt = [h, skip.weight, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    expected = torch.autograd.grad(function(h), wrt, cotangent)
    found = torch.autograd.grad(torch.compile(function, fullgraph=True)(h), wrt, cotangent)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_traced_backward_works_on_a_copy_of_a_gradient_that_another_reads_after_it(monkeypatch):
    """Fake kernels with y = W h + b and twice its gradient, or 7 for a given x, make the trace testable on a CPU."""

    def adapt(base, pivots, *_, x, **__):
        x = base.new_zeros(len(base), *pivots.shape) if x is None else x
        return base.clone(), x, base.new_zeros(len(base), 3), base.new_zeros(1)

    def adapt_backward(dx, *_, B, apart, **__):
        dx.fill_(7) if apart else dx.mul_(2)
        return B.new_zeros(B.shape), dx.new_empty(0)

    monkeypatch.setattr(launch, "adapt", adapt)
    monkeypatch.setattr(launch, "adapt_backward", adapt_backward)
    pivots, B, W = torch.arange(6, dtype=torch.int32).view(3, 2), torch.zeros(4, 1), torch.eye(8)

    def function(h, apart):
        x = h[:, :6].reshape(-1, 3, 2) if apart else None
        return h + ops.adapt(h @ W, x, pivots, pivots.view(1, 6), B, None, None, None, "uniform", 1.0, True)[0]

    h = torch.ones(5, 8, requires_grad=True)
    compiled = torch.compile(function, backend="aot_eager")
    (gradient,) = torch.autograd.grad(compiled(h, False).sum(), h)
    assert torch.equal(gradient, torch.full((5, 8), 3.0))  # one from h, two from the update
    (gradient,) = torch.autograd.grad(compiled(h, True).sum(), h)
    assert torch.equal(gradient, torch.tensor([9.0] * 6 + [2.0] * 2).expand(5, 8))  # one from h, one from the base, x


@on_gpu
@pytest.mark.gpu
def test_autocast_runs_the_kernels_in_its_type():
    model = excite(make_adapted("idlora"), size=0.1).to(DEVICE)
    batch = make_batch().to(DEVICE)
    expected = logits(model, batch)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert 0 < (logits(model, batch) - expected).norm() / expected.norm() < 0.1
        assert fused.logits(draw(8, 48), draw(4, 48), 48).dtype == torch.float32
