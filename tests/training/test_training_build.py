import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cells import METHODS, TARGETS, peft_method, run, saved_weights, schedule
from transformers import LlamaForCausalLM

from reproduction.data import load_rows
from reproduction.data.splits import is_held_out
from reproduction.training import (
    DataSpec,
    MethodSpec,
    ModelSpec,
    TrainSpec,
    UnfitAdapter,
    UnfitBase,
    WrongBase,
    base_checksum,
    base_identity,
    build_adapted,
    build_base,
    build_data,
    count_parameters,
    load_adapter,
    load_finished,
)

NONE = MethodSpec(name="base", label="base", kind="none")


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40)[None]).logits


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


def test_random_weights_are_a_base_of_their_own_and_always_the_same(base):
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


def test_a_base_comes_in_the_dtype_asked_for_and_adapter_weights_stay_float32(base):
    model = build_adapted(build_base(replace(base, dtype="bfloat16"))[0], METHODS["lora"], 0)
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_a_tokenizer_without_padding_pads_with_its_end_token(base, tmp_path):
    from byte_tokenizer import byte_tokenizer

    model, _ = build_base(base)
    model.save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert build_base(replace(base, path_or_id=str(tmp_path)))[1].pad_token == "</s>"


@pytest.mark.parametrize("path_or_id", ["/no/such/folder", "idlora-tests/not-there"])
@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_a_base_that_cannot_be_loaded_is_named_with_the_ways_out(path_or_id, init):
    spec = ModelSpec(name="gone", label="Gone", path_or_id=path_or_id, init=init)
    with pytest.raises(UnfitBase, match=rf"'gone' could not be loaded from '{path_or_id}' \(.*check the path"):
        build_base(spec)


def test_an_unknown_peft_method_is_refused_with_the_known_ones(base):
    with pytest.raises(ValueError, match=r"no method 'LORAA'.*IDLORA.*LORA"):
        build_adapted(build_base(base)[0], peft_method("x", "LORAA"), 0)


def test_an_argument_that_the_method_does_not_have_is_refused(base):
    with pytest.raises(ValueError, match=r"LoraConfig refuses .*rankk"):
        build_adapted(build_base(base)[0], peft_method("x", "LORA", rankk=4), 0)


