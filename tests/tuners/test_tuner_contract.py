"""Behaviour common to every method and parameter layout; LoRA is the control if a test needs one."""

import copy
import dataclasses
import pickle

import pytest
import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from tuner_models import (
    LAYOUTS,
    OURS,
    excite,
    gradients,
    logits,
    make_adapted,
    make_base,
    make_batch,
    make_config,
    make_gpt2,
    save,
    train,
    trainable,
)

from idlora import tuners
from idlora.tuners import REGISTRY, BaseMismatchError
from idlora.tuners.registry import register

pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.filterwarnings("ignore:Adapter .* was active which is now deleted"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
]
every_layout = pytest.mark.parametrize("layout", [*LAYOUTS, "lora"])
every_method = pytest.mark.parametrize("method", OURS)


@pytest.fixture(scope="module")
def base_logits():
    return logits(make_base())


def differ(found, other):
    return (found - other).abs().max() > 1e-2


@every_layout
def test_an_adapter_starts_as_the_base_trains_what_it_declares_and_goes_without_a_trace(layout, base_logits):
    model = make_adapted(layout)
    assert torch.equal(logits(model), base_logits)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moving = trainable(model)
    losses = train(model)
    assert losses[-1] < losses[0]
    assert all(model.base_model.prefix in name for name in moving)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in moving), name
    adapted = logits(model.eval())
    assert differ(adapted, base_logits)
    with model.disable_adapter():
        assert torch.equal(logits(model), base_logits)
    assert torch.equal(logits(model), adapted)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(clone), adapted)
    unloaded, expected = model.unload(), make_base().state_dict()
    assert unloaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unloaded.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_layer_trains_is_the_closed_form_of_its_config(layout):
    model = make_adapted(layout)
    layers, config = model.base_model.adapted_layers(), model.peft_config["default"]
    assert len(layers) == 14
    for name, layer in layers.items():
        counted = sum(parameter.numel() for parameter in layer.parameters() if parameter.requires_grad)
        assert counted == config.at(name).trainable_parameters(layer.in_features, layer.out_features), name


@every_layout
def test_a_saved_adapter_is_itself_again_whichever_way_it_is_loaded(layout, base_logits, tmp_path):
    model = excite(make_adapted(layout))
    expected, folder = logits(model), save(model, tmp_path)
    torch.manual_seed(99)
    loaded = PeftModel.from_pretrained(make_base(), folder)
    assert torch.equal(logits(loaded), expected)
    assert not loaded.training
    assert not trainable(loaded)
    for settings in ({"low_cpu_mem_usage": True}, {"is_trainable": True}):
        other = PeftModel.from_pretrained(make_base(), folder, **settings).eval()
        assert torch.equal(logits(other), expected)
        assert bool(trainable(other)) == ("is_trainable" in settings)
    native = make_base()
    native.load_adapter(folder)
    assert torch.equal(logits(native), expected)
    again = PeftModel.from_pretrained(make_base(), save(loaded, tmp_path / "again"))
    assert torch.equal(logits(again), expected)
    integers = {k: v for k, v in get_peft_model_state_dict(model).items() if not v.is_floating_point()}
    on_disk = load_file(f"{folder}/adapter_model.safetensors")
    back = get_peft_model_state_dict(loaded.half().float())
    for name, tensor in integers.items():
        assert on_disk[name].dtype == back[name].dtype == torch.int32
        assert torch.equal(on_disk[name], tensor)
        assert torch.equal(back[name], tensor)
    if LAYOUTS.get(layout, ("lora",))[0] == "idlora":
        assert integers
        with pytest.raises(BaseMismatchError):
            PeftModel.from_pretrained(make_base(1), folder)


@every_layout
def test_adapters_live_side_by_side(layout, base_logits, tmp_path):
    model = excite(make_adapted(layout))
    first = logits(model)
    model.add_adapter("second", make_config(layout, r=4, target_modules=["q_proj", "up_proj"]))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    second = logits(excite(model, seed=5))
    assert differ(second, first)
    assert {"second" in name for name in trainable(model)} == {True}
    model.base_model.set_adapter(["default", "second"])
    assert differ(logits(model), first)
    save(model, tmp_path)
    loaded = PeftModel.from_pretrained(make_base(), str(tmp_path))
    loaded.load_adapter(str(tmp_path / "second"), "second")
    for name, expected in (("default", first), ("second", second)):
        for each in (model, loaded):
            each.set_adapter(name)
            assert torch.equal(logits(each), expected)
    model.delete_adapter("second")
    assert list(model.peft_config) == model.active_adapters == ["default"]
    assert not any("second" in name for name in model.state_dict())
    assert torch.equal(logits(model), first)
    model.delete_adapter("default")
    assert torch.equal(logits(model.base_model), base_logits)


