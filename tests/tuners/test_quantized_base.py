"""ID-LoRA on a base that is stored in fewer bits, with a stand-in for the quantisation libraries (they need a GPU)."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from peft.utils.quantization_utils import QuantizationBackend
from torch import nn
from tuner_models import TARGETS, excite, logits, make_adapted, make_base, make_batch, make_config, save, trainable

from idlora import select_pivots
from idlora.tuners import UnsetPivotsError
from idlora.tuners.common import layer as common_layer
from idlora.tuners.common import model as common_model
from idlora.tuners.idlora import frozen_weight
from idlora.tuners.idlora.fingerprint import take_fingerprint


class FourBitLinear(nn.Module):
    """A linear layer that keeps its weight as integers from -7 to 7 and one scale per 16 entries."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        blocks = linear.weight.detach().reshape(-1, 16)
        scale = blocks.abs().amax(1, keepdim=True) / 7
        self.register_buffer("qweight", (blocks / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def dequantized(self):
        return (self.qweight * self.scale).view(self.out_features, self.in_features)

    def forward(self, h):
        return F.linear(h, self.dequantized(), self.bias)


class FourBitBackend(QuantizationBackend):
    layer_type = "linear"

    def get_base_weight(self, base_layer):
        return base_layer.dequantized()


class SealedBackend(QuantizationBackend):
    layer_type = "linear"

    def get_base_weight(self, base_layer):
        raise TypeError("Dequantization is not supported")


@pytest.fixture
def four_bit_base(monkeypatch):
    """Makes a base with all its targeted layers in four bits, known to PEFT under the given backend."""

    def make(backend=FourBitBackend):
        for module in (common_layer, common_model, frozen_weight):
            monkeypatch.setattr(
                module,
                "resolve_quantization_backend",
                lambda layer, **kwargs: backend() if isinstance(layer, FourBitLinear) else None,
            )
        base = make_base()
        for name in [n for n, _ in base.named_modules() if n.rpartition(".")[2] in TARGETS]:
            base.set_submodule(name, FourBitLinear(base.get_submodule(name)))
        return base

    return make


pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")


@pytest.mark.filterwarnings("error:the base rows")
def test_an_adapter_of_the_full_base_loads_on_it_in_four_bits_without_a_word(four_bit_base, tmp_path):
    model = excite(make_adapted("idlora"))
    folder = save(model, tmp_path)
    loaded = PeftModel.from_pretrained(four_bit_base(), folder)
    assert 0 < (logits(loaded) - logits(model)).norm() / logits(model).norm() < 0.5
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), logits(four_bit_base()))
    with pytest.raises(ValueError, match="belongs to another base model"):
        PeftModel.from_pretrained(four_bit_base(), save(make_adapted("idlora", seed=1), tmp_path / "foreign"))


@pytest.mark.parametrize("position", ["bottleneck", "input"])
def test_it_trains_on_a_base_in_four_bits(position, four_bit_base):
    config = make_config("idlora", lora_dropout=0.2, dropout_position=position)
    model = excite(get_peft_model(four_bit_base(), config)).train()
    model(input_ids=make_batch(), labels=make_batch()).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in trainable(model).values())


def test_the_pivots_are_those_of_the_decoded_weight(four_bit_base):
    for backend in ("torch", "k_means_constrained"):
        model = get_peft_model(four_bit_base(), make_config("idlora", kmeans_backend=backend))
        for layer in model.pivot_layers("default").values():
            expected = select_pivots(layer.get_base_layer().dequantized(), 4, 4, backend=backend)
            assert torch.equal(layer.idlora_pivots["default"], expected)


def make_weight(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(4)) * 0.02


def make_bitsandbytes(bitsandbytes, shape, **settings):
    """A linear layer of the real library; its weight is quantised, on the CPU."""
    out_features, in_features = shape
    layer = bitsandbytes.nn.Linear4bit(in_features, out_features, bias=False, **settings)
    layer.weight = bitsandbytes.nn.Params4bit(make_weight(shape), requires_grad=False, **settings)
    return layer.to("cpu").eval()


