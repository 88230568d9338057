"""What ID-LoRA promises beyond the contract of every method: pivots, counts, no copy of A."""

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM
from tuner_models import excite, logits, make_adapted, make_base, make_batch, make_config, save, trainable

from idlora import IdLoraConfig, select_pivots
from idlora.tuners import UnsetPivotsError
from idlora.tuners.idlora import clustering

UP = "model.layers.0.mlp.up_proj"


def layer_of(model, name=UP):
    return model.get_submodule(f"base_model.model.{name}")


@pytest.fixture
def clusterings(monkeypatch, tmp_path):
    """One entry per weight clustered; none is known from earlier ones."""
    done, real = [], clustering.cluster_rows
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        clustering, "cluster_rows", lambda ws, *args, **more: done.extend(ws) or real(ws, *args, **more)
    )
    return done


# Pivots


@pytest.mark.parametrize("selection", ["pmrc", "serial", "random"])
def test_the_pivots_are_those_selected_from_the_weight(selection):
    model = make_adapted("idlora", selection=selection, seed=0)
    for name, layer in model.pivot_layers("default").items():
        weight = make_base().get_submodule(name).weight
        assert torch.equal(layer.idlora_pivots["default"], select_pivots(weight, 4, 4, method=selection))
    assert len(model.pivot_layers("default")) == 14


def test_the_config_s_seed_chooses_the_pivots_and_torch_s_seed_does_not():
    def pivots(seed, torch_seed):
        model = make_adapted("idlora", adapter_seed=torch_seed, base=make_base(), selection="random")
        model.add_adapter("seeded", make_config("idlora", selection="random", seed=seed))
        return layer_of(model).idlora_pivots["seeded"]

    assert torch.equal(pivots(3, 0), pivots(3, 1))
    assert not torch.equal(pivots(3, 0), pivots(4, 0))


def test_a_second_adapter_on_the_same_base_does_not_cluster_again(clusterings):
    first = make_adapted("idlora")
    assert len(clusterings) == 14
    assert first.pivot_seconds > 0
    second = make_adapted("idlora")
    first.add_adapter("second", make_config("idlora"))
    assert len(clusterings) == 14
    assert second.pivot_seconds == first.pivot_seconds / 2  # the first's second adapter counts again
    expected = layer_of(first).idlora_pivots["default"]
    assert torch.equal(layer_of(second).idlora_pivots["default"], expected)
    assert torch.equal(layer_of(first).idlora_pivots["second"], expected)


def test_loading_never_clusters(clusterings, tmp_path, monkeypatch):
    model = excite(make_adapted("idlora"))
    folder = save(model, tmp_path)
    clusterings.clear()
    monkeypatch.setenv("IDLORA_CACHE", "")
    loaded = PeftModel.from_pretrained(make_base(), folder)
    loaded.load_adapter(folder, "second")
    make_base().load_adapter(folder)
    assert clusterings == []
    assert loaded.pivot_seconds == 0
    assert torch.equal(logits(loaded), logits(model))


def test_a_new_adapter_from_a_saved_adapter_s_config_raises_rather_than_runs_on_rows_nobody_chose(tmp_path):
    folder = save(make_adapted("idlora"), tmp_path)
    config = PeftConfig.from_pretrained(folder)
    model = get_peft_model(make_base(), config)
    with pytest.raises(UnsetPivotsError, match="init_weights=True"):
        logits(model)
    with pytest.raises(UnsetPivotsError, match="cannot save the adapter 'default'"):
        model.save_pretrained(str(tmp_path / "again"))
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_base()))
    config.init_weights = True
    assert logits(get_peft_model(make_base(), config)).isfinite().all()


def test_a_config_that_was_never_put_on_a_model_selects_after_a_round_trip_too(tmp_path):
    make_config("idlora").save_pretrained(str(tmp_path))
    assert logits(get_peft_model(make_base(), PeftConfig.from_pretrained(str(tmp_path)))).isfinite().all()


