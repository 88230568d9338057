"""A saved ID-LoRA adapter knows its base model: refused on another, remarked upon on a relative, silent on its own."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from tuner_models import TARGETS, excite, logits, make_adapted, make_base, make_config, save

from idlora.tuners import BaseMismatchError
from idlora.tuners.idlora import fingerprint
from idlora.tuners.idlora.fingerprint import distance, judge, take_fingerprint

UP = "model.layers.0.mlp.up_proj"


def four_bit(weight):
    """A weight rounded to 4 bits, in blocks of 16 entries that share a scale."""
    blocks = weight.reshape(-1, 16)
    scale = blocks.abs().amax(1, keepdim=True) / 7
    return ((blocks / scale).round() * scale).reshape(weight.shape)


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


@pytest.mark.parametrize("name", WRONG_BASES)
@pytest.mark.parametrize("loader", ["peft", "transformers"])
def test_another_base_model_is_refused_before_anything_is_injected(name, loader, tmp_path):
    folder = save(excite(make_adapted("idlora")), tmp_path)
    base = WRONG_BASES[name]()
    before = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    gradients = [parameter.requires_grad for parameter in base.parameters()]
    with pytest.raises(BaseMismatchError, match="belongs to another base model"):
        PeftModel.from_pretrained(base, folder) if loader == "peft" else base.load_adapter(folder)
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.state_dict().items())
    assert [parameter.requires_grad for parameter in base.parameters()] == gradients
    base.load_adapter(save(make_adapted("lora", base=WRONG_BASES[name]()), tmp_path / "lora"))  # still usable


def test_a_refused_second_adapter_leaves_the_first_one_working(tmp_path):
    foreign = save(excite(make_adapted("idlora", seed=1)), tmp_path / "foreign")
    own = save(excite(make_adapted("idlora")), tmp_path / "own")
    model = PeftModel.from_pretrained(make_base(), own)
    native = make_base()
    native.load_adapter(own)
    expected = logits(model)
    with pytest.raises(BaseMismatchError):
        model.load_adapter(foreign, "second")
    with pytest.raises(BaseMismatchError):
        native.load_adapter(foreign, adapter_name="second")
    for survivor in (model, native):
        assert list(survivor.peft_config) == ["default"]
        assert torch.equal(logits(survivor), expected)
    model.load_adapter(own, "second")
    native.load_adapter(own, adapter_name="second")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.filterwarnings("error:the base rows")
def test_the_same_base_in_another_precision_is_accepted_in_silence(dtype, tmp_path):
    model = excite(make_adapted("idlora"))
    folder = save(model, tmp_path)
    loaded = PeftModel.from_pretrained(make_base(dtype=dtype), folder)
    assert (logits(loaded) - logits(model)).norm() / logits(model).norm() < 0.1
    make_base(dtype=dtype).load_adapter(folder)


def test_the_same_base_in_four_bits_is_accepted_and_remarked_upon(tmp_path):
    folder = save(excite(make_adapted("idlora")), tmp_path)
    with pytest.warns(UserWarning, match="is this a fine-tuned, merged or rounded copy"):
        PeftModel.from_pretrained(changed_base(four_bit), folder)
    with pytest.warns(UserWarning, match="fine-tuned"):
        changed_base(four_bit).load_adapter(folder)


def one_layer_of_another_model():
    return changed_base(lambda w: torch.randn_like(w) * w.std(), only=UP)


def test_a_base_with_one_layer_of_another_model_is_accepted_and_remarked_upon(tmp_path):
    folder = save(excite(make_adapted("idlora")), tmp_path)
    with pytest.warns(UserWarning, match=f"differ here by 1[0-9.]*% in {UP}: is this a fine-tuned, merged"):
        PeftModel.from_pretrained(one_layer_of_another_model(), folder)


def test_the_median_of_the_modules_decides_and_the_worst_of_them_is_remarked_upon():
    coarse = {"q": 0.2, "k": 0.6, "v": 1.4}  # one scale for a whole matrix, which its largest entry sets
    for quantized in (False, True):
        with pytest.warns(UserWarning, match=r"differ here by 140.0% in v"):
            judge(coarse, quantized=quantized, made_for=None)
        with pytest.raises(BaseMismatchError, match=r"1 of their length away, the median of 3 modules.*on 'own'"):
            judge(coarse | {"k": 1.0}, quantized=quantized, made_for="own")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge({"q": 0.2, "k": 0.3}, quantized=True, made_for=None)
        judge({"q": 0.003, "k": 0.002}, quantized=False, made_for=None)
    for apart, words in ((math.inf, "k is missing here, or has another shape"), (math.nan, "k holds NaN here")):
        with pytest.raises(BaseMismatchError, match=words):
            judge({"q": 0.0, "k": apart, "v": 0.0}, quantized=True, made_for=None)


def test_few_modules_spread_over_a_deep_model_are_in_the_file(tmp_path):
    folder = save(make_adapted("idlora", base=make_base(num_hidden_layers=32)), tmp_path)
    saved = json.loads(Path(folder, "adapter_config.json").read_text())["base_fingerprint"]
    layers = [int(name.split(".")[2]) for name in saved]
    assert sorted(layers) == [0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 28, 31]
    assert {name.rpartition(".")[2] for name in saved} == set(TARGETS)
    assert len(json.dumps(saved)) < 3500
    with pytest.raises(BaseMismatchError, match="is missing here"):
        PeftModel.from_pretrained(make_base(num_hidden_layers=31), folder)


def test_an_adapter_with_a_sketch_of_every_module_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "MODULES", 14)
    folder = save(excite(make_adapted("idlora")), tmp_path)
    monkeypatch.undo()
    assert len(json.loads(Path(folder, "adapter_config.json").read_text())["base_fingerprint"]) == 14
    PeftModel.from_pretrained(make_base(), folder)
    with pytest.raises(BaseMismatchError, match="the median of 14 modules"):
        PeftModel.from_pretrained(make_base(1), folder)


def test_an_adapter_of_a_half_precision_base_fits_the_full_one(tmp_path):
    model = make_adapted("idlora", base=make_base(dtype=torch.bfloat16))
    PeftModel.from_pretrained(make_base(), save(model, tmp_path))


def test_one_config_on_two_bases_saves_the_fingerprint_of_each(tmp_path):
    config = make_config("idlora")
    models = [get_peft_model(make_base(seed), config) for seed in (0, 1)]
    assert all(model.peft_config["default"] is config for model in models)
    folders = [save(model, tmp_path / str(seed)) for seed, model in enumerate(models)]
    for seed, folder in enumerate(folders):
        PeftModel.from_pretrained(make_base(seed), folder)
        with pytest.raises(BaseMismatchError):
            PeftModel.from_pretrained(make_base(1 - seed), folder)


def test_a_config_given_in_place_of_the_saved_one_does_not_open_another_base(tmp_path):
    config = make_config("idlora")
    model = excite(get_peft_model(make_base(), config).eval())
    expected, folder = logits(model), save(model, tmp_path)
    loaded = PeftModel.from_pretrained(make_base(), folder, config=config)
    assert loaded.peft_config["default"] is config
    assert torch.equal(logits(loaded), expected)
    with pytest.raises(BaseMismatchError):
        PeftModel.from_pretrained(make_base(1), folder, config=config)


def test_pivots_that_replace_others_without_a_look_at_the_base_are_remarked_upon(tmp_path, recwarn):
    folder = save(excite(make_adapted("idlora")), tmp_path)
    remark = "gets other pivots than it had"
    make_adapted("idlora").load_adapter(folder, "default")  # as the Trainer does when it resumes
    assert not any(remark in str(warning.message) for warning in recwarn)
    with pytest.warns(UserWarning, match=remark):
        make_adapted("idlora", seed=1).load_adapter(folder, "default")


def test_a_saved_adapter_keeps_its_fingerprint_through_loading_and_saving(tmp_path):
    first = save(make_adapted("idlora"), tmp_path / "first")
    second = save(PeftModel.from_pretrained(make_base(), first), tmp_path / "second")
    saved = [json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("first", "second")]
    assert saved[0]["base_fingerprint"] == saved[1]["base_fingerprint"] != {}
    assert saved[0]["init_weights"] is saved[1]["init_weights"] is False
    with pytest.raises(BaseMismatchError):
        PeftModel.from_pretrained(make_base(1), second)


def test_the_sketch_s_distance_is_about_that_of_the_rows():
    weight = torch.randn(200, 512, generator=torch.Generator().manual_seed(0))
    taken = take_fingerprint(weight, torch.arange(64).view(4, 16))
    assert distance(taken, weight) < 1e-6
    for size in (0.05, 0.2, 1.0):
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        assert distance(taken, weight + size * noise) == pytest.approx(size, rel=0.5)
    assert distance(taken, weight[:199]) == float("inf")
    assert distance(take_fingerprint(torch.zeros(8, 4), torch.arange(8).view(4, 2)), torch.zeros(8, 4)) == 0
    with pytest.raises(ValueError, match="not a fingerprint"):
        distance("48x48 rows", weight)