def decode(bitsandbytes, weight):
    """The whole weight, as one long row: the library's CPU kernel is wrong where blocks run over several (0.50)."""
    state = copy.copy(weight.quant_state)
    state.shape = torch.Size((1, weight.quant_state.shape.numel()))
    return bitsandbytes.functional.dequantize_4bit(weight.data, state).view(weight.quant_state.shape)


# 64 entries share a scale: of 60 a row only every sixteenth row begins with a new one, of 48 every fourth.
@pytest.mark.parametrize("shape", [(96, 64), (50, 60), (48, 48), (64, 640)])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16, torch.float32])
def test_a_weight_in_bitsandbytes_4_bits_is_decoded_block_by_block(shape, double, kind, storage, monkeypatch):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = make_bitsandbytes(bitsandbytes, shape, quant_type=kind, compress_statistics=double, quant_storage=storage)
    assert layer.weight.dtype == storage
    whole = decode(bitsandbytes, layer.weight)
    assert (whole - make_weight(shape)).norm() < 0.2 * whole.norm()
    monkeypatch.setattr(frozen_weight, "FOUR_BIT_BLOCK", 16 * shape[1])
    with frozen_weight.readable_rows(layer) as rows:
        blocks = list(rows.blocks())
        assert torch.equal(torch.cat(blocks), whole)
        assert max(map(len, blocks)) <= 16
        some = torch.tensor([7, 0, 47, 16, 15])
        assert torch.equal(rows[some], whole[some])
        assert (rows.shape, rows.device) == (whole.shape, whole.device)


def test_an_adapter_on_bitsandbytes_4_bits_never_holds_a_weight_whole(monkeypatch):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = make_base()
    for name in [n for n, _ in base.named_modules() if n.rpartition(".")[2] in TARGETS]:
        shape = base.get_submodule(name).weight.shape
        base.set_submodule(name, make_bitsandbytes(bitsandbytes, shape, compress_statistics=True))
    weights = {name: m.weight for name, m in base.named_modules() if type(m).__name__ == "Linear4bit"}
    whole = {name: decode(bitsandbytes, weight) for name, weight in weights.items()}
    decoded = []
    real = bitsandbytes.functional.dequantize_4bit
    monkeypatch.setattr(
        bitsandbytes.functional, "dequantize_4bit", lambda *args: decoded.append(real(*args)) or decoded[-1]
    )
    monkeypatch.setattr(frozen_weight, "FOUR_BIT_BLOCK", 16 * 48)
    model = get_peft_model(base, make_config("idlora"))
    assert max(block.numel() for block in decoded) <= 16 * 64 < min(weight.numel() for weight in whole.values())
    fingerprints = model.peft_config["default"].base_fingerprint
    for name, layer in model.pivot_layers("default").items():
        pivots = select_pivots(whole[name], 4, 4, backend="torch")
        assert torch.equal(layer.idlora_pivots["default"], pivots)
        assert fingerprints.get(name) in (None, take_fingerprint(whole[name], pivots))
    assert len(fingerprints) == 12


def test_a_format_that_cannot_be_decoded_runs_a_saved_adapter_and_says_that_nothing_was_checked(
    four_bit_base, tmp_path
):
    model = excite(make_adapted("idlora"))
    folder = save(model, tmp_path)
    expected = logits(PeftModel.from_pretrained(four_bit_base(), folder))
    with pytest.warns(UserWarning, match="the weights of 12 modules cannot be read"):
        loaded = PeftModel.from_pretrained(four_bit_base(SealedBackend), folder)
    assert torch.equal(logits(loaded), expected)
    with pytest.raises(UnsetPivotsError):
        logits(get_peft_model(four_bit_base(SealedBackend), make_config("idlora")))
