"""Pivots on disk: found again by the content of the weights and the settings, and by nothing else."""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load, save_file
from tuner_models import make_adapted, make_base

from idlora.tuners.idlora import pivot_cache, streaming
from idlora.tuners.idlora.pivot_cache import checksum, select_once

HERE = Path(__file__).parent
SETTINGS = {"method": "pmrc", "seed": 0, "n_init": 1, "max_iter": 100, "backend": "torch"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of an empty cache."""
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pivots"


def make_weights():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(rows, 12, generator=generator) for name, rows in (("q", 40), ("k", 20), ("up", 60))}


def choose(weights, k=3, r=4, **changes):
    return select_once(lambda: weights.items(), k, r, **SETTINGS | changes)


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name].pivots, second[name].pivots) and first[name].sizes == second[name].sizes
        for name in first
    )


# The checksum


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("columns", [1, 2, 7, 12])
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
    assert checksum(weight.clone().requires_grad_()) == checksum(weight)
    assert checksum(weight.T.contiguous().T) == checksum(weight)


def test_nothing_of_one_width_is_not_nothing_of_another():
    assert len({checksum(torch.zeros(4, columns)) for columns in (1, 2, 4)}) == 3


def test_signs_that_change_in_pairs_are_seen():
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    sums = {checksum(weight)}
    for first in range(0, 64, 2):
        changed = weight.clone()
        changed[0, first : first + 2].neg_()
        sums.add(checksum(changed))
    assert len(sums) == 33


@pytest.mark.parametrize("columns", [7, 12])
def test_a_checksum_does_not_depend_on_the_blocks_it_is_taken_in(columns, monkeypatch):
    weight = torch.randn(50, columns, generator=torch.Generator().manual_seed(3)).bfloat16()
    expected = checksum(weight)
    lent = SimpleNamespace(shape=weight.shape, device=weight.device, blocks=lambda: iter(weight.split(11)))
    assert checksum(lent) == expected
    monkeypatch.setattr(pivot_cache, "PIECE_BYTES", {"cpu": 2 * columns * 3})
    assert checksum(weight) == expected
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1)
    monkeypatch.setattr(pivot_cache, "PIECE_BYTES", {})
    assert checksum(weight) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_checksum_of_the_cpu(monkeypatch):
    weight = torch.randn(300, 514, generator=torch.Generator().manual_seed(4)).bfloat16()
    there = checksum(weight.cuda())
    monkeypatch.setattr(pivot_cache, "home_of", lambda weight: weight.device)
    assert checksum(weight) == there


# The cache


def test_what_was_selected_is_read_the_next_time_with_the_seconds_it_took(cache, monkeypatch):
    first = choose(make_weights())
    assert not first.cached
    assert first.seconds > 0
    monkeypatch.setattr(pivot_cache, "select_pivots_many", None)
    again = choose({f"renamed.{name}": weight.clone() for name, weight in make_weights().items()})
    assert again.cached
    assert again.seconds == first.seconds
    assert same({name.removeprefix("renamed."): one for name, one in again.selections.items()}, first.selections)
    assert all(one.pivots.dtype == torch.int32 and sum(one.sizes) > 0 for one in again.selections.values())
    assert all(one.pivots.untyped_storage().nbytes() == 4 * 3 * 4 for one in again.selections.values())  # each its own
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("method", ["serial", "random", "largest_norm", "pivoted_qr"])
def test_a_selection_without_clusters_is_kept_without_their_sizes(cache, method):
    first, again = (choose(make_weights(), method=method) for _ in range(2))
    assert again.cached
    assert same(first.selections, again.selections)
    assert {one.sizes for one in again.selections.values()} == {None}


def test_every_weight_and_every_setting_has_its_own_entry(cache, monkeypatch):
    def entries():
        return len(list(cache.iterdir()))

    choose(make_weights())
    changes = [{"seed": 1}, {"n_init": 2}, {"max_iter": 5}, {"method": "random"}, {"backend": "k_means_constrained"}]
    for count, change in enumerate([*changes, {"k": 2}, {"r": 3}], start=2):
        assert not choose(make_weights(), **change).cached
        assert entries() == count
    before = entries()
    others = [make_weights() for _ in range(3)]
    others[0]["up"][59, 11] += 1e-3
    others[1] = {name: weight.double() for name, weight in others[1].items()}
    del others[2]["k"]
    for count, weights in enumerate([*others, dict(reversed(make_weights().items()))], start=before + 1):
        assert not choose(weights).cached
        assert entries() == count
    monkeypatch.setattr(pivot_cache, "SELECTION_VERSION", pivot_cache.SELECTION_VERSION + 1)
    assert not choose(make_weights()).cached
    monkeypatch.setattr(pivot_cache, "home_of", lambda weight: SimpleNamespace(type="other"))
    monkeypatch.setattr(pivot_cache, "checksum", lambda weight: "")
    assert not choose(make_weights()).cached
    monkeypatch.setattr(pivot_cache, "home_of", lambda weight: SimpleNamespace(type="another"))
    assert not choose(make_weights()).cached


def test_without_a_cache_nothing_is_read_or_written_and_weights_are_read_once(tmp_path, monkeypatch):
    monkeypatch.setenv("IDLORA_CACHE", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    reads = []

    def weights():
        reads.append(1)
        return make_weights().items()

    first, again = (select_once(weights, 3, 4, **SETTINGS) for _ in range(2))
    assert not again.cached
    assert same(first.selections, again.selections)
    assert len(reads) == 2
    assert list(tmp_path.iterdir()) == []


def _cut(file):
    file.write_bytes(file.read_bytes()[:-8])


def _flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def _unsealed(file):
    save_file(load(file.read_bytes()), file)


@pytest.mark.parametrize(
    "spoil", [_cut, _flip, _unsealed, lambda file: file.write_bytes(b""), lambda file: file.write_text("not mine" * 99)]
)
def test_a_damaged_or_foreign_file_is_warned_of_once_and_written_anew(cache, spoil):
    first = choose(make_weights())
    (file,) = cache.iterdir()
    sound = load(file.read_bytes())
    spoil(file)
    with pytest.warns(UserWarning, match=rf"the cached pivots .*{file.name} are not used, and selected anew") as caught:
        again = choose(make_weights())
    assert len([each for each in caught if "the cached pivots" in str(each.message)]) == 1
    assert not again.cached
    assert same(first.selections, again.selections)
    assert list(cache.iterdir()) == [file]
    assert load(file.read_bytes()).keys() == sound.keys()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the (cached|selected) pivots")
        assert choose(make_weights()).cached


def test_another_selection_s_file_under_this_one_s_name_is_not_taken(cache):
    choose(make_weights())
    (mine,) = cache.iterdir()
    choose(make_weights(), seed=1)
    (other,) = set(cache.iterdir()) - {mine}
    other.replace(mine)
    with pytest.warns(UserWarning, match="its content is not what was written"):
        assert not choose(make_weights()).cached


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept in .*pivots") as caught:
        chosen = choose(make_weights())
    assert not chosen.cached
    assert len(chosen.selections) == 3
    assert [str(each.message) for each in caught if "could not be kept" in str(each.message)]


def test_a_full_disk_leaves_no_half_a_file(cache, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pivot_cache.os, "replace", full)
    with pytest.warns(UserWarning, match="could not be kept in .*No space left on device"):
        choose(make_weights())
    assert list(cache.iterdir()) == []


def test_what_writers_left_more_than_a_day_ago_is_removed_when_a_file_is_written(cache):
    cache.mkdir(parents=True)
    for name, hours in ((".old.tmp", 25), (".new.tmp", 1), ("other", 25)):
        (cache / name).touch()
        os.utime(cache / name, (time.time() - 3600 * hours,) * 2)
    choose(make_weights())
    assert {path.name for path in cache.iterdir() if path.suffix != ".safetensors"} == {".new.tmp", "other"}


def test_the_folder_is_the_variable_s_or_lies_beside_the_hub_s_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IDLORA_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    choose(make_weights())
    monkeypatch.delenv("IDLORA_CACHE")
    monkeypatch.setattr(pivot_cache, "HF_HOME", str(tmp_path / "hub"))
    choose(make_weights())
    folders = [path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")]
    assert sorted(folders) == ["hub/idlora/pivots", "mine/pivots"]


def test_weights_that_no_pivots_can_be_taken_from_are_refused_each_time(cache):
    weights = make_weights()
    weights["k"][1, 1] = torch.nan
    for _ in range(2):
        with pytest.raises(ValueError, match="no pivots for k: 1 of the weight's entries"):
            choose(weights)
    assert not cache.exists()
    with pytest.raises(ValueError, match="no pivots for k: cannot take 3 clusters of 7 rows from 20 rows"):
        choose(make_weights(), r=7)


# The model


def test_an_adapter_on_a_known_base_has_the_pivots_sizes_and_seconds_of_the_first(cache):
    first, again = (make_adapted("idlora").base_model for _ in range(2))
    assert (first.pivots_cached, again.pivots_cached) == (False, True)
    assert again.pivot_seconds == first.pivot_seconds > 0
    assert again.cluster_sizes == first.cluster_sizes
    assert len(again.cluster_sizes["default"]) == 14
    assert all(len(sizes) == 4 and sum(sizes) >= 16 for sizes in again.cluster_sizes["default"].values())
    for name, layer in again.pivot_layers("default").items():
        assert torch.equal(layer.idlora_pivots["default"], first.pivot_layers("default")[name].idlora_pivots["default"])
    assert again.peft_config["default"].base_fingerprint == first.peft_config["default"].base_fingerprint
    assert not make_adapted("idlora", base=make_base(1)).base_model.pivots_cached


def test_an_adapter_on_the_meta_device_leaves_nothing_in_the_cache(cache):
    tuner = make_adapted("idlora", base=make_base().to("meta")).base_model
    assert (tuner.pivot_seconds >= 0, tuner.pivots_cached, tuner.cluster_sizes) == (True, False, {"default": {}})
    assert not cache.exists()


def test_a_process_makes_an_adapter_alone_and_two_that_each_make_one_get_the_same_pivots(tmp_path, repository):
    paths = [str(repository), str(HERE), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(HERE / "agree_on_pivots.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert (list(first), list(second)) == (["alone", "off", "cold", "warm"], ["off", "cold", "warm"])
    layers = make_adapted("idlora").base_model.pivot_layers("default").items()
    pivots = {name: layer.idlora_pivots["default"].tolist() for name, layer in layers}
    assert all(found["pivots"] == pivots for found in (*first.values(), *second.values()))
    assert first["warm"]["cached"] is second["warm"]["cached"] is True
    assert len(list((tmp_path / "cache" / "pivots").iterdir())) == 1
