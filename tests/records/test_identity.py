"""A run's identity: what changes it, and what must not."""

import json
import random

import pytest

from reproduction.records import canonical, digest, run_digest, run_name


def config(**changes):
    return {
        "experiment": "gsm8k_llama3",
        "scale": "tiny",
        "seed": 0,
        "model": {"name": "pebble", "label": "Pebble", "path_or_id": "here", "checksum": "abc", "dtype": "float32"},
        "method": {"name": "lora", "label": "LoRA", "kind": "peft", "arguments": {"r": 6}, "protocol_version": 1},
        "data": {"name": "gsm8k", "max_length": 256},
        "train": {"learning_rate": 1e-4, "batch_size": 16, "micro_batch_size": 4, "protocol_version": 1},
    } | changes


def with_part(part, **changes):
    return config(**{part: config()[part] | changes})


@pytest.mark.parametrize(
    ("one", "other"),
    [({"x": 1e-4}, {"x": 0.0001}), ({"x": 2}, {"x": 2.0}), ({"x": -0.0}, {"x": 0}), ({"x": (1, 2)}, {"x": [1, 2.0]})],
)
def test_one_number_has_one_spelling(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"x": 1}, {"x": True}), ({"x": "1"}, {"x": 1}), ({"x": None}, {}), ({"x": 1e-4}, {"x": 1e-5})],
)
def test_different_values_stay_different(one, other):
    assert canonical(one) != canonical(other)


def test_the_order_of_keys_does_not_matter_at_any_depth():
    def shuffled(value, rng):
        if not isinstance(value, dict):
            return value
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)

    assert {digest(shuffled(config(), random.Random(seed))) for seed in range(20)} == {digest(config())}


def test_canonical_is_json_and_idempotent():
    assert canonical(json.loads(canonical(config()))) == canonical(config())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"label": "another label"}),
        ("model", {"path_or_id": "moved elsewhere"}),
        ("train", {"micro_batch_size": 1}),
        ("train", {"save_steps": 7}),
        ("train", {"gradient_checkpointing": True}),
        ("train", {"deepspeed": {"stage": 3}}),
    ],
)
def test_labels_places_and_launching_do_not_change_a_run(part, change):
    assert run_name(with_part(part, **change)) == run_name(config())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"checksum": "other weights"}),
        ("method", {"arguments": {"r": 7}}),
        ("method", {"protocol_version": 2}),
        ("train", {"learning_rate": 2e-4}),
        ("train", {"batch_size": 32}),
        ("data", {"max_length": 128}),
    ],
)
def test_a_scientific_change_changes_a_run(part, change):
    assert run_digest(with_part(part, **change)) != run_digest(config())


def test_without_a_checksum_the_hub_id_is_the_models_identity():
    here, there = (with_part("model", checksum=None, path_or_id=name) for name in ("org/a", "org/b"))
    assert run_digest(here) != run_digest(there)


def test_two_experiments_that_ask_for_the_same_cell_share_it():
    assert run_name(config(experiment="another_table")) == run_name(config())


def test_seed_and_scale_belong_to_the_identity():
    assert len({run_digest(config()), run_digest(config(seed=1)), run_digest(config(scale="paper"))}) == 3


def test_the_name_says_model_data_method_and_seed():
    assert run_name(config(seed=3)).startswith("pebble-gsm8k-lora-s3-")


def test_an_untuned_base_is_one_run_whatever_the_training_says():
    base = {"method": {"name": "base", "kind": "none"}}
    names = {run_name(config(**base)), run_name(config(**base, seed=5)), run_name(config(**base, data={"name": "x"}))}
    assert len(names) == 1
    assert names.pop().startswith("pebble-base-")
    assert run_name(config(**base)) != run_name(config(**base, scale="paper"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), {1, 2}, {3: "x"}])
def test_what_json_has_no_word_for_is_refused(bad):
    with pytest.raises(ValueError, match=r"config\.x"):
        canonical({"x": bad})


def test_a_missing_part_and_a_bad_name_are_refused():
    short = config()
    del short["train"]
    with pytest.raises(ValueError, match="'train'"):
        run_name(short)
    with pytest.raises(ValueError, match=r"\.\./pebble"):
        run_name(with_part("model", name="../pebble"))
