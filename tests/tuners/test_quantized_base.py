"""ID-LoRA on a base that is stored in fewer bits, with a stand-in for the quantisation libraries (they need a GPU)."""

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from peft.utils.quantization_utils import QuantizationBackend
from torch import nn
from tuner_models import TARGETS, excite, logits, make_adapted, make_base, make_batch, make_config, save, trainable

from idlora.tuners import UnsetPivotsError
from idlora.tuners.common import layer as common_layer
from idlora.tuners.common import model as common_model
from idlora.tuners.idlora import base as idlora_base


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
        for module in (common_layer, common_model, idlora_base):
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


def test_a_format_that_cannot_be_decoded_runs_a_saved_adapter_and_says_that_nothing_was_checked(
    four_bit_base, tmp_path
):
    model = excite(make_adapted("idlora"))
    folder = save(model, tmp_path)
    expected = logits(PeftModel.from_pretrained(four_bit_base(), folder))
    with pytest.warns(UserWarning, match="the weights of 14 modules cannot be read"):
        loaded = PeftModel.from_pretrained(four_bit_base(SealedBackend), folder)
    assert torch.equal(logits(loaded), expected)
    with pytest.raises(UnsetPivotsError):
        logits(get_peft_model(four_bit_base(SealedBackend), make_config("idlora")))
