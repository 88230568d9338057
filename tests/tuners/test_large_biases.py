"""A_i h beside biases that are far larger than W h, as those of Qwen2.5's keys: 16 bits do not hold W h + b."""

import pytest
import torch
from peft import get_peft_model
from peft.utils import resolve_quantization_backend
from torch import nn
from transformers.pytorch_utils import Conv1D
from tuner_models import DEVICE, ROUTERS, assert_same, excite, on_gpu, trainable

from idlora import IdLoraConfig
from idlora.tuners.idlora import kernels

IN, OUT = 96, 64
HALVES = [torch.bfloat16, torch.float16]


class Net(nn.Module):
    """One linear layer whose bias has a spread of 30."""

    def __init__(self, linear=None):
        super().__init__()
        torch.manual_seed(0)
        self.k_proj = nn.Linear(IN, OUT) if linear is None else linear
        with torch.no_grad():
            self.k_proj.weight.normal_(0, IN**-0.5)
            self.k_proj.bias.normal_(0, 30)

    def forward(self, h):
        return self.k_proj(h)


def make_layer(dtype=torch.bfloat16, *, linear=None, adapters=("default",), **settings):
    """Return an excited layer whose values all have an exact representation in bfloat16 and float16."""
    config = IdLoraConfig(r=8, num_clusters=4, target_modules=["k_proj"], **settings)
    model = get_peft_model(Net(linear).half().bfloat16().float(), config)
    for name in adapters[1:]:
        model.add_adapter(name, config)
    model.base_model.set_adapter(list(adapters))
    for parameter in excite(model.half().bfloat16()).parameters():
        parameter.data = parameter.data.half().bfloat16()
    return model.to(dtype).base_model.model.k_proj


def tokens():
    return torch.randn(40, IN, generator=torch.Generator().manual_seed(1)).half().bfloat16()


def update(layer, h):
    """Compute the update of all active adapters alone, beside the base's output."""
    return sum(layer.update(name, h, layer.base_layer(h)) for name in layer.active_adapters)


def away(found, expected):
    return ((found.detach().double() - expected.detach()).norm() / expected.detach().norm()).item()


def check(layer, exact, *, within):
    """Compare the update and the gradients of h and of all parameters with those of the layer in float64."""
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    exact_parameters = [parameter for parameter in exact.parameters() if parameter.requires_grad]
    h = tokens().to(DEVICE, parameters[0].dtype).requires_grad_()
    exact_h = h.detach().double().requires_grad_()
    found, expected = update(layer, h), update(exact, exact_h)
    assert expected.norm() > 0.1 * (exact_h @ exact.base_layer.weight.T).norm()  # large enough to test
    assert away(found, expected) < within
    cotangent = torch.randn(found.shape, device=DEVICE).to(found.dtype)
    gradients = torch.autograd.grad(found, [h, *parameters], cotangent)
    for one, other in zip(
        gradients, torch.autograd.grad(expected, [exact_h, *exact_parameters], cotangent.double()), strict=True
    ):
        assert away(one, other) < within
    if len(layer.active_adapters) == 1:
        assert_same(layer(h), layer.base_layer(h) + found)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        *({"router": router} for router in ROUTERS),
        {"rank_boost": 1, "adapters": ("default", "second")},
        {"bases": "orthonormal"},
    ],
    ids=str,
)
def test_the_update_and_its_gradients_keep_their_digits(settings, dtype):
    layer, exact = make_layer(dtype, **settings), make_layer(torch.float64, **settings)
    check(layer.to(DEVICE), exact.to(DEVICE), within=0.02 if dtype == torch.bfloat16 else 0.003)


def test_the_graph_holds_no_copy_of_a():
    layer, h, saved = make_layer(), tokens().requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda tensor: tensor):
        layer(h)
    of_this_shape = [tensor for tensor in saved if {*tensor.shape} == {4 * 8, IN}]
    assert saved
    assert not of_this_shape


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_transposed_weights_and_autocast_keep_the_digits_too():
    h, exact = tokens(), make_layer(torch.float64, linear=Conv1D(OUT, IN))
    expected = update(exact, h.double())
    assert away(update(make_layer(linear=Conv1D(OUT, IN)), h), expected) < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        assert away(update(make_layer(torch.float32, linear=Conv1D(OUT, IN)), h.float()), expected) < 0.02


