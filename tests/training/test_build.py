"""Construction of models and data from specs: initialisation, loading, freezing, data splits, and errors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from byte_tokenizer import byte_tokenizer
from cells import METHODS, logits, peft_method, run, saved_weights, schedule
from transformers import LlamaForCausalLM

from reproduction.data import load_rows
from reproduction.data.splits import is_held_out
from reproduction.training import (
    DataSpec,
    MethodSpec,
    ModelSpec,
    UnfitBase,
    base_checksum,
    base_identity,
    build_adapted,
    build_base,
    build_data,
    count_parameters,
    load_finished,
)

NONE = MethodSpec(name="base", label="base", kind="none")


def test_only_what_a_method_declares_requires_gradients(base):
    def trained(method):
        model = build_adapted(build_base(base)[0], method, 0)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert trained(NONE) == set()
    assert trained(METHODS["full"]) == {name for name, _ in build_base(base)[0].named_parameters()}
    assert trained(METHODS["lora"])
    assert all("lora_A" in name or "lora_B" in name for name in trained(METHODS["lora"]))


def test_new_weights_follow_the_seed_alone(base):
    def weights(seed, draws_before):
        model, _ = build_base(base)
        torch.rand(draws_before)
        return build_adapted(model, METHODS["lora"], seed).state_dict()

    first, again, other = weights(0, 0), weights(0, 7), weights(1, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_random_weights_are_a_base_of_their_own_and_always_the_same(base, tokenized, tmp_path):
    spec = replace(base, init="random")
    torch.manual_seed(1)
    first = logits(build_base(spec)[0])
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(logits(build_base(spec)[0]), first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn), "building the base moved the caller's generator"
    assert not torch.equal(logits(build_base(base)[0]), first)
    assert base_identity(spec) != base_identity(base)
    shape = json.loads((Path(base.path_or_id) / "config.json").read_text())
    sizes = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    shaped = replace(spec, path_or_id="hub/id", tokenizer=base.path_or_id, shape={size: shape[size] for size in sizes})
    trained, _ = run(tmp_path, shaped, METHODS["full"], tokenized, schedule(max_steps=1))
    assert torch.equal(logits(load_finished(tmp_path, shaped, METHODS["full"])[0]), logits(trained))
    with pytest.raises(UnfitBase, match="poem"):
        build_base(replace(shaped, shape={**shaped.shape, "poem": 1}))


def test_a_base_comes_in_the_dtype_asked_for_and_pads_with_its_end_token(base, tmp_path):
    build_base(base)[0].save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    model, tokenizer = build_base(replace(base, path_or_id=str(tmp_path), dtype="bfloat16"))
    assert tokenizer.pad_token == "</s>"
    dtypes = {p.requires_grad: p.dtype for p in build_adapted(model, METHODS["lora"], 0).parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


@pytest.mark.parametrize(("path_or_id", "init"), [("/no/folder", "pretrained"), ("idlora-tests/not-there", "random")])
def test_a_base_that_cannot_be_loaded_is_named(path_or_id, init):
    with pytest.raises(UnfitBase, match=path_or_id):
        build_base(ModelSpec(name="gone", label="Gone", path_or_id=path_or_id, init=init))


def test_what_a_method_freezes_stays_as_it_was_drawn_and_is_saved_with_the_rest(base, tokenized, tmp_path):
    method = METHODS["lora_fa"]
    assert method.frozen == ("lora_A",)
    drawn = dict(build_adapted(build_base(base)[0], replace(method, frozen=()), 0).named_parameters())
    model, resources = run(tmp_path, base, method, tokenized, schedule())
    trained = {name for name, parameter in drawn.items() if parameter.requires_grad and "lora_A" not in name}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, drawn[name]) == (name not in trained), name
    assert resources.parameters_trainable == sum(drawn[name].numel() for name in trained)
    assert sum("lora_A" in name for name in saved_weights(tmp_path)) == len(trained)


def test_long_rows_start_with_the_mean_norm_of_the_weights_rows_and_their_own_directions(base):
    plain, long = (
        build_adapted(build_base(base)[0], peft_method("lora", "LORA", r=4, long_rows=patterns), 0)
        for patterns in ((), ("q_proj.*lora_A",))
    )
    before, layers = dict(plain.named_parameters()), 0
    for name, parameter in long.named_parameters():
        if "q_proj" not in name or "lora_A" not in name:
            assert torch.equal(parameter, before[name]), name
            continue
        layers += 1
        weight = before[name.replace("lora_A.default", "base_layer")]
        torch.testing.assert_close(parameter.norm(dim=1), weight.norm(dim=1).mean().expand(4))
        torch.testing.assert_close(F.normalize(parameter, dim=1), F.normalize(before[name], dim=1))
    assert layers == plain.config.num_hidden_layers


@pytest.mark.parametrize(
    ("method", "offending"),
    [
        (peft_method("x", "LORAA"), "'LORAA'.*IDLORA"),
        (peft_method("x", "LORA", rankk=4), "rankk"),
        (peft_method("x", "LORA", long_rows=("lora_C",)), "'lora_C'"),
        (peft_method("x", "LORA", long_rows=("k_proj.*lora_B",)), r"k_proj\.lora_B"),
        (peft_method("x", "LORA", frozen=("lora_A", "lora_C")), "'lora_C'"),
        (peft_method("x", "LORA", frozen=("lora_A", "lora_B")), "leaves nothing to train"),
        (peft_method("x", "LORA", rank_pattern={"q_proj": 2, "r_proj": 2}), r"\['r_proj'\]"),
        (peft_method("x", "MOELORA", alpha_pattern={"r_proj": 2}), r"\['r_proj'\]"),
    ],
)
def test_a_method_that_does_not_fit_is_refused(base, method, offending):
    with pytest.raises(ValueError, match=offending):
        build_adapted(build_base(base)[0], method, 0)


def test_a_model_on_the_meta_device_is_adapted_and_counted_like_one_with_weights(base):
    config = build_base(base)[0].config
    for method in (method for method in METHODS.values() if method.kind == "peft"):
        with torch.device("meta"):
            hollow = LlamaForCausalLM(config)
        found = build_adapted(hollow, method, 0)
        assert {parameter.device.type for parameter in found.parameters()} == {"meta"}
        assert count_parameters(found) == count_parameters(build_adapted(build_base(base)[0], method, 0))
        assert bool(count_parameters(found)["frozen_copies"]) == (method.peft_type == "IDLORA")


def test_the_identity_of_a_base_is_its_checksum_or_the_hub_s_revision(base, other_base, tmp_path):
    assert base_identity(base) == base_checksum(base.path_or_id) != base_checksum(other_base.path_or_id)
    assert base_identity(replace(base, checksum="abc")) == "abc"
    assert base_identity(ModelSpec(name="m", label="m", path_or_id="some/id")) == "some/id@main"
    build_base(base)[0].save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert len(base_checksum(tmp_path)) == 64
    with pytest.raises(UnfitBase, match=r"No \.safetensors file"):
        base_checksum(tmp_path / "none")


def test_neither_held_out_nor_validation_rows_are_trained_on_and_they_do_not_move_with_the_limit(tokenizer, tmp_path):
    (tmp_path / "gsm8k").mkdir()
    lines = [json.dumps({"question": f"{n}+1?", "answer": f"#### {n + 1}"}) for n in range(40)]
    (tmp_path / "gsm8k" / "train.jsonl").write_text("\n".join(lines))

    def built(**changes):
        return build_data(DataSpec(name="gsm8k", max_length=256, **changes), tokenizer, root=tmp_path)

    everything, none = built()
    assert (len(everything), none) == (40, None)
    training, apart = built(validation_rows=10)
    assert (len(training), len(apart)) == (30, 10)
    assert not set(training.ids) & set(apart.ids)
    limited, same = built(validation_rows=10, limit=5)
    assert (len(limited), same.ids) == (5, apart.ids)
    assert not set(limited.ids) & set(apart.ids)
    held = {row["id"] for row in load_rows("gsm8k", "train", root=tmp_path) if is_held_out((row["question"], ""), 0.3)}
    less, other = built(held_out=0.3, validation_rows=10)
    assert len(other) == 10
    assert set(less.ids) | set(other.ids) == set(everything.ids) - held < set(everything.ids)


@pytest.mark.parametrize(
    ("make", "offending"),
    [
        (lambda: ModelSpec(name="m", label="m", path_or_id="m", dtype="int8"), r"model\.dtype is 'int8'"),
        (lambda: ModelSpec(name="m", label="m", path_or_id="m", tokenizer="t"), r"model\.tokenizer is 't'"),
        (lambda: MethodSpec(name="m", label="m", kind="half"), r"method\.kind is 'half'"),
        (lambda: MethodSpec(name="m", label="m", kind="peft"), r"method\.peft_type is None"),
        (lambda: MethodSpec(name="m", label="m", kind="full", peft_type="LORA"), r"method\.peft_type is 'LORA'"),
        (lambda: MethodSpec(name="m", label="m", kind="full", frozen=("x",)), r"method\.frozen is \['x'\]"),
        (lambda: peft_method("x", "LORA", long_rows=("(",)), r"method\.long_rows has '\('"),
        (lambda: DataSpec(name="d", max_length=1), r"data\.max_length is 1"),
        (lambda: DataSpec(name="d", max_length=9, held_out=1.0), r"data\.held_out is 1\.0"),
        (lambda: DataSpec(name="d", max_length=9, template={"name": "t"}), r"data\.template has \['name'\]"),
        (lambda: DataSpec(name="d", max_length=9, parts={"a": 2, "b": 3}), r"data\.parts\.a is 2"),
        (lambda: schedule(epochs=0), r"train\.epochs is 0"),
        (lambda: schedule(learning_rate=float("nan")), r"train\.learning_rate is nan"),
        (lambda: schedule(micro_batch_size=0), r"train\.micro_batch_size is 0"),
        (lambda: schedule(micro_batch_size="max"), r"train\.micro_batch_size is 'max'"),
        (lambda: schedule(gradient_checkpointing="on"), r"train\.gradient_checkpointing is 'on'"),
        (lambda: schedule(weight_decay=float("nan")), r"train\.weight_decay is nan"),
    ],
)
def test_a_spec_refuses_what_cannot_be_run(make, offending):
    with pytest.raises(ValueError, match=offending):
        make()
