"""PEFT's behaviours around files and copies: saving, loading, pickling, injecting, and the config through all of it."""

import copy
import json
import os
import pickle

import pytest
import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_base_model_state_dict,
    get_peft_model,
    inject_adapter_in_model,
    set_base_model_state_dict,
)
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from small_models import (
    KINDS,
    OURS,
    VARIANTS,
    differ,
    llama,
    outputs,
    run,
    small_adapted,
    small_base,
    small_config,
    training,
)
from transformers import LlamaForSequenceClassification
from tuner_models import excite, save

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")


@pytest.mark.parametrize("safe", [True, False])
def test_a_saved_adapter_is_itself_again_and_alone_in_its_folder(variant, kind, safe, tmp_path):
    model = small_adapted(variant, kind)
    model.save_pretrained(str(tmp_path), safe_serialization=safe)
    weights = "adapter_model.safetensors" if safe else "adapter_model.bin"
    assert set(os.listdir(tmp_path)) == {weights, "adapter_config.json", "README.md"}
    torch.manual_seed(99)
    loaded = PeftModel.from_pretrained(small_base(kind), str(tmp_path))
    assert torch.equal(outputs(loaded, kind), outputs(model, kind))
    assert differ(outputs(loaded, kind), outputs(small_base(kind), kind))
    assert loaded.peft_config["default"].inference_mode
    assert not loaded.training
    assert training(loaded) == set()


@pytest.mark.parametrize(
    "settings",
    [{}, {"is_trainable": True}, {"low_cpu_mem_usage": True}, {"device_map": {"": "cpu"}}],
)
def test_every_way_of_loading_gives_the_same_adapter(variant, settings, tmp_path):
    model = small_adapted(variant)
    folder = save(model, tmp_path)
    loaded = PeftModel.from_pretrained(small_base(), folder, "first", **settings)
    assert torch.equal(outputs(loaded.eval()), outputs(model))
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    assert bool(training(loaded)) == settings.get("is_trainable", False)
    assert loaded.load_adapter(folder, "yet-another", **settings).missing_keys == []
    loaded.set_adapter("yet-another")
    assert torch.equal(outputs(loaded.eval()), outputs(model))


def test_of_several_adapters_the_selected_ones_are_saved_each_whole(variant, tmp_path):
    model = small_adapted(variant)
    expected = {"default": outputs(model)}
    for seed, name in enumerate(("default2", "other_default", "foodefault_bar", "efaul", "an é with spaces")):
        model.add_adapter(name, small_config(variant))
        model.set_adapter(name)
        expected[name] = outputs(excite(model, seed=seed))
    model.save_pretrained(str(tmp_path / "one"), selected_adapters=["default"])
    assert not any((tmp_path / "one" / name).exists() for name in expected)
    alone = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert alone.keys() == get_peft_model_state_dict(small_adapted(variant)).keys()
    model.save_pretrained(str(tmp_path / "all"))
    loaded = PeftModel.from_pretrained(small_base(), str(tmp_path / "all"))
    for name in expected:
        if name != "default":
            loaded.load_adapter(str(tmp_path / "all" / name), name)
        loaded.set_adapter(name)
        assert torch.equal(outputs(loaded), expected[name]), name
    with pytest.raises(ValueError, match="invalid `selected_adapters`"):
        model.save_pretrained(str(tmp_path / "none"), selected_adapters=["unknown"])


def test_a_config_given_to_the_loader_is_the_adapter_s_own(variant, tmp_path):
    config = small_config(variant)
    model = excite(get_peft_model(small_base(), config)).eval()
    loaded = PeftModel.from_pretrained(small_base(), save(model, tmp_path), config=config)
    assert loaded.peft_config["default"] is config
    assert config.inference_mode
    assert torch.equal(outputs(loaded), outputs(model))


