"""The base check of a saved ID-LoRA adapter: an error on another base, a warning on a similar one, else silence."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from peft.utils.quantization_utils import QuantizationBackend
from torch import nn
from tuner_models import TARGETS, excite, gradients, logits, make_adapted, make_base, make_config, save

from idlora import select_pivots
from idlora.tuners import BaseMismatchError, UnsetPivotsError
from idlora.tuners.common import layer as common_layer
from idlora.tuners.common import model as common_model
from idlora.tuners.idlora import frozen_weight
from idlora.tuners.idlora.fingerprint import check_distances, distance, take_fingerprint

UP = "model.layers.0.mlp.up_proj"


def changed_base(change, only=None):
    base = make_base()
    with torch.no_grad():
        for name in (n for n, _ in make_base().named_modules() if n.rpartition(".")[2] in TARGETS):
            if only is None or name == only:
                weight = base.get_submodule(name).weight
                weight.copy_(change(weight))
    return base


WRONG_BASES = {
    "another seed": lambda: make_base(seed=1),
    "its rows in another order": lambda: changed_base(lambda w: w.roll(1, 0)),
    "twice its scale": lambda: changed_base(lambda w: 2 * w),
    "other shapes": lambda: make_base(intermediate_size=96),
    "fewer layers": lambda: make_base(num_hidden_layers=1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a saved adapter."""
    return save(excite(make_adapted("idlora")), tmp_path_factory.mktemp("adapter"))


@pytest.mark.parametrize("name", WRONG_BASES)
@pytest.mark.parametrize("loader", ["peft", "transformers"])
def test_another_base_model_is_refused_before_anything_is_injected(name, loader, folder):
    base = WRONG_BASES[name]()
    before = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    with pytest.raises(BaseMismatchError, match="belongs to another base model"):
        PeftModel.from_pretrained(base, folder) if loader == "peft" else base.load_adapter(folder)
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.state_dict().items())
    assert all(parameter.requires_grad for parameter in base.parameters())


def test_a_refused_second_adapter_leaves_the_first_one_working(folder, tmp_path):
    foreign = save(excite(make_adapted("idlora", base_seed=1)), tmp_path)
    model = PeftModel.from_pretrained(make_base(), folder)
    expected = logits(model)
    with pytest.raises(BaseMismatchError):
        model.load_adapter(foreign, "second")
    assert list(model.peft_config) == ["default"]
    assert torch.equal(logits(model), expected)
    model.load_adapter(folder, "second")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.filterwarnings("error:the base rows")
def test_the_same_base_in_another_precision_is_accepted_in_silence(dtype, folder, tmp_path):
    PeftModel.from_pretrained(make_base(dtype=dtype), folder)
    PeftModel.from_pretrained(make_base(), save(make_adapted("idlora", base=make_base(dtype=dtype)), tmp_path))


def test_a_base_with_one_layer_of_another_model_is_accepted_with_a_warning(folder):
    base = changed_base(lambda w: torch.randn_like(w) * w.std(), only=UP)
    with pytest.warns(UserWarning, match=f"1[0-9.]*% in {UP}"):
        PeftModel.from_pretrained(base, folder)


def test_the_median_of_the_modules_decides_and_the_worst_of_them_causes_a_warning():
    coarse = {"q": 0.2, "k": 0.6, "v": 1.4}  # one scale for a whole matrix, set by its largest entry
    for quantized in (False, True):
        with pytest.warns(UserWarning, match=r"140\.0% in v"):
            check_distances(coarse, quantized=quantized, made_for=None)
        with pytest.raises(BaseMismatchError, match=r"by 1 of .*3 modules.*on own"):
            check_distances(coarse | {"k": 1.0}, quantized=quantized, made_for="own")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_distances({"q": 0.2, "k": 0.3}, quantized=True, made_for=None)
        check_distances({"q": 0.003, "k": 0.002}, quantized=False, made_for=None)
    for apart in (math.inf, math.nan):
        with pytest.raises(BaseMismatchError, match="k "):
            check_distances({"q": 0.0, "k": apart, "v": 0.0}, quantized=True, made_for=None)


def test_few_modules_spread_over_a_deep_model_are_in_the_file(tmp_path):
    folder = save(make_adapted("idlora", base=make_base(num_hidden_layers=32)), tmp_path)
    saved = json.loads(Path(folder, "adapter_config.json").read_text())["base_fingerprint"]
    layers = [int(name.split(".")[2]) for name in saved]
    assert sorted(layers) == [0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 28, 31]
    assert {name.rpartition(".")[2] for name in saved} == set(TARGETS)
    assert len(json.dumps(saved)) < 3500


