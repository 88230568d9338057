"""PEFT's behaviours in use: which layers are adapted, generation, training, and what is refused with the reason."""

import pytest
import torch
from peft import PeftModel, convert_to_lora, get_peft_model, prepare_model_for_kbit_training
from peft.helpers import disable_input_dtype_casting, rescale_adapter_scale
from peft.utils.hotswap import hotswap_adapter
from small_models import (
    KINDS,
    OURS,
    differ,
    outputs,
    run,
    small_adapted,
    small_base,
    small_config,
    tokens,
    training,
)
from torch import nn
from tuner_models import excite, save, trainable

pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.filterwarnings("ignore:Converting a PEFT adapter to LoRA that is already"),
]

TARGETS = {
    "the default of the architecture": {"target_modules": None},
    "all linear layers": {"target_modules": "all-linear"},
    "a regular expression": {"target_modules": r".*(attn|mlp)\.(c_)?(q_proj|down_proj|proj|attn)"},
    "one that the insides of an adapter match": {"target_modules": r".*(down_proj|c_fc).*"},
    "whole names": {"target_modules": ["model.layers.0.self_attn.q_proj", "transformer.h.0.mlp.c_fc"]},
    "excluded names": {"target_modules": "all-linear", "exclude_modules": ["q_proj", "c_fc"]},
    "excluded by an expression": {"target_modules": "all-linear", "exclude_modules": r".*mlp.*"},
    "one layer of two": {"layers_to_transform": 1, "layers_pattern": ["layers", "h"]},
    "layers without a pattern": {"layers_to_transform": [0]},
}


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_layers_and_the_config_are_those_of_lora(our_method, kind, targets):
    shape = {"num_hidden_layers": 2} if kind == "llama" else {"n_layer": 2}
    found = []
    for variant in (our_method, "lora"):
        model = get_peft_model(small_base(kind, **shape), small_config(variant, kind, **TARGETS[targets]))
        found.append((model.base_model.targeted_module_names, model.peft_config["default"].target_modules))
        model.add_adapter("second", small_config(variant, kind, **TARGETS[targets]))
        found[-1] += (model.base_model.targeted_module_names,)
    assert found[0] == found[1]
    assert found[0][0]


@pytest.mark.parametrize("kind", ["perceptron", "tagger"])
def test_all_linear_is_all_linear_of_a_model_of_one_s_own(our_method, kind):
    model = get_peft_model(small_base(kind), small_config(our_method, kind, target_modules="all-linear"))
    assert set(model.base_model.targeted_module_names) == set(KINDS[kind].targets)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["nowhere"]}, r"Target modules \{'nowhere'\} not found in the base model"),
        ({"target_modules": "nowhere"}, "Target modules nowhere not found in the base model"),
        ({"layers_to_transform": [7]}, r"not found in the base model.* 'layers_to_transform': \[7\]"),
        ({"exclude_modules": ["k_proj", "o_proj", "down_proj"]}, "No modules were targeted"),
    ],
)
def test_targets_that_are_not_there_are_named(ours_or_lora, settings, message):
    base = small_base()
    with pytest.raises(ValueError, match=message):
        get_peft_model(base, small_config(ours_or_lora, **settings))
    assert base.state_dict().keys() == small_base().state_dict().keys()


@pytest.mark.parametrize(
    "setting",
    ["use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_parameters", "trainable_token_indices",
     "init_lora_weights", "fan_in_fan_out", "layer_replication", "ensure_weight_tying"],
)  # fmt: skip
def test_settings_that_lora_alone_has_are_refused_by_name(our_method, setting):
    assert hasattr(small_config("lora"), setting)
    with pytest.raises(TypeError, match=setting):
        small_config(our_method, **{setting: None})


def test_a_model_of_one_s_own_has_no_default_targets(ours_or_lora):
    with pytest.raises(ValueError, match="specify `target_modules`"):
        get_peft_model(small_base("perceptron"), small_config(ours_or_lora, "perceptron", target_modules=None))


def test_exclusions_without_an_effect_are_remarked_upon(ours_or_lora):
    with pytest.warns(UserWarning, match="no modules were excluded"):
        get_peft_model(small_base(), small_config(ours_or_lora, exclude_modules=["nowhere"]))


class Others(nn.Module):
    """Layers that hold weights and are no linear layers."""

    def __init__(self):
        super().__init__()
        self.good, self.words, self.norm = nn.Linear(8, 8), nn.Embedding(8, 8), nn.LayerNorm(8)
        self.conv, self.attention = nn.Conv1d(8, 8, 1), nn.MultiheadAttention(8, 2)


