"""The pivot cache: its key is the content of the weights and the settings, and nothing else."""

import io
import json
import sys
from types import SimpleNamespace

import forks
import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from safetensors.torch import load, save_file
from tuner_models import make_adapted, make_base

from idlora.tuners.idlora import pivot_cache
from idlora.tuners.idlora.clustering import METHODS, PivotSelector
from idlora.tuners.idlora.pivot_cache import checksum, select_cached


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder of an empty cache."""
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pivots"


def make_weights():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(rows, 12, generator=generator) for name, rows in (("q", 40), ("k", 20), ("up", 60))}


def choose(weights=None, **changes):
    weights = make_weights() if weights is None else weights
    return select_cached(weights.items, PivotSelector(**{"num_clusters": 3, "r": 4} | changes))


def same(first, second):
    return [(s.pivots.tolist(), s.sizes) for s in first.values()] == [
        (s.pivots.tolist(), s.sizes) for s in second.values()
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("columns", [1, 7, 12])
def test_a_checksum_sees_every_change_of_content_place_shape_and_type(dtype, columns):
    weight = torch.randn(9, columns, generator=torch.Generator().manual_seed(1)).to(dtype)
    others = {"negated": -weight, "rows": weight.roll(1, 0), "shape": weight.view(3, -1)}
    if columns > 1:
        others["columns"] = weight.roll(1, 1)
    for row, column in ((0, 0), (8, columns - 1), (4, columns // 2)):
        for bit in range(8 * dtype.itemsize):
            changed = weight.clone().view(torch.uint8).view(9, columns, dtype.itemsize)
            changed[row, column, bit // 8] ^= 1 << bit % 8
            others[row, column, bit] = changed.view(9, columns * dtype.itemsize).view(dtype)
    if dtype == torch.bfloat16:
        others["type"] = weight.view(torch.float16)
    sums = {checksum(weight), *map(checksum, others.values())}
    assert len(sums) == 1 + len(others)
    assert checksum(weight.clone().requires_grad_()) == checksum(weight) == checksum(weight.T.contiguous().T)


def test_a_checksum_is_the_same_in_every_version_and_in_any_pieces(monkeypatch):
    weight = torch.arange(-50, 50, dtype=torch.bfloat16).view(10, 10)
    expected = "9112f995c7efcdf0"
    assert checksum(weight).startswith(expected)
    monkeypatch.setattr(pivot_cache, "PIECE_BYTES", {"cpu": 2 * 10 * 3})
    assert checksum(weight).startswith(expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_checksum_of_the_cpu(monkeypatch):
    weight = torch.randn(300, 514, generator=torch.Generator().manual_seed(4)).bfloat16()
    there = checksum(weight.cuda())
    monkeypatch.setattr(pivot_cache, "work_device", lambda weight: weight.device)
    assert checksum(weight) == there


@pytest.mark.parametrize("method", METHODS)
def test_what_was_selected_is_read_the_next_time_with_the_seconds_it_took(method, cache, monkeypatch):
    first = choose(method=method)
    assert not first.cached
    assert first.seconds > 0
    monkeypatch.setattr(PivotSelector, "select", None)
    again = choose({f"renamed.{name}": weight.clone() for name, weight in make_weights().items()}, method=method)
    assert again.cached
    assert again.seconds == first.seconds
    assert list(again.selections) == ["renamed.q", "renamed.k", "renamed.up"]
    assert same(again.selections, first.selections)
    assert all((one.sizes is not None) == (method == "pmrc") for one in again.selections.values())
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_the_file_s_name_and_content_are_those_of_earlier_versions(cache):
    choose({"w": torch.arange(48.0).view(12, 4)}, method="serial")
    (file,) = cache.iterdir()
    assert file.stem.startswith("59a679beaf8b7f07")
    assert load(file.read_bytes())["pivots"].tolist() == [torch.arange(12).view(3, 4).tolist()]


def test_every_weight_and_every_setting_has_its_own_entry(cache, monkeypatch):
    others = [make_weights() for _ in range(3)]
    others[0]["up"][59, 11] += 1e-3
    others[1] = {name: weight.double() for name, weight in others[1].items()}
    del others[2]["k"]
    changes = [{"seed": 1}, {"n_init": 2}, {"max_iter": 5}, {"method": "random"}, {"num_clusters": 2}, {"r": 3}]
    cases = [(None, {}), *((None, change) for change in changes), *((weights, {}) for weights in others)]
    cases += [(dict(reversed(make_weights().items())), {}), (None, {"backend": "k_means_constrained"})]
    for count, (weights, change) in enumerate(cases, start=1):
        assert not choose(weights, **change).cached
        assert len(list(cache.iterdir())) == count
    monkeypatch.setattr(pivot_cache, "work_device", lambda weight: SimpleNamespace(type="other"))
    monkeypatch.setattr(pivot_cache, "checksum", lambda weight: "")
    assert not choose().cached
    monkeypatch.setattr(pivot_cache, "work_device", lambda weight: SimpleNamespace(type="another"))
    assert not choose().cached
    monkeypatch.setattr(pivot_cache, "SELECTION_VERSION", 2)
    assert not choose().cached


def test_the_folder_is_the_variable_s_or_lies_beside_the_hub_s_cache_and_an_empty_variable_keeps_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(pivot_cache, "HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IDLORA_CACHE", "")
    assert not any(choose().cached for _ in range(2))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("IDLORA_CACHE", "~/mine")
    choose()
    monkeypatch.delenv("IDLORA_CACHE")
    choose()
    folders = [path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")]
    assert sorted(folders) == ["hub/idlora/pivots", "mine/pivots"]


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-8]),
    "flipped": flip,
    "unsealed": lambda file: save_file(load(file.read_bytes()), file),
    "empty": lambda file: file.write_bytes(b""),
    "foreign": lambda file: file.write_text("not mine" * 99),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_warned_of_and_written_anew(damage, cache):
    first = choose()
    (file,) = cache.iterdir()
    DAMAGES[damage](file)
    with pytest.warns(UserWarning, match=file.name):
        again = choose()
    assert not again.cached
    assert same(first.selections, again.selections)
    assert list(cache.iterdir()) == [file]
    assert choose().cached


def test_another_selection_s_file_under_this_one_s_name_is_not_taken(cache):
    choose()
    (mine,) = cache.iterdir()
    choose(seed=1)
    (other,) = set(cache.iterdir()) - {mine}
    other.replace(mine)
    with pytest.warns(UserWarning, match=mine.name):
        assert not choose().cached


def test_a_folder_that_cannot_be_written_or_a_full_disk_only_warns(cache, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pivot_cache.os, "replace", full)
        with pytest.warns(UserWarning, match="No space left on device"):
            assert len(choose().selections) == 3
        assert list(cache.iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"file.pivots"):
        assert len(choose().selections) == 3


@pytest.mark.parametrize("place", ["select", "replace"])
def test_an_interrupt_leaves_nothing_in_the_cache(place, cache, monkeypatch):
    owner = PivotSelector if place == "select" else pivot_cache.os
    real, calls = getattr(owner, place), []

    def interrupted(*arguments):
        calls.append(arguments)
        if place == "replace" or len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            choose()
    assert list(cache.parent.rglob("*.*")) == []
    assert not choose().cached


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """Function that makes an adapter and returns what it prints on stderr."""

    def make(stream=io.StringIO):
        monkeypatch.setattr(sys, "stderr", stream())
        make_adapted("idlora", rank_pattern={"q_proj": 2})  # two selections, one line
        return sys.stderr.getvalue()

    off = are_progress_bars_disabled()
    enable_progress_bars()
    monkeypatch.setenv("IDLORA_CACHE", "")
    yield make
    (disable_progress_bars if off else enable_progress_bars)()


def test_a_long_selection_shows_its_progress_in_one_line_of_a_terminal_and_in_lines_of_a_file(shown, monkeypatch):
    assert shown() == shown(Terminal) == ""  # a short one
    monkeypatch.setattr(pivot_cache, "PROGRESS_DELAY", 1e-9)
    monkeypatch.setattr(pivot_cache, "PROGRESS_INTERVAL", 0)
    total = len(make_adapted("idlora").adapted_layers())
    lines = shown().splitlines()
    assert [line.split(",")[0] for line in lines[:total]] == [
        f"selecting pivots: {done} of {total} modules" for done in range(1, total + 1)
    ]
    assert all("left" in line and "\r" not in line for line in lines)
    on_terminal = shown(Terminal)
    assert f"\rselecting pivots: {total} of {total} modules" in on_terminal
    assert on_terminal.count("\n") == 1
    assert on_terminal.endswith("\n")


def test_progress_is_shown_by_the_first_process_alone_and_not_where_bars_are_off(shown, monkeypatch):
    monkeypatch.setattr(pivot_cache, "PROGRESS_DELAY", 1e-9)
    assert shown() != ""
    monkeypatch.setenv("RANK", "1")
    assert shown() == ""
    monkeypatch.delenv("RANK")
    disable_progress_bars()
    assert shown() == ""


def test_weights_that_no_pivots_can_be_taken_from_are_named_each_time(cache):
    weights = make_weights()
    weights["k"][1, 1] = torch.nan
    for _ in range(2):
        with pytest.raises(ValueError, match="for k: 1 of the weight's entries"):
            choose(weights)
    assert not cache.exists()
    with pytest.raises(ValueError, match=r"for k: .* 3 clusters of 7 rows from 20 rows"):
        choose(r=7)


def test_an_adapter_on_the_meta_device_leaves_nothing_in_the_cache(cache):
    tuner = make_adapted("idlora", base=make_base().to("meta")).base_model
    assert not tuner.pivots_cached
    assert not cache.exists()


def test_a_base_in_zero3_s_parts_gives_the_pivots_of_the_whole_one_and_is_never_whole(tmp_path, monkeypatch):
    select_on_zero3 = pytest.importorskip("select_on_zero3", exc_type=ImportError)  # where DeepSpeed is
    forks.together(select_on_zero3.select, tmp_path, folder=tmp_path / "printed")
    ranks = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("rank-*.json"))]
    whole = make_adapted("idlora")
    pivots = {n: layer.idlora_pivots["default"].tolist() for n, layer in whole.adapted_layers().items()}
    assert len(ranks) == 2
    for rank in ranks:
        assert (rank["world"], rank["in_parts_before"], rank["in_parts_after"]) == (2, True, True)
        assert rank["whole_at_once"] == 1
        assert rank["pivots"] == rank["again"] == pivots
        assert rank["fingerprints"] == whole.peft_config["default"].base_fingerprint
    assert [rank["cached"] for rank in ranks] == [True, False]  # neither waits for the other
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache-0"))
    assert make_adapted("idlora").base_model.pivots_cached  # the content of the whole weights
