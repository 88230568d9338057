"""PEFT's behaviours of adapters in a model: putting them on, switching, adding, deleting, taking them off again."""

import pytest
import torch
from peft import get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from small_models import differ, outputs, run, small_adapted, small_base, small_config, training
from tuner_models import excite, trainable

pytestmark = [
    pytest.mark.filterwarnings("ignore:Adapter .* was active which is now deleted"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.filterwarnings("ignore:Adapter name '' should not be contained"),
]


def test_the_config_that_was_given_is_the_config_of_the_adapter(variant, kind):
    config, base = small_config(variant, kind), small_base(kind)
    model = get_peft_model(base, config)
    assert model.get_base_model() is model.base_model.model is base
    assert getattr(model, "config", None) is getattr(base, "config", None)
    assert "(default)" in repr(model)
    assert model.peft_config["default"] is model.active_peft_config is model.base_model.model.peft_config["default"]
    assert model.peft_config["default"] is config
    model.add_adapter("other", config)
    assert model.peft_config["other"] is config


def test_adapters_change_the_outputs_and_go_without_a_trace(variant, kind):
    base = outputs(small_base(kind), kind)
    model = small_adapted(variant, kind, trained=False)
    assert torch.equal(outputs(model, kind), base)
    adapted = outputs(excite(model), kind)
    assert differ(adapted, base)
    with model.disable_adapter():
        with model.disable_adapter():
            assert torch.equal(outputs(model, kind), base)
        assert torch.equal(outputs(model, kind), base)
    with pytest.raises(KeyError), model.disable_adapter():
        raise KeyError("out of the middle of it")
    assert torch.equal(outputs(model, kind), adapted)
    unloaded = model.unload()
    assert torch.equal(outputs(unloaded, kind), base)
    assert not any(isinstance(module, BaseTunerLayer) for module in unloaded.modules())
    assert not hasattr(unloaded, "peft_config")
    expected = small_base(kind).state_dict()
    assert unloaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unloaded.state_dict().items())
    assert torch.equal(outputs(small_adapted(variant, kind, base=unloaded), kind), adapted)


def test_only_the_adapter_gets_gradients_and_embeddings_are_left_alone(variant, kind):
    model = small_adapted(variant, kind, lora_dropout=0.1).train()
    run(model, kind).square().sum().backward()
    moving = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moving == set(trainable(model)) != set()
    assert all(parameter.grad.abs().max() > 0 for parameter in trainable(model).values())
    assert not any(part in name for name in moving for part in ("embed", "wte", "wpe", "words"))
    assert training(model) == {"default"}


def test_dropout_acts_in_training_alone(variant):
    model = small_adapted(variant, lora_dropout=0.5)
    assert torch.equal(outputs(model), outputs(model))
    model.train()
    assert differ(outputs(model), outputs(model))
    with model.disable_adapter():
        assert torch.equal(outputs(model), outputs(small_base()))
    model.eval()
    assert torch.equal(outputs(model), outputs(small_adapted(variant)))


def test_several_adapters_are_switched_added_and_deleted(variant, kind):
    model = small_adapted(variant, kind)
    first = outputs(model, kind)
    model.add_adapter("second", small_config(variant, kind, r=4 if kind == "llama" else 2))
    model.add_adapter("third", small_config(variant, kind))
    assert torch.equal(outputs(model, kind), first)
    assert training(model) == {"default"}
    model.set_adapter("second")
    second = outputs(excite(model, seed=5), kind)
    assert differ(second, first)
    assert model.active_adapters == ["second"] == [model.active_adapter]
    assert training(model) == {"second"}
    model.delete_adapter("third")  # not the active one
    assert torch.equal(outputs(model, kind), second)
    assert model.active_adapters == ["second"]
    model.delete_adapter("second")  # the active one
    assert model.active_adapters == ["default"] == list(model.peft_config)
    assert torch.equal(outputs(model, kind), first)
    for layer in (module for module in model.modules() if isinstance(module, BaseTunerLayer)):
        held = [held for held in (*vars(layer).values(), *layer.children()) if hasattr(held, "keys")]
        assert any("default" in by_name for by_name in held)
        assert not any(name in by_name for name in ("second", "third") for by_name in held)
    model.delete_adapter("default")  # the last one
    assert model.active_adapters == [] == list(model.peft_config)
    assert torch.equal(outputs(model.base_model, kind), outputs(small_base(kind), kind))
    model.add_adapter("fourth", small_config(variant, kind))
    model.set_adapter("fourth")
    assert differ(outputs(excite(model), kind), outputs(small_base(kind), kind))


def test_two_active_adapters_add_their_updates_to_a_layer(variant):
    model = small_adapted(variant, "perceptron")
    model.add_adapter("second", small_config(variant, "perceptron"))
    layer, x = model.base_model.model.lower, torch.linspace(-2, 2, 18).view(3, 6)
    updates = []
    for name in ("default", "second"):
        model.set_adapter(name)
        excite(model, seed=len(updates))
        updates.append(layer(x) - layer.base_layer(x))
    model.base_model.set_adapter(["default", "second"])
    assert training(model) == {"default", "second"}
    torch.testing.assert_close(layer(x) - layer.base_layer(x), sum(updates))
    assert all(differ(update, 0) for update in updates)


def test_adapters_of_different_layers_leave_each_other_alone(ours_or_lora):
    model = small_adapted(ours_or_lora, target_modules=["k_proj"])
    first = outputs(model)
    model.add_adapter("second", small_config(ours_or_lora, target_modules=["o_proj"]))
    assert torch.equal(outputs(model), first)
    assert training(model) == {"default"}
    model.set_adapter("second")
    assert torch.equal(outputs(model), outputs(small_base()))
    model.delete_adapter("second")
    assert torch.equal(outputs(model), first)


