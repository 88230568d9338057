"""What is evaluated is what was trained: any change of a saved file is refused, in one sentence that names the file."""

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from cells import METHODS, probe, run, schedule
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from reproduction.records import Run
from reproduction.training import (
    UnfitAdapter,
    UnfitBase,
    build_base,
    build_model,
    build_tokenizer,
    load_adapter,
    load_finished,
)

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
Change = Callable[[Path], object]


@pytest.fixture(scope="session")
def trained(base, tokenized, tmp_path_factory) -> dict[str, Path]:
    """A finished run's folder for some methods."""
    folders = {name: tmp_path_factory.mktemp("trained") / name for name in ("idlora", "lora", "full")}
    for name, folder in folders.items():
        run(folder, base, METHODS[name], tokenized, schedule(max_steps=1))
    return folders


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_a_pipe(path: Path) -> None:
    """Whoever opens it waits for a writer."""
    path.unlink()
    os.mkfifo(path)


def a_list(path: Path) -> None:
    path.write_text("[1]")


def keys(**changes) -> Change:
    """The file's JSON object with other values; ... takes a key away."""

    def change(path: Path) -> None:
        values = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    return lambda path: save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without(part: str) -> Change:
    return tensors(lambda found: {name: tensor for name, tensor in found.items() if part not in name})


def having(**more: torch.Tensor) -> Change:
    return tensors(lambda found: found | {name.replace("__", "."): tensor for name, tensor in more.items()})