@every_layout
def test_two_active_adapters_add_their_updates_to_a_layer(layout):
    model = excite(make_adapted(layout))
    model.add_adapter("second", make_config(layout))
    layer, h = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj"), torch.randn(3, 48)
    updates = []
    for name in ("default", "second"):
        model.set_adapter(name)
        excite(model, seed=len(updates))
        updates.append(layer(h) - layer.base_layer(h))
        assert differ(updates[-1], 0)
    model.base_model.set_adapter(["default", "second"])
    torch.testing.assert_close(layer(h) - layer.base_layer(h), sum(updates))


@every_layout
def test_a_half_precision_base_gets_a_float32_adapter(layout, tmp_path):
    reference = excite(make_adapted(layout), size=0.1)  # large updates increase the rounding error too
    folder, expected = save(reference, tmp_path), logits(reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert 0 < (logits(reference) - expected).norm() / expected.norm() < 0.1
    for dtype in (torch.bfloat16, torch.float16):
        model = PeftModel.from_pretrained(make_base(dtype=dtype), folder, is_trainable=True)
        assert {tensor.dtype for tensor in get_peft_model_state_dict(model).values()} <= {torch.float32, torch.int32}
        output = model(input_ids=make_batch()).logits
        assert output.dtype == dtype
        assert (output - expected).norm() / expected.norm() < 0.1
        assert all(gradient.isfinite().all() for gradient in gradients(model.train()).values())


@every_layout
def test_gradient_checkpointing_and_accumulation_give_the_same_gradients(layout):
    model = excite(make_adapted(layout, base=make_base(dtype=torch.float64), lora_dropout=0.3)).train()

    def assert_close(found, expected):
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])

    torch.manual_seed(0)
    expected = gradients(model)
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    assert differ(logits(model), logits(model)), "dropout draws anew"
    model.enable_input_require_grads()
    for use_reentrant in (True, False):
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        torch.manual_seed(0)
        assert_close(gradients(model), expected)
    model.gradient_checkpointing_disable()
    batch = make_batch(rows=4)
    expected = gradients(model.eval(), batch)
    model.zero_grad()
    for row in batch.split(1):
        (model(input_ids=row, labels=row).loss / 4).backward()
    assert_close({name: parameter.grad for name, parameter in trainable(model).items()}, expected)


@every_layout
def test_a_base_whose_weights_lie_transposed_works_too(layout, tmp_path):
    model = excite(make_adapted(layout, base=make_gpt2(), target_modules=["c_attn", "c_fc"], r=4))
    assert differ(logits(model), logits(make_gpt2()))
    loaded = PeftModel.from_pretrained(make_gpt2(), save(model, tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert all(gradient.abs().max() > 0 for gradient in gradients(model.train()).values())


@every_method
def test_what_lora_alone_can_do_is_refused_without_a_trace(method):
    model = excite(make_adapted(method))
    expected, before = logits(model), set(model.state_dict())
    for act in (model.merge_adapter, model.merge_and_unload, model.unmerge_adapter):
        with pytest.raises(NotImplementedError, match="router mixes the update anew for every token"):
            act()
    with pytest.raises(NotImplementedError, match="cannot be combined"):
        model.add_weighted_adapter(["default"], [1.0], "mixture")
    with pytest.raises(ValueError, match="alora_offsets"):
        model(input_ids=make_batch(), alora_offsets=[1, 1])
    assert set(model.state_dict()) == before
    assert torch.equal(logits(model), expected)


@every_method
def test_biases_and_whole_modules_that_train_are_saved(method, tmp_path):
    model = excite(make_adapted(method, bias="lora_only", modules_to_save=["lm_head"]))
    assert any(name.endswith("bias") for name in trainable(model))
    assert any("lm_head" in name for name in trainable(model))
    loaded = PeftModel.from_pretrained(make_base(), save(model, tmp_path))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"r": 0}, "not 0"),
        ({"r": 4.0}, r"not 4\.0"),
        ({"lora_alpha": -1}, "not -1"),
        ({"lora_dropout": 1.0}, r"not 1\.0"),
        ({"bias": "some"}, "not 'some'"),
        ({"layers_pattern": "layers"}, "layers_to_transform"),
        ({"target_modules": ".*", "layers_to_transform": 1}, "layers_to_transform"),
    ],
)
@every_method
def test_settings_out_of_range_are_named_with_their_value(method, settings, value):
    with pytest.raises(ValueError, match=value):
        make_config(method, **settings)


