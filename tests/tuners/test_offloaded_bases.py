"""Adapters on a base of which accelerate keeps a part on disk or on the CPU, and loads it around each forward."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from tuner_models import (
    DEVICE,
    OURS,
    assert_same,
    excite,
    gradients,
    logits,
    make_base,
    make_batch,
    make_config,
    save,
    train,
    trainable,
)

from idlora.tuners import BaseMismatchError

MAIN = 0 if DEVICE == "cuda" else "cpu"
PLACES = {
    "model.embed_tokens": MAIN, "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": MAIN,
    "model.rotary_emb": MAIN, "lm_head": MAIN,
}  # fmt: skip
OF_A_PEFT_MODEL = {f"base_model.model.{name}": place for name, place in PLACES.items()}

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Return a function that loads a saved base as `from_pretrained` does, whole or with a layer on disk."""
    folder = tmp_path_factory.mktemp("bases")

    def load(seed=0, dtype=torch.float32, **settings):
        place = folder / f"models--{seed}"  # PEFT writes beside a file of the hub's cache
        if not place.exists():
            make_base(seed).save_pretrained(place)
        if "device_map" in settings and "offload_folder" not in settings:
            settings["offload_folder"] = folder / "offloaded"
        return AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **settings)

    return load


def on_device():
    return make_batch().to(DEVICE)


SETTINGS = [
    *((method, {}) for method in OURS),
    ("idlora", {"router": "inner_product", "bases": "orthonormal"}),
    ("idlora", {"router": "uniform", "dropout_position": "input", "lora_dropout": 0.2}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("method", "settings"), SETTINGS, ids=str)
def test_an_adapter_on_it_is_the_one_on_the_whole_base(method, settings, dtype, bases):
    models = []
    for places in ({}, {"device_map": PLACES}):
        base = bases(dtype=dtype, **places)
        torch.manual_seed(1)
        models.append(excite(get_peft_model(base if places else base.to(DEVICE), make_config(method, **settings))))
    whole, offloaded = models
    assert offloaded.get_submodule("base_model.model.model.layers.1.mlp.up_proj").base_layer.weight.is_meta
    assert {tensor.device.type for tensor in trainable(offloaded).values()} == {DEVICE}
    assert_same(logits(offloaded.eval(), on_device()), logits(whole.eval(), on_device()), dtype)
    for model in models:
        model.train()
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(2)
        model.found = gradients(model, on_device())
    for name, gradient in offloaded.found.items():
        assert gradient.abs().max() > 0
        assert_same(gradient, whole.found[name], dtype)
    texts = [model.eval().generate(input_ids=on_device(), max_new_tokens=3) for model in models]
    assert torch.equal(*texts) or (DEVICE, dtype) == ("cuda", torch.bfloat16)  # there a tie may fall otherwise
    with offloaded.disable_adapter(), whole.disable_adapter():
        assert_same(logits(offloaded, on_device()), logits(whole, on_device()), dtype)


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize(
    "settings",
    [{"device_map": OF_A_PEFT_MODEL}, {"max_memory": {MAIN: 40_000}, "low_cpu_mem_usage": True}, None],
    ids=["device_map", "max_memory", "transformers"],
)
def test_a_saved_adapter_is_itself_again_on_it_and_on_the_whole_base(settings, method, bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # PEFT copies the part on disk to a path that it makes relative
    model = get_peft_model(bases(device_map=PLACES), make_config(method))
    train(model)
    folder, expected = save(model, tmp_path / "adapter"), logits(model.eval())
    whole = bases().to(DEVICE)
    assert (expected - logits(whole, on_device()).cpu()).abs().max() > 1e-2
    assert_same(logits(PeftModel.from_pretrained(whole, folder), on_device()).cpu(), expected)

    def load(base):
        if settings is not None:
            return PeftModel.from_pretrained(base, folder, offload_folder="more", **settings)
        base.load_adapter(folder)
        return base

    loaded = load(bases(device_map=PLACES))
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert_same(logits(loaded), expected)
    if settings is not None:
        loaded.load_adapter(folder, "second", is_trainable=True)
        loaded.set_adapter("second")
        assert_same(logits(loaded), expected)
        train(loaded)
        assert (logits(loaded.eval()) - expected).abs().max() > 1e-3
    other = bases(seed=1, device_map=PLACES)
    if method == "idlora":
        with pytest.raises(BaseMismatchError):
            load(other)


@pytest.mark.parametrize("offload", ["cpu", "disk", "auto"])
def test_every_way_to_offload_selects_the_pivots_of_the_weights(offload, bases, tmp_path):
    if offload == "auto":
        base = bases(device_map="auto", max_memory={MAIN: 40_000}, offload_folder=tmp_path)
    else:
        base = cpu_offload(bases(), DEVICE) if offload == "cpu" else disk_offload(bases(), tmp_path, DEVICE)
    model, whole = (excite(get_peft_model(each, make_config("idlora"))).eval() for each in (base, bases().to(DEVICE)))
    assert any(layer.base_layer.weight.is_meta for layer in model.adapted_layers().values())
    assert_same(logits(model, on_device()), logits(whole, on_device()))
    assert model.base_model.pivot_statistics().keys() == whole.base_model.pivot_statistics().keys()
    found, expected = gradients(model, on_device()), gradients(whole, on_device())
    for name, gradient in found.items():
        assert_same(gradient, expected[name])


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_a_base_offloaded_by_accelerate_itself_loads_an_adapter(low_cpu_mem_usage, bases, tmp_path):
    model = excite(get_peft_model(bases().to(DEVICE), make_config("idlora"))).eval()
    base = cpu_offload(bases(), DEVICE)
    loaded = PeftModel.from_pretrained(base, save(model, tmp_path), low_cpu_mem_usage=low_cpu_mem_usage)
    assert_same(logits(loaded, on_device()), logits(model, on_device()))
    with pytest.raises(BaseMismatchError):
        PeftModel.from_pretrained(cpu_offload(bases(seed=1), DEVICE), str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": "all"},
        {"bias": "lora_only"},
        *({"modules_to_save": [name], "target_modules": ["q_proj"]} for name in ("up_proj", "mlp.up_proj", "mlp")),
    ],
)
def test_what_is_offloaded_cannot_train(settings, bases):
    with pytest.raises(ValueError, match=r"layers\.[01]\.[a-z_.]+_proj .*is offloaded"):
        get_peft_model(bases(device_map=PLACES), make_config("idlora", **settings))
