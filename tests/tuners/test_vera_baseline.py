"""VeRA as the pinned PEFT has it: modules of different shapes share its projections, and a checkpoint holds them."""

import pytest
import torch
from peft import PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file
from tuner_models import TARGETS, excite, logits, make_base, save, trainable


def make_vera(base=None, *, key=0, **settings):
    torch.manual_seed(1)
    settings = {"r": 16, "target_modules": TARGETS, "projection_prng_key": key, "task_type": "CAUSAL_LM"} | settings
    return get_peft_model(make_base() if base is None else base, VeraConfig(**settings)).eval()


def test_it_trains_two_vectors_a_module_and_starts_as_the_base():
    model = make_vera(d_initial=0.1)
    rows = sum(layer.out_features for name, layer in make_base().named_modules() if name.split(".")[-1] in TARGETS)
    assert model.get_nb_trainable_parameters()[0] == rows + 14 * 16
    start = {name: parameter.unique().tolist() for name, parameter in trainable(model).items()}
    assert all(values == ([0.0] if "lambda_b" in name else [pytest.approx(0.1)]) for name, values in start.items())
    assert torch.equal(logits(model), logits(make_base()))
    assert (logits(excite(model)) - logits(make_base())).abs().max() > 1e-2


def test_modules_of_different_shapes_are_cut_from_one_pair_of_projections():
    model = make_vera()
    assert model.base_model.vera_A["default"].shape == (16, 64)  # the widest input is down_proj's
    assert model.base_model.vera_B["default"].shape == (64, 16)  # the widest output is up_proj's
    layer = excite(model).get_submodule("base_model.model.model.layers.0.self_attn.k_proj")
    A, B = model.base_model.vera_A["default"][:, :48], model.base_model.vera_B["default"][:24]
    h = torch.randn(5, 48)
    expected = layer.base_layer(h) + layer.vera_lambda_b["default"] * (
        (layer.vera_lambda_d["default"] * (h @ A.T)) @ B.T
    )
    torch.testing.assert_close(layer(h), expected)


@pytest.mark.filterwarnings("ignore:Specified to not load vera_A")
@pytest.mark.parametrize("save_projection", [True, False])
def test_a_saved_adapter_gives_the_same_logits_under_another_seed(save_projection, tmp_path):
    model = excite(make_vera(key=7, save_projection=save_projection))
    folder = save(model, tmp_path)
    on_disk = load_file(f"{folder}/adapter_model.safetensors")
    assert any("vera_A" in name for name in on_disk) == save_projection
    torch.manual_seed(99)
    loaded = PeftModel.from_pretrained(make_base(), folder)
    assert loaded.peft_config["default"].projection_prng_key == 7
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(excite(make_vera(key=8))), logits(model))
