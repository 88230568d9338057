"""Loading of trained models: changed or broken files are refused by name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import METHODS, logits, run, schedule
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from reproduction.records import Run
from reproduction.training import (
    UnfitAdapter,
    UnfitBase,
    WrongBase,
    build_base,
    build_model,
    build_tokenizer,
    load_adapter,
    load_finished,
)

CONFIG, WEIGHTS, BASE, MODEL = "adapter_config.json", "adapter_model.safetensors", "base.json", "model.safetensors"
Change = Callable[[Path], object]
PARTS = {"scale": "tiny", "data": {}, "train": {}, "model": {"name": "small"}, "method": {"kind": "peft"}}


@pytest.fixture(scope="session")
def trained(base, tokenized, tmp_path_factory) -> dict[str, Path]:
    """Folders of finished runs, by method."""
    folders = {name: tmp_path_factory.mktemp("trained") / name for name in ("idlora", "lora", "full")}
    for name, folder in folders.items():
        Run(folder).start(PARTS | {"seed": 0})
        run(folder, base, METHODS[name], tokenized, schedule(max_steps=1))
    return folders


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change a byte in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def keys(**changes) -> Change:
    """Return a change that sets values of the file's JSON object; ... removes a key."""

    def change(path: Path) -> None:
        values = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return change


def twice_the_rank(path: Path) -> None:
    keys(r=2 * json.loads(path.read_text())["r"])(path)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    return lambda path: save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without(part: str) -> Change:
    return tensors(lambda found: {name: tensor for name, tensor in found.items() if part not in name})


def having(name: str) -> Change:
    return tensors(lambda found: found | {name: torch.zeros(1)})


def shorter(part: str) -> Change:
    return tensors(lambda found: {name: t[:1] if part in name else t for name, t in found.items()})


BROKEN = [
    *((file, cut, "") for file in (CONFIG, WEIGHTS, BASE)),
    (CONFIG, lambda path: path.write_text("[1]"), "list"),
    (WEIGHTS, Path.unlink, "No such file"),
    (CONFIG, keys(peft_type="NOPE"), "NOPE"),
    (CONFIG, keys(r="four"), ""),
    (CONFIG, twice_the_rank, "size mismatch"),
    (CONFIG, keys(target_modules=["q_proj"]), ""),
    (BASE, keys(identity=...), "identity"),
    (WEIGHTS, without("layers.1.mlp.up_proj"), r"layers\.1\.mlp\.up_proj"),
    (WEIGHTS, having("poem"), "poem"),
    (WEIGHTS, shorter("q_proj"), "size mismatch for .*q_proj"),
]


@pytest.mark.parametrize("name", ["idlora", "lora"])
def test_a_broken_file_of_an_adapter_from_elsewhere_is_named(base, trained, tmp_path, name):
    for number, (file, change, reason) in enumerate(BROKEN):
        adapter = tmp_path / str(number) / name
        shutil.copytree(trained[name] / "adapter", adapter)
        change(adapter / file)
        with pytest.raises(UnfitAdapter, match=rf"(?s){adapter}.*{file}.*{reason}") as told:
            load_adapter(build_base(base)[0], adapter, base)
        assert "\n" not in str(told.value)
    shutil.copytree(trained[name] / "adapter", tmp_path / "adapter")
    assert load_adapter(build_base(base)[0], tmp_path / "adapter", base)


@pytest.mark.parametrize(
    ("name", "file", "change"),
    [
        ("idlora", WEIGHTS, flip),
        ("lora", CONFIG, keys(lora_alpha=1)),
        ("lora", BASE, Path.unlink),
        ("lora", WEIGHTS, lambda path: shutil.copy(path, path.with_name("adapter_model.bin"))),
        ("full", MODEL, flip),
        ("full", "config.json", keys(rope_theta=1e6)),
        ("lora", "../config.json", keys(seed=1)),
        ("lora", "../config.json", Path.unlink),
        ("lora", "../saved.json", Path.unlink),
        ("lora", "../saved.json", keys(files=[])),
        ("lora", "../saved.json", keys(folder="..")),
    ],
)
def test_a_run_that_is_not_as_it_was_saved_is_refused(base, trained, tmp_path, name, file, change):
    shutil.copytree(trained[name], tmp_path / "run")
    saved = tmp_path / "run" / ("model" if name == "full" else "adapter")
    (saved / ".DS_Store").touch()  # harmless
    load_finished(tmp_path / "run", base, METHODS[name])
    change(saved / file)
    with pytest.raises(UnfitAdapter, match=str(tmp_path)):
        load_finished(tmp_path / "run", base, METHODS[name])
    if name != "full":
        (tmp_path / "link").symlink_to(saved)
        for place in (saved, tmp_path / "link"):
            with pytest.raises(UnfitAdapter, match=str(tmp_path)):
                load_adapter(build_base(base)[0], place, base, allow_unknown_base=True)


def test_what_another_run_saved_is_refused_with_its_own_record_too(base, trained, tokenized, tmp_path):
    shutil.copytree(trained["lora"], tmp_path / "run")
    Run(tmp_path / "other").start(PARTS | {"seed": 1})
    run(tmp_path / "other", base, METHODS["lora"], tokenized, schedule(max_steps=1, seed=1))
    shutil.copytree(tmp_path / "other/adapter", tmp_path / "run/adapter", dirs_exist_ok=True)
    shutil.copy(tmp_path / "other/saved.json", tmp_path / "run")
    with pytest.raises(UnfitAdapter, match=str(tmp_path / "run/config.json")):
        load_finished(tmp_path / "run", base, METHODS["lora"])


def test_the_same_training_gives_the_same_files(trained):
    """The order of a set varies between processes; that of its JSON list must not."""
    targets = json.loads((trained["lora"] / "adapter" / CONFIG).read_text())["target_modules"]
    assert targets == sorted(targets)
    assert len(targets) == 7


def test_an_adapter_is_refused_on_another_base_before_anything_is_injected(base, other_base, trained, tmp_path):
    adapter = trained["lora"] / "adapter"
    model, _ = build_base(other_base)
    modules = [name for name, _ in model.named_modules()]
    with pytest.raises(WrongBase, match=r"trained on small \(.*not on other \("):
        load_adapter(model, adapter, other_base)
    assert [name for name, _ in model.named_modules()] == modules
    # The same weights with another name, folder and dtype are the same base.
    for part in build_base(base):
        part.save_pretrained(tmp_path / "moved")
    moved = replace(base, name="moved", path_or_id=str(tmp_path / "moved"), dtype="bfloat16")
    load_finished(trained["lora"], moved, METHODS["lora"])


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
    cut(tmp_path / "adapter_model.bin")
    with pytest.raises(UnfitAdapter, match=r"adapter_model\.bin cannot be used"):
        loaded()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", cut),
        ("config.json", keys(model_type="poem")),
        ("config.json", keys(num_hidden_layers=3)),
        ("config.json", keys(hidden_size=64)),
        (MODEL, cut),
        (MODEL, Path.unlink),
        (MODEL, without("layers.1.mlp.up_proj")),
        (MODEL, shorter("q_proj")),
    ],
)
def test_a_broken_base_is_refused_and_what_it_has_beyond_the_model_is_not(base, trained, tmp_path, file, change):
    shutil.copytree(trained["full"] / "model", folder := tmp_path / "base")
    having("vision.weight")(folder / MODEL)
    moved = replace(base, path_or_id=str(folder))
    build_model(moved)
    change(folder / file)
    with pytest.raises(UnfitBase, match=str(folder)) as told:
        build_model(moved)
    assert "\n" not in str(told.value)


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