@every_method
def test_help_has_an_entry_with_the_default_for_each_field(method):
    config_cls = REGISTRY[method].config_cls
    entries = config_cls.__doc__.partition("Args:\n")[2]
    for field in dataclasses.fields(config_cls):
        if field.name not in PeftConfig.__dataclass_fields__:
            assert f"\n    {field.name} (" in f"\n{entries}"
            head = entries.partition(f"    {field.name} (")[2].partition("): ")[0]
            assert head.endswith(f"default {getattr(config_cls(), field.name)!r}"), field.name


def test_the_layers_are_those_of_lora():
    for settings in (
        {"target_modules": None},
        {"target_modules": "all-linear", "exclude_modules": ["q_proj"]},
        {"target_modules": r".*(q_proj|down_proj).*"},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
    ):
        found = []
        for method in (*OURS, "lora"):
            model = make_adapted(method, **settings)
            model.add_adapter("second", make_config(method, **settings))
            found.append(model.base_model.targeted_module_names)
        assert found[0]
        assert all(each == found[0] for each in found)


class Others(nn.Module):
    """Layers with weights, one of them a linear layer."""

    def __init__(self):
        super().__init__()
        self.good, self.words, self.conv = nn.Linear(16, 16), nn.Embedding(8, 8), nn.Conv1d(8, 8, 1)


@pytest.mark.parametrize("target", ["words", "conv", "nowhere"])
@every_method
def test_what_cannot_be_adapted_is_refused_by_name_before_anything_changes(method, target):
    base, keys = Others(), Others().state_dict().keys()
    targets = ["nowhere"] if target == "nowhere" else ["good", target]
    with pytest.raises(ValueError, match=target):
        get_peft_model(base, make_config(method, target_modules=targets, task_type=None))
    assert base.state_dict().keys() == keys
    model = get_peft_model(base, make_config(method, target_modules=["good"], task_type=None))
    with pytest.raises(ValueError, match=target):
        model.add_adapter("second", make_config(method, target_modules=targets, task_type=None))
    assert list(model.peft_config) == ["default"]


@every_method
def test_an_adapter_of_another_method_below_is_refused_by_name(method):
    base = make_base()
    base.add_adapter(make_config("lora"), "first")
    with pytest.raises(ValueError, match=r"q_proj already carries an adapter of another kind, Linear"):
        base.add_adapter(make_config(method), "second")
    assert list(base.peft_config) == ["first"]


@every_method
def test_importing_the_package_registers_the_method_and_its_type_behaves_like_peft_s_own(method):
    entry = REGISTRY[method]
    kind = PeftType(method.upper())
    assert kind is PeftType[method.upper()] is entry.peft_type is make_config(method).peft_type
    assert kind in PeftType
    assert pickle.loads(pickle.dumps(kind)) is kind is copy.deepcopy(kind)
    assert kind.value == method.upper() == kind.name
    assert PEFT_TYPE_TO_CONFIG_MAPPING[kind] is entry.config_cls
    assert PEFT_TYPE_TO_TUNER_MAPPING[kind] is entry.model_cls
    assert PEFT_TYPE_TO_PREFIX_MAPPING[kind] == f"{method}_"
    assert getattr(tuners, entry.config_cls.__name__) is entry.config_cls
    members = list(PeftType)
    assert register(method, entry.config_cls, entry.model_cls) == entry
    with pytest.raises(KeyError, match=method):
        register(method, PeftConfig, entry.model_cls)
    assert list(PeftType) == members