def every(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return tensors(lambda found: {name: change(t) if part in name else t for name, t in found.items()})


BROKEN = [
    *((file, change, "") for file in (CONFIG, WEIGHTS, BASE) for change in (cut, emptied, replaced_by_a_folder)),
    *((file, replaced_by_a_pipe, "it is no file") for file in (CONFIG, WEIGHTS, BASE)),
    *((file, a_list, "list, not an object") for file in (CONFIG, BASE)),
    (WEIGHTS, Path.unlink, "No such file"),
    (WEIGHTS, lambda path: path.write_bytes(pickle.dumps({"x": [1]})), ""),
    (CONFIG, keys(peft_type=...), "peft_type is None"),
    (CONFIG, keys(peft_type="NOPE"), "peft_type is 'NOPE'"),
    (CONFIG, keys(peft_type=["LORA"]), ""),
    (CONFIG, keys(task_type="POEM"), "POEM"),
    (CONFIG, keys(made_up=1), "made_up is no key of"),
    (CONFIG, keys(r="four"), "r is 'four'"),
    (CONFIG, keys(r=-4), "-4"),
    (CONFIG, keys(r=None), ""),
    (CONFIG, keys(inference_mode="no"), "inference_mode is 'no'"),
    (CONFIG, keys(lora_alpha=True), "lora_alpha is True"),
    (CONFIG, keys(lora_alpha="16"), "lora_alpha is '16'"),
    (CONFIG, keys(lora_alpha=math.nan), "lora_alpha is nan"),
    (CONFIG, keys(r=0), ""),
    (CONFIG, keys(bias="most"), "most"),
    (CONFIG, keys(target_modules=["poem"]), ""),
    (CONFIG, keys(target_modules=["q_proj"]), ""),
    (CONFIG, keys(target_modules="("), "parenthesis|subpattern"),
    (CONFIG, keys(r=8), "size mismatch"),
    (CONFIG, keys(modules_to_save=["lm_head"]), r"lm_head\.weight"),
    *((BASE, keys(**{key: value}), f"{key} is") for key in ("name", "identity", "path_or_id") for value in (..., 1)),
    (WEIGHTS, without("layers.1.mlp.up_proj"), r"missing adapter keys .*layers\.1\.mlp\.up_proj"),
    (WEIGHTS, tensors(lambda found: {"x": torch.zeros(1)}), "missing adapter keys"),
    (WEIGHTS, having(poem=torch.zeros(1)), "no place for its poem"),
    (WEIGHTS, having(base_model__model__lm_head__weight=torch.zeros(259, 32)), r"no place for its .*lm_head\.weight"),
    (WEIGHTS, every("q_proj", lambda tensor: tensor[:1]), "size mismatch for .*q_proj"),
    (WEIGHTS, every("_B", torch.Tensor.int), "another kind of numbers than its .*_B.* and 13 more"),
]


@pytest.mark.parametrize("name", ["idlora", "lora"])
@pytest.mark.parametrize(("file", "change", "reason"), BROKEN)
def test_a_broken_file_of_an_adapter_from_elsewhere_is_named_with_the_reason_and_the_way_out(
    base, trained, tmp_path, monkeypatch, name, file, change, reason
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # the network would be asked, and is not
    monkeypatch.setattr("peft.utils.save_and_load.file_exists", lambda **_: pytest.fail("asks the hub"))
    shutil.copytree(trained[name] / "adapter", adapter := tmp_path / name)
    load_adapter(build_base(base)[0], adapter, base)
    change(adapter / file)
    with pytest.raises(UnfitAdapter, match=rf"(?s){file}.*{reason}.*training again") as told:
        load_adapter(build_base(base)[0], adapter, base)
    assert str(adapter) in str(told.value)
    assert "\n" not in str(told.value)
    assert isinstance(told.value, ValueError), "a script ends with exit code 2 for those"


@pytest.mark.parametrize("name", ["idlora", "lora"])
def test_the_same_training_gives_the_same_files(trained, name):
    """Sets have no order, and JSON's lists of them had another in every process."""
    targets = json.loads((trained[name] / "adapter" / CONFIG).read_text())["target_modules"]
    assert len(targets) == 7
    assert targets == sorted(targets)


def test_pivots_that_a_file_lacks_are_not_made_up(base, trained, tmp_path):
    shutil.copytree(trained["idlora"] / "adapter", tmp_path / "adapter")
    without("up_proj.idlora_pivots")(tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(UnfitAdapter, match=r"up_proj\.idlora_pivots"):
        load_adapter(build_base(base)[0], tmp_path / "adapter", base)


def flipped(part: float) -> Change:
    """16 bytes of the file, which keeps its size, from this part of it on."""

    def change(path: Path) -> None:
        held = bytearray(path.read_bytes())
        at = int(part * (len(held) - 16))
        held[at : at + 16] = bytes(255 - byte for byte in held[at : at + 16])
        path.write_bytes(held)

    return change


def beside(path: Path) -> None:
    shutil.copy(path, path.with_name("adapter_model.bin"))


CHANGED = [
    *((name, WEIGHTS, flipped(part), "has changed") for name in ("idlora", "lora") for part in (0, 0.4, 0.7, 1)),
    ("idlora", CONFIG, keys(lora_alpha=1), "has changed"),
    ("idlora", CONFIG, keys(router="inner"), "has changed"),
    ("lora", BASE, Path.unlink, "is gone"),
    ("lora", WEIGHTS, beside, "adapter_model.bin was added"),
    *(("full", "model.safetensors", flipped(part), "has changed") for part in (0, 0.5, 1)),
    ("full", "config.json", keys(rope_theta=1e6), "has changed"),
]


@pytest.mark.parametrize(("name", "file", "change", "how"), CHANGED)
def test_a_file_that_is_not_as_the_run_saved_it_is_refused(
    base, trained, tmp_path, monkeypatch, name, file, change, how
):
    shutil.copytree(trained[name], tmp_path / "run")
    (tmp_path / "run/model" if name == "full" else tmp_path / "run/adapter").joinpath(".DS_Store").touch()  # no harm
    load_finished(tmp_path / "run", base, METHODS[name])
    saved = tmp_path / "run" / ("model" if name == "full" else "adapter")
    change(saved / file)
    (tmp_path / "link").symlink_to(saved)
    monkeypatch.chdir(saved)
    ways = [lambda: load_finished(tmp_path / "run", base, METHODS[name])]
    if name != "full":
        places = (saved, tmp_path / "link", ".")
        ways += [partial(load_adapter, build_base(base)[0], place, base, allow_unknown_base=True) for place in places]
    for load in ways:
        with pytest.raises(UnfitAdapter, match=rf"{saved}.*{how} since the run saved its .*training again"):
            load()


def test_a_copy_in_a_run_s_folder_is_not_taken_for_what_the_run_saved(base, trained, tmp_path):
    shutil.copytree(trained["lora"], tmp_path / "run")
    shutil.copytree(tmp_path / "run/adapter", tmp_path / "run/copy")
    with pytest.raises(UnfitAdapter, match=r"run/copy is not what the run in .*run saved: give .*run/adapter"):
        load_adapter(build_base(base)[0], tmp_path / "run/copy", base)


@pytest.mark.parametrize("change", [Path.unlink, cut, a_list, keys(files=...), keys(folder=".."), keys(files=[])])
def test_a_run_whose_record_of_what_it_saved_is_damaged_is_refused(base, trained, tmp_path, change):
    shutil.copytree(trained["lora"], tmp_path / "run")
    change(tmp_path / "run/saved.json")
    with pytest.raises(UnfitAdapter, match=r"saved\.json cannot be used .*training again"):
        load_finished(tmp_path / "run", base, METHODS["lora"])
    (tmp_path / "run/status.json").write_text('{"state": "done"}')
    with pytest.raises(UnfitAdapter, match=r"saved\.json cannot be used .*training again"):
        load_adapter(build_base(base)[0], tmp_path / "run/adapter", base)


def test_an_adapter_of_another_method_than_the_run_s_is_refused(base, trained, tmp_path):
    with pytest.raises(UnfitAdapter, match=r"is of LORA .*, and the run is of IDLORA"):
        load_finished(trained["lora"], base, METHODS["idlora"])
    shutil.copytree(trained["idlora"], tmp_path / "run")
    shutil.copytree(trained["lora"] / "adapter", tmp_path / "run/adapter", dirs_exist_ok=True)
    with pytest.raises(UnfitAdapter, match="has changed since the run saved its adapter"):
        load_finished(tmp_path / "run", base, METHODS["idlora"])


@pytest.mark.parametrize("change", ["another run's", "an edited config", "half a config", "no config"])
def test_what_another_run_of_the_method_saved_is_refused(base, tokenized, tmp_path, change):
    parts = {"scale": "tiny", "data": {}, "train": {}, "model": {"name": "small"}, "method": {"kind": "peft"}}
    for seed in (0, 1):
        Run(tmp_path / str(seed)).start(parts | {"seed": seed})
        run(tmp_path / str(seed), base, METHODS["lora"], tokenized, schedule(max_steps=1, seed=seed))
    folder, config = tmp_path / "0", tmp_path / "0" / "config.json"
    load_finished(folder, base, METHODS["lora"])
    if change == "another run's":  # with its own record
        shutil.copytree(tmp_path / "1/adapter", folder / "adapter", dirs_exist_ok=True)
        shutil.copy(tmp_path / "1/saved.json", folder)
    elif change == "an edited config":
        config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    elif change == "half a config":
        cut(config)
    else:
        config.unlink()
    with pytest.raises(UnfitAdapter, match=rf"{config}.*training again"):
        load_finished(folder, base, METHODS["lora"])


def test_a_model_s_own_code_is_not_executed_and_nobody_is_asked(base, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks on standard input"))
    shutil.copytree(base.path_or_id, tmp_path / "base")
    (tmp_path / "base/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}
    keys(auto_map=own, model_type="poem")(tmp_path / "base/config.json")
    keys(auto_map=own, tokenizer_class="Own")(tmp_path / "base/tokenizer_config.json")
    moved = replace(base, path_or_id=str(tmp_path / "base"))
    for build in (build_model, build_tokenizer):
        with pytest.raises(UnfitBase, match="contains custom code"):
            build(moved)
    assert not (tmp_path / "ran").exists()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=probe()).logits


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"]])
def test_an_adapter_that_plain_peft_has_saved_loads_from_either_kind_of_file(base, tmp_path, targets):
    config = LoraConfig(r=2, lora_alpha=0.5, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(build_base(base)[0], config).eval()
    model.save_pretrained(tmp_path)
    assert not torch.equal(logits(model), logits(build_base(base)[0]))
    with pytest.raises(UnfitAdapter, match=r"has no base\.json.*allow_unknown_base=true"):
        load_adapter(build_base(base)[0], tmp_path, base)

    def loaded():
        return load_adapter(build_base(base)[0], tmp_path, base, allow_unknown_base=True)

    assert torch.equal(logits(loaded()), logits(model))
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "adapter_model.bin")
    (tmp_path / WEIGHTS).unlink()
    assert torch.equal(logits(loaded()), logits(model))
    for broken in (b"", (tmp_path / "adapter_model.bin").read_bytes()[:500], pickle.dumps([1])):
        (tmp_path / "adapter_model.bin").write_bytes(broken)
        with pytest.raises(UnfitAdapter, match=r"adapter_model\.bin cannot be used"):
            loaded()


def test_biases_that_a_file_lacks_are_not_taken_from_the_base(base, tmp_path):
    shape = json.loads((Path(base.path_or_id) / "config.json").read_text()) | {"attention_bias": True}
    sizes = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "attention_bias")
    biased = replace(base, init="random", shape={size: shape[size] for size in sizes}, tokenizer=base.path_or_id)
    config = LoraConfig(r=2, target_modules=["q_proj"], bias="lora_only", task_type="CAUSAL_LM")
    get_peft_model(build_base(biased)[0], config).save_pretrained(tmp_path)
    load_adapter(build_base(biased)[0], tmp_path, biased, allow_unknown_base=True)
    without("bias")(tmp_path / WEIGHTS)
    with pytest.raises(UnfitAdapter, match=r"it lacks .*q_proj.*\.bias and 1 more"):
        load_adapter(build_base(biased)[0], tmp_path, biased, allow_unknown_base=True)


MODEL = "model.safetensors"
BROKEN_MODEL = [
    *((file, change) for file in ("config.json", MODEL) for change in (cut, emptied, a_list)),
    *(("generation_config.json", change) for change in (cut, emptied, a_list, replaced_by_a_folder)),
    (MODEL, Path.unlink),
    (MODEL, replaced_by_a_folder),
    (MODEL, without("layers.1.mlp.up_proj")),
    (MODEL, every("q_proj", lambda tensor: tensor[:1])),
    ("config.json", keys(model_type=...)),
    ("config.json", keys(model_type="poem")),
    ("config.json", keys(hidden_size="wide")),
    ("config.json", keys(hidden_size=64)),
    ("config.json", keys(num_hidden_layers=3)),
    ("config.json", keys(hidden_act="poem")),
]


@pytest.mark.parametrize(("file", "change"), BROKEN_MODEL)
def test_a_broken_file_of_a_base_is_named(base, trained, tmp_path, file, change):
    shutil.copytree(trained["full"] / "model", folder := tmp_path / "base")
    change(folder / file)
    with pytest.raises(UnfitBase, match=rf"{folder}.*{file}.*check the path and its files") as told:
        build_model(replace(base, path_or_id=str(folder)))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("change", [cut, emptied, a_list])
def test_a_broken_file_of_a_tokenizer_is_named(base, tmp_path, change):
    shutil.copytree(base.path_or_id, tmp_path / "base")
    change(tmp_path / "base/tokenizer.json")
    with pytest.raises(UnfitBase, match=r"tokenizer\.json is broken"):
        build_base(replace(base, path_or_id=str(tmp_path / "base")))


def test_weights_of_a_base_that_the_model_has_no_place_for_are_passed_over(base, tmp_path):
    shutil.copytree(base.path_or_id, tmp_path / "base")
    having(vision__weight=torch.zeros(1))(tmp_path / "base" / MODEL)
    other = build_model(replace(base, path_or_id=str(tmp_path / "base")))
    assert torch.equal(logits(other), logits(build_model(base)))