def test_one_config_on_two_bases_saves_the_fingerprint_of_each_and_keeps_it_through_loading(tmp_path):
    config = make_config("idlora")
    models = [get_peft_model(make_base(seed), config) for seed in (0, 1)]
    folders = [save(model, tmp_path / str(seed)) for seed, model in enumerate(models)]
    for seed, folder in enumerate(folders):
        loaded = PeftModel.from_pretrained(make_base(seed), folder)
        again = save(loaded, tmp_path / f"again-{seed}")
        found, kept = (json.loads(Path(each, "adapter_config.json").read_text()) for each in (folder, again))
        assert found["base_fingerprint"] == kept["base_fingerprint"] != {}
        assert found["init_weights"] is kept["init_weights"] is False
        for each in (folder, again):
            with pytest.raises(BaseMismatchError):
                PeftModel.from_pretrained(make_base(1 - seed), each)
    with pytest.raises(BaseMismatchError):  # a config given instead of the saved one does not help
        PeftModel.from_pretrained(make_base(0), folders[1], config=config)


def test_pivots_that_replace_others_without_a_look_at_the_base_cause_a_warning(folder, recwarn):
    make_adapted("idlora").load_adapter(folder, "default")  # as the Trainer does when it resumes
    assert not any("other pivots" in str(warning.message) for warning in recwarn)
    with pytest.warns(UserWarning, match="'default' gets other pivots"):
        make_adapted("idlora", base_seed=1).load_adapter(folder, "default")


def test_the_sketch_s_distance_is_about_that_of_the_rows():
    weight = torch.randn(200, 512, generator=torch.Generator().manual_seed(0))
    taken = take_fingerprint(weight, torch.arange(64).view(4, 16))
    assert distance(taken, weight) < 1e-6
    for size in (0.05, 0.2, 1.0):
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        assert distance(taken, weight + size * noise) == pytest.approx(size, rel=0.5)
    assert distance(taken, weight[:199]) == float("inf")
    assert distance(take_fingerprint(torch.zeros(8, 4), torch.arange(8).view(4, 2)), torch.zeros(8, 4)) == 0
    with pytest.raises(ValueError, match="48x48 rows"):
        distance("48x48 rows", weight)


# Bases in fewer bits


class FourBitLinear(nn.Module):
    """A linear layer with its weight as integers from -7 to 7 and one scale per 16 entries."""

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
    """Return a function that makes a base with its targeted layers in four bits, under the given PEFT backend."""

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


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.filterwarnings("error:the base rows")
def test_a_base_in_four_bits_takes_the_full_one_s_adapter_and_its_own(four_bit_base, folder, tmp_path):
    model = PeftModel.from_pretrained(make_base(), folder)
    loaded = PeftModel.from_pretrained(four_bit_base(), folder)
    assert 0 < (logits(loaded) - logits(model)).norm() / logits(model).norm() < 0.5
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), logits(four_bit_base()))
    with pytest.raises(BaseMismatchError):
        PeftModel.from_pretrained(four_bit_base(), save(make_adapted("idlora", base_seed=1), tmp_path))
    for position in ("bottleneck", "input"):
        config = make_config("idlora", lora_dropout=0.2, dropout_position=position)
        own = excite(get_peft_model(four_bit_base(), config)).train()
        for layer in own.adapted_layers().values():
            expected = select_pivots(layer.get_base_layer().dequantized(), 4, 4)
            assert torch.equal(layer.idlora_pivots["default"], expected)
        assert all(gradient.abs().max() > 0 for gradient in gradients(own).values())


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
def test_a_format_that_cannot_be_decoded_runs_a_saved_adapter_and_says_that_nothing_was_checked(four_bit_base, folder):
    expected = logits(PeftModel.from_pretrained(four_bit_base(), folder))
    with pytest.warns(UserWarning, match="12 modules cannot be read"):
        loaded = PeftModel.from_pretrained(four_bit_base(SealedBackend), folder)
    assert torch.equal(logits(loaded), expected)
    with pytest.raises(UnsetPivotsError):
        logits(get_peft_model(four_bit_base(SealedBackend), make_config("idlora")))


def test_pivots_of_a_base_in_bitsandbytes_4_bits_are_those_of_the_decoded_weight():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = make_base(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1)
    for name in [n for n, _ in base.named_modules() if n.rpartition(".")[2] in TARGETS]:
        linear = base.get_submodule(name)
        layer = bitsandbytes.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, quant_type="nf4")
        layer.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
        base.set_submodule(name, layer.to("cpu").eval())
    model = get_peft_model(base, make_config("idlora"))
    assert len(model.adapted_layers()) == 7
    for layer in model.adapted_layers().values():
        weight = layer.base_layer.weight
        decoded = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        assert decoded.shape == (layer.out_features, layer.in_features)
        assert torch.equal(layer.idlora_pivots["default"], select_pivots(decoded, 4, 4))