def test_what_a_method_freezes_stays_as_it_was_drawn_and_is_saved_with_the_rest(base, tokenized, tmp_path):
    method = METHODS["lora_fa"]
    assert method.frozen == ("lora_A",)
    drawn = build_adapted(build_base(base)[0], replace(method, frozen=()), 0)
    model = build_adapted(build_base(base)[0], method, 0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {n for n, p in drawn.named_parameters() if p.requires_grad and "lora_A" not in n} != set()
    trained_model, resources = run(tmp_path, base, method, tokenized, schedule())
    before = dict(drawn.named_parameters())
    for name, parameter in trained_model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trained), name
    assert resources.parameters_trainable == sum(before[name].numel() for name in trained)
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
    ("pattern", "sentence"),
    [
        ("lora_C", r"method\.long_rows has 'lora_C', which finds none of the trained parameters"),
        ("k_proj.*lora_B", r"method\.long_rows finds .*k_proj\.lora_B.*, whose rows are none of a weight of shape"),
    ],
)
def test_long_rows_of_what_has_none_are_refused(base, pattern, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_adapted(build_base(base)[0], peft_method("x", "LORA", r=2, long_rows=(pattern,)), 0)


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        (("lora_A", "lora_C"), r"'lora_C', which finds none of the trained parameters: .*lora_A\.default\.weight"),
        (("embed_tokens",), "'embed_tokens', which finds none"),
        (("lora_A", "lora_B"), "leaves nothing to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(base, patterns, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_adapted(build_base(base)[0], peft_method("x", "LORA", r=2, frozen=patterns), 0)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "full"])
def test_a_model_on_the_meta_device_is_adapted_and_counted_like_one_with_weights(base, name):
    config = build_base(base)[0].config
    with torch.device("meta"):
        hollow = LlamaForCausalLM(config)
    found = build_adapted(hollow, METHODS[name], 0)
    assert {parameter.device.type for parameter in found.parameters()} == {"meta"}
    expected = build_adapted(build_base(base)[0], METHODS[name], 0)
    assert count_parameters(found) == count_parameters(expected)
    assert bool(count_parameters(found)["frozen_copies"]) == (METHODS[name].peft_type == "IDLORA")


def test_a_finished_run_loads_to_the_model_that_was_trained(base, method, tokenized, tmp_path):
    trained, _ = run(tmp_path, base, method, tokenized, schedule())
    assert not torch.equal(logits(trained), logits(build_base(base)[0])), "the training changed nothing"
    torch.manual_seed(99)
    loaded, tokenizer = load_finished(tmp_path, base, method)
    assert torch.equal(logits(loaded), logits(trained))
    assert not loaded.training
    assert tokenizer.pad_token_id == 0


def test_an_untuned_base_is_its_own_finished_run(base, tmp_path):
    assert torch.equal(logits(load_finished(tmp_path, base, NONE)[0]), logits(build_base(base)[0]))


def test_an_adapter_is_refused_on_another_base_before_anything_is_injected(
    base, other_base, method, tokenized, tmp_path
):
    if method.kind == "full":
        pytest.skip("a whole model needs no base")
    run(tmp_path, base, method, tokenized, schedule(max_steps=1))
    model, _ = build_base(other_base)
    modules = [name for name, _ in model.named_modules()]
    with pytest.raises(WrongBase, match=r"trained on small \(.*not on other \("):
        load_adapter(model, tmp_path / "adapter", other_base)
    assert [name for name, _ in model.named_modules()] == modules
    # The same weights under another name, in another folder and another dtype are the same base.
    moved = tmp_path / "moved"
    build_base(base)[0].save_pretrained(moved)
    build_base(base)[1].save_pretrained(moved)
    load_finished(tmp_path, replace(base, name="moved", path_or_id=str(moved), dtype="bfloat16"), method)


def test_a_run_that_saved_nothing_cannot_be_loaded(base, method, tmp_path):
    with pytest.raises(UnfitAdapter, match=rf"{tmp_path}/saved\.json .*No such file"):
        load_finished(tmp_path, base, method)


def test_the_checksum_is_of_the_weights_in_one_file_or_in_shards(base, other_base, tmp_path):
    assert base_checksum(base.path_or_id) == base_checksum(base.path_or_id) != base_checksum(other_base.path_or_id)
    model, _ = build_base(base)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert len(base_checksum(tmp_path)) == 64
    with pytest.raises(UnfitBase, match=r"No \.safetensors file"):
        base_checksum(tmp_path / "none")


def test_the_identity_is_the_given_checksum_the_folder_s_or_the_hub_s_revision(base):
    assert base_identity(base) == base_checksum(base.path_or_id)
    assert base_identity(replace(base, checksum="abc")) == "abc"
    assert base_identity(ModelSpec(name="m", label="m", path_or_id="some/id")) == "some/id@main"


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
    assert held
    assert set(built(held_out=0.3)[0].ids) == set(everything.ids) - held
    less, other = built(held_out=0.3, validation_rows=10)
    assert len(other) == 10
    assert not (set(less.ids) | set(other.ids)) & held


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ModelSpec(name="m", label="m", path_or_id="m", dtype="int8"), r"model\.dtype is 'int8'"),
        (lambda: ModelSpec(name="m", label="m", path_or_id="m", init="zeros"), r"model\.init is 'zeros'"),
        (lambda: MethodSpec(name="m", label="m", kind="half"), r"method\.kind is 'half'"),
        (lambda: MethodSpec(name="m", label="m", kind="peft"), r"method\.peft_type is None"),
        (lambda: MethodSpec(name="m", label="m", kind="full", peft_type="LORA"), r"method\.peft_type is 'LORA'"),
        (lambda: MethodSpec(name="m", label="m", kind="full", arguments={"r": 1}), r"method\.arguments is {'r': 1}"),
        (lambda: MethodSpec(name="m", label="m", kind="full", frozen=("x",)), r"method\.frozen is \['x'\]"),
        (lambda: peft_method("x", "LORA", frozen=("lora_(",)), r"'lora_\(', which is no regular expression"),
        (lambda: peft_method("x", "LORA", long_rows=("(",)), r"method\.long_rows has '\(', which is no regular"),
        (lambda: DataSpec(name="d", max_length=1), r"data\.max_length is 1"),
        (lambda: DataSpec(name="d", max_length=9, limit=0), r"data\.limit is 0"),
        (lambda: DataSpec(name="d", max_length=9, validation_rows=-1), r"data\.validation_rows is -1"),
        (lambda: DataSpec(name="d", max_length=9, held_out=1.0), r"data\.held_out is 1\.0"),
        (lambda: DataSpec(name="d", max_length=9, template={"name": "t"}), r"data\.template has \['name'\]"),
        (lambda: schedule(epochs=0), r"train\.epochs is 0"),
        (lambda: schedule(learning_rate=float("nan")), r"train\.learning_rate is nan"),
        (lambda: schedule(micro_batch_size=0), r"train\.micro_batch_size is 0"),
        (lambda: schedule(micro_batch_size="max"), r"train\.micro_batch_size is 'max': give a number of rows, or auto"),
        (lambda: schedule(gradient_checkpointing="on"), r"train\.gradient_checkpointing is 'on': give true, false or"),
        (lambda: schedule(save_steps=-1), r"train\.save_steps is -1"),
        (lambda: schedule(weight_decay=float("nan")), r"train\.weight_decay is nan"),
    ],
)
def test_a_spec_refuses_what_cannot_be_run(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("most", "processes", "division"),
    [(8, 1, (8, 4)), (4, 2, (4, 4)), (32, 1, (32, 1)), (5, 1, (4, 8)), (32, 2, (16, 1)), (6, 4, (4, 2))],
)
def test_the_effective_batch_is_met_exactly(most, processes, division):
    assert schedule(batch_size=32, micro_batch_size=most).division(processes) == division


@pytest.mark.parametrize(("batch", "processes"), [(32, 3), (4, 8)])
def test_an_effective_batch_that_the_processes_cannot_share_is_refused(batch, processes):
    spec: TrainSpec = schedule(batch_size=batch, micro_batch_size=1)
    with pytest.raises(ValueError, match=rf"batch_size={batch} cannot be shared evenly by {processes} processes"):
        spec.division(processes)


def test_every_module_that_the_methods_target_is_there(base):
    names = {name.rsplit(".", 1)[-1] for name, _ in build_base(base)[0].named_modules()}
    assert set(TARGETS) <= names


def test_a_fully_tuned_model_of_random_weights_is_loaded_as_it_was_saved(base, tokenized, tmp_path):
    shape = json.loads((Path(base.path_or_id) / "config.json").read_text())
    sizes = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    random = ModelSpec(
        name="r", label="r", path_or_id="hub/id", init="random", tokenizer=base.path_or_id,
        shape={size: shape[size] for size in sizes},
    )  # fmt: skip
    trained, _ = run(tmp_path, random, METHODS["full"], tokenized, schedule(max_steps=1))
    loaded, _ = load_finished(tmp_path, random, METHODS["full"])
    assert torch.equal(logits(loaded), logits(trained))