def test_what_trains_follows_the_switches(ours_or_lora):
    model = small_adapted(ours_or_lora)
    model.add_adapter("other", small_config(ours_or_lora, inference_mode=True))
    assert training(model) == {"default"}
    model.set_adapter("other")
    assert training(model) == {"other"}
    model.set_adapter("default", inference_mode=True)
    assert training(model) == set()
    model.set_requires_grad(["default", "other"])
    assert training(model) == {"default", "other"}
    model.set_requires_grad("default", requires_grad=False)
    assert training(model) == {"other"}
    with model.disable_adapter():
        assert training(model) == set()
    assert training(model) == {"default"}  # the active one
    assert training(get_peft_model(small_base(), small_config(ours_or_lora, inference_mode=True))) == set()


def test_the_status_of_layers_and_model_tells_what_is_there(ours_or_lora):
    model = small_adapted(ours_or_lora)
    model.add_adapter("other", small_config(ours_or_lora, target_modules=["k_proj"]))
    status = model.get_model_status()
    assert (status.enabled, status.active_adapters, status.merged_adapters) == (True, ["default"], [])
    assert status.available_adapters == ["default", "other"]
    assert status.requires_grad == {"default": True, "other": False}
    assert status.peft_types == dict.fromkeys(("default", "other"), ours_or_lora.upper())
    assert (status.num_adapter_layers, status.trainable_params) == (3, model.get_nb_trainable_parameters()[0])
    layers = {layer.name.rpartition(".")[2]: layer for layer in model.get_layer_status()}
    assert {name: layer.available_adapters for name, layer in layers.items()} == {
        "k_proj": ["default", "other"], "o_proj": ["default"], "down_proj": ["default"],
    }  # fmt: skip
    assert all(layer.devices["default"] == ["cpu"] for layer in layers.values())
    model.base_model.disable_adapter_layers()
    assert model.get_model_status().enabled is False
    model.base_model.enable_adapter_layers()
    model.delete_adapter("default")
    assert model.get_model_status().available_adapters == ["other"]


def test_names_that_are_there_or_are_not_there_are_refused(ours_or_lora):
    model = small_adapted(ours_or_lora)
    expected = outputs(model)
    with pytest.raises(ValueError, match="'default' already exists"):
        model.add_adapter("default", small_config(ours_or_lora))
    for act in (model.set_adapter, model.delete_adapter):
        with pytest.raises(ValueError, match="unknown"):
            act("unknown")
    other = small_config("lora" if ours_or_lora != "lora" else "idlora")
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("other", other)
    assert list(model.peft_config) == model.active_adapters == ["default"]
    assert torch.equal(outputs(model), expected)


# PEFT itself loses weights of an adapter beside one that is called as a part of the model is, LoRA's too.
@pytest.mark.parametrize("name", ["a.b", "", "keys", "training", "layers", "0", "weight", "bias", "base_layer", "{}_B"])
def test_names_that_peft_could_not_keep_apart_are_refused_before_anything_changes(our_method, name):
    name = name.format(our_method)
    base = small_base()
    with pytest.raises(ValueError, match=f"^'{name}' cannot be an adapter's name: "):
        get_peft_model(base, small_config(our_method), name)
    assert base.state_dict().keys() == small_base().state_dict().keys()
    model = small_adapted(our_method, base=base)
    before = set(model.state_dict())
    with pytest.raises(ValueError, match="cannot be an adapter's name"):
        model.add_adapter(name, small_config(our_method))
    assert list(model.peft_config) == ["default"]
    assert set(model.state_dict()) == before
    assert model.get_model_status().available_adapters == ["default"]


def test_a_name_within_the_method_s_prefix_is_remarked_upon_and_works(ours_or_lora):
    with pytest.warns(UserWarning, match="should not be contained in the prefix"):
        model = small_adapted(ours_or_lora, adapter_name=ours_or_lora)
    assert torch.equal(outputs(model), outputs(small_adapted(ours_or_lora)))
    assert training(model) == {ours_or_lora}


def test_a_second_adapter_that_is_refused_leaves_the_model_as_it_was(ours_or_lora):
    model = small_adapted(ours_or_lora, bias="all")
    expected, before = outputs(model), set(model.state_dict())
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("second", small_config(ours_or_lora, bias="all"))
    with pytest.raises(ValueError, match="not found in the base model"):
        model.add_adapter("second", small_config(ours_or_lora, target_modules=["nowhere"]))
    assert list(model.peft_config) == list(model.base_model.model.peft_config) == ["default"]
    assert set(model.state_dict()) == before
    assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("all", 4), ("lora_only", 2)])
def test_biases_train_as_the_config_says(ours_or_lora, bias, count):
    model = small_adapted(ours_or_lora, bias=bias, trained=False)
    assert sum(name.endswith("bias") for name in trainable(model)) == count
    if count:
        with pytest.warns(UserWarning, match="does not produce the same output as the base"), model.disable_adapter():
            pass


def test_a_model_adapted_twice_says_so(ours_or_lora):
    base = small_base()
    first = small_adapted(ours_or_lora, base=base)
    with pytest.warns(UserWarning, match="modify a model with PEFT for a second time"):
        second = get_peft_model(base, small_config(ours_or_lora), "second")
    assert list(second.peft_config) == ["default", "second"]
    assert outputs(second.eval()).isfinite().all()
    assert first.base_model.model is second.base_model.model