@pytest.mark.parametrize("method", OURS)
def test_a_config_that_was_changed_after_its_adapter_was_made_is_not_saved_with_it(method, tmp_path):
    model = small_adapted(method)
    config = model.peft_config["default"]
    expected = outputs(model)
    assert {"r", "lora_alpha"} < set(config.computed_with)
    for name in config.computed_with:
        made_with = getattr(config, name)
        setattr(config, name, "another" if isinstance(made_with, str) else made_with + 2)
        with pytest.raises(ValueError, match=f"was made with {name}={made_with!r}, and its config says "):
            save(model, tmp_path / "changed")
        assert not (tmp_path / "changed" / "adapter_config.json").exists()
        setattr(config, name, made_with)
    loaded = PeftModel.from_pretrained(small_base(), save(model, tmp_path / "back"))
    assert torch.equal(outputs(loaded), expected)


def test_one_config_makes_as_many_adapters_as_are_asked_for(variant, tmp_path):
    config = small_config(variant)
    models = [excite(get_peft_model(small_base(seed=seed), config), seed).eval() for seed in (0, 1)]
    for seed, model in enumerate(models):
        loaded = PeftModel.from_pretrained(small_base(seed=seed), save(model, tmp_path / str(seed)))
        assert torch.equal(outputs(loaded), outputs(model))


def test_configs_survive_files_pickles_and_copies(variant, tmp_path):
    config = small_config(variant, exclude_modules=["lm_head"], layers_to_transform=[0], layers_pattern="layers")
    config.save_pretrained(str(tmp_path))
    copies = [PeftConfig.from_pretrained(str(tmp_path)), pickle.loads(pickle.dumps(config)), copy.deepcopy(config)]
    for found in copies:
        assert type(found) is type(config)
        assert found.to_dict() | {"target_modules": set(found.target_modules)} == config.to_dict()
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert stored["peft_type"] == VARIANTS[variant][0].upper()
    (tmp_path / "adapter_config.json").write_text(json.dumps(stored | {"of_a_later_version": 1}))
    with pytest.warns(UserWarning, match="of_a_later_version"):
        assert type(PeftConfig.from_pretrained(str(tmp_path))) is type(config)


def test_copies_and_pickles_of_a_model_work_alone(variant, kind, tmp_path):
    model = small_adapted(variant, kind)
    expected = outputs(model, kind)
    torch.save(model, tmp_path / "model.pt")
    clones = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(tmp_path / "model.pt", weights_only=False),
    ]
    for number, clone in enumerate(clones):
        assert torch.equal(outputs(clone, kind), expected)
        assert differ(outputs(excite(clone), kind), expected)
        again = PeftModel.from_pretrained(small_base(kind), save(clone, tmp_path / str(number)))
        assert torch.equal(outputs(again, kind), outputs(clone, kind))
    assert torch.equal(outputs(model, kind), expected)


def test_the_state_dict_of_a_model_fits_another_one_of_its_kind(variant, kind):
    model = small_adapted(variant, kind)
    other = small_adapted(variant, kind, trained=False)
    other.load_state_dict(model.state_dict())
    assert torch.equal(outputs(other, kind), outputs(model, kind))


def test_adapters_are_injected_without_a_wrapper_and_loaded_from_what_they_give(variant, kind):
    injected = excite(inject_adapter_in_model(small_config(variant, kind), small_base(kind))).eval()
    state = get_peft_model_state_dict(injected)
    for settings in ({}, {"low_cpu_mem_usage": True}):
        fresh = inject_adapter_in_model(small_config(variant, kind), small_base(kind), **settings).eval()
        assert any(parameter.is_meta for parameter in fresh.parameters()) == bool(settings)
        assert set_peft_model_state_dict(fresh, state, **settings).unexpected_keys == []
        assert torch.equal(outputs(fresh, kind), outputs(injected, kind))
    assert differ(outputs(injected, kind), outputs(small_base(kind), kind))


def test_the_layers_to_adapt_can_be_read_off_the_weights(ours_or_lora):
    state = get_peft_model_state_dict(inject_adapter_in_model(small_config(ours_or_lora), small_base()))
    with pytest.warns(RuntimeWarning, match="inconsistency"):
        injected = inject_adapter_in_model(
            small_config(ours_or_lora, target_modules=["k_proj"]), small_base(), state_dict=state
        )
    assert set_peft_model_state_dict(injected, state).unexpected_keys == []
    assert get_peft_model_state_dict(injected).keys() == state.keys()


