"""A run's identity: the changes that alter it, and those that must not."""

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
    ("one", "other", "same"),
    [
        ({"x": 1e-4}, {"x": 0.0001}, True),
        ({"x": 2}, {"x": 2.0}, True),
        ({"x": -0.0}, {"x": 0}, True),
        ({"x": (1, 2)}, {"x": [1, 2.0]}, True),
        ({"x": 1}, {"x": True}, False),
        ({"x": "1"}, {"x": 1}, False),
        ({"x": None}, {}, False),
        ({"x": 1e-4}, {"x": 1e-5}, False),
    ],
)
def test_a_value_has_one_spelling_of_its_own(one, other, same):
    assert (canonical(one) == canonical(other)) == same


def test_the_order_of_keys_does_not_matter_at_any_depth():
    def shuffled(value, rng):
        if not isinstance(value, dict):
            return value
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)

    assert {digest(shuffled(config(), random.Random(seed))) for seed in range(20)} == {digest(config())}


@pytest.mark.parametrize(
    ("part", "change", "same"),
    [
        ("model", {"label": "another label"}, True),
        ("model", {"path_or_id": "moved elsewhere"}, True),
        ("train", {"micro_batch_size": 1}, True),
        ("train", {"save_steps": 7}, True),
        ("train", {"gradient_checkpointing": True}, True),
        ("train", {"deepspeed": {"stage": 3}}, True),
        ("model", {"checksum": "other weights"}, False),
        ("method", {"arguments": {"r": 7}}, False),
        ("method", {"protocol_version": 2}, False),
        ("train", {"learning_rate": 2e-4}, False),
        ("train", {"batch_size": 32}, False),
        ("data", {"max_length": 128}, False),
    ],
)
def test_a_scientific_change_changes_a_run_and_labels_places_and_launching_do_not(part, change, same):
    assert (run_name(with_part(part, **change)) == run_name(config())) == same


def test_seed_scale_and_without_a_checksum_the_hub_id_belong_to_the_identity_and_the_experiment_does_not():
    here, there = (with_part("model", checksum=None, path_or_id=name) for name in ("org/a", "org/b"))
    others = [config(), config(seed=1), config(scale="paper"), here, there]
    assert len({run_digest(each) for each in others}) == 5
    assert run_name(config(experiment="another_table")) == run_name(config())


def test_names_are_those_of_the_committed_runs():
    assert run_name(config(seed=3)) == "pebble-gsm8k-lora-s3-e1cb48394f"
    base = {"method": {"name": "base", "kind": "none"}}
    names = {run_name(config(**base)), run_name(config(**base, seed=5)), run_name(config(**base, data={"name": "x"}))}
    assert names == {"pebble-base-92c5da8c52"}
    assert run_name(config(**base, scale="paper")) not in names


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