@pytest.mark.parametrize("position", ["bottleneck", "input"])
def test_dropout_keeps_the_digits_of_what_it_keeps(position):
    updates = []
    for dtype in (torch.bfloat16, torch.float64):
        layer = make_layer(dtype, lora_dropout=0.3, dropout_position=position).train()
        torch.manual_seed(5)
        updates.append(update(layer, tokens().to(dtype)))
    assert away(*updates) < 0.02


def quantized(bits):
    """Return a function that quantises a linear layer by bitsandbytes, on the CPU."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    if bits == 8:
        layer = bitsandbytes.nn.Linear8bitLt(IN, OUT, has_fp16_weights=False)
    else:
        layer = bitsandbytes.nn.Linear4bit(IN, OUT, quant_type="nf4", compute_dtype=torch.bfloat16)
    layer.load_state_dict(Net().half().bfloat16().float().k_proj.state_dict())
    return layer.to("cpu").requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_computes_the_product_once_more_without_its_bias(bits, dtype):
    layer = make_layer()
    layer.base_layer = quantized(bits)
    layer.quantization_backend = resolve_quantization_backend(layer.base_layer)
    for parameters in (layer.idlora_B, layer.idlora_router):
        parameters.to(dtype)
    decoded = layer.quantization_backend.get_base_weight(layer.base_layer).double()
    bias, exact = layer.base_layer.bias, make_layer(torch.float64)
    exact.base_layer.weight = nn.Parameter(decoded, requires_grad=False)
    exact.idlora_pivots["default"] = layer.idlora_pivots["default"]
    check(layer, exact, within=0.03)
    assert layer.base_layer.bias is bias


def test_the_layer_compiles_without_a_break(recwarn):
    layer, h = make_layer(), tokens().requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(h), layer(h))
    found, expected = (torch.autograd.grad(each(h).square().sum(), h)[0] for each in (compiled, layer))
    assert away(found, expected.double()) < 0.02
    torch._dynamo.reset()
    assert not any("Dynamo" in str(warning.message) for warning in recwarn)


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("router", ["dense", "uniform"])
def test_the_compiled_kernels_give_what_the_eager_ones_give(router):
    layer, h = make_layer(router=router).to(DEVICE), tokens().to(DEVICE).requires_grad_()
    wrt = [h, *trainable(layer).values()]
    compiled = torch.compile(layer, fullgraph=True)
    found, expected = (torch.autograd.grad(each(h).square().sum(), wrt) for each in (compiled, layer))
    for one, other in zip(found, expected, strict=True):
        assert away(one, other) < 0.02
    with torch.no_grad():
        torch.testing.assert_close(compiled(h[:3]), layer(h[:3]))


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=[pytest.mark.gpu, on_gpu])], ids=str
)
@pytest.mark.parametrize("router", ["dense", "uniform"])
def test_the_kernels_keep_the_digits(router, dtype, monkeypatch):
    fused = pytest.importorskip("idlora.tuners.idlora.kernels.fused", exc_type=ImportError)
    calls, real = [], fused.adapt
    monkeypatch.setattr(kernels, "usable", lambda tensor: True)
    monkeypatch.setattr(fused, "adapt", lambda *args, **more: calls.append(args) or real(*args, **more))
    layer, exact = (make_layer(kind, router=router).to(DEVICE) for kind in (dtype, torch.float64))
    exact.kernels_enabled = False
    h = tokens()[:6].to(DEVICE, dtype).requires_grad_()
    exact_h, cotangent = h.detach().double().requires_grad_(), torch.randn(6, OUT, device=DEVICE)
    found = torch.autograd.grad(layer(h), [h, *trainable(layer).values()], cotangent.to(dtype))
    expected = torch.autograd.grad(exact(exact_h), [exact_h, *trainable(exact).values()], cotangent.double())
    for one, other in zip(found, expected, strict=True):
        assert away(one, other) < 0.02
    with torch.no_grad():
        few = layer(h)
    assert len(calls) == 2
    plain = layer.base_layer(h) + update(layer, h)
    for y in (layer(h), few):
        torch.testing.assert_close(y, plain, rtol=2 * torch.finfo(dtype).eps, atol=1e-2)