def test_modules_trained_whole_travel_with_the_adapter(variant, kind, tmp_path):
    whole = {"llama": "lm_head", "gpt2": "ln_f", "perceptron": "norm", "tagger": "words"}[kind]
    model = get_peft_model(small_base(kind), small_config(variant, kind, modules_to_save=[whole]))
    run(excite(model.train()), kind).square().sum().backward()
    assert any(whole in name and parameter.grad is not None for name, parameter in model.named_parameters())
    loaded = PeftModel.from_pretrained(small_base(kind), save(model.eval(), tmp_path))
    assert torch.equal(outputs(loaded, kind), outputs(model, kind))
    with model.disable_adapter():
        assert torch.equal(outputs(model, kind), outputs(small_base(kind), kind))


def test_a_classifier_s_head_is_trained_and_saved_with_each_adapter(ours_or_lora, tmp_path):
    def classifier():
        torch.manual_seed(0)
        return LlamaForSequenceClassification(llama().config).eval()

    settings = {"task_type": "SEQ_CLS"}
    model = excite(get_peft_model(classifier(), small_config(ours_or_lora, **settings)).eval())
    first = outputs(model)
    model.add_adapter("second", small_config(ours_or_lora, **settings))
    model.set_adapter("second")
    assert differ(outputs(excite(model, seed=4)), first)
    save(model, tmp_path)
    loaded = PeftModel.from_pretrained(classifier(), str(tmp_path))
    assert torch.equal(outputs(loaded), first)
    loaded.load_adapter(str(tmp_path / "second"), "second")
    loaded.set_adapter("second")
    assert torch.equal(outputs(loaded), outputs(model))


def test_biases_that_train_are_saved(ours_or_lora, tmp_path):
    for bias in ("all", "lora_only"):
        model = small_adapted(ours_or_lora, bias=bias)
        assert any(name.endswith("bias") for name in get_peft_model_state_dict(model))
        loaded = PeftModel.from_pretrained(small_base(), save(model, tmp_path / bias))
        assert torch.equal(outputs(loaded), outputs(model))


def test_the_base_s_own_state_is_read_and_written_through_the_adapters(variant, kind):
    model, expected = small_adapted(variant, kind), small_base(kind).state_dict()
    found = get_base_model_state_dict(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    before = outputs(model, kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if model.base_model.prefix not in name:
                parameter.add_(1)
    assert differ(outputs(model, kind), before)
    result = set_base_model_state_dict(model, expected, strict=False)
    assert result.missing_keys == result.unexpected_keys == []
    assert torch.equal(outputs(model, kind), before)


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_the_model_card_names_the_base_and_the_library(ours_or_lora, tmp_path):
    base = small_base()
    base.config._name_or_path = base.name_or_path = "someone/base"
    save(small_adapted(ours_or_lora, base=base), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: peft" in card
    assert "base_model: someone/base" in card
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/base"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_keep_the_precision_that_is_asked_for(variant, dtype, tmp_path):
    def precisions(adapted, name):
        return {p.dtype for key, p in adapted.named_parameters() if key.removesuffix(".weight").endswith(f".{name}")}

    model = get_peft_model(small_base().to(dtype), small_config(variant))
    model.add_adapter("low", small_config(variant), autocast_adapter_dtype=False)
    assert precisions(model, "default") == {torch.float32}
    assert precisions(model, "low") == {dtype}
    for name in ("default", "low"):
        model.set_adapter(name)
        made = run(excite(model.train(), size=0.1))
        assert made.dtype == dtype
        made.float().square().mean().backward()
        model.save_pretrained(str(tmp_path))
        assert outputs(model.eval()).isfinite().all()
    model.load_adapter(str(tmp_path / "low"), "loaded", autocast_adapter_dtype=False)
    assert precisions(model, "loaded") == {dtype}
    model.set_adapter("loaded")
    low = outputs(model)
    model.set_adapter("low")
    assert torch.equal(outputs(model), low)


def test_every_kind_has_an_adapter_in_all_its_targets():
    for kind, small in KINDS.items():
        model = small_adapted("lora", kind)
        assert {name.rpartition(".")[2] for name in model.base_model.targeted_module_names} == set(small.targets)
