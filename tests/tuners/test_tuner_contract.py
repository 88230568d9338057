"""What every method owes its users: the registry's methods and PEFT's own baselines alike."""

import copy
import pickle

import pytest
import torch
from peft import PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from tuner_models import (
    OURS,
    TARGETS,
    excite,
    logits,
    make_adapted,
    make_base,
    make_batch,
    make_config,
    save,
    trainable,
)

from idlora.tuners import REGISTRY

pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated"),
]


def loss_of(model, batch):
    return model(input_ids=batch, labels=batch).loss


def gradients(model, batch):
    model.zero_grad()
    loss_of(model, batch).backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def assert_close(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(method):
    model = make_adapted(method)
    before = logits(make_base())
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0 if method in OURS else 1e-4)
    assert (logits(excite(model)) - before).abs().max() > 1e-2


def test_training_moves_every_declared_parameter_and_nothing_else(method):
    model = make_adapted(method).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moving = trainable(model)
    assert all(REGISTRY[method].model_cls.prefix in name for name in moving) if method in OURS else moving
    optimizer = torch.optim.AdamW(moving.values(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, make_batch(seed=step)).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in moving), name


CLOSED_FORMS = {
    "idlora": lambda r, rows, columns: rows * r // 4 + 4 * columns,
    "hydralora": lambda r, rows, columns: r * columns + 3 * rows * r + 3 * columns,
    "moelora": lambda r, rows, columns: 4 * r * (rows + columns) + 4 * columns,
    "lora": lambda r, rows, columns: r * (rows + columns),
    "dora": lambda r, rows, columns: r * (rows + columns) + rows,
}


def test_the_number_of_parameters_is_the_closed_form(method):
    model = make_adapted(method)
    linears = [m for name, m in make_base().named_modules() if name.rpartition(".")[2] in TARGETS]
    expected = sum(CLOSED_FORMS[method](4, layer.out_features, layer.in_features) for layer in linears)
    assert len(linears) == 14
    assert model.get_nb_trainable_parameters()[0] == expected


def test_integers_stay_integers_on_disk_and_on_the_way_back(method, tmp_path):
    model = excite(make_adapted(method))
    expected = {k: v for k, v in get_peft_model_state_dict(model).items() if not v.is_floating_point()}
    assert bool(expected) == (method == "idlora")
    on_disk = load_file(f"{save(model, tmp_path)}/adapter_model.safetensors")
    loaded = PeftModel.from_pretrained(make_base(), str(tmp_path)).half().float()
    back = get_peft_model_state_dict(loaded)
    for name, tensor in expected.items():
        assert on_disk[name].dtype == back[name].dtype == tensor.dtype == torch.int32
        assert torch.equal(on_disk[name], tensor)
        assert torch.equal(back[name], tensor)


def test_a_half_precision_base_gets_a_float32_adapter(method, tmp_path):
    reference = excite(make_adapted(method), size=0.1)  # large updates would enlarge the rounding too
    folder = save(reference, tmp_path)
    for dtype in (torch.bfloat16, torch.float16):
        model = PeftModel.from_pretrained(make_base(dtype=dtype), folder, is_trainable=True)
        assert {parameter.dtype for parameter in trainable(model).values()} == {torch.float32}
        output = model(input_ids=make_batch()).logits
        assert output.dtype == dtype
        assert (output - logits(reference)).norm() / logits(reference).norm() < 0.1
        model.train()
        assert all(gradient.isfinite().all() for gradient in gradients(model, make_batch()).values())


def test_autocast_gives_nearly_the_same_logits(method):
    model = excite(make_adapted(method), size=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = logits(model)
    assert 0 < (lowered - logits(model)).norm() / logits(model).norm() < 0.1


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_equal_gradients(method, use_reentrant):
    model = excite(make_adapted(method, lora_dropout=0.3)).train()
    torch.manual_seed(0)
    expected = gradients(model, make_batch())
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    torch.manual_seed(0)
    assert_close(gradients(model, make_batch()), expected)


def test_four_micro_batches_accumulate_to_the_whole_batch(method):
    model = excite(make_adapted(method, base=make_base(dtype=torch.float64))).train()
    batch = make_batch(rows=4)
    expected = gradients(model, batch)
    model.zero_grad()
    for row in batch.split(1):
        (loss_of(model, row) / 4).backward()
    found = {name: parameter.grad.clone() for name, parameter in trainable(model).items()}
    assert_close(found, expected)
    name = min(found)
    assert not torch.allclose(expected[name], gradients(model, batch[:1])[name])


def test_biases_train_when_asked(our_method, tmp_path):
    model = make_adapted(our_method, bias="lora_only")
    assert {n.rpartition(".")[2] for n in trainable(model)} >= {"bias"}
    excite(model)
    loaded = PeftModel.from_pretrained(make_base(), save(model, tmp_path))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r must be a positive integer, not 0"),
        ({"r": 4.0}, r"r must be a positive integer, not 4\.0"),
        ({"lora_alpha": -1}, "lora_alpha must be positive, not -1"),
        ({"lora_dropout": 1.0}, r"lora_dropout must lie in \[0, 1\), not 1\.0"),
        ({"bias": "some"}, "bias must be one of .*, not 'some'"),
        ({"layers_pattern": "layers"}, "layers_pattern needs layers_to_transform"),
        ({"target_modules": ".*", "layers_to_transform": 1}, "layers_to_transform has no effect"),
    ],
)
def test_settings_out_of_range_are_named_with_their_value(our_method, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(our_method, **settings)


def test_a_registered_type_behaves_like_peft_s_own(our_method):
    peft_type = REGISTRY[our_method].peft_type
    assert peft_type in PeftType
    assert PeftType(our_method.upper()) is PeftType[our_method.upper()] is getattr(PeftType, our_method.upper())
    assert pickle.loads(pickle.dumps(peft_type)) is peft_type is copy.deepcopy(peft_type)
    assert peft_type.value == our_method.upper() == peft_type.name
    assert PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] is REGISTRY[our_method].config_cls
    assert make_config(our_method).peft_type is peft_type