def test_pivots_outside_the_weight_are_refused():
    model = make_adapted("idlora", target_modules=[UP])
    layer_of(model).idlora_pivots["default"] = torch.full((4, 4), 64, dtype=torch.int32)
    with pytest.raises(ValueError, match="pivot 64 is not among the 64 rows"):
        logits(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 8}, r"self_attn\.k_proj has 24 rows, too few for num_clusters=4 times r=8 = 32 pivots"),
        ({"r": 5, "rank_boost": 5, "num_clusters": 2}, r"q_proj has 48 rows, which rank_boost=5 does not divide"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_the_module_before_anything_changes(settings, message):
    base = make_base()
    with pytest.raises(ValueError, match=message):
        get_peft_model(base, make_config("idlora", **settings))
    assert base.state_dict().keys() == make_base().state_dict().keys()
    assert all(parameter.requires_grad for parameter in base.parameters())


def test_a_weight_that_is_not_finite_is_named():
    base = make_base()
    base.get_submodule(UP).weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"no pivots for model\.layers\.0\.mlp\.up_proj: 1 of the weight's entries"):
        get_peft_model(base, make_config("idlora"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 5}, "r must be a multiple of rank_boost: r=5, rank_boost=2"),
        ({"num_clusters": 0}, "num_clusters must be a positive integer, not 0"),
        ({"router": "sparse"}, "router must be one of 'dense', 'inner_product', 'uniform', not 'sparse'"),
        ({"selection": "best"}, "selection must be one of 'pmrc', .*, 'largest_norm', not 'best'"),
        ({"bases": "ones"}, "bases must be one of 'rows', 'gaussian', 'orthonormal', 'equal_norm', not 'ones'"),
        ({"dropout_position": "output"}, "dropout_position must be one of 'bottleneck', 'input', not 'output'"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_settings_of_its_own_are_checked_too(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config("idlora", **settings)


# Sizes


def llama3_8b():
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("idlora", {"r": 128}, 49_020_928),
        ("idlora", {"r": 128, "router": "inner_product"}, 44_068_864),
        ("idlora", {"r": 16}, 10_485_760),
        ("hydralora", {"r": 16}, 89_718_784),
    ],
)
def test_the_counts_at_the_paper_s_scale_come_from_the_meta_device(method, settings, expected, tmp_path):
    model = get_peft_model(llama3_8b(), make_config(method, lora_alpha=2 * settings["r"], **settings))
    trained, total = model.get_nb_trainable_parameters()
    assert trained == expected
    assert total - trained == 8_030_261_248
    if method == "idlora" and settings["r"] == 128 and "router" not in settings:
        assert round(100 * trained / (total + model.frozen_copy_count()), 2) == 0.56
        with pytest.raises(UnsetPivotsError):
            model.save_pretrained(str(tmp_path))


def test_an_adapter_on_the_meta_device_cannot_run():
    with torch.device("meta"):
        base = LlamaForCausalLM(make_base().config)
    model = get_peft_model(base, make_config("idlora"))
    with pytest.raises(UnsetPivotsError, match="meta device"):
        layer_of(model)(torch.empty(2, 48, device="meta"))


def test_no_copy_of_a_exists_in_the_adapter_or_in_the_graph(tmp_path):
    model = make_adapted("idlora", selection="serial").train()
    tensors = get_peft_model_state_dict(model)
    shapes = {tuple(layer.idlora_pivots["default"].shape) for layer in model.pivot_layers("default").values()}
    assert shapes == {(4, 4)}
    assert sum(t.numel() for t in tensors.values()) == model.get_nb_trainable_parameters()[0] + 14 * 16
    saved = []

    def keep(tensor):
        saved.append(tuple(tensor.shape))
        return tensor

    layer, h = layer_of(model), torch.randn(5, 48, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(h)
    assert saved
    assert not any(shape in {(16, 48), (4, 4, 48), (48, 16)} for shape in saved)


def test_the_copies_that_the_paper_counts_are_counted_for_the_active_adapter():
    model = make_adapted("idlora")
    inputs = sum(layer.in_features for layer in model.pivot_layers("default").values())
    assert model.frozen_copy_count() == 16 * inputs
    model.add_adapter("second", make_config("idlora", r=2, num_clusters=2, target_modules=["q_proj"]))
    assert model.frozen_copy_count() == 16 * inputs
    model.set_adapter("second")
    assert model.frozen_copy_count() == 2 * 2 * 2 * 48
    assert model.pivot_shares("second") == {f"model.layers.{i}.self_attn.q_proj": 4 / 48 for i in range(2)}


# Routers


def test_the_dense_router_starts_even_and_the_inner_product_starts_away_from_zero():
    dense = layer_of(make_adapted("idlora")).idlora_router["default"]
    inner = layer_of(make_adapted("idlora", router="inner_product")).idlora_router["default"]
    assert torch.equal(dense, torch.zeros(4, 48))
    assert inner.shape == (4,)
    assert 0 < inner.abs().max() <= 0.5


@pytest.mark.parametrize("router", ["dense", "inner_product"])
@pytest.mark.parametrize("rank_boost", [1, 2, 4])
def test_every_variant_trains_router_and_b(router, rank_boost):
    model = make_adapted("idlora", router=router, rank_boost=rank_boost).train()
    before = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(input_ids=make_batch(), labels=make_batch()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not torch.equal(parameter, before[name]) for name, parameter in trainable(model).items())


def test_it_takes_the_place_of_a_lora_config():
    config = IdLoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], bias="none", task_type="CAUSAL_LM"
    )
    assert config.num_clusters == 4
    assert (config.rank_boost, config.router, config.selection) == (2, "dense", "pmrc")
    assert config.target_modules == {"q_proj", "v_proj"}
