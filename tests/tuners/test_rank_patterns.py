"""A rank and an α of its own for some modules: `rank_pattern` and `alpha_pattern`; LoRA is the control."""

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tuner_models import LAYOUTS, OURS, excite, gradients, logits, make_adapted, make_base, make_config, save

PATTERNS = {
    "rank_pattern": {r"layers\.1\.mlp\.(up|down)_proj": 12, "q_proj": 8},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 32, "down_proj": 3.5},
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_method = pytest.mark.parametrize("method", OURS)


def layers_of(model):
    return {name: layer for name, layer in model.base_model.model.named_modules() if isinstance(layer, BaseTunerLayer)}


@every_layout
def test_each_module_has_the_rank_and_scale_that_lora_gives_it_and_keeps_them_on_disk(layout, tmp_path):
    found, expected = (
        {name: (layer.r["default"], layer.scaling["default"]) for name, layer in layers_of(model).items()}
        for model in (make_adapted(layout, **PATTERNS), make_adapted("lora", **PATTERNS))
    )
    assert found == expected
    assert len(set(found.values())) == 6
    model = excite(make_adapted(layout, **PATTERNS))
    assert all(gradient.abs().max() > 0 for gradient in gradients(model).values())
    loaded = PeftModel.from_pretrained(make_base(), save(model, tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert {name: (layer.r, layer.scaling) for name, layer in layers_of(loaded).items()} == {
        name: (layer.r, layer.scaling) for name, layer in layers_of(model).items()
    }


@every_method
def test_the_number_of_parameters_is_the_sum_of_the_closed_form_over_each_module_s_rank(method):
    model = make_adapted(method, **PATTERNS)
    layers, config = layers_of(model), model.peft_config["default"]
    assert model.get_nb_trainable_parameters()[0] == sum(
        config.at(name).trainable_parameters(layer.in_features, layer.out_features) for name, layer in layers.items()
    )
    if method == "idlora":
        assert model.frozen_copy_count() == sum(4 * layer.r["default"] * layer.in_features for layer in layers.values())


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern\['q_proj'\].* not 0"),
        ({"rank_pattern": {"q_proj": 8.0}}, r"not 8\.0"),
        ({"rank_pattern": {"q_proj": True}}, "not True"),
        ({"rank_pattern": ["q_proj"]}, r"not \['q_proj'\]"),
        ({"rank_pattern": {"(q_proj": 8}}, r"'\(q_proj'"),
        ({"alpha_pattern": {"q_proj": 0}}, "not 0"),
        ({"alpha_pattern": {"q_proj": "16"}}, "not '16'"),
        ({"alpha_pattern": {"q_proj": np.float32(16)}}, "float32"),  # json could not write it
        ({"lora_alpha": float("inf")}, "not inf"),
        ({"alpha_pattern": {1: 16}}, "has 1"),
    ],
)
@every_method
def test_values_out_of_range_are_named_with_their_key(method, settings, value):
    assert make_config(method, rank_pattern=None, alpha_pattern=None).rank_pattern == {}
    with pytest.raises(ValueError, match=value):
        make_config(method, **settings)


@every_method
def test_a_key_that_matches_no_module_is_named_in_a_warning(method):
    with pytest.warns(RuntimeWarning, match=r"rank_pattern.*\['r_proj'\]"):
        make_adapted(method, rank_pattern={"r_proj": 8, "q_proj": 8})


@every_method
def test_keys_are_refused_if_their_order_on_disk_gives_other_values(method):
    for name in PATTERNS:
        ordered = {"layers.0.self_attn.q_proj": 12, "q_proj": 8}
        layers = layers_of(make_adapted(method, target_modules=["q_proj"], **{name: ordered})).values()
        assert [layer.scaling["default"] for layer in layers] == ([8 / 12, 1] if name == "rank_pattern" else [3, 2])
        with pytest.raises(ValueError, match=rf"layers\.0\.self_attn\.q_proj has .*=8 by .* {name} .* 12 in"):
            make_adapted(method, **{name: dict(reversed(ordered.items()))})


def test_id_lora_checks_every_rank_against_the_chunks_and_each_against_its_own_module():
    with pytest.raises(ValueError, match=r"rank_pattern\['q_proj'\].* r=7, rank_boost=2"):
        make_config("idlora", rank_pattern={"q_proj": 7})
    base, keys = make_base(), make_base().state_dict().keys()
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.k_proj has 24 rows.* r=8 = 32"):
        get_peft_model(base, make_config("idlora", r=4, rank_pattern={"k_proj": 8}))
    assert base.state_dict().keys() == keys
    get_peft_model(base, make_config("idlora", r=8, rank_pattern={"[kv]_proj": 4}))


def test_the_pivots_of_a_module_are_those_of_its_rank_and_so_are_their_statistics(tmp_path, monkeypatch):
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path))
    settings = {"target_modules": ["q_proj", "up_proj"]}
    alone = {
        kind: make_adapted("idlora", r=r, target_modules=[kind]).adapted_layers()
        for kind, r in (("q_proj", 8), ("up_proj", 4))
    }
    assert len(list(tmp_path.glob("pivots/*"))) == 2
    model = make_adapted("idlora", **settings, rank_pattern={"q_proj": 8})
    assert model.base_model.pivots_cached
    fingerprint = model.peft_config["default"].base_fingerprint
    assert list(fingerprint) == list(model.adapted_layers())
    for name, layer in model.adapted_layers().items():
        expected = alone[name.rpartition(".")[2]][name]
        assert torch.equal(layer.idlora_pivots["default"], expected.idlora_pivots["default"])
    half = make_adapted("idlora", **settings, r=2, rank_pattern={"q_proj": 8})
    assert not half.base_model.pivots_cached, "those of up_proj are new"
    mixed = make_adapted("idlora", **settings, rank_pattern={r"layers\.1\..*": 8})
    assert not mixed.base_model.pivots_cached
    statistics, sizes = mixed.pivot_statistics(), mixed.pivot_sizes()
    for name, layer in mixed.adapted_layers().items():
        r = 8 if "layers.1" in name else 4
        assert (statistics[name].r, statistics[name].overlaps["pmrc"]) == (r, 1)
        assert sizes[name]["share"] == 4 * r / layer.out_features
        assert list(statistics[name].cluster_sizes) == sizes[name]["clusters"]
        assert min(sizes[name]["clusters"]) >= r