@pytest.mark.parametrize("target", ["words", "norm", "conv", "attention"])
def test_layers_that_are_not_linear_are_refused_by_name_before_anything_changes(our_method, target):
    base, kept = Others(), Others().state_dict().keys()
    with pytest.raises(ValueError, match=f"^{target} is a .*; only linear layers can be adapted: exclude it$"):
        get_peft_model(base, small_config(our_method, "perceptron", target_modules=["good", target]))
    assert base.state_dict().keys() == kept
    assert all(parameter.requires_grad for parameter in base.parameters())


@pytest.mark.parametrize("settings", [{"modules_to_save": ["embed_tokens"]}, {"target_modules": ["k_proj", "lm_head"]}])
def test_tied_embeddings_in_an_adapter_are_remarked_upon(ours_or_lora, settings):
    with pytest.warns(UserWarning, match="tie_word_embeddings=True"):
        model = get_peft_model(small_base(tie_word_embeddings=True), small_config(ours_or_lora, **settings))
    assert torch.equal(outputs(model.eval()), outputs(small_base(tie_word_embeddings=True)))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generation_follows_the_adapter(variant, kind):
    model, ids = excite(small_adapted(variant, kind), size=1.0), tokens()
    greedy = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy)
    expected = ids
    for _ in range(3):
        with torch.no_grad():
            expected = torch.cat([expected, model(input_ids=expected).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(written, expected)
    assert torch.equal(model.generate(ids, **greedy), expected)
    beams = model.generate(input_ids=ids, num_beams=2, **greedy)
    assert beams.shape == expected.shape
    with model.disable_adapter():
        plain = model.generate(input_ids=ids, **greedy)
    assert torch.equal(plain, small_base(kind).generate(input_ids=ids, **greedy))
    assert not torch.equal(plain, expected)
    low = small_adapted(variant, kind, base=small_base(kind).bfloat16())
    padded = torch.tensor([[1] * 6, [0] * 2 + [1] * 4])
    assert low.generate(input_ids=ids, attention_mask=padded, **greedy).shape == expected.shape


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_embedded_inputs_are_taken_in_place_of_tokens(ours_or_lora, kind):
    model = small_adapted(ours_or_lora, kind)
    with torch.no_grad():
        found = model(inputs_embeds=model.get_input_embeddings()(tokens())).logits
    assert torch.equal(found, outputs(model, kind))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_checkpointing_after_the_base_was_prepared_gives_the_same_gradients(variant, kind):
    def gradients(base):
        model = small_adapted(variant, kind, base=base).train()
        run(model, kind).square().sum().backward()
        return {name: parameter.grad for name, parameter in trainable(model).items()}

    expected = gradients(small_base(kind))
    found = gradients(prepare_model_for_kbit_training(small_base(kind)))
    assert found.keys() == expected.keys() != set()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_inputs_are_cast_to_the_adapter_s_precision_unless_that_is_switched_off(ours_or_lora):
    model = small_adapted(ours_or_lora)
    expected = outputs(model)
    with disable_input_dtype_casting(model):
        assert torch.equal(outputs(model), expected)
    low = small_adapted(ours_or_lora, base=small_base().bfloat16())
    with disable_input_dtype_casting(low), pytest.raises(RuntimeError, match="dtype"):
        outputs(low)
    assert outputs(low).dtype == torch.bfloat16


def test_training_lowers_the_loss_and_touches_nothing_else(variant, kind):
    model = small_adapted(variant, kind).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moving, goal = trainable(model), outputs(small_base(kind, seed=1), kind)
    optimizer, losses = torch.optim.AdamW(moving.values(), lr=1e-2), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (run(model, kind) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in moving), name


# What does not apply. LoRA does all of it, so each use is one that PEFT allows.


def swap(model, tmp_path):
    hotswap_adapter(model, save(model, tmp_path), "default")


def rescale(model, tmp_path):
    with rescale_adapter_scale(model, 0.5):
        pass


NO_MERGING, ONE_AT_A_TIME = (
    (NotImplementedError, "router mixes the update anew for every token"),
    (ValueError, "runs one"),
)
REFUSED = {
    "merge": (lambda model, _: model.merge_adapter(), *NO_MERGING),
    "merge some": (lambda model, _: model.merge_adapter(adapter_names=["default", "second"]), *NO_MERGING),
    "merge safely": (lambda model, _: model.merge_adapter(safe_merge=True), *NO_MERGING),
    "merge and unload": (lambda model, _: model.merge_and_unload(safe_merge=True), *NO_MERGING),
    "unmerge": (lambda model, _: model.unmerge_adapter(), *NO_MERGING),
    "weighted sum": (
        lambda model, _: model.add_weighted_adapter(["default", "second"], [0.5, 0.5], "both"),
        NotImplementedError, "cannot combine adapters into one: each has a router of its own",
    ),
    "mixed batch": (lambda model, _: outputs(model, adapter_names=["default", "__base__"]), *ONE_AT_A_TIME),
    "mixed generation": (
        lambda model, _: model.generate(input_ids=tokens(), max_new_tokens=1, adapter_names=["default", "__base__"]),
        *ONE_AT_A_TIME,
    ),
    "hotswap": (swap, ValueError, "Hotswapping only supports LORA"),
    "rescale": (rescale, ValueError, "only supported for models with `LoraLayer`s"),
    "conversion to LoRA": (lambda model, _: convert_to_lora(model, rank=2), TypeError, "do not support LoRA"),
    "mixed methods": (
        lambda model, _: get_peft_model(small_base(), model.peft_config["default"], mixed=True),
        ValueError, "is not compatible with the `PeftMixedModel`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", REFUSED)
@pytest.mark.filterwarnings("ignore:Already unmerged")
def test_what_no_router_can_do_is_refused_with_the_reason_and_leaves_the_model_as_it_was(ours_or_lora, use, tmp_path):
    act, error, reason = REFUSED[use]
    settings = {"modules_to_save": ["embed_tokens"]} if ours_or_lora in OURS else {}  # LoRA cannot sum those
    model = small_adapted(ours_or_lora, **settings)
    model.add_adapter("second", small_config(ours_or_lora, **settings))
    expected, before = outputs(model), set(model.state_dict())
    if ours_or_lora == "lora":
        act(model, tmp_path)
        return
    with pytest.raises(error, match=reason):
        act(model, tmp_path)
    assert torch.equal(outputs(model), expected)
    assert set(model.state_dict()) == before
    assert list(model.peft_config) == ["default", "second"]
    with model.disable_adapter():
        assert torch.equal(outputs(model), outputs(small_base()))


@pytest.mark.parametrize("use", ["merge safely", "merge and unload"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_adapter_with_nan_never_reaches_the_base(ours_or_lora, use, dtype, tmp_path):
    model = small_adapted(ours_or_lora, base=small_base().to(dtype))
    for parameter in trainable(model).values():
        parameter.data.fill_(torch.nan)
    refusal = "NaNs detected|anew for every token"
    with pytest.raises((ValueError, NotImplementedError), match=refusal):
        REFUSED[use][0](model, tmp_path)
    with model.disable_adapter():
        assert torch.equal(outputs(model), outputs(small_base().to(dtype)))


def test_what_lora_merges_it_unmerges_and_ours_stay_beside_the_base(ours_or_lora):
    model = small_adapted(ours_or_lora)
    expected = outputs(model)
    assert model.supports_lora_conversion() == (ours_or_lora == "lora")
    if ours_or_lora == "lora":
        model.merge_adapter()
        torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-4)
        model.unmerge_adapter()
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-4)
    assert model.get_model_status().merged_adapters == []


def test_an_adapter_of_another_method_below_is_refused_by_name(our_method):
    base = small_base()
    base.add_adapter(small_config("lora"), "first")
    with pytest.raises(ValueError, match=r"k_proj already carries an adapter of another kind, Linear: unload it"):
        base.add_adapter(small_config(our_method), "second")
    assert list(base.peft_config) == ["first"]


@pytest.mark.filterwarnings("ignore:Adapter .* was active which is now deleted")
def test_transformers_own_calls_add_switch_and_delete_as_well(ours_or_lora, tmp_path):
    expected = outputs(small_adapted(ours_or_lora))
    folder = save(small_adapted(ours_or_lora), tmp_path / "peft")
    base = small_base()
    base.load_adapter(folder, adapter_name="loaded")
    assert torch.equal(outputs(base), expected)
    base.add_adapter(small_config(ours_or_lora), "added")
    assert base.active_adapters() == ["added"]
    assert torch.equal(outputs(base), outputs(small_base()))
    base.set_adapter("loaded")
    assert torch.equal(outputs(base), expected)
    base.save_pretrained(str(tmp_path / "native"))
    assert torch.equal(outputs(PeftModel.from_pretrained(small_base(), str(tmp_path / "native"))), expected)
    base.disable_adapters()
    assert torch.equal(outputs(base), outputs(small_base()))
    base.enable_adapters()
    base.delete_adapter("loaded")
    assert base.active_adapters() == ["added"]
    base.delete_adapter("added")
    with pytest.raises(ValueError, match="No adapter loaded"):
        base.active_adapters()


def test_an_adapter_survives_a_change_of_precision_and_device_calls(variant, tmp_path):
    model = small_adapted(variant)
    expected = outputs(model)
    model.double().to("cpu")
    torch.testing.assert_close(outputs(model).float(), expected)
    folder = save(model, tmp_path)
    loaded = PeftModel.from_pretrained(small_base().double(), folder)
    torch.testing.assert_close(outputs(loaded), outputs(model))
    assert training(excite(model)) == {"default"}
    assert differ(outputs(model), outputs(loaded))
